//! Where the cluster is read from, and the events that every source sends.
//!
//! A source reports each kind whole before anything is programmed: what a `Replaced` does not hold no longer exists, and a kind
//! that was never replaced is unknown, which is not empty.

use crate::model::{EndpointSlice, Endpoints, Node, ObjectName, Parsed, Problems, Service};

pub mod manifests;
pub mod parse;

/// A change of the cluster, as a source saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// About Services.
    Services(Change<Service>),
    /// About EndpointSlices.
    EndpointSlices(Change<EndpointSlice>),
    /// About Endpoints objects.
    Endpoints(Change<Endpoints>),
    /// About Nodes.
    Nodes(Change<Node>),
    /// What the source has to say about itself, such as a file that cannot be read; replaces what it said before.
    Source(Problems),
}

/// A change among the objects of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<T> {
    /// The object is now like this.
    Upsert(Parsed<T>),
    /// The object is gone.
    Remove(ObjectName),
    /// These are all the objects there are, each name once.
    Replaced(Vec<Parsed<T>>),
}
