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
        }
    }
    plan.forget = ownership
        .recorded
        .iter()
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
                steps.push(Step::UpdateRealServer(*server, *config))
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
