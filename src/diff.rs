//! What should be, against what is: the plan that leads from one to the other. Pure.
//!
//! For each virtual server: create and update first, quiesce next, delete last, and an update only where a field differs. Deletion
//! asks two questions and no other: is it desired, and is it ours. A plan costs what is in its scope.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipvs::{RealServerConfig, RealServerKey, VirtualServerKey, Weight};

use crate::arbitrate::{Desired, DesiredVirtualServer};
use crate::dataplane::{Device, Observed, ObservedRealServer, ObservedVirtualServer, VipBinding};
use crate::drain::{Clock, DrainChanges, Draining, Leave};
use crate::ownership::Ownership;
use crate::plan::{Bind, Change, DeviceStep, Plan, Step};

/// Everything a plan depends on.
#[derive(Debug, Clone, Copy)]
pub struct Basis<'a> {
    /// What should be.
    pub desired: &'a Desired,
    /// What is.
    pub observed: &'a Observed,
    /// What tells owned from foreign.
    pub ownership: &'a Ownership,
    /// Who drains already.
    pub draining: &'a Draining,
    /// The time that decides.
    pub clock: Clock,
}

/// Which keys a plan is about.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// All that is desired or observed.
    Everything,
    /// These, and no other is looked at.
    Keys(&'a Keys),
}

/// Keys of virtual servers and VIPs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keys {
    /// Virtual servers.
    pub virtual_servers: BTreeSet<VirtualServerKey>,
    /// Addresses.
    pub vips: BTreeSet<IpAddr>,
}

impl Keys {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.virtual_servers.is_empty() && self.vips.is_empty()
    }

    /// Adds another's.
    pub fn extend(&mut self, other: Self) {
        self.virtual_servers.extend(other.virtual_servers);
        self.vips.extend(other.vips);
    }

    /// All that is desired, observed or recorded.
    pub fn of_everything(desired: &Desired, observed: &Observed, ownership: &Ownership) -> Self {
        let keys = desired
            .virtual_servers
            .keys()
            .chain(observed.virtual_servers.keys());
        Self {
            virtual_servers: keys.chain(&ownership.recorded).copied().collect(),
            vips: desired
                .vips
                .iter()
                .chain(observed.vips.keys())
                .copied()
                .collect(),
        }
    }
}

/// Plans what leads from what is to what should be, for the keys in scope.
pub fn diff(basis: Basis<'_>, scope: Scope<'_>) -> Plan {
    let everything;
    let keys = match scope {
        Scope::Keys(keys) => keys,
        Scope::Everything => {
            everything = Keys::of_everything(basis.desired, basis.observed, basis.ownership);
            &everything
        }
    };
    let mut plan = Plan {
        device: device(basis.observed),
        ..Plan::default()
    };
    for key in &keys.virtual_servers {
        plan_virtual_server(basis, *key, &mut plan);
    }
    for vip in &keys.vips {
        plan_vip(basis, *vip, &mut plan);
    }
    plan
}

fn plan_virtual_server(basis: Basis<'_>, key: VirtualServerKey, plan: &mut Plan) {
    let wanted = basis.desired.virtual_servers.get(&key);
    let present = basis.observed.virtual_servers.get(&key);
    let recorded = basis.ownership.recorded.contains(&key);
    match (wanted, present) {
        (Some(wanted), None) => push(&mut plan.changes, key, creation(wanted)),
        (Some(wanted), Some(present)) => {
            let steps = update(basis, key, (wanted, present), &mut plan.drain);
            push(&mut plan.changes, key, steps);
        }
        (None, Some(present)) if basis.ownership.owns(&key, basis.observed) => {
            let steps = retirement(basis, key, present, &mut plan.drain);
            let is_deleted = steps.contains(&Step::DeleteVirtualServer);
            push(&mut plan.retire, key, steps);
            // Ours by its VIP alone, which may go in the same plan: unrecorded it would turn foreign if its deletion failed.
            if !recorded {
                plan.record.insert(key);
            }
            if is_deleted {
                plan.forget.insert(key);
            }
            return;
        }
        (None, Some(_) | None) => {
            if recorded {
                plan.forget.insert(key);
            }
            return;
        }
    }
    if !recorded {
        plan.record.insert(key);
    }
}

fn plan_vip(basis: Basis<'_>, vip: IpAddr, plan: &mut Plan) {
    match (
        basis.desired.vips.contains(&vip),
        basis.observed.vips.get(&vip),
    ) {
        (true, None) => {
            plan.bind.insert(vip, Bind::Add);
        }
        (true, Some(VipBinding::Other)) => {
            plan.bind.insert(vip, Bind::Replace);
        }
        (false, Some(_)) => {
            plan.unbind.insert(vip);
        }
        (true, Some(VipBinding::AsWanted)) | (false, None) => {}
    }
}

fn push(changes: &mut Vec<Change>, subject: VirtualServerKey, steps: Vec<Step>) {
    if !steps.is_empty() {
        changes.push(Change { subject, steps });
    }
}

/// Plans the removal of all that is ours: virtual servers one by one, the VIPs with their device, because deleting a link is far
/// cheaper than deleting its IPv6 addresses (each of those walks the whole routing table).
pub fn removal(observed: &Observed, ownership: &Ownership) -> Plan {
    let owned = observed
        .virtual_servers
        .keys()
        .filter(|key| ownership.owns(key, observed));
    Plan {
        retire: owned
            .map(|key| Change {
                subject: *key,
                steps: vec![Step::DeleteVirtualServer],
            })
            .collect(),
        device: match observed.device {
            Device::Absent => Vec::new(),
            Device::Down | Device::Up => vec![DeviceStep::Delete],
        },
        forget: ownership.recorded.clone(),
        ..Plan::default()
    }
}

/// The virtual servers that a plan takes over: desired ones that stand in the kernel and were not ours so far.
pub fn adopted(plan: &Plan, basis: Basis<'_>) -> BTreeSet<VirtualServerKey> {
    let is_adopted = |key: &&VirtualServerKey| {
        basis.desired.virtual_servers.contains_key(key)
            && basis.observed.virtual_servers.contains_key(key)
            && !basis.ownership.owns(key, basis.observed)
    };
    plan.record.iter().filter(is_adopted).copied().collect()
}

fn device(observed: &Observed) -> Vec<DeviceStep> {
    match observed.device {
        Device::Absent => vec![DeviceStep::Create, DeviceStep::SetUp],
        Device::Down => vec![DeviceStep::SetUp],
        Device::Up => Vec::new(),
    }
}

fn creation(wanted: &DesiredVirtualServer) -> Vec<Step> {
    let real_servers = wanted
        .real_servers
        .iter()
        .map(|(server, config)| Step::CreateRealServer(*server, *config));
    std::iter::once(Step::CreateVirtualServer(wanted.config.clone()))
        .chain(real_servers)
        .collect()
}

fn update(
    basis: Basis<'_>,
    key: VirtualServerKey,
    (wanted, present): (&DesiredVirtualServer, &ObservedVirtualServer),
    drain: &mut DrainChanges,
) -> Vec<Step> {
    let mut steps = Vec::new();
    if present.config != wanted.config {
        steps.push(Step::UpdateVirtualServer(wanted.config.clone()));
    }
    for (server, config) in &wanted.real_servers {
        match present.real_servers.get(server) {
            None => steps.push(Step::CreateRealServer(*server, *config)),
            Some(real) if real.config != *config => {
                steps.push(Step::UpdateRealServer(*server, *config));
            }
            Some(_) => {}
        }
        // One that returns is raised in place, never deleted and made again.
        if basis.draining.deadline(&(key, *server)).is_some() {
            drain.end.insert((key, *server));
        }
    }
    let gone = present
        .real_servers
        .iter()
        .filter(|(server, _)| !wanted.real_servers.contains_key(server));
    let (quiesced, deleted) = leave(basis, key, gone, drain);
    steps.extend(quiesced);
    steps.extend(deleted);
    steps
}

/// A virtual server that is no longer desired: while its address still is, its real servers drain and it goes with the last of them;
/// otherwise nothing can reach it any more, and it goes at once.
fn retirement(
    basis: Basis<'_>,
    key: VirtualServerKey,
    present: &ObservedVirtualServer,
    drain: &mut DrainChanges,
) -> Vec<Step> {
    let reachable = match key {
        VirtualServerKey::Address { address, .. } => basis.desired.vips.contains(&address),
        VirtualServerKey::Mark { .. } => false,
    };
    if reachable {
        let mut changes = DrainChanges::default();
        let (quiesced, deleted) = leave(basis, key, present.real_servers.iter(), &mut changes);
        if deleted.len() < present.real_servers.len() {
            drain.start.extend(changes.start);
            drain.end.extend(changes.end);
            return quiesced.into_iter().chain(deleted).collect();
        }
    }
    let drained = present.real_servers.keys().map(|server| (key, *server));
    drain
        .end
        .extend(drained.filter(|server| basis.draining.deadline(server).is_some()));
    vec![Step::DeleteVirtualServer]
}

/// Steps for real servers that are not desired: which are quiesced, and which are deleted.
fn leave<'a>(
    basis: Basis<'_>,
    key: VirtualServerKey,
    gone: impl Iterator<Item = (&'a RealServerKey, &'a ObservedRealServer)>,
    drain: &mut DrainChanges,
) -> (Vec<Step>, Vec<Step>) {
    let mut quiesced = Vec::new();
    let mut deleted = Vec::new();
    for (server, real) in gone {
        let subject = (key, *server);
        let drains = basis.draining.deadline(&subject).is_some();
        match basis.draining.leave(&subject, real, basis.clock) {
            Leave::Quiesce => {
                let config = RealServerConfig {
                    weight: Weight::QUIESCED,
                    ..real.config
                };
                quiesced.push(Step::UpdateRealServer(*server, config));
                drain.start.insert(subject, basis.clock.deadline());
            }
            Leave::Wait => {
                if !drains {
                    drain.start.insert(subject, basis.clock.deadline());
                }
            }
            Leave::Delete => {
                deleted.push(Step::DeleteRealServer(*server));
                if drains {
                    drain.end.insert(subject);
                }
            }
        }
    }
    (quiesced, deleted)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ipvs::{Connections, Protocol, Scheduler, VirtualServerConfig};

    use super::*;
    use crate::drain::BootTime;

    /// A plan for all keys, with nothing draining yet.
    fn everything(desired: &Desired, observed: &Observed, ownership: &Ownership) -> Plan {
        let basis = Basis {
            desired,
            observed,
            ownership,
            draining: &Draining::default(),
            clock: CLOCK,
        };
        diff(basis, Scope::Everything)
    }

    const CLOCK: Clock = Clock {
        now: BootTime(Duration::from_secs(1_000)),
        timeout: Duration::from_secs(60),
    };

    fn key(address: &str, port: u16) -> VirtualServerKey {
        VirtualServerKey::Address {
            address: address.parse().unwrap(),
            port,
            protocol: Protocol::Tcp,
        }
    }

    fn server(address: &str) -> RealServerKey {
        RealServerKey {
            address: address.parse().unwrap(),
            port: 8080,
        }
    }

    fn wanted(servers: &[&str]) -> DesiredVirtualServer {
        DesiredVirtualServer {
            config: VirtualServerConfig::new(Scheduler::RoundRobin),
            real_servers: servers
                .iter()
                .map(|address| (server(address), RealServerConfig::masquerade(Weight::ONE)))
                .collect(),
            origin: None,
        }
    }

    fn present(scheduler: Scheduler, servers: &[(&str, u32)]) -> ObservedVirtualServer {
        ObservedVirtualServer {
            config: VirtualServerConfig::new(scheduler),
            real_servers: servers
                .iter()
                .map(|(address, weight)| {
                    let real_server = ObservedRealServer {
                        config: RealServerConfig::masquerade(Weight(*weight)),
                        connections: Some(Connections {
                            active: 7,
                            ..Connections::default()
                        }),
                    };
                    (server(address), real_server)
                })
                .collect(),
        }
    }

    fn desired(servers: &[(VirtualServerKey, DesiredVirtualServer)], vips: &[&str]) -> Desired {
        Desired {
            virtual_servers: servers.iter().cloned().collect(),
            vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            ..Desired::default()
        }
    }

    fn observed(
        servers: &[(VirtualServerKey, ObservedVirtualServer)],
        vips: &[(&str, VipBinding)],
    ) -> Observed {
        Observed {
            virtual_servers: servers.iter().cloned().collect(),
            device: Device::Up,
            vips: vips
                .iter()
                .map(|(vip, binding)| (vip.parse().unwrap(), *binding))
                .collect(),
        }
    }

    fn recorded(keys: &[VirtualServerKey]) -> Ownership {
        Ownership {
            recorded: keys.iter().copied().collect(),
        }
    }

    #[test]
    fn what_is_as_wanted_needs_no_step_whatever_it_counts() {
        let key = key("192.0.2.10", 80);
        let plan = everything(
            &desired(&[(key, wanted(&["198.51.100.1"]))], &["192.0.2.10"]),
            &observed(
                &[(key, present(Scheduler::RoundRobin, &[("198.51.100.1", 1)]))],
                &[("192.0.2.10", VipBinding::AsWanted)],
            ),
            &recorded(&[key]),
        );
        assert!(plan.is_empty(), "{plan}");
        assert_eq!(plan.operations(), 0);
    }

    #[test]
    fn a_change_creates_and_updates_first_and_deletes_last() {
        let key = key("192.0.2.10", 80);
        let plan = everything(
            &desired(
                &[(
                    key,
                    wanted(&["198.51.100.2", "198.51.100.3", "198.51.100.4"]),
                )],
                &[],
            ),
            &observed(
                &[(
                    key,
                    present(
                        Scheduler::SourceHashing,
                        &[
                            ("198.51.100.1", 1),
                            ("198.51.100.2", 1),
                            ("198.51.100.3", 0),
                        ],
                    ),
                )],
                &[],
            ),
            &recorded(&[key]),
        );
        let weight = RealServerConfig::masquerade(Weight::ONE);
        assert_eq!(
            plan,
            Plan {
                changes: vec![Change {
                    subject: key,
                    steps: vec![
                        Step::UpdateVirtualServer(VirtualServerConfig::new(Scheduler::RoundRobin)),
                        Step::UpdateRealServer(server("198.51.100.3"), weight),
                        Step::CreateRealServer(server("198.51.100.4"), weight),
                        Step::UpdateRealServer(
                            server("198.51.100.1"),
                            RealServerConfig::masquerade(Weight::QUIESCED),
                        ),
                    ],
                }],
                drain: DrainChanges {
                    start: [((key, server("198.51.100.1")), CLOCK.deadline())].into(),
                    ..DrainChanges::default()
                },
                ..Plan::default()
            }
        );
    }

    #[test]
    fn what_is_new_is_recorded_and_its_vip_bound() {
        let key = key("192.0.2.10", 80);
        let plan = everything(
            &desired(&[(key, wanted(&["198.51.100.1"]))], &["192.0.2.10"]),
            &Observed::default(),
            &Ownership::default(),
        );
        assert_eq!(plan.device, [DeviceStep::Create, DeviceStep::SetUp]);
        assert_eq!(plan.record, [key].into());
        assert_eq!(
            plan.bind,
            [("192.0.2.10".parse().unwrap(), Bind::Add)].into()
        );
        assert_eq!(plan.operations(), 5);
        assert_eq!(
            plan.to_string(),
            "+ device\n\
             ~ device up\n\
             + virtual server TCP 192.0.2.10:80 scheduler rr\n\
             + real server TCP 192.0.2.10:80 -> 198.51.100.1:8080 weight 1\n\
             + vip 192.0.2.10\n"
        );
    }

    #[test]
    fn vips_with_other_attributes_are_replaced_and_undesired_ones_unbound() {
        let plan = everything(
            &desired(&[], &["192.0.2.10", "2001:db8::10"]),
            &observed(
                &[],
                &[
                    ("192.0.2.10", VipBinding::Other),
                    ("2001:db8::10", VipBinding::AsWanted),
                    ("2001:db8::11", VipBinding::Other),
                ],
            ),
            &Ownership::default(),
        );
        assert_eq!(plan.to_string(), "~ vip 192.0.2.10\n- vip 2001:db8::11\n");
        assert_eq!(plan.operations(), 3);
    }

    #[test]
    fn only_what_is_ours_is_retired() {
        let recorded_key = key("192.0.2.10", 80);
        let on_our_vip = key("192.0.2.11", 80);
        let foreign = key("192.0.2.12", 80);
        let gone_already = key("192.0.2.13", 80);
        let any = present(Scheduler::RoundRobin, &[("198.51.100.1", 1)]);
        let plan = everything(
            &Desired::default(),
            &observed(
                &[recorded_key, on_our_vip, foreign].map(|key| (key, any.clone())),
                &[("192.0.2.11", VipBinding::AsWanted)],
            ),
            &recorded(&[recorded_key, gone_already]),
        );
        let retired: Vec<_> = plan.retire.iter().map(|change| change.subject).collect();
        assert_eq!(retired, [recorded_key, on_our_vip]);
        assert_eq!(plan.forget, [recorded_key, on_our_vip, gone_already].into());
        // Its VIP goes in this plan: only the record keeps it ours should its deletion fail.
        assert_eq!(plan.record, [on_our_vip].into());
    }

    #[test]
    fn a_desired_key_of_somebody_else_is_adopted_in_place() {
        let key = key("192.0.2.10", 80);
        let want = desired(&[(key, wanted(&["198.51.100.1"]))], &[]);
        let is = observed(
            &[(key, present(Scheduler::RoundRobin, &[("198.51.100.1", 1)]))],
            &[],
        );
        for (ownership, expected) in [
            (Ownership::default(), BTreeSet::from([key])),
            (recorded(&[key]), BTreeSet::new()),
        ] {
            let basis = Basis {
                desired: &want,
                observed: &is,
                ownership: &ownership,
                draining: &Draining::default(),
                clock: CLOCK,
            };
            let plan = diff(basis, Scope::Everything);
            assert_eq!(plan.record, expected);
            assert!(plan.changes.is_empty());
            assert_eq!(adopted(&plan, basis), expected);
        }
    }

    #[test]
    fn a_plan_is_about_the_keys_in_scope_alone() {
        let touched = key("192.0.2.10", 80);
        let other = key("192.0.2.11", 80);
        let want = desired(
            &[touched, other].map(|key| (key, wanted(&["198.51.100.1"]))),
            &["192.0.2.10", "192.0.2.11"],
        );
        let is = observed(&[], &[]);
        let basis = Basis {
            desired: &want,
            observed: &is,
            ownership: &Ownership::default(),
            draining: &Draining::default(),
            clock: CLOCK,
        };
        let keys = Keys {
            virtual_servers: [touched].into(),
            vips: ["192.0.2.11".parse().unwrap()].into(),
        };
        let plan = diff(basis, Scope::Keys(&keys));
        let subjects: Vec<_> = plan.changes.iter().map(|change| change.subject).collect();
        assert_eq!(subjects, [touched]);
        assert_eq!(
            plan.bind.keys().copied().collect::<BTreeSet<_>>(),
            keys.vips
        );
    }

    #[test]
    fn a_virtual_server_that_goes_drains_while_its_address_stays() {
        let key = key("192.0.2.10", 80);
        let one = server("198.51.100.1");
        let busy = present(Scheduler::RoundRobin, &[("198.51.100.1", 0)]);
        let is = |server: &ObservedVirtualServer| {
            observed(
                &[(key, server.clone())],
                &[("192.0.2.10", VipBinding::AsWanted)],
            )
        };
        let stays = desired(&[], &["192.0.2.10"]);
        let plan = everything(&stays, &is(&busy), &recorded(&[key]));
        assert_eq!(plan.operations(), 0);
        assert_eq!(plan.forget, BTreeSet::new());
        assert_eq!(plan.drain.start, [((key, one), CLOCK.deadline())].into());

        let mut idle = busy.clone();
        idle.real_servers.get_mut(&one).unwrap().connections = Some(Connections::default());
        let plan = everything(&stays, &is(&idle), &recorded(&[key]));
        assert_eq!(
            plan.retire.first().unwrap().steps,
            [Step::DeleteVirtualServer]
        );
        assert_eq!(plan.forget, [key].into());

        // Without its address nobody can reach it any more.
        let plan = everything(&desired(&[], &[]), &is(&busy), &recorded(&[key]));
        assert_eq!(
            plan.retire.first().unwrap().steps,
            [Step::DeleteVirtualServer]
        );
    }

    #[test]
    fn a_server_that_returns_is_raised_in_place() {
        let key = key("192.0.2.10", 80);
        let one = server("198.51.100.1");
        let mut draining = Draining::default();
        draining.apply(&DrainChanges {
            start: [((key, one), CLOCK.deadline())].into(),
            ..DrainChanges::default()
        });
        let basis = Basis {
            desired: &desired(&[(key, wanted(&["198.51.100.1"]))], &[]),
            observed: &observed(
                &[(key, present(Scheduler::RoundRobin, &[("198.51.100.1", 0)]))],
                &[],
            ),
            ownership: &recorded(&[key]),
            draining: &draining,
            clock: CLOCK,
        };
        let plan = diff(basis, Scope::Everything);
        let raised = Step::UpdateRealServer(one, RealServerConfig::masquerade(Weight::ONE));
        assert_eq!(plan.changes.first().unwrap().steps, [raised]);
        assert_eq!(plan.drain.end, [(key, one)].into());
    }

    #[test]
    fn removal_takes_what_is_ours_and_the_device_with_its_vips() {
        let ours = key("192.0.2.10", 80);
        let foreign = key("192.0.2.12", 80);
        let any = present(Scheduler::RoundRobin, &[]);
        let is = observed(
            &[ours, foreign].map(|key| (key, any.clone())),
            &[("192.0.2.10", VipBinding::AsWanted)],
        );
        let plan = removal(&is, &Ownership::default());
        assert_eq!(
            plan.to_string(),
            "- virtual server TCP 192.0.2.10:80\n- device with all its addresses\n"
        );
        assert!(removal(&Observed::default(), &Ownership::default()).is_empty());
    }
}
