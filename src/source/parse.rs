//! The border: Kubernetes objects as JSON values in, the model's types out.
//!
//! Nothing here fails as a whole. A field that cannot be used becomes a finding that names object, field and value, and costs only
//! the part that depends on it: an endpoint, a port, an address. Fields that are absent or `null` get the API server's defaults,
//! fields that nobody here reads are not looked at. Manifests and a watch of the API server use the same functions.

use serde_json::Value;

use crate::model::{EndpointSlice, Endpoints, Finding, Node, Parsed, Service, Subject};

mod address;
mod endpoint_slice;
mod endpoints;
mod field;
mod metadata;
mod node;
mod service;

pub use endpoint_slice::endpoint_slice;
pub use endpoints::endpoints;
pub use node::node;
pub use service::service;

use field::show;

/// What a document, or an item of a list, turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// `v1` Service.
    Service(Parsed<Service>),
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice(Parsed<EndpointSlice>),
    /// `v1` Endpoints.
    Endpoints(Parsed<Endpoints>),
    /// `v1` Node.
    Node(Parsed<Node>),
    /// A kind that weir does not read, as `apiVersion kind`.
    Other(String),
    /// Not an object, or one without a usable name.
    Unusable(Finding),
}

/// An object and where it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The place, for people.
    pub place: String,
    /// The object.
    pub object: Object,
}

/// `apiVersion` and `kind`.
#[derive(Debug, Clone, Copy)]
struct TypeMeta<'a> {
    api_version: &'a str,
    kind: &'a str,
}

/// A value that should be one object, at a place such as `cluster.yaml: document 2`. A list is no object here; see [`objects`].
pub fn object(value: &Value, place: &str) -> Object {
    match type_meta(value, None, place) {
        Ok(meta) => object_of(meta, value, place),
        Err(finding) => Object::Unusable(*finding),
    }
}

/// The objects in a value: its items if it is a `List` or a list of a kind, itself otherwise. Items of a kind's list may leave out
/// `apiVersion` and `kind`, as those that the API server returns do.
pub fn objects(value: &Value, place: &str) -> Vec<Placed> {
    let mut found = Vec::new();
    collect(value, None, place, &mut found);
    found
}

fn collect(value: &Value, default: Option<TypeMeta<'_>>, place: &str, found: &mut Vec<Placed>) {
    let mut add = |object| {
        found.push(Placed {
            place: place.to_owned(),
            object,
        });
    };
    let meta = match type_meta(value, default, place) {
        Ok(meta) => meta,
        Err(finding) => return add(Object::Unusable(*finding)),
    };
    let Some(item_kind) = meta.kind.strip_suffix("List") else {
        return add(object_of(meta, value, place));
    };
    let items = match value.get("items") {
        None | Some(Value::Null) => return,
        Some(Value::Array(items)) => items,
        Some(other) => {
            let problem = format!("{} is not a list", show(other));
            return add(unusable(place, "items", problem));
        }
    };
    // A plain `List` says nothing of its items.
    let default = (!item_kind.is_empty()).then_some(TypeMeta {
        api_version: meta.api_version,
        kind: item_kind,
    });
    for (index, item) in items.iter().enumerate() {
        let place = format!("{place}, item {}", index.saturating_add(1));
        collect(item, default, &place, found);
    }
}

fn object_of(meta: TypeMeta<'_>, value: &Value, place: &str) -> Object {
    let object = match (meta.api_version, meta.kind) {
        ("v1", "Service") => service(value, place).map(Object::Service),
        ("discovery.k8s.io/v1", "EndpointSlice") => {
            endpoint_slice(value, place).map(Object::EndpointSlice)
        }
        ("v1", "Endpoints") => endpoints(value, place).map(Object::Endpoints),
        ("v1", "Node") => node(value, place).map(Object::Node),
        (api_version, kind) => Ok(Object::Other(format!("{api_version} {kind}"))),
    };
    object.unwrap_or_else(|finding| Object::Unusable(*finding))
}

fn type_meta<'a>(
    value: &'a Value,
    default: Option<TypeMeta<'a>>,
    place: &str,
) -> Result<TypeMeta<'a>, Box<Finding>> {
    let boxed = |field, problem| Err(Box::new(unusable_finding(place, field, problem)));
    if !value.is_object() {
        let problem = format!("{} is not a mapping with apiVersion and kind", show(value));
        return boxed("", problem);
    }
    let read = |field: &'static str, default: Option<&'a str>| match value.get(field) {
        Some(Value::String(text)) if is_type_name(text) => Ok(text.as_str()),
        None | Some(Value::Null) => default.ok_or((field, "is missing".to_owned())),
        Some(other) => Err((field, format!("{} does not name a type", show(other)))),
    };
    let api_version = read("apiVersion", default.map(|meta| meta.api_version));
    let kind = read("kind", default.map(|meta| meta.kind));
    match (api_version, kind) {
        (Ok(api_version), Ok(kind)) => Ok(TypeMeta { api_version, kind }),
        (_, Err((field, problem))) | (Err((field, problem)), Ok(_)) => boxed(field, problem),
    }
}

/// What an `apiVersion` or a `kind` can consist of; they are shown as they are.
fn is_type_name(text: &str) -> bool {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '/');
    !text.is_empty() && text.len() <= 253 && text.chars().all(usual)
}

fn unusable(place: &str, field: &str, problem: String) -> Object {
    Object::Unusable(unusable_finding(place, field, problem))
}

fn unusable_finding(place: &str, field: &str, problem: String) -> Finding {
    Finding {
        subject: Subject::File(place.to_owned()),
        field: field.to_owned(),
        problem,
        consequence: "nothing of it is used".to_owned(),
    }
}

#[cfg(test)]
mod tests;
