//! One Service, its endpoints and facts of the node, turned into claims. Pure: it sees one Service and knows nothing of others.
//!
//! The order:
//! 1. Services that have nothing to balance (ExternalName, headless) claim nothing, with a note.
//! 2. Each cluster IP is a VIP, whether or not anything can serve it: a connection to it must end here, not at a default route.
//! 3. Each cluster IP and port is a frontend; `endpoints` chooses what serves it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use ipvs::{
    Family, Netmask, Persistence, RealServerConfig, RealServerKey, Scheduler, VirtualServerConfig,
    Weight,
};

use crate::model::{
    Finding, Kind, Note, Problems, Service, ServicePort, ServiceType, Subject, TrafficPolicy,
};
use crate::store::ServiceView;
use crate::store::claims::{Claims, Frontend, FrontendClaim, Masquerade, Serving};

pub mod endpoints;
pub mod packet_rules;

use endpoints::Selection;

/// What is set for all Services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The scheduler of Services that name none.
    pub scheduler: Scheduler,
    /// Families that the node's kernel has; one that is disabled (`ipv6.disable=1`) can neither be balanced nor bound.
    pub families: BTreeSet<Family>,
    /// Ranges of the cluster's pods; for a family without any, the Node's own ranges count.
    pub cluster_cidrs: Vec<IpNet>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            scheduler: Scheduler::RoundRobin,
            families: [Family::Ipv4, Family::Ipv6].into(),
            cluster_cidrs: Vec::new(),
        }
    }
}

/// What resolving needs to know of the node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeFacts {
    /// The node's name, by which endpoints are local.
    pub name: Arc<str>,
    /// The node's zone; `None` matches no zone hint.
    pub zone: Option<Arc<str>>,
    /// The ranges of the node's pods.
    pub pod_cidrs: Vec<IpNet>,
}

/// What a Service claims.
pub fn resolve(view: &ServiceView<'_>, node: &NodeFacts, settings: &Settings) -> Claims {
    let service = view.service;
    let mut claims = Claims {
        created: service.created,
        ..Claims::default()
    };
    if service.service_type == ServiceType::ExternalName || service.headless {
        // The parser has said why; there is nothing to balance.
        return claims;
    }
    for address in &service.cluster_ips {
        let family = Family::of(*address);
        if !settings.families.contains(&family) {
            claims.problems.findings.push(Finding {
                subject: Subject::Object(Kind::Service, service.name.clone()),
                field: "spec.clusterIPs".to_owned(),
                problem: format!("{address} is {family}, which this node's kernel has disabled"),
                consequence: "it is not served on this node".to_owned(),
            });
            continue;
        }
        claims.vips.insert(*address);
        for port in &service.ports {
            let (serving, local) = serving(view, port, family, node);
            note_nothing_to_serve(service, port, family, &serving, &mut claims.problems);
            claims.frontends.insert(
                Frontend {
                    address: *address,
                    port: port.port,
                    protocol: port.protocol,
                },
                FrontendClaim {
                    port_name: Arc::clone(&port.name),
                    config: config(service, family, settings),
                    serving,
                    local,
                    masquerade: masquerade(family, node, settings),
                },
            );
        }
    }
    claims
}

fn config(service: &Service, family: Family, settings: &Settings) -> VirtualServerConfig {
    VirtualServerConfig {
        persistence: service.affinity.map(|affinity| Persistence {
            timeout: affinity.timeout,
            netmask: Netmask::host(family),
        }),
        ..VirtualServerConfig::new(settings.scheduler.clone())
    }
}

fn masquerade(family: Family, node: &NodeFacts, settings: &Settings) -> Masquerade {
    let ranges = packet_rules::pod_ranges(settings, node);
    if ranges
        .iter()
        .any(|range| Family::of(range.addr()) == family)
    {
        Masquerade::OffCluster
    } else {
        Masquerade::Nobody
    }
}

/// What serves a port, and which of its addresses are on this node.
fn serving(
    view: &ServiceView<'_>,
    port: &ServicePort,
    family: Family,
    node: &NodeFacts,
) -> (Serving, BTreeSet<IpAddr>) {
    let selection = Selection::of(view, port, family, node);
    let chosen = match view.service.internal_traffic_policy {
        TrafficPolicy::Cluster => &selection.cluster,
        TrafficPolicy::Local => &selection.local,
    };
    if chosen.is_empty() {
        let nothing = if selection.any {
            Serving::NoLocalEndpoints
        } else {
            Serving::NoEndpoints
        };
        return (nothing, BTreeSet::new());
    }
    let local = chosen
        .intersection(&selection.local)
        .map(|server| server.address);
    let servers: BTreeMap<RealServerKey, RealServerConfig> = chosen
        .iter()
        .map(|server| (*server, RealServerConfig::masquerade(Weight::ONE)))
        .collect();
    (Serving::RealServers(servers), local.collect())
}

fn note_nothing_to_serve(
    service: &Service,
    port: &ServicePort,
    family: Family,
    serving: &Serving,
    problems: &mut Problems,
) {
    let why = match serving {
        Serving::RealServers(_) => return,
        Serving::NoEndpoints => "no endpoint is ready: nothing to connect to yet",
        Serving::NoLocalEndpoints => {
            "internalTrafficPolicy is Local and no endpoint is on this node: not served here"
        }
    };
    let name = if port.name.is_empty() {
        String::new()
    } else {
        format!(" ({})", port.name)
    };
    problems.notes.push(Note {
        subject: Subject::Object(Kind::Service, service.name.clone()),
        text: format!(
            "port {}/{}{name}, {family}: {why}",
            port.port, port.protocol
        ),
    });
}
