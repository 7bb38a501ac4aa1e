//! Services.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use ipvs::{Family, Protocol};
use serde_json::Value;

use super::address;
use super::field::{Field, Mapping, Report, Reported, show, show_text};
use super::metadata;
use crate::model::{
    Affinity, Finding, Kind, Parsed, Service, ServicePort, ServiceType, TrafficPolicy,
};

const WHOLE: &str = "the Service is not served";
const PORT: &str = "this port is not served";
const ADDRESS: &str = "this address is not served";

/// `sessionAffinityConfig.clientIP.timeoutSeconds`, as the API server defaults it: three hours.
const AFFINITY_TIMEOUT: u32 = 10_800;
/// The longest that the API server admits: a day.
const MAX_AFFINITY_TIMEOUT: u32 = 86_400;

/// Reads a Service (`v1`). `deletionTimestamp` is not looked at: a Service that waits for a finalizer still serves.
///
/// # Errors
///
/// A finding about the place if it has no usable name.
pub fn service(value: &Value, place: &str) -> Result<Parsed<Service>, Box<Finding>> {
    let mut report = metadata::report(Kind::Service, value, place)?;
    let proxy = metadata::entry(
        value,
        "labels",
        "service.kubernetes.io/service-proxy-name",
        &mut report,
    );
    if let Some(proxy) = proxy {
        report.note(format!(
            "left to another proxy (label service.kubernetes.io/service-proxy-name: {})",
            show_text(proxy)
        ));
        return Ok(report.finish(None));
    }
    let created = metadata::created(value, &mut report);
    let root = Field::root(value);
    let service = read(&root, &mut report).ok().map(|mut service| {
        service.created = created;
        service
    });
    Ok(report.finish(service))
}

fn read(root: &Field<'_>, report: &mut Report) -> Result<Service, Reported> {
    let object = root.mapping(report, WHOLE)?;
    let spec = object.get("spec");
    let spec = spec.mapping(report, WHOLE)?;
    let service_type = service_type(&spec.get("type"), report)?;
    let headless = is_headless(spec);
    let cluster_ips = if headless || service_type == ServiceType::ExternalName {
        Vec::new()
    } else {
        cluster_ips(spec, report)?
    };
    let service = Service {
        name: report.name().clone(),
        created: None,
        service_type,
        headless,
        cluster_ips,
        ports: ports(&spec.get("ports"), report)?,
        has_selector: has_selector(&spec.get("selector"), report),
        affinity: affinity(spec, report),
        internal_traffic_policy: internal_traffic_policy(
            &spec.get("internalTrafficPolicy"),
            report,
        ),
    };
    notes(&service, root, report);
    Ok(service)
}

/// A type that we do not know may mean anything, so it costs the Service.
fn service_type(field: &Field<'_>, report: &mut Report) -> Result<ServiceType, Reported> {
    match field.text(report, WHOLE)? {
        None | Some("" | "ClusterIP") => Ok(ServiceType::ClusterIp),
        Some("NodePort") => Ok(ServiceType::NodePort),
        Some("LoadBalancer") => Ok(ServiceType::LoadBalancer),
        Some("ExternalName") => Ok(ServiceType::ExternalName),
        Some(other) => {
            let problem = format!(
                "{} is not ClusterIP, NodePort, LoadBalancer or ExternalName",
                show_text(other)
            );
            Err(report.finding(field, problem, WHOLE))
        }
    }
}

/// `clusterIP` decides; where it is absent, the first of `clusterIPs`.
fn is_headless(spec: Mapping<'_>) -> bool {
    let none = Value::String("None".to_owned());
    match spec.get("clusterIP").value() {
        Some(Value::String(text)) if text.is_empty() => {}
        Some(value) => return *value == none,
        None => {}
    }
    match spec.get("clusterIPs").value() {
        Some(Value::Array(addresses)) => addresses.first() == Some(&none),
        _ => false,
    }
}

/// `clusterIPs`, or `clusterIP` where there are none; of each family the first counts.
fn cluster_ips(spec: Mapping<'_>, report: &mut Report) -> Result<Vec<IpAddr>, Reported> {
    let families = ip_families(&spec.get("ipFamilies"), report);
    let single = spec.get("clusterIP");
    let listed = spec.get("clusterIPs");
    let fields: Vec<Field<'_>> = listed.list(report, WHOLE)?.collect();
    let mut found = Vec::new();
    for field in &fields {
        if let Ok(Some(address)) = cluster_ip(field, &families, report) {
            if found
                .iter()
                .any(|&other| Family::of(other) == Family::of(address))
            {
                let problem = format!("{address} is a second {} cluster IP", Family::of(address));
                report.finding(field, problem, ADDRESS);
            } else {
                found.push(address);
            }
        }
    }
    if fields.is_empty() {
        found.extend(cluster_ip(&single, &families, report).ok().flatten());
    } else if let Some(text) = single.text(report, "spec.clusterIPs counts").ok().flatten()
        && !text.is_empty()
        && fields.first().and_then(Field::value) != single.value()
    {
        let problem = format!("{} is not the first of spec.clusterIPs", show_text(text));
        report.finding(&single, problem, "spec.clusterIPs counts");
    }
    Ok(found)
}

fn cluster_ip(
    field: &Field<'_>,
    families: &[Family],
    report: &mut Report,
) -> Result<Option<IpAddr>, Reported> {
    if field.value().and_then(Value::as_str) == Some("") {
        return Ok(None);
    }
    let Some(address) = address::address(field, report, ADDRESS)? else {
        return Ok(None);
    };
    let family = Family::of(address);
    if families.is_empty() || families.contains(&family) {
        Ok(Some(address))
    } else {
        let problem = format!("{address} is {family}, which spec.ipFamilies does not list");
        Err(report.finding(field, problem, ADDRESS))
    }
}

/// `ipFamilies`; empty allows both, which is how the API server defaults it.
fn ip_families(field: &Field<'_>, report: &mut Report) -> Vec<Family> {
    const CONSEQUENCE: &str = "it counts as absent";
    let mut families = Vec::new();
    let Ok(fields) = field.list(report, CONSEQUENCE) else {
        return families;
    };
    for field in fields {
        match field.text(report, CONSEQUENCE) {
            Ok(Some("IPv4")) => families.push(Family::Ipv4),
            Ok(Some("IPv6")) => families.push(Family::Ipv6),
            Ok(Some(other)) => {
                let problem = format!("{} is not IPv4 or IPv6", show_text(other));
                report.finding(&field, problem, CONSEQUENCE);
            }
            Ok(None) | Err(Reported) => {}
        }
    }
    families
}

fn ports(field: &Field<'_>, report: &mut Report) -> Result<Vec<ServicePort>, Reported> {
    let mut ports = Vec::new();
    let mut numbers = BTreeSet::new();
    let mut names = BTreeSet::new();
    for field in field.list(report, WHOLE)? {
        let Ok(port) = port(&field, report) else {
            continue;
        };
        // Both are asked before either is kept, so that a port which is left out takes nothing from a later one.
        let number_taken = numbers.contains(&(port.port, port.protocol));
        if number_taken {
            let problem = format!("{}/{} stands twice", port.port, port.protocol);
            report.finding(&field, problem, PORT);
        } else if names.contains(&port.name) {
            let problem = if port.name.is_empty() {
                "has no name, and neither has an earlier one".to_owned()
            } else {
                format!("the name {} stands twice", show_text(&port.name))
            };
            report.finding(&field, problem, PORT);
        } else {
            numbers.insert((port.port, port.protocol));
            names.insert(Arc::clone(&port.name));
            ports.push(port);
        }
    }
    Ok(ports)
}

fn port(field: &Field<'_>, report: &mut Report) -> Result<ServicePort, Reported> {
    let port = field.mapping(report, PORT)?;
    let number: NonZeroU16 = address::port(&port.get("port"), report, PORT)?;
    let protocol: Protocol = address::protocol(&port.get("protocol"), report, PORT)?;
    let name = port.get("name");
    let name = address::port_name(&name, report, PORT)?;
    Ok(ServicePort {
        name: Arc::from(name),
        port: number,
        protocol,
    })
}

/// A selector that cannot be read counts as one: endpoints written by hand must not take the place of a controller's.
fn has_selector(field: &Field<'_>, report: &mut Report) -> bool {
    field
        .mapping(report, "Endpoints objects are not used for this Service")
        .map_or(true, |selector| !selector.is_empty())
}

fn affinity(spec: Mapping<'_>, report: &mut Report) -> Option<Affinity> {
    const NONE: &str = "the Service has no session affinity";
    let field = spec.get("sessionAffinity");
    match field.text(report, NONE).ok()?? {
        "" | "None" => None,
        "ClientIP" => Some(Affinity {
            timeout: affinity_timeout(&spec.get("sessionAffinityConfig"), report),
        }),
        other => {
            let problem = format!("{} is not None or ClientIP", show_text(other));
            report.finding(&field, problem, NONE);
            None
        }
    }
}

fn affinity_timeout(config: &Field<'_>, report: &mut Report) -> u32 {
    let consequence = format!("it lasts {AFFINITY_TIMEOUT} seconds, as by default");
    let mut read = || {
        let config = config.mapping(report, &consequence).ok()?;
        let client_ip = config.get("clientIP");
        let client_ip = client_ip.mapping(report, &consequence).ok()?;
        let field = client_ip.get("timeoutSeconds");
        let seconds = field.number(report, &consequence).ok()??;
        let timeout = u32::try_from(seconds)
            .ok()
            .filter(|seconds| (1..=MAX_AFFINITY_TIMEOUT).contains(seconds));
        if timeout.is_none() {
            let problem = format!("{seconds} is not 1 to {MAX_AFFINITY_TIMEOUT} seconds");
            report.finding(&field, problem, &consequence);
        }
        timeout
    };
    read().unwrap_or(AFFINITY_TIMEOUT)
}

fn internal_traffic_policy(field: &Field<'_>, report: &mut Report) -> TrafficPolicy {
    const CONSEQUENCE: &str = "it counts as Cluster";
    match field.text(report, CONSEQUENCE) {
        Ok(Some("Local")) => TrafficPolicy::Local,
        Ok(None | Some("" | "Cluster")) | Err(Reported) => TrafficPolicy::Cluster,
        Ok(Some(other)) => {
            let problem = format!("{} is not Cluster or Local", show_text(other));
            report.finding(field, problem, CONSEQUENCE);
            TrafficPolicy::Cluster
        }
    }
}

/// What an operator may wonder about: why there is nothing to program, or what this version leaves out.
fn notes(service: &Service, root: &Field<'_>, report: &mut Report) {
    let Some(object) = root.value() else {
        return;
    };
    let spec = object.get("spec").unwrap_or(&Value::Null);
    if service.service_type == ServiceType::ExternalName {
        let name = spec.get("externalName").and_then(Value::as_str);
        report.note(format!(
            "DNS only (externalName {}): nothing to program",
            plain(name.unwrap_or_default())
        ));
        return;
    }
    if service.headless {
        report.note("headless (clusterIP None): nothing to program");
        return;
    }
    let given = |field| match spec.get(field) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(_) => true,
    };
    if service.cluster_ips.is_empty() && !given("clusterIP") && !given("clusterIPs") {
        report.note("no cluster IP: nothing to program until it has one");
    }
    for (field, values) in left_out(service.service_type, object, spec) {
        if !values.is_empty() {
            let rest = if service.cluster_ips.is_empty() {
                ""
            } else {
                "; the cluster IP is"
            };
            report.note(format!(
                "{field} {}: not served by this version{rest}",
                enumerate(&values)
            ));
        }
    }
}

/// Fields that this version does not serve, with their values.
fn left_out(
    service_type: ServiceType,
    object: &Value,
    spec: &Value,
) -> Vec<(&'static str, Vec<String>)> {
    let list = |value: Option<&Value>| match value {
        Some(Value::Array(list)) => list.clone(),
        _ => Vec::new(),
    };
    let shown = |value: &Value| value.as_str().map_or_else(|| show(value), plain);
    let outside = matches!(
        service_type,
        ServiceType::NodePort | ServiceType::LoadBalancer
    );
    let mut found = Vec::new();
    if outside {
        let node_ports = list(spec.get("ports"))
            .iter()
            .filter_map(|port| port.get("nodePort"))
            .filter(|port| !port.is_null() && port.as_i64() != Some(0))
            .map(show)
            .collect();
        found.push(("spec.ports[].nodePort", node_ports));
    }
    let external = list(spec.get("externalIPs"));
    let local = spec.get("externalTrafficPolicy").and_then(Value::as_str) == Some("Local");
    found.push((
        "spec.externalIPs",
        external.iter().map(shown).collect::<Vec<_>>(),
    ));
    if service_type == ServiceType::LoadBalancer {
        let ingress = list(object.pointer("/status/loadBalancer/ingress"))
            .iter()
            .filter_map(|ingress| ingress.get("ip"))
            .map(shown)
            .collect();
        found.push(("status.loadBalancer.ingress[].ip", ingress));
        let ranges = list(spec.get("loadBalancerSourceRanges"))
            .iter()
            .map(shown)
            .collect();
        found.push(("spec.loadBalancerSourceRanges", ranges));
    }
    if local && (outside || !external.is_empty()) {
        found.push(("spec.externalTrafficPolicy", vec!["Local".to_owned()]));
    }
    found
}

/// Text that is a host name, an address or a range, as it is; other text quoted.
fn plain(text: &str) -> String {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/');
    if !text.is_empty() && text.len() <= 253 && text.chars().all(usual) {
        text.to_owned()
    } else {
        show_text(text)
    }
}

fn enumerate(values: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown = values
        .iter()
        .take(SHOWN)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    match values.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
