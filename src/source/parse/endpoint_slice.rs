//! EndpointSlices.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipvs::Family;
use serde_json::Value;

use super::address;
use super::field::{Field, Mapping, Report, Reported, show_text};
use super::metadata;
use crate::model::{
    Conditions, Endpoint, EndpointPort, EndpointSlice, Finding, Hints, Kind, ObjectName, Parsed,
};

const WHOLE: &str = "its endpoints are not used";
const ENDPOINT: &str = "this endpoint is not used";
const PORT: &str = "this port is not used";

/// Marks slices of headless Services; kube-proxy does not even ask for them.
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";

/// Reads an EndpointSlice (`discovery.k8s.io/v1`).
///
/// # Errors
///
/// A finding about the place if it has no usable name.
pub fn endpoint_slice(value: &Value, place: &str) -> Result<Parsed<EndpointSlice>, Box<Finding>> {
    let mut report = metadata::report(Kind::EndpointSlice, value, place)?;
    let service = metadata::entry(value, "labels", "kubernetes.io/service-name", &mut report);
    let headless = metadata::entry(value, "labels", HEADLESS, &mut report);
    let service = service.unwrap_or_default();
    if service.is_empty() {
        report.note("no label kubernetes.io/service-name: of no Service, not used");
        return Ok(report.finish(None));
    }
    if headless.is_some() {
        report.note(format!("marked headless (label {HEADLESS}): not used"));
        return Ok(report.finish(None));
    }
    let slice = read(&Field::root(value), service, &mut report);
    Ok(report.finish(slice.unwrap_or_default()))
}

fn read(
    root: &Field<'_>,
    service: &str,
    report: &mut Report,
) -> Result<Option<EndpointSlice>, Reported> {
    let object = root.mapping(report, WHOLE)?;
    let Some(family) = address_type(&object.get("addressType"), report)? else {
        return Ok(None);
    };
    let name = report.name().clone();
    Ok(Some(EndpointSlice {
        service: ObjectName {
            namespace: Arc::clone(&name.namespace),
            name: Arc::from(service),
        },
        name,
        family,
        ports: ports(&object.get("ports"), report)?,
        endpoints: endpoints(&object.get("endpoints"), family, report)?,
    }))
}

fn address_type(field: &Field<'_>, report: &mut Report) -> Result<Option<Family>, Reported> {
    match field.text(report, WHOLE)? {
        Some("IPv4") => Ok(Some(Family::Ipv4)),
        Some("IPv6") => Ok(Some(Family::Ipv6)),
        Some("FQDN") => {
            report.note("addressType FQDN: names are not addresses, not used");
            Ok(None)
        }
        Some(other) => {
            let problem = format!("{} is not IPv4 or IPv6", show_text(other));
            Err(report.finding(field, problem, WHOLE))
        }
        None => Err(report.finding(field, "is missing", WHOLE)),
    }
}

/// `ports` of a slice or a subset. One without a number (or with 0) means every port to some, but nothing to a proxy.
pub(super) fn ports(field: &Field<'_>, report: &mut Report) -> Result<Vec<EndpointPort>, Reported> {
    let mut ports = Vec::new();
    let mut taken = BTreeSet::new();
    for field in field.list(report, WHOLE)? {
        let Ok(Some(port)) = port(&field, report) else {
            continue;
        };
        if taken.insert((Arc::clone(&port.name), port.protocol)) {
            ports.push(port);
        } else {
            let problem = format!(
                "the name {} stands twice for {}",
                show_text(&port.name),
                port.protocol
            );
            report.finding(&field, problem, PORT);
        }
    }
    Ok(ports)
}

fn port(field: &Field<'_>, report: &mut Report) -> Result<Option<EndpointPort>, Reported> {
    let port = field.mapping(report, PORT)?;
    let number = port.get("port");
    let absent = number
        .value()
        .is_none_or(|number| number.as_i64() == Some(0));
    if absent {
        return Ok(None);
    }
    let number = address::port(&number, report, PORT)?;
    let protocol = address::protocol(&port.get("protocol"), report, PORT)?;
    let name = port.get("name");
    let name = address::port_name(&name, report, PORT)?;
    Ok(Some(EndpointPort {
        name: Arc::from(name),
        port: number,
        protocol,
    }))
}

fn endpoints(
    field: &Field<'_>,
    family: Family,
    report: &mut Report,
) -> Result<Vec<Endpoint>, Reported> {
    let fields = field.list(report, WHOLE)?;
    Ok(fields
        .filter_map(|field| endpoint(&field, family, report).ok())
        .collect())
}

fn endpoint(field: &Field<'_>, family: Family, report: &mut Report) -> Result<Endpoint, Reported> {
    let endpoint = field.mapping(report, ENDPOINT)?;
    let addresses = endpoint.get("addresses");
    let Some(first) = addresses.list(report, ENDPOINT)?.next() else {
        return Err(report.finding(&addresses, "is empty", ENDPOINT));
    };
    let Some(address) = address::address(&first, report, ENDPOINT)? else {
        return Err(report.finding(&first, "is missing", ENDPOINT));
    };
    if Family::of(address) != family {
        let problem = format!(
            "{address} is {}, but addressType is {family}",
            Family::of(address)
        );
        return Err(report.finding(&first, problem, ENDPOINT));
    }
    Ok(Endpoint {
        address,
        conditions: conditions(&endpoint.get("conditions"), report)?,
        node: node_name(&endpoint.get("nodeName"), report),
        hints: hints(&endpoint.get("hints"), report),
    })
}

/// A condition that cannot be read costs the endpoint: guessing might send connections to one that is down.
fn conditions(field: &Field<'_>, report: &mut Report) -> Result<Conditions, Reported> {
    let conditions = field.mapping(report, ENDPOINT)?;
    let mut read = |key| conditions.get(key).boolean(report, ENDPOINT);
    Ok(Conditions {
        ready: read("ready")?.unwrap_or(true),
        serving: read("serving")?.unwrap_or(true),
        terminating: read("terminating")?.unwrap_or(false),
    })
}

/// `nodeName`; one that cannot be read is that of no node.
pub(super) fn node_name(field: &Field<'_>, report: &mut Report) -> Option<Arc<str>> {
    let name = field
        .text(report, "the endpoint counts as on no node")
        .ok()??;
    (!name.is_empty()).then(|| Arc::from(name))
}

fn hints(field: &Field<'_>, report: &mut Report) -> Hints {
    let Ok(hints) = field.mapping(report, "the endpoint has no hints") else {
        return Hints::default();
    };
    Hints {
        zones: hinted(hints, "forZones", report),
        nodes: hinted(hints, "forNodes", report),
    }
}

fn hinted(hints: Mapping<'_>, key: &str, report: &mut Report) -> Vec<Arc<str>> {
    const CONSEQUENCE: &str = "this hint is not used";
    let list = hints.get(key);
    let Ok(fields) = list.list(report, CONSEQUENCE) else {
        return Vec::new();
    };
    fields
        .filter_map(|field| {
            let hint = field.mapping(report, CONSEQUENCE).ok()?;
            let name = hint.get("name");
            name.text(report, CONSEQUENCE)
                .ok()?
                .filter(|name| !name.is_empty())
                .map(Arc::from)
        })
        .collect()
}

#[cfg(test)]
mod tests;
