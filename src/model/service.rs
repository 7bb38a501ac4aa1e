//! A Service, reduced to what decides about its virtual servers.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use ipvs::Protocol;

use super::ObjectName;

/// When an object was created: seconds since 1970 (`metadata.creationTimestamp`). Decides between two claims on one frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Created(pub i64);

/// A Service (`v1`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// When it was created; `None` for manifests that do not say, which count as younger than any that do.
    pub created: Option<Created>,
    /// `spec.type`.
    pub service_type: ServiceType,
    /// `spec.clusterIP` is `None`: no address of its own, on purpose.
    pub headless: bool,
    /// `spec.clusterIPs`, at most one of a family; empty if the cluster gave it none.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// Whether `spec.selector` has any entry. Endpoints objects count only for Services without one.
    pub has_selector: bool,
    /// `spec.sessionAffinity`; `None` is none.
    pub affinity: Option<Affinity>,
    /// `spec.internalTrafficPolicy`.
    pub internal_traffic_policy: TrafficPolicy,
}

/// `spec.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceType {
    /// Reached on its cluster IPs.
    ClusterIp,
    /// Reached on every node's port as well.
    NodePort,
    /// Reached on a load balancer's address as well.
    LoadBalancer,
    /// An alias in DNS; nothing to balance.
    ExternalName,
}

/// Which endpoints a policy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrafficPolicy {
    /// All of the cluster's.
    Cluster,
    /// Only those on this node.
    Local,
}

/// `spec.sessionAffinity: ClientIP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Affinity {
    /// `spec.sessionAffinityConfig.clientIP.timeoutSeconds`, 1 to 86,400.
    pub timeout: u32,
}

/// One of `spec.ports`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// `name`; empty for the only port of a Service that does not name it. Endpoints match by it.
    pub name: Arc<str>,
    /// `port`.
    pub port: NonZeroU16,
    /// `protocol`.
    pub protocol: Protocol,
}
