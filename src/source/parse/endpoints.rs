//! Endpoints objects, turned into slices as the endpointslice-mirroring-controller of kube-controller-manager would.
//!
//! Whether they count is not decided here: only for Services without a selector, and only where no slice of the Service exists.

use std::net::IpAddr;
use std::sync::Arc;

use ipvs::Family;
use serde_json::Value;

use super::address;
use super::endpoint_slice::{HEADLESS, node_name, ports};
use super::field::{Field, Mapping, Report, Reported};
use super::metadata;
use crate::model::{
    Conditions, Endpoint, EndpointSlice, Endpoints, Finding, Hints, Kind, ObjectName, Parsed,
};

const WHOLE: &str = "its endpoints are not used";
const SUBSET: &str = "this subset is not used";
const ADDRESS: &str = "this endpoint is not used";

const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// `--mirroring-max-endpoints-per-subset` of kube-controller-manager, by default.
const MAX_ADDRESSES: usize = 1000;

/// Reads an Endpoints object (`v1`).
///
/// # Errors
///
/// A finding about the place if it has no usable name.
pub fn endpoints(value: &Value, place: &str) -> Result<Parsed<Endpoints>, Box<Finding>> {
    let mut report = metadata::report(Kind::Endpoints, value, place)?;
    let skip = metadata::entry(value, "labels", SKIP_MIRROR, &mut report);
    let headless = metadata::entry(value, "labels", HEADLESS, &mut report);
    let leader = metadata::entry(value, "annotations", LEADER, &mut report);
    let why = if skip == Some("true") {
        Some(format!("not to be mirrored (label {SKIP_MIRROR})"))
    } else if leader.is_some() {
        Some(format!("a leader election's lock (annotation {LEADER})"))
    } else if headless.is_some() {
        // The mirroring controller copies labels.
        Some(format!("marked headless (label {HEADLESS})"))
    } else {
        None
    };
    if let Some(why) = why {
        report.note(format!("{why}: not used"));
        return Ok(report.finish(None));
    }
    let endpoints = read(&Field::root(value), &mut report);
    Ok(report.finish(endpoints.ok()))
}

fn read(root: &Field<'_>, report: &mut Report) -> Result<Endpoints, Reported> {
    let object = root.mapping(report, WHOLE)?;
    let subsets = object.get("subsets");
    let mut slices = Vec::new();
    for (number, field) in subsets.list(report, WHOLE)?.enumerate() {
        if let Ok(subset) = subset(&field, number, report) {
            slices.extend(subset);
        }
    }
    Ok(Endpoints {
        name: report.name().clone(),
        slices,
    })
}

/// The slices of a subset: one for each family that it has addresses of.
fn subset(
    field: &Field<'_>,
    number: usize,
    report: &mut Report,
) -> Result<Vec<EndpointSlice>, Reported> {
    let subset = field.mapping(report, SUBSET)?;
    let ports = ports(&subset.get("ports"), report)?;
    let mut found = Found::default();
    addresses(subset, "addresses", Conditions::READY, &mut found, report);
    addresses(
        subset,
        "notReadyAddresses",
        Conditions::NOT_READY,
        &mut found,
        report,
    );
    if found.surplus > 0 {
        let problem = format!(
            "has {} addresses more than the {MAX_ADDRESSES} that are mirrored",
            found.surplus
        );
        report.finding(field, problem, "these endpoints are not used");
    }
    let service = report.name();
    let slice = |family, suffix: &str, endpoints: Vec<Endpoint>| EndpointSlice {
        name: ObjectName {
            namespace: Arc::clone(&service.namespace),
            name: format!("{}-mirrored-{number}-{suffix}", service.name).into(),
        },
        service: service.clone(),
        family,
        ports: ports.clone(),
        endpoints,
    };
    let (ipv4, ipv6): (Vec<_>, Vec<_>) = found
        .endpoints
        .into_iter()
        .partition(|endpoint| endpoint.address.is_ipv4());
    Ok([(Family::Ipv4, "ipv4", ipv4), (Family::Ipv6, "ipv6", ipv6)]
        .into_iter()
        .filter(|(_, _, endpoints)| !endpoints.is_empty())
        .map(|(family, suffix, endpoints)| slice(family, suffix, endpoints))
        .collect())
}

/// What a subset gives, and how much it would give beyond the limit.
#[derive(Debug, Default)]
struct Found {
    endpoints: Vec<Endpoint>,
    surplus: usize,
}

fn addresses(
    subset: Mapping<'_>,
    key: &str,
    conditions: Conditions,
    found: &mut Found,
    report: &mut Report,
) {
    let list = subset.get(key);
    let Ok(fields) = list.list(report, "these endpoints are not used") else {
        return;
    };
    for field in fields {
        // An address that cannot be used does not count towards the limit.
        let Ok((address, node)) = address(&field, report) else {
            continue;
        };
        if found.endpoints.len() < MAX_ADDRESSES {
            found.endpoints.push(Endpoint {
                address,
                conditions,
                node,
                hints: Hints::default(),
            });
        } else {
            found.surplus = found.surplus.saturating_add(1);
        }
    }
}

fn address(field: &Field<'_>, report: &mut Report) -> Result<(IpAddr, Option<Arc<str>>), Reported> {
    let mapping = field.mapping(report, ADDRESS)?;
    let ip = mapping.get("ip");
    let Some(address) = address::address(&ip, report, ADDRESS)? else {
        return Err(report.finding(&ip, "is missing", ADDRESS));
    };
    Ok((address, node_name(&mapping.get("nodeName"), report)))
}

#[cfg(test)]
mod tests;
