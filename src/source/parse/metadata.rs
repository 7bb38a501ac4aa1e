//! `metadata`: the name, without which an object cannot be spoken of, and the few other fields that matter.

use jiff::Timestamp;
use serde_json::Value;

use super::field::{Field, Report, show};
use super::unusable_finding;
use crate::model::{Created, Finding, Kind, ObjectName};

/// Starts the report about an object, which needs its name; where there is none the finding speaks of the place instead.
pub(super) fn report(kind: Kind, value: &Value, place: &str) -> Result<Report, Box<Finding>> {
    let refuse = |field: &str, value: Option<&Value>| {
        let problem = match value {
            None | Some(Value::Null) => format!("this {kind} has no name"),
            Some(value) => format!("{} is not a name that Kubernetes admits", show(value)),
        };
        Err(Box::new(unusable_finding(place, field, problem)))
    };
    let metadata = value.get("metadata");
    let field = |key| metadata.and_then(|metadata| metadata.get(key));
    let name = match field("name") {
        Some(Value::String(name)) if is_name(name) => name,
        other => return refuse("metadata.name", other),
    };
    let namespace = match field("namespace") {
        _ if kind == Kind::Node => "",
        None | Some(Value::Null) => "default",
        Some(Value::String(namespace)) if namespace.is_empty() => "default",
        Some(Value::String(namespace)) if is_name(namespace) => namespace,
        other => return refuse("metadata.namespace", other),
    };
    Ok(Report::new(kind, ObjectName::new(namespace, name)))
}

/// Names are shown in tables and logs as they are, so nothing but a Kubernetes name gets through.
fn is_name(text: &str) -> bool {
    let usual = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    !text.is_empty() && text.len() <= 253 && text.chars().all(usual)
}

/// A label or annotation, `metadata.<map>.<key>`, as text.
pub(super) fn entry<'a>(
    value: &'a Value,
    map: &str,
    key: &str,
    report: &mut Report,
) -> Option<&'a str> {
    const CONSEQUENCE: &str = "it counts as absent";
    let root = Field::root(value);
    let root = root.mapping(report, CONSEQUENCE).ok()?;
    let metadata = root.get("metadata");
    let metadata = metadata.mapping(report, CONSEQUENCE).ok()?;
    let entries = metadata.get(map);
    let entries = entries.mapping(report, CONSEQUENCE).ok()?;
    // The text borrows from the value, not from the path to it.
    entries.get(key).text(report, CONSEQUENCE).ok()??;
    value.get("metadata")?.get(map)?.get(key)?.as_str()
}

/// `metadata.creationTimestamp`.
pub(super) fn created(value: &Value, report: &mut Report) -> Option<Created> {
    const CONSEQUENCE: &str = "it counts as younger than any that says when it was created";
    let root = Field::root(value);
    let root = root.mapping(report, CONSEQUENCE).ok()?;
    let metadata = root.get("metadata");
    let metadata = metadata.mapping(report, CONSEQUENCE).ok()?;
    let field = metadata.get("creationTimestamp");
    let text = field.text(report, CONSEQUENCE).ok()??;
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(Created(timestamp.as_second()));
    }
    let problem = format!(
        "{} is not a time such as 2026-01-31T12:00:00Z",
        super::field::show_text(text)
    );
    report.finding(&field, problem, CONSEQUENCE);
    None
}
