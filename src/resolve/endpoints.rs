//! Which endpoints serve a port of a Service: readiness, termination, topology and locality, as kube-proxy's
//! `CategorizeEndpoints` decides (Kubernetes 1.36, `pkg/proxy/topology.go`).
//!
//! Per port and family:
//! 1. Endpoints of all slices whose port matches by name and protocol; an address and port that stands in several slices is one
//!    endpoint, and ready wins over not ready, serving over not serving.
//! 2. Topology, decided by the ready endpoints alone: same node if all have node hints and one names this node; else same zone if
//!    all have zone hints and one names this zone; else everything.
//! 3. The *cluster* list: ready endpoints that topology allows, or if there is none every endpoint that terminates and still serves.
//! 4. The *local* list: ready endpoints on this node, or if there is none those on this node that terminate and still serve.
//! 5. *Any*: whether some endpoint anywhere is ready, or terminates and still serves. It tells "refuse" from "drop".

use std::collections::{BTreeMap, BTreeSet};

use ipvs::{Family, RealServerKey};

use super::NodeFacts;
use crate::model::{Conditions, Endpoint, ServicePort};
use crate::store::ServiceView;

/// The endpoints that may serve one port in one family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// For policy Cluster.
    pub cluster: BTreeSet<RealServerKey>,
    /// For policy Local.
    pub local: BTreeSet<RealServerKey>,
    /// Whether any endpoint, anywhere, could take a connection.
    pub any: bool,
}

impl Selection {
    /// Selects for one port of a Service.
    pub fn of(
        view: &ServiceView<'_>,
        port: &ServicePort,
        family: Family,
        node: &NodeFacts,
    ) -> Self {
        let candidates = candidates(view, port, family);
        let ready: Vec<_> = candidates
            .iter()
            .filter(|(_, endpoint)| endpoint.conditions.ready)
            .collect();
        let terminating: Vec<_> = candidates
            .iter()
            .filter(|(_, endpoint)| is_serving_while_terminating(endpoint.conditions))
            .collect();

        let topology = Topology::of(&ready.iter().map(|(_, endpoint)| *endpoint), node);
        let is_local = |endpoint: &Endpoint| endpoint.node.as_ref() == Some(&node.name);

        let mut cluster = keys(
            ready
                .iter()
                .filter(|(_, endpoint)| topology.allows(endpoint, node)),
        );
        if cluster.is_empty() {
            cluster = keys(terminating.iter());
        }
        let mut local = keys(ready.iter().filter(|(_, endpoint)| is_local(endpoint)));
        if local.is_empty() {
            local = keys(
                terminating
                    .iter()
                    .filter(|(_, endpoint)| is_local(endpoint)),
            );
        }
        Self {
            cluster,
            local,
            any: !ready.is_empty() || !terminating.is_empty(),
        }
    }
}

fn keys<'a>(
    endpoints: impl Iterator<Item = &'a (&'a RealServerKey, &'a &'a Endpoint)>,
) -> BTreeSet<RealServerKey> {
    endpoints.map(|(key, _)| **key).collect()
}

fn is_serving_while_terminating(conditions: Conditions) -> bool {
    !conditions.ready && conditions.serving && conditions.terminating
}

/// Every endpoint of the port once. Where slices disagree about one, the most useful state counts: an address is re-used by a new
/// pod while the slice of the old one is still there (kubernetes#135593).
fn candidates<'a>(
    view: &ServiceView<'a>,
    port: &ServicePort,
    family: Family,
) -> BTreeMap<RealServerKey, &'a Endpoint> {
    let mut candidates: BTreeMap<RealServerKey, &Endpoint> = BTreeMap::new();
    for slice in view.slices.iter().filter(|slice| slice.family == family) {
        let numbers = slice
            .ports
            .iter()
            .filter(|offered| offered.name == port.name && offered.protocol == port.protocol);
        for number in numbers {
            for endpoint in &slice.endpoints {
                let key = RealServerKey {
                    address: endpoint.address,
                    port: number.port.get(),
                };
                candidates
                    .entry(key)
                    .and_modify(|kept| {
                        if usefulness(endpoint.conditions) > usefulness(kept.conditions) {
                            *kept = endpoint;
                        }
                    })
                    .or_insert(endpoint);
            }
        }
    }
    candidates
}

fn usefulness(conditions: Conditions) -> (bool, bool, bool) {
    (
        conditions.ready,
        conditions.serving,
        !conditions.terminating,
    )
}

/// Which ready endpoints the hints leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topology {
    Anywhere,
    SameNode,
    SameZone,
}

impl Topology {
    fn of<'a>(ready: &(impl Iterator<Item = &'a &'a Endpoint> + Clone), node: &NodeFacts) -> Self {
        let all = |hinted: fn(&Endpoint) -> bool| {
            let mut endpoints = ready.clone().peekable();
            endpoints.peek().is_some() && endpoints.all(|endpoint| hinted(endpoint))
        };
        let here = |hinted: fn(&Endpoint, &NodeFacts) -> bool| {
            ready.clone().any(|endpoint| hinted(endpoint, node))
        };
        if all(|endpoint| !endpoint.hints.nodes.is_empty()) && here(is_hinted_for_node) {
            Self::SameNode
        } else if all(|endpoint| !endpoint.hints.zones.is_empty()) && here(is_hinted_for_zone) {
            Self::SameZone
        } else {
            Self::Anywhere
        }
    }

    fn allows(self, endpoint: &Endpoint, node: &NodeFacts) -> bool {
        match self {
            Self::Anywhere => true,
            Self::SameNode => is_hinted_for_node(endpoint, node),
            Self::SameZone => is_hinted_for_zone(endpoint, node),
        }
    }
}

fn is_hinted_for_node(endpoint: &Endpoint, node: &NodeFacts) -> bool {
    endpoint.hints.nodes.contains(&node.name)
}

fn is_hinted_for_zone(endpoint: &Endpoint, node: &NodeFacts) -> bool {
    node.zone
        .as_ref()
        .is_some_and(|zone| endpoint.hints.zones.contains(zone))
}
