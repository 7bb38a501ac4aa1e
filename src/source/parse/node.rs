//! Nodes: only the zone matters.

use std::sync::Arc;

use serde_json::Value;

use super::metadata;
use crate::model::{Finding, Kind, Node, Parsed};

/// Reads a Node (`v1`).
///
/// # Errors
///
/// A finding about the place if it has no usable name.
pub fn node(value: &Value, place: &str) -> Result<Parsed<Node>, Box<Finding>> {
    let mut report = metadata::report(Kind::Node, value, place)?;
    let zone = metadata::entry(value, "labels", "topology.kubernetes.io/zone", &mut report);
    let node = Node {
        name: Arc::clone(&report.name().name),
        // An empty zone is what a hint cannot name.
        zone: zone.filter(|zone| !zone.is_empty()).map(Arc::from),
    };
    Ok(report.finish(Some(node)))
}
