use serde_json::json;

use super::*;

fn kinds(objects: &[Placed]) -> Vec<(String, String)> {
    objects
        .iter()
        .map(|placed| {
            let what = match &placed.object {
                Object::Service(parsed) => format!("Service {}", parsed.name),
                Object::EndpointSlice(parsed) => format!("EndpointSlice {}", parsed.name),
                Object::Endpoints(parsed) => format!("Endpoints {}", parsed.name),
                Object::Node(parsed) => format!("Node {}", parsed.name),
                Object::Other(kind) => format!("other {kind}"),
                Object::Unusable(finding) => finding.to_string(),
            };
            (placed.place.clone(), what)
        })
        .collect()
}

fn at(place: &str, what: &str) -> (String, String) {
    (place.to_owned(), what.to_owned())
}

#[test]
fn tells_kinds_apart() {
    for (value, expected) in [
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}),
            "Service default/web",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web", "namespace": "shop"}}),
            "Endpoints shop/web",
        ),
        (
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "web-1", "namespace": ""}}),
            "EndpointSlice default/web-1",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "namespace": "x"}}),
            "Node n1",
        ),
        (
            json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "web"}}),
            "other serving.knative.dev/v1 Service",
        ),
        (
            json!({"apiVersion": "discovery.k8s.io/v1beta1", "kind": "EndpointSlice"}),
            "other discovery.k8s.io/v1beta1 EndpointSlice",
        ),
        (
            json!({"kind": "Service"}),
            "here: apiVersion: is missing; nothing of it is used",
        ),
        (
            json!({"apiVersion": "v1"}),
            "here: kind: is missing; nothing of it is used",
        ),
        (
            json!({"apiVersion": 1, "kind": "Service"}),
            "here: apiVersion: 1 does not name a type; nothing of it is used",
        ),
        (
            json!({"apiVersion": "v1", "kind": "a\nb"}),
            "here: kind: \"a\\nb\" does not name a type; nothing of it is used",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service"}),
            "here: metadata.name: this Service has no name; nothing of it is used",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": []}),
            "here: metadata.name: this Service has no name; nothing of it is used",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": 8080}}),
            "here: metadata.name: 8080 is not a name that Kubernetes admits; nothing of it is used",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a b"}}),
            "here: metadata.name: \"a b\" is not a name that Kubernetes admits; nothing of it is used",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "\u{1b}[2J"}}),
            "here: metadata.namespace: \"\\u{1b}[2J\" is not a name that Kubernetes admits; nothing of it is used",
        ),
        (
            json!("text"),
            "here: \"text\" is not a mapping with apiVersion and kind; nothing of it is used",
        ),
    ] {
        let objects = objects(&value, "here");
        assert_eq!(kinds(&objects), [at("here", expected)], "{value}");
        assert_eq!(objects[0].object, object(&value, "here"), "{value}");
    }
}

#[test]
fn takes_lists_apart() {
    let node = |name| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    for (value, expected) in [
        (
            json!({"apiVersion": "v1", "kind": "List", "items": [node("a"), 7, node("b"), {"metadata": {}}]}),
            vec![
                at("f, item 1", "Node a"),
                at(
                    "f, item 2",
                    "f, item 2: 7 is not a mapping with apiVersion and kind; nothing of it is used",
                ),
                at("f, item 3", "Node b"),
                at(
                    "f, item 4",
                    "f, item 4: kind: is missing; nothing of it is used",
                ),
            ],
        ),
        // The API server leaves kind and version out of a list's items.
        (
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList", "items": [{"metadata": {"name": "s"}}]}),
            vec![at("f, item 1", "EndpointSlice default/s")],
        ),
        (
            json!({"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "p"}}]}),
            vec![at("f, item 1", "other v1 Pod")],
        ),
        (
            json!({"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "NodeList", "items": [{"metadata": {"name": "n"}}]}]}),
            vec![at("f, item 1, item 1", "Node n")],
        ),
        (
            json!({"apiVersion": "v1", "kind": "List", "items": null}),
            vec![],
        ),
        (json!({"apiVersion": "v1", "kind": "ServiceList"}), vec![]),
        (
            json!({"apiVersion": "v1", "kind": "List", "items": {}}),
            vec![at(
                "f",
                "f: items: a mapping is not a list; nothing of it is used",
            )],
        ),
    ] {
        assert_eq!(kinds(&objects(&value, "f")), expected, "{value}");
    }
}

#[test]
fn reads_the_zone_of_a_node() {
    for (labels, zone, findings) in [
        (json!({"topology.kubernetes.io/zone": "a"}), Some("a"), 0),
        (json!({"topology.kubernetes.io/zone": ""}), None, 0),
        (json!({"topology.kubernetes.io/zone": 1}), None, 1),
        (json!({}), None, 0),
        (json!(null), None, 0),
        (json!("zone"), None, 1),
    ] {
        let value = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": labels}});
        let parsed = node(&value, "here").unwrap();
        let read = parsed.value.unwrap();
        assert_eq!(read.zone.as_deref(), zone, "{value}");
        assert_eq!(&*read.name, "n");
        assert_eq!(parsed.problems.findings.len(), findings, "{value}");
    }
}

#[test]
fn shortens_and_escapes_what_it_shows() {
    let value = json!({"apiVersion": "v1", "kind": "Node", "metadata": {
        "name": "n",
        "labels": {"topology.kubernetes.io/zone": ["x"]},
    }});
    assert_eq!(
        node(&value, "here").unwrap().problems.findings[0].to_string(),
        "Node n: metadata.labels[\"topology.kubernetes.io/zone\"]: a list is not text; it counts as absent"
    );
    assert_eq!(
        show(&json!("é".repeat(100))),
        format!("\"{}…\"", "é".repeat(64))
    );
    assert_eq!(show(&json!("a\n\u{7}")), "\"a\\n\\u{7}\"");
    assert_eq!(show(&json!(null)), "null");
}
