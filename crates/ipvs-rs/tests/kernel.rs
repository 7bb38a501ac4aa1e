//! The client against a real kernel, with `ipvsadm` and `/proc/net/ip_vs` as second opinions.
//!
//! Needs root and the module `ip_vs`; each test works in a network namespace of its own, on its own thread. A test that cannot
//! run fails. Lines `::covers FAMILY PROTOCOL` on standard output tell the runner what was exercised.
//!
//! Addresses: virtual servers 192.0.2.0/24 and `2001:db8:1::/48`, real servers 198.51.100.0/24 and
//! `2001:db8:2::/48`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what fails in a helper fails the test"
)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::process::Command as Process;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use ipvs::netlink::{NetlinkProtocol, RawMessage, Request, Transport, TransportError};
use ipvs::proc::Subject;
use ipvs::{
    Client, Command, Daemon, DaemonRole, Error, Family, Flags, ForwardMethod, Multicast, Netmask,
    Persistence, Protocol, RealServerConfig, RealServerKey, Scheduler, Thresholds, Timeouts,
    Tunnel, VirtualServerConfig, VirtualServerKey, Weight,
};
use nix::sched::{CloneFlags, unshare};

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// A client in a network namespace that only this thread is in.
///
/// The loopback is up: without a local routing table the kernel takes no IPv4 address for one that a real server may have.
fn client() -> Client {
    TURN.with_borrow_mut(|turn| {
        turn.get_or_insert_with(|| ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner));
    });
    SCHEDULERS.call_once(load_schedulers);
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare: needs root");
    output("ip", &["link", "set", "lo", "up"]);
    Client::open().expect("needs the module ip_vs")
}

/// The kernel keeps the virtual servers of all namespaces in one table, and dumps of it are disturbed by changes in any.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

thread_local! {
    /// Held until the thread of the test ends.
    static TURN: RefCell<Option<MutexGuard<'static, ()>>> = const { RefCell::new(None) };
}

static SCHEDULERS: Once = Once::new();

/// Loads every scheduler while no network namespace is torn down. If the kernel loads `ip_vs_lblc` or `ip_vs_lblcr` itself at
/// such a time it may hang for good: the request holds `__ip_vs_mutex` and the module's initialisation waits for
/// `pernet_ops_rwsem`, the tearing down the other way round (seen on 6.1 and 6.12).
fn load_schedulers() {
    let modules = Scheduler::known().map(|scheduler| format!("ip_vs_{scheduler}"));
    // Not every kernel has every scheduler.
    Process::new("modprobe")
        .arg("-a")
        .args(modules)
        .output()
        .expect("modprobe");
}

/// The standard output of a program, run in this thread's network namespace.
fn output(program: &str, arguments: &[&str]) -> String {
    let done = Process::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        done.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout).unwrap()
}

/// The lines of `ipvsadm -Sn`, sorted: the same twice in a row, because the kernel loses its place in a dump when a virtual server
/// of any namespace goes, as those of the test before do at some time after it.
fn saved() -> BTreeSet<String> {
    let read = || -> BTreeSet<String> {
        output("ipvsadm", &["-Sn"])
            .lines()
            .map(|line| line.trim().to_owned())
            .collect()
    };
    let mut before = read();
    for _ in 0..20 {
        let now = read();
        if now == before {
            return now;
        }
        before = now;
    }
    panic!("ipvsadm -Sn never says the same twice");
}

fn lines<const N: usize>(lines: [&str; N]) -> BTreeSet<String> {
    lines.into_iter().map(str::to_owned).collect()
}

fn vip(family: Family, last: u16) -> IpAddr {
    match family {
        Family::Ipv4 => format!("192.0.2.{last}").parse().unwrap(),
        Family::Ipv6 => format!("2001:db8:1::{last}").parse().unwrap(),
    }
}

fn real(family: Family, last: u16, port: u16) -> RealServerKey {
    let address = match family {
        Family::Ipv4 => format!("198.51.100.{last}").parse().unwrap(),
        Family::Ipv6 => format!("2001:db8:2::{last}").parse().unwrap(),
    };
    RealServerKey { address, port }
}

fn server(family: Family, last: u16, port: u16, protocol: Protocol) -> VirtualServerKey {
    VirtualServerKey::Address {
        address: vip(family, last),
        port,
        protocol,
    }
}

fn mark(mark: u32, family: Family) -> VirtualServerKey {
    VirtualServerKey::Mark {
        mark: NonZeroU32::new(mark).unwrap(),
        family,
    }
}

fn option(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "-t",
        Protocol::Udp => "-u",
        Protocol::Sctp => "--sctp-service",
    }
}

fn config(scheduler: Scheduler) -> VirtualServerConfig {
    VirtualServerConfig::new(scheduler)
}

fn round_robin() -> VirtualServerConfig {
    config(Scheduler::RoundRobin)
}

fn masquerade(weight: u32) -> RealServerConfig {
    RealServerConfig::masquerade(Weight(weight))
}

fn all(client: &mut Client) -> BTreeMap<VirtualServerKey, VirtualServerConfig> {
    let servers = client.virtual_servers().unwrap();
    let count = servers.len();
    let map: BTreeMap<_, _> = servers
        .into_iter()
        .map(|server| (server.key, server.config))
        .collect();
    assert_eq!(map.len(), count, "a virtual server is told twice");
    map
}

fn of(client: &mut Client, key: &VirtualServerKey) -> BTreeMap<RealServerKey, RealServerConfig> {
    client
        .real_servers(key)
        .unwrap()
        .into_iter()
        .map(|server| (server.key, server.config))
        .collect()
}

fn combinations() -> impl Iterator<Item = (Family, Protocol)> {
    FAMILIES
        .into_iter()
        .flat_map(|family| PROTOCOLS.map(|protocol| (family, protocol)))
}

fn covers(family: Family, protocol: Protocol) {
    println!(
        // libtest has written the test's name without ending the line
        "\n::covers {} {}",
        family.to_string().to_lowercase(),
        protocol.to_string().to_lowercase()
    );
}

#[test]
fn virtual_and_real_servers_of_every_family_and_protocol_live_and_die() {
    let mut client = client();
    for (family, protocol) in combinations() {
        let key = server(family, 1, 80, protocol);
        let (first, second) = (real(family, 1, 8080), real(family, 2, 8081));
        let place = SocketAddr::new(vip(family, 1), 80);
        let option = option(protocol);
        let virtual_line = |scheduler| format!("-A {option} {place} -s {scheduler}");
        let real_line = |key, weight| format!("-a {option} {place} -r {key} -m -w {weight}");

        client.create_virtual_server(key, round_robin()).unwrap();
        client
            .create_real_server(key, first, masquerade(1))
            .unwrap();
        client
            .create_real_server(key, second, masquerade(7))
            .unwrap();
        assert_eq!(
            saved(),
            [
                virtual_line("rr"),
                real_line(first, 1),
                real_line(second, 7)
            ]
            .into()
        );
        assert_eq!(all(&mut client), [(key, round_robin())].into());
        assert_eq!(client.virtual_server(&key).unwrap().config, round_robin());
        assert_eq!(
            of(&mut client, &key),
            [(first, masquerade(1)), (second, masquerade(7))].into()
        );

        let weighted = config(Scheduler::WeightedRoundRobin);
        client.update_virtual_server(key, weighted.clone()).unwrap();
        client
            .update_real_server(key, first, masquerade(0))
            .unwrap();
        client.delete_real_server(key, second).unwrap();
        assert_eq!(saved(), [virtual_line("wrr"), real_line(first, 0)].into());
        assert_eq!(all(&mut client), [(key, weighted)].into());
        assert_eq!(of(&mut client, &key), [(first, masquerade(0))].into());

        client.delete_virtual_server(key).unwrap();
        assert_eq!(saved(), BTreeSet::new());
        assert_eq!(all(&mut client), BTreeMap::new());
        covers(family, protocol);
    }
}

#[test]
fn what_ipvsadm_sets_is_read() {
    let mut client = client();
    for arguments in [
        "-A -t 192.0.2.1:443 -s mh -b mh-fallback,mh-port -p 300 -M 255.255.255.0",
        "-A -u [2001:db8:1::1]:53 -s rr -o",
        "-A -f 9 -6 -s lc -p 60 -M 64",
        "-a -t 192.0.2.1:443 -r 198.51.100.1:8443 -m -w 3 -x 100 -y 50",
        "-a -t 192.0.2.1:443 -r 198.51.100.2:443 -i --tun-type gue --tun-port 6080 --tun-csum -w 4",
    ] {
        let arguments: Vec<_> = arguments.split(' ').collect();
        output("ipvsadm", &arguments);
    }
    let first = server(Family::Ipv4, 1, 443, Protocol::Tcp);
    let expected = [
        (
            first,
            VirtualServerConfig {
                flags: Flags {
                    scheduler_1: true,
                    scheduler_2: true,
                    ..Flags::default()
                },
                persistence: Some(Persistence {
                    timeout: 300,
                    netmask: Netmask::V4([255, 255, 255, 0].into()),
                }),
                ..config(Scheduler::Maglev)
            },
        ),
        (
            server(Family::Ipv6, 1, 53, Protocol::Udp),
            VirtualServerConfig {
                flags: Flags {
                    one_packet: true,
                    ..Flags::default()
                },
                ..round_robin()
            },
        ),
        (
            mark(9, Family::Ipv6),
            VirtualServerConfig {
                persistence: Some(Persistence {
                    timeout: 60,
                    netmask: Netmask::V6(64),
                }),
                ..config(Scheduler::LeastConnection)
            },
        ),
    ];
    assert_eq!(all(&mut client), expected.into());
    let limits = Thresholds {
        upper: 100,
        lower: 50,
    };
    let tunnel = Tunnel::Gue {
        port: 6080,
        flags: 1,
    };
    assert_eq!(
        of(&mut client, &first),
        [
            (
                real(Family::Ipv4, 1, 8443),
                RealServerConfig {
                    thresholds: Some(limits),
                    ..masquerade(3)
                }
            ),
            (
                real(Family::Ipv4, 2, 443),
                RealServerConfig {
                    forward: ForwardMethod::Tunnel(tunnel),
                    ..masquerade(4)
                }
            ),
        ]
        .into()
    );
}

#[test]
fn firewall_marks_are_told_apart_by_family() {
    let mut client = client();
    for family in FAMILIES {
        let key = mark(7, family);
        client.create_virtual_server(key, round_robin()).unwrap();
        client
            .create_real_server(key, real(family, 1, 0), masquerade(2))
            .unwrap();
    }
    assert_eq!(
        saved(),
        lines([
            "-A -f 7 -s rr",
            "-a -f 7 -r 198.51.100.1:0 -m -w 2",
            "-A -f 7 -6 -s rr",
            "-a -f 7 -6 -r [2001:db8:2::1]:0 -m -w 2",
        ])
    );
    client.delete_virtual_server(mark(7, Family::Ipv4)).unwrap();
    assert_eq!(
        all(&mut client),
        [(mark(7, Family::Ipv6), round_robin())].into()
    );
    assert_eq!(
        client
            .virtual_server(&mark(7, Family::Ipv6))
            .unwrap()
            .config,
        round_robin()
    );
    let zone = mark(u32::MAX, Family::Ipv4);
    client.create_virtual_server(zone, round_robin()).unwrap();
    assert!(all(&mut client).contains_key(&zone));
}

#[test]
fn every_scheduler_is_set_and_read_with_its_flags() {
    let mut client = client();
    let mut expected = BTreeMap::new();
    let mut port = 1000;
    let (loaded, missing): (Vec<_>, Vec<_>) = Scheduler::known().partition(|scheduler| {
        let arguments = ["-A", "-u", "192.0.2.250:1", "-s", scheduler.name()];
        let mut ipvsadm = Process::new("ipvsadm");
        ipvsadm.args(arguments).output().unwrap().status.success()
            && output("ipvsadm", &["-C"]).is_empty()
    });
    // Debian's 6.1 is built without CONFIG_IP_VS_TWOS.
    assert!(
        missing.is_empty() || missing == [Scheduler::TwoRandomChoices],
        "{missing:?}"
    );
    for scheduler in missing {
        let key = server(Family::Ipv4, 1, 1, Protocol::Tcp);
        let name = scheduler.to_string();
        let error = client
            .create_virtual_server(key, config(scheduler))
            .unwrap_err();
        assert!(
            matches!(&error, Error::NoSuchScheduler { scheduler, .. } if *scheduler == name),
            "{error:?}"
        );
    }
    for scheduler in loaded.clone() {
        for bits in 0..8 {
            port += 1;
            let flags = Flags {
                scheduler_1: bits & 1 != 0,
                scheduler_2: bits & 2 != 0,
                scheduler_3: bits & 4 != 0,
                one_packet: false,
            };
            let key = server(Family::Ipv4, 1, port, Protocol::Tcp);
            let config = VirtualServerConfig {
                flags,
                ..config(scheduler.clone())
            };
            client.create_virtual_server(key, config.clone()).unwrap();
            expected.insert(key, config);
        }
    }
    assert_eq!(all(&mut client), expected);
    let saved = saved();
    assert_eq!(saved.len(), expected.len());
    for scheduler in loaded {
        let argument = format!("-s {scheduler}");
        let count = saved
            .iter()
            .filter(|line| line.ends_with(&argument) || line.contains(&format!("{argument} ")))
            .count();
        assert_eq!(count, 8, "{scheduler}");
    }
    assert!(saved.contains("-A -t 192.0.2.1:1001 -s rr"));
    let of_sh = |bits: usize| {
        let before = Scheduler::known()
            .position(|scheduler| scheduler == Scheduler::SourceHashing)
            .unwrap();
        format!("-A -t 192.0.2.1:{} -s sh", 1001 + 8 * before + bits)
    };
    assert!(saved.contains(&of_sh(0)));
    assert!(saved.contains(&format!("{} -b sh-fallback", of_sh(1))));
    assert!(saved.contains(&format!("{} -b sh-port", of_sh(2))));
    assert!(saved.contains(&format!("{} -b sh-fallback,sh-port", of_sh(3))));
}

#[test]
fn an_update_sets_every_field_and_keeps_real_servers() {
    let mut client = client();
    let persistent = |timeout, netmask| Some(Persistence { timeout, netmask });
    for family in FAMILIES {
        let key = server(family, 1, 443, Protocol::Tcp);
        let (part, host) = match family {
            Family::Ipv4 => (Netmask::V4([255, 255, 0, 0].into()), Netmask::host(family)),
            Family::Ipv6 => (Netmask::V6(48), Netmask::V6(128)),
        };
        let configs = [
            VirtualServerConfig {
                persistence: persistent(10800, host),
                ..round_robin()
            },
            VirtualServerConfig {
                persistence: persistent(600, part),
                flags: Flags {
                    scheduler_1: true,
                    ..Flags::default()
                },
                ..config(Scheduler::SourceHashing)
            },
            round_robin(),
        ];
        client
            .create_virtual_server(key, configs[0].clone())
            .unwrap();
        client
            .create_real_server(key, real(family, 1, 8443), masquerade(1))
            .unwrap();
        assert_eq!(client.virtual_server(&key).unwrap().config, configs[0]);
        for config in &configs[1..] {
            client.update_virtual_server(key, config.clone()).unwrap();
            assert_eq!(client.virtual_server(&key).unwrap().config, *config);
            assert_eq!(of(&mut client, &key).len(), 1);
        }
        let place = SocketAddr::new(vip(family, 1), 443);
        assert!(saved().contains(&format!("-A -t {place} -s rr")));
        client
            .update_virtual_server(key, configs[1].clone())
            .unwrap();
        let mask = match family {
            Family::Ipv4 => "255.255.0.0",
            Family::Ipv6 => "48",
        };
        let line = format!("-A -t {place} -s sh -p 600 -M {mask} -b sh-fallback");
        assert!(saved().contains(&line), "{:?}", saved());
        client.delete_virtual_server(key).unwrap();
    }
}

#[test]
fn a_persistence_engine_is_set_and_read() {
    let mut client = client();
    let key = server(Family::Ipv4, 1, 5060, Protocol::Udp);
    let config = VirtualServerConfig {
        persistence: Some(Persistence {
            timeout: 90,
            netmask: Netmask::host(Family::Ipv4),
        }),
        persistence_engine: Some("sip".into()),
        ..round_robin()
    };
    client.create_virtual_server(key, config.clone()).unwrap();
    assert_eq!(all(&mut client), [(key, config.clone())].into());
    assert_eq!(
        saved(),
        lines(["-A -u 192.0.2.1:5060 -s rr -p 90 --pe sip"])
    );
    let other = VirtualServerConfig {
        persistence_engine: Some("nosuch".into()),
        ..config
    };
    let key = server(Family::Ipv4, 2, 5060, Protocol::Udp);
    let error = client.create_virtual_server(key, other).unwrap_err();
    assert!(
        matches!(&error, Error::NoSuchPersistenceEngine { engine, .. } if engine == "nosuch"),
        "{error:?}"
    );
    assert!(!error.is_not_found());
}

#[test]
fn forwarding_tunnels_weights_and_thresholds_are_set_changed_and_read() {
    let mut client = client();
    let gue = |flags| Tunnel::Gue { port: 6080, flags };
    let key = server(Family::Ipv4, 1, 80, Protocol::Tcp);
    client.create_virtual_server(key, round_robin()).unwrap();
    let table = [
        (ForwardMethod::Masquerade, "-m -w 1"),
        (ForwardMethod::DirectRoute, "-g -w 1"),
        (
            ForwardMethod::Tunnel(Tunnel::Ipip),
            "-i -w 1 --tun-type ipip",
        ),
        (
            ForwardMethod::Tunnel(gue(0)),
            "-i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum",
        ),
        (
            ForwardMethod::Tunnel(gue(1)),
            "-i -w 1 --tun-type gue --tun-port 6080 --tun-csum",
        ),
        (
            ForwardMethod::Tunnel(gue(2)),
            "-i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum",
        ),
        (
            ForwardMethod::Tunnel(Tunnel::Gre { flags: 0 }),
            "-i -w 1 --tun-type gre --tun-nocsum",
        ),
        (
            ForwardMethod::Tunnel(Tunnel::Gre { flags: 1 }),
            "-i -w 1 --tun-type gre --tun-csum",
        ),
    ];
    let created = real(Family::Ipv4, 1, 80);
    let changed = real(Family::Ipv4, 2, 80);
    client
        .create_real_server(key, changed, masquerade(1))
        .unwrap();
    for (forward, arguments) in table {
        let config = RealServerConfig {
            forward,
            ..masquerade(1)
        };
        client.create_real_server(key, created, config).unwrap();
        client.update_real_server(key, changed, config).unwrap();
        assert_eq!(
            of(&mut client, &key),
            [(created, config), (changed, config)].into()
        );
        let saved = saved();
        for real in [created, changed] {
            let line = format!("-a -t 192.0.2.1:80 -r {real} {arguments}");
            assert!(saved.contains(&line), "{line} is not in {saved:?}");
        }
        client.delete_real_server(key, created).unwrap();
    }
    for (weight, thresholds) in [
        (0, None),
        (65_535, Some((1000, 800))),
        (0x7fff_ffff, Some((1, 0))),
        (1, Some((0x7fff_ffff, 0x7fff_ffff))),
        (1, None),
    ] {
        let config = RealServerConfig {
            thresholds: thresholds.map(|(upper, lower)| Thresholds { upper, lower }),
            ..masquerade(weight)
        };
        client
            .update_real_server(key, changed, config)
            .unwrap_or_else(|error| panic!("{config:?}: {error:?}"));
        assert_eq!(of(&mut client, &key), [(changed, config)].into());
    }
}

#[test]
fn a_real_server_of_the_other_family_is_tunnelled_to() {
    let mut client = client();
    let of4 = server(Family::Ipv4, 1, 80, Protocol::Tcp);
    let of6 = server(Family::Ipv6, 1, 80, Protocol::Tcp);
    for (key, family) in [(of4, Family::Ipv6), (of6, Family::Ipv4)] {
        client.create_virtual_server(key, round_robin()).unwrap();
        let config = RealServerConfig {
            forward: ForwardMethod::Tunnel(Tunnel::Ipip),
            ..masquerade(1)
        };
        let real = real(family, 1, 80);
        client.create_real_server(key, real, config).unwrap();
        assert_eq!(of(&mut client, &key), [(real, config)].into());
        client.delete_real_server(key, real).unwrap();
        let error = client
            .create_real_server(key, real, masquerade(1))
            .unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
        assert_eq!(error.errno(), Some(22));
    }
}

#[test]
fn refusals_are_typed_by_request_and_errno() {
    let mut client = client();
    let there = server(Family::Ipv4, 1, 80, Protocol::Tcp);
    let absent = server(Family::Ipv4, 2, 80, Protocol::Tcp);
    let (real_there, real_absent) = (real(Family::Ipv4, 1, 80), real(Family::Ipv4, 2, 80));
    client.create_virtual_server(there, round_robin()).unwrap();
    client
        .create_real_server(there, real_there, masquerade(1))
        .unwrap();

    let results = client
        .apply(vec![
            Command::CreateVirtualServer(there, round_robin()),
            Command::UpdateVirtualServer(absent, round_robin()),
            Command::DeleteVirtualServer(absent),
            Command::CreateRealServer(there, real_there, masquerade(1)),
            Command::UpdateRealServer(there, real_absent, masquerade(1)),
            Command::DeleteRealServer(there, real_absent),
            Command::CreateRealServer(absent, real_there, masquerade(1)),
            Command::UpdateRealServer(absent, real_there, masquerade(1)),
            Command::DeleteRealServer(absent, real_there),
        ])
        .unwrap();
    let names: Vec<_> = results
        .iter()
        .map(|result| {
            let error = result.as_ref().unwrap_err();
            assert!(!error.is_outcome_unknown() && !error.is_permission());
            let name = format!("{error:?}");
            let name = name.split([' ', '(']).next().unwrap().to_owned();
            (name, error.errno().unwrap(), error.is_not_found())
        })
        .collect();
    let expected = [
        ("VirtualServerExists", 17, false),
        ("NoSuchVirtualServer", 3, true),
        ("NoSuchVirtualServer", 3, true),
        ("RealServerExists", 17, false),
        ("NoSuchRealServer", 2, true),
        ("NoSuchRealServer", 2, true),
        ("NoSuchVirtualServer", 3, true),
        ("NoSuchVirtualServer", 3, true),
        ("NoSuchVirtualServer", 3, true),
    ]
    .map(|(name, errno, found)| (name.to_owned(), errno, found));
    assert_eq!(names, expected);
    assert!(results[0].as_ref().unwrap_err().is_already_exists());

    for error in [
        client.virtual_server(&absent).unwrap_err(),
        client.real_servers(&absent).unwrap_err(),
        client.zero(&absent).unwrap_err(),
    ] {
        assert!(
            matches!(error, Error::NoSuchVirtualServer { .. }),
            "{error:?}"
        );
    }
    let unknown = config("nosuch".parse().unwrap());
    for result in client
        .apply(vec![
            Command::CreateVirtualServer(absent, unknown.clone()),
            Command::UpdateVirtualServer(there, unknown),
        ])
        .unwrap()
    {
        let error = result.unwrap_err();
        assert!(
            matches!(&error, Error::NoSuchScheduler { scheduler, .. } if scheduler == "nosuch"),
            "{error:?}"
        );
        assert_eq!(error.errno(), Some(2));
        assert!(!error.is_not_found());
    }
}

#[test]
fn values_that_the_kernel_refuses_are_invalid() {
    let mut client = client();
    let key = server(Family::Ipv6, 1, 80, Protocol::Tcp);
    let prefix = VirtualServerConfig {
        persistence: Some(Persistence {
            timeout: 1,
            netmask: Netmask::V6(0),
        }),
        ..round_robin()
    };
    let error = client.create_virtual_server(key, prefix).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    client.create_virtual_server(key, round_robin()).unwrap();
    let real = real(Family::Ipv6, 1, 80);
    let crossed = RealServerConfig {
        thresholds: Some(Thresholds { upper: 1, lower: 2 }),
        ..masquerade(1)
    };
    for config in [masquerade(0x8000_0000), crossed] {
        let error = client.create_real_server(key, real, config).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
        assert_eq!(error.errno(), Some(34));
    }
}

#[test]
fn without_the_capability_a_change_is_denied() {
    let mut client = client();
    let key = server(Family::Ipv4, 1, 80, Protocol::Tcp);
    client.create_virtual_server(key, round_robin()).unwrap();
    // of this thread only
    let mut sets = rustix::thread::capabilities(None).unwrap();
    sets.effective = rustix::thread::CapabilitySet::empty();
    rustix::thread::set_capabilities(None, sets).unwrap();
    let error = client.delete_virtual_server(key).unwrap_err();
    assert!(matches!(error, Error::PermissionDenied { .. }), "{error:?}");
    assert!(error.is_permission() && !error.is_outcome_unknown());
    assert_eq!(error.errno(), Some(1));

    // A socket opened now has buffers of the default size, which refusals must not overflow.
    let mut client = Client::open().unwrap();
    let commands = vec![Command::DeleteVirtualServer(key); 3000];
    for result in client.apply(commands).unwrap() {
        assert!(result.unwrap_err().is_permission());
    }
    let error = client.virtual_servers().unwrap_err();
    assert!(error.is_permission(), "{error:?}");
}

#[test]
fn a_large_batch_tells_of_each_command_what_became_of_it() {
    let mut client = client();
    let mut commands = Vec::new();
    let mut fails = Vec::new();
    for index in 0..1000_u16 {
        let family = FAMILIES[usize::from(index % 2)];
        let key = server(family, 1 + index / 100, 1000 + index, Protocol::Tcp);
        let (command, failure) = match index % 5 {
            3 => (
                Command::DeleteVirtualServer(key),
                Some("NoSuchVirtualServer"),
            ),
            4 => (
                Command::CreateVirtualServer(key, config("nosuch".parse().unwrap())),
                Some("NoSuchScheduler"),
            ),
            _ => (Command::CreateVirtualServer(key, round_robin()), None),
        };
        commands.push(command);
        fails.push(failure);
    }
    let results = client.apply(commands).unwrap();
    assert_eq!(results.len(), 1000);
    for (index, (result, fails)) in results.iter().zip(&fails).enumerate() {
        match (result, fails) {
            (Ok(()), None) => {}
            (Err(error), Some(name)) if format!("{error:?}").starts_with(name) => {}
            other => panic!("{index}: {other:?}"),
        }
    }
    assert_eq!(all(&mut client).len(), 600);
    assert_eq!(saved().len(), 600);
}

#[test]
fn thousands_of_refusals_lose_no_result() {
    let mut client = client();
    let absent = |port| server(Family::Ipv4, 9, port, Protocol::Udp);
    let mut commands: Vec<_> = (1..=5000)
        .map(|port| Command::DeleteVirtualServer(absent(port)))
        .collect();
    let last = server(Family::Ipv4, 1, 80, Protocol::Tcp);
    commands.push(Command::CreateVirtualServer(last, round_robin()));
    let mut results = client.apply(commands).unwrap();
    results.pop().unwrap().unwrap();
    assert_eq!(results.len(), 5000);
    for result in results {
        assert!(result.unwrap_err().is_not_found());
    }
    assert_eq!(all(&mut client), [(last, round_robin())].into());
}

#[test]
fn a_command_that_cannot_be_sent_leaves_the_others_alone() {
    let mut client = client();
    let key = |last| server(Family::Ipv4, last, 80, Protocol::Tcp);
    let impossible = VirtualServerConfig {
        persistence_engine: Some(String::new()),
        ..round_robin()
    };
    let results = client
        .apply(vec![
            Command::CreateVirtualServer(key(1), round_robin()),
            Command::CreateVirtualServer(key(2), impossible),
            Command::DeleteVirtualServer(key(3)),
        ])
        .unwrap();
    assert!(results[0].is_ok());
    assert!(matches!(results[1], Err(Error::Unsendable { .. })));
    assert!(matches!(results[2], Err(Error::NoSuchVirtualServer { .. })));
    assert_eq!(all(&mut client).len(), 1);
}

#[test]
fn a_dump_of_many_is_whole() {
    let mut client = client();
    let key = server(Family::Ipv4, 1, 80, Protocol::Tcp);
    let mut commands = vec![Command::CreateVirtualServer(key, round_robin())];
    for index in 0..2000_u16 {
        let address = format!("198.51.100.{}", 1 + index % 200).parse().unwrap();
        let real = RealServerKey {
            address,
            port: 1000 + index / 200,
        };
        commands.push(Command::CreateRealServer(key, real, masquerade(1)));
    }
    for port in 1000..3000 {
        let key = server(Family::Ipv6, 1, port, Protocol::Udp);
        commands.push(Command::CreateVirtualServer(key, round_robin()));
    }
    for result in client.apply(commands).unwrap() {
        result.unwrap();
    }
    assert_eq!(of(&mut client, &key).len(), 2000);
    assert_eq!(all(&mut client).len(), 2001);
    let filled = client.real_servers_of_all().unwrap();
    assert_eq!(filled.len(), 2001);
    assert_eq!(filled[&key].len(), 2000);
}

#[test]
fn traffic_is_counted_as_ipvsadm_prints_it() {
    let mut client = client();
    for family in FAMILIES {
        let place = SocketAddr::new(vip(family, 1), 80);
        let length = match family {
            Family::Ipv4 => 32,
            Family::Ipv6 => 128,
        };
        let prefix = format!("{}/{length}", place.ip());
        output("ip", &["address", "add", &prefix, "dev", "lo"]);
        let behind = RealServerKey {
            address: match family {
                Family::Ipv4 => "127.0.0.1".parse().unwrap(),
                Family::Ipv6 => "::1".parse().unwrap(),
            },
            port: 8080,
        };
        let key = server(family, 1, 80, Protocol::Tcp);
        client.create_virtual_server(key, round_robin()).unwrap();
        client
            .create_real_server(key, behind, masquerade(1))
            .unwrap();
        let listener = TcpListener::bind((behind.address, behind.port)).unwrap();
        let mut outside = TcpStream::connect_timeout(&place, Duration::from_secs(10)).unwrap();
        let (mut inside, _) = listener.accept().unwrap();
        outside.write_all(b"question").unwrap();
        let mut question = [0; 8];
        inside.read_exact(&mut question).unwrap();
        assert_eq!(&question, b"question");

        let held = client.real_servers(&key).unwrap().remove(0).connections;
        assert_eq!((held.active, held.inactive), (1, 0));
        drop((inside, outside));

        let counted = poll(|| counters(&mut client, &key, &behind));
        assert!(counted.iter().all(|stats| stats[0] == 1), "{counted:?}");
        client.zero(&key).unwrap();
        assert_eq!(client.virtual_server(&key).unwrap().stats.connections, 0);
        covers(family, Protocol::Tcp);
    }
    client.zero_all().unwrap();
}

/// The five counters of the virtual and the real server, once three or more packets are counted and `ipvsadm` prints the same.
fn counters(
    client: &mut Client,
    key: &VirtualServerKey,
    behind: &RealServerKey,
) -> Option<[Vec<u64>; 2]> {
    let place = key.to_string().replace("TCP ", "");
    let of_virtual = client.virtual_server(key).unwrap().stats;
    let of_real = client.real_servers(key).unwrap().remove(0).stats;
    let read = [of_virtual, of_real].map(|stats| {
        vec![
            stats.connections,
            stats.incoming_packets,
            stats.outgoing_packets,
            stats.incoming_bytes,
            stats.outgoing_bytes,
        ]
    });
    let printed = output("ipvsadm", &["-Ln", "--stats", "--exact", "-t", &place]);
    let numbers: [Vec<u64>; 2] = [place, behind.to_string()].map(|name| {
        let line = printed.lines().find(|line| line.contains(&name)).unwrap();
        line.split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect()
    });
    (of_real.incoming_packets >= 3 && numbers == read).then_some(read)
}

/// Tries until there is something, for ten times the two seconds after which the kernel adds up what each processor counted.
#[expect(
    clippy::disallowed_methods,
    reason = "the kernel tells nobody when it has counted"
)]
fn poll<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    for _ in 0..200 {
        if let Some(found) = attempt() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("nothing after 20 seconds");
}

/// Virtual servers of every kind that `/proc/net/ip_vs` has a word for; one of them, IPv4, has `ops` and persistence.
fn fill(client: &mut Client) -> VirtualServerKey {
    for (family, protocol) in combinations() {
        let key = server(family, 3, 80, protocol);
        client
            .create_virtual_server(key, config(Scheduler::WeightedLeastConnection))
            .unwrap();
        for (last, forward) in [
            (1, ForwardMethod::Masquerade),
            (2, ForwardMethod::DirectRoute),
            (3, ForwardMethod::Tunnel(Tunnel::Ipip)),
        ] {
            let config = RealServerConfig {
                forward,
                ..masquerade(u32::from(last) - 1)
            };
            client
                .create_real_server(key, real(family, last, 80), config)
                .unwrap();
        }
        covers(family, protocol);
    }
    client
        .create_virtual_server(mark(5, Family::Ipv6), round_robin())
        .unwrap();
    let one_packet = VirtualServerConfig {
        flags: Flags {
            one_packet: true,
            ..Flags::default()
        },
        persistence: Some(Persistence {
            timeout: 300,
            netmask: Netmask::V4([255, 255, 255, 0].into()),
        }),
        ..round_robin()
    };
    let both = server(Family::Ipv4, 4, 53, Protocol::Udp);
    client.create_virtual_server(both, one_packet).unwrap();
    both
}

#[test]
fn the_proc_file_tells_what_the_dumps_tell() {
    let mut client = client();
    let both = fill(&mut client);
    let entries = ipvs::proc::parse(&ipvs::proc::read().unwrap()).unwrap();
    assert_eq!(entries.len(), 8);
    let mut snapshot = ipvs::proc::snapshot().unwrap();
    assert_eq!(snapshot.len(), 7, "without the mark");
    for entry in entries {
        let key = match entry.subject {
            Subject::Address(key) => key,
            Subject::Mark(number) => {
                assert_eq!(number.get(), 5);
                continue;
            }
        };
        assert_eq!(snapshot.remove(&key).unwrap(), entry.real_servers);
        let config = client.virtual_server(&key).unwrap().config;
        assert_eq!(entry.scheduler, config.scheduler);
        assert_eq!(entry.one_packet, key == both);
        assert_eq!(
            entry.persistence.map(|persistence| persistence.netmask),
            (key == both).then_some(0xffff_ff00)
        );
        let told: BTreeMap<_, _> = entry
            .real_servers
            .iter()
            .map(|real| {
                (
                    real.key,
                    (real.forward, real.weight, real.active, real.inactive),
                )
            })
            .collect();
        let dumped: BTreeMap<_, _> = client
            .real_servers(&key)
            .unwrap()
            .into_iter()
            .map(|real| {
                let connections = real.connections;
                let config = real.config;
                (
                    real.key,
                    (
                        config.forward,
                        config.weight,
                        connections.active,
                        connections.inactive,
                    ),
                )
            })
            .collect();
        assert_eq!(told, dumped);
    }
}

#[test]
fn version_and_timeouts_are_those_of_ipvsadm() {
    let mut client = client();
    let info = client.info().unwrap();
    let title = format!(
        "IP Virtual Server version {} (size={})",
        info.version, info.connection_table_size
    );
    let printed = output("ipvsadm", &["-Ln"]);
    assert_eq!(printed.lines().next().unwrap(), title);

    let timeouts = |tcp, tcp_fin, udp| Timeouts { tcp, tcp_fin, udp };
    let printed = || output("ipvsadm", &["-Ln", "--timeout"]);
    assert_eq!(client.timeouts().unwrap(), timeouts(900, 120, 300));
    client.set_timeouts(&timeouts(800, 110, 250)).unwrap();
    assert_eq!(printed().trim(), "Timeout (tcp tcpfin udp): 800 110 250");
    client.set_timeouts(&timeouts(0, 0, 200)).unwrap();
    assert_eq!(printed().trim(), "Timeout (tcp tcpfin udp): 800 110 200");
    assert_eq!(client.timeouts().unwrap(), timeouts(800, 110, 200));
}

#[test]
fn flush_deletes_everything() {
    let mut client = client();
    for (family, protocol) in combinations() {
        let key = server(family, 1, 80, protocol);
        client.create_virtual_server(key, round_robin()).unwrap();
    }
    client
        .create_virtual_server(mark(1, Family::Ipv4), round_robin())
        .unwrap();
    assert_eq!(saved().len(), 7);
    client.flush().unwrap();
    assert_eq!(saved(), BTreeSet::new());
    assert_eq!(client.virtual_servers().unwrap(), []);
}

#[test]
fn synchronisation_daemons_start_and_stop() {
    let mut client = client();
    output("ip", &["link", "add", "sync0", "type", "dummy"]);
    output("ip", &["address", "add", "192.0.2.254/24", "dev", "sync0"]);
    output("ip", &["link", "set", "sync0", "up"]);
    let daemon = |role, sync_id, port| Daemon {
        role,
        interface: "sync0".into(),
        sync_id,
        multicast: Multicast {
            max_length: Some(1400),
            group: Some("224.0.0.82".parse().unwrap()),
            port: Some(port),
            ttl: Some(2),
        },
    };
    let master = daemon(DaemonRole::Master, 5, 8850);
    let backup = daemon(DaemonRole::Backup, 6, 8851);
    assert_eq!(client.daemons().unwrap(), []);
    client.start_daemon(&master).unwrap();
    client.start_daemon(&backup).unwrap();
    assert_eq!(client.daemons().unwrap(), [master.clone(), backup.clone()]);
    let printed = output("ipvsadm", &["-Ln", "--daemon"]);
    assert!(
        printed.contains("master sync daemon (mcast=sync0, syncid=5"),
        "{printed}"
    );
    let again = client.start_daemon(&master).unwrap_err();
    assert_eq!(again.errno(), Some(17), "{again:?}");
    client.stop_daemon(DaemonRole::Master).unwrap();
    assert_eq!(client.daemons().unwrap(), [backup]);
    client.stop_daemon(DaemonRole::Backup).unwrap();
    assert_eq!(
        client.stop_daemon(DaemonRole::Backup).unwrap_err().errno(),
        Some(3)
    );
}

#[test]
fn what_another_namespace_holds_is_not_seen() {
    let mut first = client();
    let key = server(Family::Ipv4, 1, 80, Protocol::Tcp);
    first.create_virtual_server(key, round_robin()).unwrap();
    let mut second = client();
    assert_eq!(second.virtual_servers().unwrap(), []);
    assert_eq!(first.virtual_servers().unwrap().len(), 1);
}

#[test]
fn another_namespaces_virtual_servers_do_not_disturb_reads() {
    let many = |client: &mut Client, last| {
        let commands = (1..=600)
            .flat_map(|port| {
                let key = server(Family::Ipv4, last, port, Protocol::Tcp);
                let real = real(Family::Ipv4, 1, port);
                [
                    Command::CreateVirtualServer(key, round_robin()),
                    Command::CreateRealServer(key, real, masquerade(1)),
                ]
            })
            .collect();
        for result in client.apply(commands).unwrap() {
            result.unwrap();
        }
    };
    let mut first = client();
    many(&mut first, 1);
    let mut second = client();
    many(&mut second, 2);
    assert_eq!(all(&mut second).len(), 600);
    assert_eq!(all(&mut first).len(), 600);
    let keys: BTreeSet<_> = all(&mut second).into_keys().collect();
    // The kernel leaves some out.
    let snapshot = ipvs::proc::snapshot().unwrap();
    assert!(snapshot.keys().all(|key| keys.contains(key)));
    assert!(snapshot.values().all(|real| real.len() == 1));
    let filled = second.real_servers_of_all().unwrap();
    assert!(filled.keys().eq(&keys));
    for (key, real) in filled {
        let dumped = second.real_servers(&key).unwrap();
        assert_eq!(real, dumped.iter().map(Into::into).collect::<Vec<_>>());
    }
}

#[test]
fn the_transport_reads_links_and_tells_the_kernels_words() {
    const RTM_NEWLINK: u16 = 16;
    const RTM_GETLINK: u16 = 18;
    const RTM_NEWROUTE: u16 = 24;
    drop(client());
    let mut transport = Transport::open(NetlinkProtocol::Route).unwrap();
    let link = |index: i32| {
        let mut payload = vec![0; 16];
        payload[4..8].copy_from_slice(&index.to_ne_bytes());
        Request::new(RawMessage {
            message_type: RTM_GETLINK,
            payload,
        })
    };
    let links = transport.dump(link(0)).unwrap();
    assert!(!links.is_empty());
    assert!(links.iter().all(|link| link.message_type == RTM_NEWLINK));
    assert_eq!(
        transport.request(link(1)).unwrap().message_type,
        RTM_NEWLINK
    );
    let error = transport.request(link(999)).unwrap_err();
    assert_eq!(error.rejection().unwrap().errno, 19);
    // struct rtmsg of an impossible destination length: refused with words
    let route = RawMessage {
        message_type: RTM_NEWROUTE,
        payload: vec![2, 77, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0],
    };
    let results = transport.batch(vec![Request::new(route)]).unwrap();
    let rejection = results[0].clone().unwrap_err();
    assert_eq!(rejection.errno, 22);
    assert!(rejection.text.is_some(), "{rejection}");
}

#[test]
fn an_exchange_past_its_deadline_is_unknown_and_the_next_one_is_clean() {
    const NLMSG_NOOP: u16 = 1;
    const RTM_GETLINK: u16 = 18;
    drop(client());
    let mut transport = Transport::open(NetlinkProtocol::Route).unwrap();
    transport.set_deadline(Duration::from_millis(50));
    // Control messages are acknowledged, but not dumped: no answer ever comes.
    let silent = RawMessage {
        message_type: NLMSG_NOOP,
        payload: Vec::new(),
    };
    let error = transport.dump(Request::new(silent)).unwrap_err();
    assert!(matches!(error, TransportError::Deadline), "{error:?}");
    assert!(error.is_outcome_unknown());
    transport.set_deadline(Duration::from_secs(10));
    let link = RawMessage {
        message_type: RTM_GETLINK,
        payload: vec![0; 16],
    };
    assert!(!transport.dump(Request::new(link)).unwrap().is_empty());
}

#[test]
fn a_transaction_of_nftables_is_applied_whole_or_not_at_all() {
    const BATCH_BEGIN: u16 = 0x10;
    const BATCH_END: u16 = 0x11;
    const NFT_MSG_NEWTABLE: u16 = 0x0a00;
    const NFT_MSG_DELTABLE: u16 = 0x0a02;
    drop(client());
    let mut transport = Transport::open(NetlinkProtocol::Netfilter).unwrap();
    // struct nfgenmsg: family, version, resource id (big endian; nftables is 10)
    let mark = |message_type| RawMessage {
        message_type,
        payload: vec![0, 0, 0, 10],
    };
    // NFTA_TABLE_NAME
    let table = |message_type, name: u8| {
        Request::new(RawMessage {
            message_type,
            payload: vec![1, 0, 0, 0, 6, 0, 1, 0, name, 0, 0, 0],
        })
        .with_flags(0x400)
    };
    let mut run = |requests| transport.transact(mark(BATCH_BEGIN), requests, mark(BATCH_END));
    let names = || output("nft", &["list", "tables"]);

    run(vec![
        table(NFT_MSG_NEWTABLE, b'a'),
        table(NFT_MSG_NEWTABLE, b'b'),
    ])
    .unwrap();
    assert_eq!(names(), "table inet a\ntable inet b\n");
    let refused = run(vec![
        table(NFT_MSG_NEWTABLE, b'c'),
        table(NFT_MSG_DELTABLE, b'x'),
        table(NFT_MSG_NEWTABLE, b'd'),
        table(NFT_MSG_DELTABLE, b'y'),
    ]);
    match refused {
        Err(ipvs::netlink::TransactionError::Refused(refusals)) => {
            let told: Vec<_> = refusals
                .iter()
                .map(|refusal| (refusal.request, refusal.rejection.errno))
                .collect();
            assert_eq!(told, [(Some(1), 2), (Some(3), 2)]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(names(), "table inet a\ntable inet b\n");
    run(Vec::new()).unwrap();
    run(vec![
        table(NFT_MSG_DELTABLE, b'a'),
        table(NFT_MSG_DELTABLE, b'b'),
    ])
    .unwrap();
    assert_eq!(names(), "");
}
