//! Our words for the cluster: Services, endpoints, the own node, and what could not be honoured in full.
//!
//! Nothing here knows Kubernetes' types, sockets or files; `source::parse` makes these values, everything behind it
//! only reads them.

pub mod endpoint;
pub mod finding;
pub mod node;
pub mod service;

pub use endpoint::{Conditions, Endpoint, EndpointPort, EndpointSlice, Endpoints, Hints};
pub use finding::{Finding, Kind, Note, ObjectName, Parsed, Problems, Subject};
pub use node::Node;
pub use service::{Affinity, Created, Service, ServicePort, ServiceType, TrafficPolicy};
