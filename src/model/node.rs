//! The node that weir runs on, as the cluster describes it.

use std::sync::Arc;

use ipnet::IpNet;

/// A Node (`v1`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// Label `topology.kubernetes.io/zone`; `None` matches no zone hint.
    pub zone: Option<Arc<str>>,
    /// `spec.podCIDRs`, else `spec.podCIDR`.
    pub pod_cidrs: Vec<IpNet>,
}
