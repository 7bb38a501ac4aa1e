//! What every kernel behind `weir::dataplane::Kernel` must do: the fake one (`tests/contract.rs`) and Linux (`tests/kernel.rs`),
//! so that the fake cannot be kinder than Linux. Where it says what the kernel refuses, `net/netfilter/ipvs/ip_vs_ctl.c`,
//! `net/ipv4/devinet.c` and `net/ipv6/addrconf.c` are meant.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use ipvs::{
    Command, Connections, Error, Family, Flags, ForwardMethod, Netmask, Persistence, Protocol,
    RealServerConfig, RealServerKey, Scheduler, Thresholds, Tunnel, VirtualServerConfig,
    VirtualServerKey, Weight,
};
use weir::dataplane::record::Record;
use weir::dataplane::{
    AddressCommand, Dataplane, Kernel, KernelError, Link, ObservedRealServer, VipBinding,
};
use weir::plan::{Bind, Change, DeviceStep, Plan, Step};

use crate::support::DEVICE;

/// What a case says in the end.
pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A kernel under test, and what somebody else can do to its node.
pub(crate) trait Bench: Sized {
    type Kernel: Kernel;

    /// A node that holds nothing.
    fn new() -> Result<Self, Box<dyn std::error::Error>>;
    fn kernel(&mut self) -> &mut Self::Kernel;
    fn into_kernel(self) -> Self::Kernel;
    /// `ip link add NAME type KIND`
    fn add_link(&mut self, name: &str, kind: &str) -> Outcome;
    /// `ip link set NAME down`
    fn set_down(&mut self, name: &str) -> Outcome;
    /// `ip address add ADDRESS/HOST-LENGTH dev NAME`, without scope and life time.
    fn add_plain_address(&mut self, name: &str, address: IpAddr) -> Outcome;
    /// Told after a case has passed for a family and protocol.
    fn covered(_: Combination) {}
}

/// What each case about IPVS is run with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Combination {
    pub(crate) family: Family,
    pub(crate) protocol: Protocol,
}

/// All of them.
pub(crate) const COMBINATIONS: [Combination; 6] = [
    Combination::new(Family::Ipv4, Protocol::Tcp),
    Combination::new(Family::Ipv4, Protocol::Udp),
    Combination::new(Family::Ipv4, Protocol::Sctp),
    Combination::new(Family::Ipv6, Protocol::Tcp),
    Combination::new(Family::Ipv6, Protocol::Udp),
    Combination::new(Family::Ipv6, Protocol::Sctp),
];

impl Combination {
    const fn new(family: Family, protocol: Protocol) -> Self {
        Self { family, protocol }
    }

    fn key(self, port: u16) -> VirtualServerKey {
        VirtualServerKey::Address {
            address: vip(self.family),
            port,
            protocol: self.protocol,
        }
    }

    fn server(self, number: u8) -> RealServerKey {
        server(self.family, number)
    }
}

fn vip(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::new(192, 0, 2, 10).into(),
        Family::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10).into(),
    }
}

fn server(family: Family, number: u8) -> RealServerKey {
    RealServerKey {
        address: match family {
            Family::Ipv4 => Ipv4Addr::new(198, 51, 100, number).into(),
            Family::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, number.into()).into(),
        },
        port: 8080,
    }
}

/// Runs a case about IPVS for every family and protocol, each on a new node.
pub(crate) fn for_each<B: Bench>(case: fn(&mut B, Combination) -> Outcome) -> Outcome {
    for combination in COMBINATIONS {
        case(&mut B::new()?, combination).map_err(|error| format!("{combination:?}: {error}"))?;
        B::covered(combination);
    }
    Ok(())
}

/// Runs a case on a new node.
pub(crate) fn once<B: Bench>(case: fn(&mut B) -> Outcome) -> Outcome {
    case(&mut B::new()?)
}

/// The suite: a test a case, for a type that implements `Bench`.
macro_rules! suite {
    ($bench:ty) => {
        $crate::contract::suite! { $bench, for_each:
            every_command_does_what_it_says
            a_present_server_is_not_created_again
            an_absent_server_is_not_found
            a_failing_command_does_not_stop_the_others
            an_unknown_scheduler_is_told_and_changes_nothing
            an_unknown_persistence_engine_is_told_and_changes_nothing
            values_out_of_range_are_refused_and_change_nothing
            another_family_is_taken_through_a_tunnel_only
            addresses_that_no_server_can_have_are_refused
            port_zero_is_taken_with_and_without_persistence
            deleting_a_virtual_server_deletes_its_real_servers
            virtual_servers_are_read_as_they_were_set
            real_servers_are_read_as_they_were_set
            every_step_of_a_plan_is_applied
        }
        $crate::contract::suite! { $bench, once:
            marks_are_virtual_servers_of_one_family
            a_device_is_made_raised_and_deleted
            a_link_of_another_kind_is_told_by_its_kind
            addresses_come_and_go
            a_failing_address_does_not_stop_the_others
            addresses_with_other_attributes_are_told_and_can_be_replaced
            a_device_that_goes_down_loses_its_ipv6_addresses_only
            addresses_go_with_their_device
        }
    };
    ($bench:ty, $runner:ident: $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::contract::$runner::<$bench>(
                    $crate::contract::$case,
                )
                .unwrap();
            }
        )*
    };
}
pub(crate) use suite;

fn attempt<B: Bench>(bench: &mut B, command: Command) -> Result<(), KernelError> {
    let mut results = bench.kernel().apply_ipvs(vec![command])?;
    assert_eq!(results.len(), 1, "one result a command");
    results.pop().unwrap_or(Ok(()))
}

/// The typed refusal of a command.
fn refusal<B: Bench>(bench: &mut B, command: Command) -> Result<Error, String> {
    let text = format!("{command:?}");
    match attempt(bench, command) {
        Err(KernelError::Ipvs(error)) => Ok(error),
        Err(other) => Err(format!("{text}: {other:?}")),
        Ok(()) => Err(format!("{text} was taken")),
    }
}

type Picture = BTreeMap<
    VirtualServerKey,
    (
        VirtualServerConfig,
        BTreeMap<RealServerKey, RealServerConfig>,
    ),
>;

/// Everything that was set.
fn read<B: Bench>(bench: &mut B) -> Result<Picture, KernelError> {
    let kernel = bench.kernel();
    let mut picture = Picture::new();
    for (key, config) in kernel.virtual_servers()? {
        let servers = kernel.real_servers(&key)?;
        let configs = servers
            .into_iter()
            .map(|(key, server)| (key, server.config));
        picture.insert(key, (config, configs.collect()));
    }
    Ok(picture)
}

fn round_robin() -> VirtualServerConfig {
    VirtualServerConfig::new(Scheduler::RoundRobin)
}

fn weight(weight: u32) -> RealServerConfig {
    RealServerConfig::masquerade(Weight(weight))
}

/// A virtual server with one real server.
fn set_up<B: Bench>(bench: &mut B, with: Combination) -> Result<Picture, KernelError> {
    attempt(
        bench,
        Command::CreateVirtualServer(with.key(80), round_robin()),
    )?;
    attempt(
        bench,
        Command::CreateRealServer(with.key(80), with.server(1), weight(1)),
    )?;
    read(bench)
}

pub(crate) fn every_command_does_what_it_says<B: Bench>(
    bench: &mut B,
    with: Combination,
) -> Outcome {
    let key = with.key(80);
    let server = with.server(1);
    assert_eq!(read(bench)?, Picture::new());
    attempt(bench, Command::CreateVirtualServer(key, round_robin()))?;
    assert_eq!(read(bench)?, [(key, (round_robin(), [].into()))].into());

    let other = VirtualServerConfig::new(Scheduler::WeightedRoundRobin);
    attempt(bench, Command::UpdateVirtualServer(key, other.clone()))?;
    assert_eq!(read(bench)?, [(key, (other.clone(), [].into()))].into());

    attempt(bench, Command::CreateRealServer(key, server, weight(1)))?;
    let expected = (other.clone(), [(server, weight(1))].into());
    assert_eq!(read(bench)?, [(key, expected)].into());
    let fresh = ObservedRealServer {
        config: weight(1),
        connections: Some(Connections::default()),
    };
    assert_eq!(bench.kernel().real_servers(&key)?, [(server, fresh)].into());

    attempt(bench, Command::UpdateRealServer(key, server, weight(5)))?;
    let expected = (other.clone(), [(server, weight(5))].into());
    assert_eq!(read(bench)?, [(key, expected)].into());

    attempt(bench, Command::DeleteRealServer(key, server))?;
    assert_eq!(read(bench)?, [(key, (other, [].into()))].into());
    attempt(bench, Command::DeleteVirtualServer(key))?;
    assert_eq!(read(bench)?, Picture::new());
    Ok(())
}

pub(crate) fn a_present_server_is_not_created_again<B: Bench>(
    bench: &mut B,
    with: Combination,
) -> Outcome {
    let before = set_up(bench, with)?;
    let other = VirtualServerConfig::new(Scheduler::SourceHashing);
    let error = refusal(bench, Command::CreateVirtualServer(with.key(80), other))?;
    assert!(
        matches!(error, Error::VirtualServerExists { .. }),
        "{error:?}"
    );
    assert!(error.is_already_exists());
    let error = refusal(
        bench,
        Command::CreateRealServer(with.key(80), with.server(1), weight(7)),
    )?;
    assert!(matches!(error, Error::RealServerExists { .. }), "{error:?}");
    assert!(error.is_already_exists());
    assert_eq!(read(bench)?, before);
    Ok(())
}

pub(crate) fn an_absent_server_is_not_found<B: Bench>(bench: &mut B, with: Combination) -> Outcome {
    let before = set_up(bench, with)?;
    let absent = with.key(81);
    for command in [
        Command::UpdateVirtualServer(absent, round_robin()),
        Command::DeleteVirtualServer(absent),
        Command::CreateRealServer(absent, with.server(1), weight(1)),
        Command::UpdateRealServer(absent, with.server(1), weight(1)),
        Command::DeleteRealServer(absent, with.server(1)),
    ] {
        let error = refusal(bench, command)?;
        assert!(
            matches!(error, Error::NoSuchVirtualServer { .. }),
            "{error:?}"
        );
        assert!(error.is_not_found());
    }
    for command in [
        Command::UpdateRealServer(with.key(80), with.server(2), weight(1)),
        Command::DeleteRealServer(with.key(80), with.server(2)),
    ] {
        let error = refusal(bench, command)?;
        assert!(matches!(error, Error::NoSuchRealServer { .. }), "{error:?}");
        assert!(error.is_not_found());
    }
    let read_absent = bench.kernel().real_servers(&absent);
    assert!(matches!(read_absent, Err(error) if error.is_not_found()));
    assert_eq!(read(bench)?, before);
    Ok(())
}

pub(crate) fn a_failing_command_does_not_stop_the_others<B: Bench>(
    bench: &mut B,
    with: Combination,
) -> Outcome {
    let results = bench.kernel().apply_ipvs(vec![
        Command::DeleteVirtualServer(with.key(79)),
        Command::CreateVirtualServer(with.key(80), round_robin()),
        Command::CreateVirtualServer(with.key(80), round_robin()),
        Command::CreateRealServer(with.key(80), with.server(1), weight(1)),
        Command::UpdateRealServer(with.key(80), with.server(2), weight(1)),
        Command::CreateRealServer(with.key(80), with.server(3), weight(1)),
        Command::DeleteRealServer(with.key(80), with.server(4)),
    ])?;
    let done: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(done, [false, true, false, true, false, true, false]);
    let servers = [1, 3].map(|number| (with.server(number), weight(1)));
    let expected = (round_robin(), servers.into());
    assert_eq!(read(bench)?, [(with.key(80), expected)].into());
    assert!(bench.kernel().apply_ipvs(Vec::new())?.is_empty());
    Ok(())
}

pub(crate) fn an_unknown_scheduler_is_told_and_changes_nothing<B: Bench>(
    bench: &mut B,
    with: Combination,
) -> Outcome {
    let before = set_up(bench, with)?;
    let unknown = VirtualServerConfig::new("nosuch".parse()?);
    for command in [
        Command::CreateVirtualServer(with.key(81), unknown.clone()),
        Command::UpdateVirtualServer(with.key(80), unknown),
    ] {
        let error = refusal(bench, command)?;
        assert!(
            matches!(&error, Error::NoSuchScheduler { scheduler, .. } if scheduler == "nosuch"),
            "{error:?}"
        );
        assert!(!error.is_not_found());
    }
    assert_eq!(read(bench)?, before);
    Ok(())
}

pub(crate) fn an_unknown_persistence_engine_is_told_and_changes_nothing<B: Bench>(
    bench: &mut B,
    with: Combination,
) -> Outcome {
    let before = set_up(bench, with)?;
    let unknown = VirtualServerConfig {
        persistence_engine: Some("nosuch".to_owned()),
        ..round_robin()
    };
    for command in [
        Command::CreateVirtualServer(with.key(81), unknown.clone()),
        Command::UpdateVirtualServer(with.key(80), unknown),
    ] {
        let error = refusal(bench, command)?;
        assert!(
            matches!(&error, Error::NoSuchPersistenceEngine { engine, .. } if engine == "nosuch"),
            "{error:?}"
        );
    }
    assert_eq!(read(bench)?, before);
    Ok(())
}

pub(crate) fn values_out_of_range_are_refused_and_change_nothing<B: Bench>(
    bench: &mut B,
    with: Combination,
) -> Outcome {
    let before = set_up(bench, with)?;
    let reversed = RealServerConfig {
        thresholds: Some(Thresholds { upper: 5, lower: 6 }),
        ..weight(1)
    };
    for config in [weight(1 << 31), weight(u32::MAX), reversed] {
        for command in [
            Command::CreateRealServer(with.key(80), with.server(2), config),
            Command::UpdateRealServer(with.key(80), with.server(1), config),
        ] {
            let error = refusal(bench, command)?;
            assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
        }
    }
    assert_eq!(read(bench)?, before);
    Ok(())
}

pub(crate) fn another_family_is_taken_through_a_tunnel_only<B: Bench>(
    bench: &mut B,
    with: Combination,
) -> Outcome {
    let before = set_up(bench, with)?;
    let other = match with.family {
        Family::Ipv4 => server(Family::Ipv6, 1),
        Family::Ipv6 => server(Family::Ipv4, 1),
    };
    for forward in [ForwardMethod::Masquerade, ForwardMethod::DirectRoute] {
        let config = RealServerConfig {
            forward,
            ..weight(1)
        };
        let error = refusal(
            bench,
            Command::CreateRealServer(with.key(80), other, config),
        )?;
        assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    }
    assert_eq!(read(bench)?, before);
    let tunnel = RealServerConfig {
        forward: ForwardMethod::Tunnel(Tunnel::Ipip),
        ..weight(1)
    };
    attempt(
        bench,
        Command::CreateRealServer(with.key(80), other, tunnel),
    )?;
    assert_eq!(
        read(bench)?
            .get(&with.key(80))
            .and_then(|(_, servers)| servers.get(&other).copied()),
        Some(tunnel)
    );
    Ok(())
}

/// `ip_vs_new_dest`: neither multicast nor broadcast nor unspecified nor link-local.
pub(crate) fn addresses_that_no_server_can_have_are_refused<B: Bench>(
    bench: &mut B,
    with: Combination,
) -> Outcome {
    let before = set_up(bench, with)?;
    let impossible: &[IpAddr] = match with.family {
        Family::Ipv4 => &[
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V4(Ipv4Addr::BROADCAST),
            IpAddr::V4(Ipv4Addr::new(233, 252, 0, 1)),
        ],
        Family::Ipv6 => &[
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0xdb8, 1)),
            IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
        ],
    };
    for address in impossible {
        let server = RealServerKey {
            address: *address,
            port: 8080,
        };
        let error = refusal(
            bench,
            Command::CreateRealServer(with.key(80), server, weight(1)),
        )?;
        assert!(
            matches!(error, Error::Invalid { .. }),
            "{address}: {error:?}"
        );
    }
    assert_eq!(read(bench)?, before);
    Ok(())
}

/// Without persistence nothing is ever scheduled to it ("port zero only supported in persistent services"), but the kernel takes it.
pub(crate) fn port_zero_is_taken_with_and_without_persistence<B: Bench>(
    bench: &mut B,
    with: Combination,
) -> Outcome {
    let persistent = VirtualServerConfig {
        persistence: Some(Persistence {
            timeout: 60,
            netmask: Netmask::host(with.family),
        }),
        ..round_robin()
    };
    for config in [round_robin(), persistent] {
        attempt(
            bench,
            Command::CreateVirtualServer(with.key(0), config.clone()),
        )?;
        assert_eq!(read(bench)?, [(with.key(0), (config, [].into()))].into());
        attempt(bench, Command::DeleteVirtualServer(with.key(0)))?;
    }
    Ok(())
}

pub(crate) fn deleting_a_virtual_server_deletes_its_real_servers<B: Bench>(
    bench: &mut B,
    with: Combination,
) -> Outcome {
    set_up(bench, with)?;
    attempt(bench, Command::DeleteVirtualServer(with.key(80)))?;
    assert_eq!(read(bench)?, Picture::new());
    attempt(
        bench,
        Command::CreateVirtualServer(with.key(80), round_robin()),
    )?;
    assert_eq!(
        read(bench)?,
        [(with.key(80), (round_robin(), [].into()))].into()
    );
    Ok(())
}

/// Values for every field of a virtual server.
fn virtual_server_configs(family: Family) -> Vec<VirtualServerConfig> {
    let mut configs: Vec<_> = Scheduler::known()
        // Linux 5.14 brought it; the matrix has older kernels.
        .filter(|scheduler| *scheduler != Scheduler::TwoRandomChoices)
        .map(VirtualServerConfig::new)
        .collect();
    for bits in 0..16 {
        let flags = Flags {
            scheduler_1: bits & 1 != 0,
            scheduler_2: bits & 2 != 0,
            scheduler_3: bits & 4 != 0,
            one_packet: bits & 8 != 0,
        };
        configs.push(VirtualServerConfig {
            flags,
            ..round_robin()
        });
    }
    let wide = match family {
        Family::Ipv4 => Netmask::V4(Ipv4Addr::new(255, 255, 255, 0)),
        Family::Ipv6 => Netmask::V6(64),
    };
    for (timeout, netmask) in [
        (1, Netmask::host(family)),
        (10_800, wide),
        (86_400, Netmask::host(family)),
    ] {
        configs.push(VirtualServerConfig {
            persistence: Some(Persistence { timeout, netmask }),
            ..VirtualServerConfig::new(Scheduler::SourceHashing)
        });
    }
    configs
}

pub(crate) fn virtual_servers_are_read_as_they_were_set<B: Bench>(
    bench: &mut B,
    with: Combination,
) -> Outcome {
    attempt(
        bench,
        Command::CreateVirtualServer(with.key(80), round_robin()),
    )?;
    // Forth and back, so that what was set before must give way as well.
    let configs = virtual_server_configs(with.family);
    for config in configs.iter().chain(configs.iter().rev()) {
        let mut expected = Picture::new();
        for key in [with.key(80), with.key(81)] {
            expected.insert(key, (config.clone(), BTreeMap::new()));
        }
        attempt(
            bench,
            Command::CreateVirtualServer(with.key(81), config.clone()),
        )?;
        attempt(
            bench,
            Command::UpdateVirtualServer(with.key(80), config.clone()),
        )?;
        assert_eq!(read(bench)?, expected);
        attempt(bench, Command::DeleteVirtualServer(with.key(81)))?;
    }
    if with.family == Family::Ipv6 {
        for prefix in [0, 129] {
            let config = VirtualServerConfig {
                persistence: Some(Persistence {
                    timeout: 60,
                    netmask: Netmask::V6(prefix),
                }),
                ..round_robin()
            };
            let error = refusal(bench, Command::CreateVirtualServer(with.key(81), config))?;
            assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
        }
    }
    Ok(())
}

pub(crate) fn real_servers_are_read_as_they_were_set<B: Bench>(
    bench: &mut B,
    with: Combination,
) -> Outcome {
    set_up(bench, with)?;
    let limited = |upper, lower| RealServerConfig {
        thresholds: Some(Thresholds { upper, lower }),
        ..weight(1)
    };
    let forwarded = |forward| RealServerConfig {
        forward,
        ..weight(1)
    };
    for config in [
        weight(0),
        weight(1),
        weight(65_536),
        weight((1 << 31) - 1),
        limited(10, 0),
        limited(10, 5),
        limited(7, 7),
        forwarded(ForwardMethod::DirectRoute),
        forwarded(ForwardMethod::Tunnel(Tunnel::Ipip)),
        weight(3),
    ] {
        attempt(
            bench,
            Command::CreateRealServer(with.key(80), with.server(2), config),
        )?;
        attempt(
            bench,
            Command::UpdateRealServer(with.key(80), with.server(1), config),
        )?;
        let servers = [1, 2].map(|number| (with.server(number), config));
        let expected = (round_robin(), servers.into());
        assert_eq!(read(bench)?, [(with.key(80), expected)].into());
        attempt(
            bench,
            Command::DeleteRealServer(with.key(80), with.server(2)),
        )?;
    }
    Ok(())
}

/// A plan with every kind of step there is, applied in two passes, each step a success.
pub(crate) fn every_step_of_a_plan_is_applied<B: Bench>(_: &mut B, with: Combination) -> Outcome {
    let mut dataplane = Dataplane::new(
        B::new()?.into_kernel(),
        DEVICE.to_owned(),
        Record::in_memory(),
    );
    for plan in plans_of_every_step(with) {
        let report = dataplane.apply(&plan);
        assert!(report.is_success(), "{:?}", report.failed);
        assert_eq!(report.applied, plan.operations());
    }
    let observed = dataplane.observe()?;
    assert_eq!(observed, weir::dataplane::Observed::default());
    Ok(())
}

/// Makes, changes and removes one of everything.
pub(crate) fn plans_of_every_step(with: Combination) -> [Plan; 3] {
    let change = |steps| {
        vec![Change {
            subject: with.key(80),
            steps,
        }]
    };
    let other = VirtualServerConfig::new(Scheduler::WeightedRoundRobin);
    [
        Plan {
            device: vec![DeviceStep::Create, DeviceStep::SetUp],
            record: [with.key(80)].into(),
            changes: change(vec![
                Step::CreateVirtualServer(round_robin()),
                Step::CreateRealServer(with.server(1), weight(1)),
            ]),
            bind: [(vip(with.family), Bind::Add)].into(),
            ..Plan::default()
        },
        Plan {
            changes: change(vec![
                Step::UpdateVirtualServer(other),
                Step::UpdateRealServer(with.server(1), weight(0)),
                Step::DeleteRealServer(with.server(1)),
            ]),
            bind: [(vip(with.family), Bind::Replace)].into(),
            ..Plan::default()
        },
        Plan {
            retire: change(vec![Step::DeleteVirtualServer]),
            unbind: [vip(with.family)].into(),
            device: vec![DeviceStep::Delete],
            forget: [with.key(80)].into(),
            ..Plan::default()
        },
    ]
}

pub(crate) fn marks_are_virtual_servers_of_one_family<B: Bench>(bench: &mut B) -> Outcome {
    let keys = [Family::Ipv4, Family::Ipv6].map(|family| VirtualServerKey::Mark {
        mark: NonZeroU32::MIN,
        family,
    });
    let mut expected = Picture::new();
    for key in keys {
        let server = server(key.family(), 1);
        attempt(bench, Command::CreateVirtualServer(key, round_robin()))?;
        attempt(bench, Command::CreateRealServer(key, server, weight(1)))?;
        expected.insert(key, (round_robin(), [(server, weight(1))].into()));
    }
    assert_eq!(read(bench)?, expected);
    for key in keys {
        attempt(bench, Command::DeleteVirtualServer(key))?;
    }
    assert_eq!(read(bench)?, Picture::new());
    Ok(())
}

pub(crate) fn a_device_is_made_raised_and_deleted<B: Bench>(bench: &mut B) -> Outcome {
    let kernel = bench.kernel();
    assert_eq!(kernel.link(DEVICE)?, None);
    assert!(matches!(kernel.set_device_up(DEVICE), Err(error) if error.is_not_found()));
    assert!(matches!(kernel.delete_device(DEVICE), Err(error) if error.is_not_found()));

    kernel.create_device(DEVICE)?;
    let link = kernel.link(DEVICE)?.ok_or("it was made and is not there")?;
    assert_ne!(link.index, 0);
    let expected = Link {
        name: DEVICE.to_owned(),
        index: link.index,
        kind: "dummy".to_owned(),
        up: false,
    };
    assert_eq!(link, expected);
    assert_eq!(kernel.addresses(&link)?, BTreeMap::new());
    assert!(matches!(kernel.create_device(DEVICE), Err(error) if error.is_already_exists()));

    for _ in 0..2 {
        kernel.set_device_up(DEVICE)?;
        let up = Link {
            up: true,
            ..expected.clone()
        };
        assert_eq!(kernel.link(DEVICE)?, Some(up));
    }
    // Linux gives it a link-local address now, which is none of ours.
    assert_eq!(kernel.addresses(&link)?, BTreeMap::new());
    kernel.delete_device(DEVICE)?;
    assert_eq!(kernel.link(DEVICE)?, None);
    Ok(())
}

pub(crate) fn a_link_of_another_kind_is_told_by_its_kind<B: Bench>(bench: &mut B) -> Outcome {
    bench.add_link(DEVICE, "bridge")?;
    let kernel = bench.kernel();
    let link = kernel.link(DEVICE)?.ok_or("it was made and is not there")?;
    assert_eq!(link.kind, "bridge");
    assert!(matches!(kernel.create_device(DEVICE), Err(error) if error.is_already_exists()));
    Ok(())
}

/// Our device, up.
fn device<B: Bench>(bench: &mut B) -> Result<Link, Box<dyn std::error::Error>> {
    let kernel = bench.kernel();
    kernel.create_device(DEVICE)?;
    kernel.set_device_up(DEVICE)?;
    Ok(kernel.link(DEVICE)?.ok_or("it was made and is not there")?)
}

fn attempt_address<B: Bench>(
    bench: &mut B,
    link: &Link,
    command: AddressCommand,
) -> Result<(), KernelError> {
    let mut results = bench.kernel().apply_addresses(link, &[command])?;
    assert_eq!(results.len(), 1, "one result a command");
    results.pop().unwrap_or(Ok(()))
}

pub(crate) fn addresses_come_and_go<B: Bench>(bench: &mut B) -> Outcome {
    let link = device(bench)?;
    for family in [Family::Ipv4, Family::Ipv6] {
        let vip = vip(family);
        attempt_address(bench, &link, AddressCommand::Add(vip))?;
        let expected: BTreeMap<_, _> = [(vip, VipBinding::AsWanted)].into();
        assert_eq!(bench.kernel().addresses(&link)?, expected);
        let again = attempt_address(bench, &link, AddressCommand::Add(vip));
        assert!(matches!(again, Err(error) if error.is_already_exists()));
        assert_eq!(bench.kernel().addresses(&link)?, expected);
        attempt_address(bench, &link, AddressCommand::Delete(vip))?;
        assert_eq!(bench.kernel().addresses(&link)?, BTreeMap::new());
        let again = attempt_address(bench, &link, AddressCommand::Delete(vip));
        assert!(matches!(again, Err(error) if error.is_not_found()));
    }
    Ok(())
}

pub(crate) fn a_failing_address_does_not_stop_the_others<B: Bench>(bench: &mut B) -> Outcome {
    let link = device(bench)?;
    let [v4, v6] = [Family::Ipv4, Family::Ipv6].map(vip);
    let results = bench.kernel().apply_addresses(
        &link,
        &[
            AddressCommand::Delete(v6),
            AddressCommand::Add(v4),
            AddressCommand::Add(v4),
            AddressCommand::Add(v6),
        ],
    )?;
    let done: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(done, [false, true, false, true]);
    let expected = [v4, v6].map(|vip| (vip, VipBinding::AsWanted));
    assert_eq!(bench.kernel().addresses(&link)?, expected.into());
    assert!(bench.kernel().apply_addresses(&link, &[])?.is_empty());
    Ok(())
}

pub(crate) fn addresses_with_other_attributes_are_told_and_can_be_replaced<B: Bench>(
    bench: &mut B,
) -> Outcome {
    let link = device(bench)?;
    for family in [Family::Ipv4, Family::Ipv6] {
        let vip = vip(family);
        bench.add_plain_address(DEVICE, vip)?;
        let expected = [(vip, VipBinding::Other)];
        assert_eq!(bench.kernel().addresses(&link)?, expected.into());
        let added = attempt_address(bench, &link, AddressCommand::Add(vip));
        assert!(matches!(added, Err(error) if error.is_already_exists()));
        attempt_address(bench, &link, AddressCommand::Delete(vip))?;
        attempt_address(bench, &link, AddressCommand::Add(vip))?;
        let expected = [(vip, VipBinding::AsWanted)];
        assert_eq!(bench.kernel().addresses(&link)?, expected.into());
        attempt_address(bench, &link, AddressCommand::Delete(vip))?;
    }
    Ok(())
}

pub(crate) fn a_device_that_goes_down_loses_its_ipv6_addresses_only<B: Bench>(
    bench: &mut B,
) -> Outcome {
    let link = device(bench)?;
    for family in [Family::Ipv4, Family::Ipv6] {
        attempt_address(bench, &link, AddressCommand::Add(vip(family)))?;
    }
    bench.set_down(DEVICE)?;
    let kernel = bench.kernel();
    let down = Link {
        up: false,
        ..link.clone()
    };
    assert_eq!(kernel.link(DEVICE)?, Some(down));
    let left: BTreeMap<_, _> = [(vip(Family::Ipv4), VipBinding::AsWanted)].into();
    assert_eq!(kernel.addresses(&link)?, left);
    kernel.set_device_up(DEVICE)?;
    assert_eq!(kernel.addresses(&link)?, left);
    Ok(())
}

pub(crate) fn addresses_go_with_their_device<B: Bench>(bench: &mut B) -> Outcome {
    let link = device(bench)?;
    for family in [Family::Ipv4, Family::Ipv6] {
        attempt_address(bench, &link, AddressCommand::Add(vip(family)))?;
    }
    bench.kernel().delete_device(DEVICE)?;
    for family in [Family::Ipv4, Family::Ipv6] {
        for command in [
            AddressCommand::Add(vip(family)),
            AddressCommand::Delete(vip(family)),
        ] {
            let result = attempt_address(bench, &link, command);
            assert!(matches!(result, Err(error) if error.is_not_found()));
        }
    }
    let link = device(bench)?;
    assert_eq!(bench.kernel().addresses(&link)?, BTreeMap::new());
    Ok(())
}
