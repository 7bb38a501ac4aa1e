//! Endpoints of Services: EndpointSlices, and Endpoints objects turned into the same shape.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use ipvs::{Family, Protocol};

use super::ObjectName;

/// An EndpointSlice (`discovery.k8s.io/v1`) of one Service and one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name of the slice.
    pub name: ObjectName,
    /// The Service that its label `kubernetes.io/service-name` names, in the slice's namespace.
    pub service: ObjectName,
    /// `addressType`.
    pub family: Family,
    /// `ports`, without those that have no number.
    pub ports: Vec<EndpointPort>,
    /// `endpoints`, each with its first address.
    pub endpoints: Vec<Endpoint>,
}

/// An Endpoints object (`v1`), its subsets in the shape of slices that a mirroring controller would write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// Namespace and name, which are the Service's as well.
    pub name: ObjectName,
    /// One slice a subset and family.
    pub slices: Vec<EndpointSlice>,
}

/// One of a slice's `ports`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointPort {
    /// `name`; matched with the Service port's name.
    pub name: Arc<str>,
    /// `port`: where the endpoint listens.
    pub port: NonZeroU16,
    /// `protocol`; matched with the Service port's.
    pub protocol: Protocol,
}

/// One of a slice's `endpoints`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `addresses[0]`; the API gives the others no meaning.
    pub address: IpAddr,
    /// `conditions`.
    pub conditions: Conditions,
    /// `nodeName`; `None` is on no node we know, so never local.
    pub node: Option<Arc<str>>,
    /// `hints`.
    pub hints: Hints,
}

/// `conditions` of an endpoint, with what absence means already filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conditions {
    /// Absent means true.
    pub ready: bool,
    /// Absent means true.
    pub serving: bool,
    /// Absent means false.
    pub terminating: bool,
}

impl Conditions {
    /// Ready and not on its way out.
    pub const READY: Self = Self {
        ready: true,
        serving: true,
        terminating: false,
    };
    /// Not ready, and not terminating either: never used.
    pub const NOT_READY: Self = Self {
        ready: false,
        serving: false,
        terminating: false,
    };
}

/// `hints` of an endpoint: where the controller would like it to be used. Empty is no hint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Hints {
    /// `forZones[].name`.
    pub zones: Vec<Arc<str>>,
    /// `forNodes[].name`.
    pub nodes: Vec<Arc<str>>,
}
