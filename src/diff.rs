//! What should be, against what is: the plan that leads from one to the other. Pure.
//!
//! For each virtual server: create and update first, delete last, and an update only where a field differs. Deletion asks two
//! questions and no other: is it desired, and is it ours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipvs::{RealServerKey, VirtualServerKey};

use crate::arbitrate::{Desired, DesiredVirtualServer};
use crate::dataplane::{Device, Observed, ObservedVirtualServer, VipBinding};
use crate::ownership::Ownership;
use crate::plan::{Bind, Change, DeviceStep, Plan, Step};

/// Plans for every key there is.
pub fn diff(desired: &Desired, observed: &Observed, ownership: &Ownership) -> Plan {
    let mut plan = Plan {
        device: device(observed),
        bind: bind(desired, observed),
        unbind: observed
            .vips
            .keys()
            .filter(|vip| !desired.vips.contains(vip))
            .copied()
            .collect(),
        ..Plan::default()
    };
    for (key, wanted) in &desired.virtual_servers {
        let steps = match observed.virtual_servers.get(key) {
            None => creation(wanted),
            Some(present) => update(wanted, present),
        };
        if !steps.is_empty() {
            plan.changes.push(Change {
                subject: *key,
                steps,
            });
        }
        if !ownership.recorded.contains(key) {
            plan.record.insert(*key);
        }
    }
    for key in observed.virtual_servers.keys() {
        if !desired.virtual_servers.contains_key(key) && ownership.owns(key, observed) {
            plan.retire.push(Change {
                subject: *key,
                steps: vec![Step::DeleteVirtualServer],
            });
            // Ours by its VIP alone, which goes in the same plan: unrecorded it would turn foreign if its deletion failed.
            if !ownership.recorded.contains(key) {
                plan.record.insert(*key);
            }
        }
    }
    plan.forget = ownership
        .recorded
        .union(&plan.record)
        .filter(|key| !desired.virtual_servers.contains_key(key))
        .copied()
        .collect();
    plan
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

/// The desired virtual servers that stand in the kernel although weir did not make them: they are taken over as they are.
pub fn adopted(
    desired: &Desired,
    observed: &Observed,
    ownership: &Ownership,
) -> BTreeSet<VirtualServerKey> {
    desired
        .virtual_servers
        .keys()
        .filter(|key| observed.virtual_servers.contains_key(key) && !ownership.owns(key, observed))
        .copied()
        .collect()
}

fn device(observed: &Observed) -> Vec<DeviceStep> {
    match observed.device {
        Device::Absent => vec![DeviceStep::Create, DeviceStep::SetUp],
        Device::Down => vec![DeviceStep::SetUp],
        Device::Up => Vec::new(),
    }
}

fn bind(desired: &Desired, observed: &Observed) -> BTreeMap<IpAddr, Bind> {
    desired
        .vips
        .iter()
        .filter_map(|vip| match observed.vips.get(vip) {
            None => Some((*vip, Bind::Add)),
            Some(VipBinding::Other) => Some((*vip, Bind::Replace)),
            Some(VipBinding::AsWanted) => None,
        })
        .collect()
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

fn update(wanted: &DesiredVirtualServer, present: &ObservedVirtualServer) -> Vec<Step> {
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
    }
    let gone = present
        .real_servers
        .keys()
        .filter(|server| !is_wanted(wanted, server));
    steps.extend(gone.map(|server| Step::DeleteRealServer(*server)));
    steps
}

fn is_wanted(wanted: &DesiredVirtualServer, server: &RealServerKey) -> bool {
    wanted.real_servers.contains_key(server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::ObservedRealServer;
    use ipvs::{Connections, Protocol, RealServerConfig, Scheduler, VirtualServerConfig, Weight};

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
                        connections: Connections {
                            active: 7,
                            ..Connections::default()
                        },
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
        let plan = diff(
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
        let plan = diff(
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
                        Step::DeleteRealServer(server("198.51.100.1")),
                    ],
                }],
                ..Plan::default()
            }
        );
    }

    #[test]
    fn what_is_new_is_recorded_and_its_vip_bound() {
        let key = key("192.0.2.10", 80);
        let plan = diff(
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
        let plan = diff(
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
        let plan = diff(
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
        assert_eq!(adopted(&want, &is, &Ownership::default()), [key].into());
        let plan = diff(&want, &is, &Ownership::default());
        assert_eq!(plan.record, [key].into());
        assert!(plan.changes.is_empty());
        assert_eq!(adopted(&want, &is, &recorded(&[key])), BTreeSet::new());
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
