//! Nodes: the zone and the ranges of the pods.

use std::sync::Arc;

use ipnet::IpNet;
use serde_json::Value;

use super::field::{Field, Report, show_text};
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
        pod_cidrs: pod_cidrs(value, &mut report),
    };
    Ok(report.finish(Some(node)))
}

/// `spec.podCIDRs`, or `spec.podCIDR` where there are none. A range that cannot be read is left out.
fn pod_cidrs(value: &Value, report: &mut Report) -> Vec<IpNet> {
    const CONSEQUENCE: &str = "this range is not counted among the pods'";
    let root = Field::root(value);
    let Ok(mapping) = root.mapping(report, CONSEQUENCE) else {
        return Vec::new();
    };
    let spec = mapping.get("spec");
    let Ok(spec) = spec.mapping(report, CONSEQUENCE) else {
        return Vec::new();
    };
    let several = spec.get("podCIDRs");
    let single = spec.get("podCIDR");
    // What is no list is reported once and counts as absent.
    let fields: Vec<Field<'_>> = several
        .list(report, CONSEQUENCE)
        .map(Iterator::collect)
        .unwrap_or_default();
    let fields = if fields.is_empty() {
        vec![single]
    } else {
        fields
    };
    let mut ranges = Vec::new();
    for field in &fields {
        let Ok(Some(text)) = field.text(report, CONSEQUENCE) else {
            continue;
        };
        if text.is_empty() {
            continue;
        }
        if let Ok(range) = text.parse::<IpNet>() {
            ranges.push(range.trunc());
        } else {
            let problem = format!("{} is not a range of addresses", show_text(text));
            let _reported = report.finding(field, problem, CONSEQUENCE);
        }
    }
    ranges
}
