use std::num::NonZeroU16;

use ipvs::Protocol;
use serde_json::json;

use super::*;

fn parsed(value: &Value) -> Parsed<EndpointSlice> {
    endpoint_slice(value, "here").unwrap()
}

/// An IPv4 slice of Service `web`.
fn with(ports: &Value, endpoints: &Value) -> Parsed<EndpointSlice> {
    parsed(&json!({
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": endpoints,
    }))
}

fn findings(parsed: &Parsed<EndpointSlice>) -> Vec<String> {
    let lines = parsed.problems.findings.iter().map(ToString::to_string);
    lines
        .map(|line| line.replace("EndpointSlice default/web-1: ", ""))
        .collect()
}

fn port_of(name: &str, port: u16, protocol: Protocol) -> EndpointPort {
    EndpointPort {
        name: name.into(),
        port: NonZeroU16::new(port).unwrap(),
        protocol,
    }
}

fn ready(address: &str) -> Endpoint {
    Endpoint {
        address: address.parse().unwrap(),
        conditions: Conditions::READY,
        node: None,
        hints: Hints::default(),
    }
}

#[test]
fn reads_every_field() {
    let read = parsed(&json!({
        "metadata": {
            "name": "web-1",
            "namespace": "shop",
            "labels": {
                "kubernetes.io/service-name": "web",
                // Only looked at on Services.
                "service.kubernetes.io/service-proxy-name": "other",
            },
        },
        "addressType": "IPv6",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "x"}],
        "endpoints": [
            {
                "addresses": ["fd00:10::1", "fd00:10::2"],
                "conditions": {"ready": false, "serving": true, "terminating": true},
                "nodeName": "n1",
                "zone": "z1",
                "hints": {"forZones": [{"name": "z1"}, {"name": "z2"}], "forNodes": [{"name": "n1"}]},
                "targetRef": {"kind": "Pod", "name": "p"},
            },
            {"addresses": ["fd00:10::3"]},
        ],
    }));
    assert!(read.problems.is_empty(), "{:?}", read.problems);
    assert_eq!(
        read.value.unwrap(),
        EndpointSlice {
            name: ObjectName::new("shop", "web-1"),
            service: ObjectName::new("shop", "web"),
            family: Family::Ipv6,
            ports: vec![port_of("http", 8080, Protocol::Tcp)],
            endpoints: vec![
                Endpoint {
                    address: "fd00:10::1".parse().unwrap(),
                    conditions: Conditions {
                        ready: false,
                        serving: true,
                        terminating: true,
                    },
                    node: Some("n1".into()),
                    hints: Hints {
                        zones: vec!["z1".into(), "z2".into()],
                        nodes: vec!["n1".into()],
                    },
                },
                ready("fd00:10::3"),
            ],
        }
    );
}

#[test]
fn some_slices_are_not_for_a_proxy() {
    let labelled = json!({"kubernetes.io/service-name": "web"});
    for (labels, address_type, note) in [
        (
            json!({}),
            "IPv4",
            "no label kubernetes.io/service-name: of no Service, not used",
        ),
        (
            json!({"kubernetes.io/service-name": ""}),
            "IPv4",
            "no label kubernetes.io/service-name: of no Service, not used",
        ),
        (
            json!({"kubernetes.io/service-name": "web", "service.kubernetes.io/headless": ""}),
            "IPv4",
            "marked headless (label service.kubernetes.io/headless): not used",
        ),
        (
            labelled,
            "FQDN",
            "addressType FQDN: names are not addresses, not used",
        ),
    ] {
        let read = parsed(&json!({
            "metadata": {"name": "web-1", "labels": labels}, "addressType": address_type, "endpoints": [],
        }));
        assert_eq!(read.value, None, "{labels}");
        assert!(findings(&read).is_empty(), "{labels}");
        assert_eq!(read.problems.notes.len(), 1, "{labels}");
        assert_eq!(read.problems.notes[0].text, note, "{labels}");
    }
}

#[test]
fn some_faults_cost_the_slice() {
    let slice = |address_type: Value, ports: Value, endpoints: Value| {
        parsed(&json!({
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": address_type, "ports": ports, "endpoints": endpoints,
        }))
    };
    for (read, found) in [
        (
            slice(json!(null), json!([]), json!([])),
            "addressType: is missing; its endpoints are not used",
        ),
        (
            slice(json!("ipv4"), json!([]), json!([])),
            "addressType: \"ipv4\" is not IPv4 or IPv6; its endpoints are not used",
        ),
        (
            slice(json!("IPv4"), json!(80), json!([])),
            "ports: 80 is not a list; its endpoints are not used",
        ),
        (
            slice(json!("IPv4"), json!([]), json!({})),
            "endpoints: a mapping is not a list; its endpoints are not used",
        ),
    ] {
        assert_eq!(findings(&read), [found]);
        assert_eq!(read.value, None, "{found}");
    }
    let read = parsed(&json!({"metadata": {"name": "web-1", "labels": 5}}));
    assert_eq!(
        findings(&read),
        ["metadata.labels: 5 is not a mapping; it counts as absent"]
    );
}

#[test]
fn reads_ports() {
    for (ports, expected, found) in [
        (json!(null), vec![], vec![]),
        (json!([]), vec![], vec![]),
        (
            json!([{"port": 80}]),
            vec![port_of("", 80, Protocol::Tcp)],
            vec![],
        ),
        (
            json!([{"name": null, "port": 80, "protocol": null}]),
            vec![port_of("", 80, Protocol::Tcp)],
            vec![],
        ),
        // Without a number: all ports, which only means something to others.
        (
            json!([{"name": "x"}, {"name": "y", "port": 0}, {"name": "z", "port": null}]),
            vec![],
            vec![],
        ),
        (
            json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns", "port": 53}]),
            vec![
                port_of("dns", 53, Protocol::Udp),
                port_of("dns", 53, Protocol::Tcp),
            ],
            vec![],
        ),
        (
            json!([{"name": "a", "port": 65536}, {"name": "b", "port": 1}]),
            vec![port_of("b", 1, Protocol::Tcp)],
            vec!["ports[0].port: 65536 is not a port (1 to 65535); this port is not used"],
        ),
        (
            json!([{"name": "a", "port": 1}, {"name": "a", "port": 2}]),
            vec![port_of("a", 1, Protocol::Tcp)],
            vec!["ports[1]: the name \"a\" stands twice for TCP; this port is not used"],
        ),
        (
            json!([{"name": "a", "port": 1, "protocol": "ICMP"}]),
            vec![],
            vec!["ports[0].protocol: \"ICMP\" is not TCP, UDP or SCTP; this port is not used"],
        ),
    ] {
        let read = with(&ports, &json!([]));
        assert_eq!(findings(&read), found, "{ports}");
        assert_eq!(read.value.unwrap().ports, expected, "{ports}");
    }
}

#[test]
fn a_bad_endpoint_costs_only_itself() {
    for (bad, found) in [
        (
            json!({"addresses": ["10.0.0.256"]}),
            "endpoints[1].addresses[0]: \"10.0.0.256\" is not an IP address; this endpoint is not used",
        ),
        (
            json!({"addresses": ["fd00::1"]}),
            "endpoints[1].addresses[0]: fd00::1 is IPv6, but addressType is IPv4; this endpoint is not used",
        ),
        (
            json!({"addresses": ["169.254.0.1"]}),
            "endpoints[1].addresses[0]: 169.254.0.1 is a link-local address; this endpoint is not used",
        ),
        (
            json!({"addresses": []}),
            "endpoints[1].addresses: is empty; this endpoint is not used",
        ),
        (
            json!({}),
            "endpoints[1].addresses: is empty; this endpoint is not used",
        ),
        (
            json!({"addresses": [null]}),
            "endpoints[1].addresses[0]: is missing; this endpoint is not used",
        ),
        (
            json!({"addresses": "10.0.0.3"}),
            "endpoints[1].addresses: \"10.0.0.3\" is not a list; this endpoint is not used",
        ),
        (
            json!({"addresses": ["10.0.0.3"], "conditions": {"ready": "true"}}),
            "endpoints[1].conditions.ready: \"true\" is not true or false; this endpoint is not used",
        ),
        (
            json!("10.0.0.3"),
            "endpoints[1]: \"10.0.0.3\" is not a mapping; this endpoint is not used",
        ),
    ] {
        let read = with(
            &json!([]),
            &json!([{"addresses": ["10.0.0.1"]}, bad, {"addresses": ["010.0.0.2"]}]),
        );
        assert_eq!(findings(&read), [found]);
        assert_eq!(
            read.value.unwrap().endpoints,
            [ready("10.0.0.1"), ready("10.0.0.2")],
            "{bad}"
        );
    }
}

#[test]
fn lesser_faults_leave_the_endpoint() {
    for (endpoint, found) in [
        (
            json!({"addresses": ["10.0.0.1"], "nodeName": 1}),
            "endpoints[0].nodeName: 1 is not text; the endpoint counts as on no node",
        ),
        (
            json!({"addresses": ["10.0.0.1"], "hints": []}),
            "endpoints[0].hints: a list is not a mapping; the endpoint has no hints",
        ),
        (
            json!({"addresses": ["10.0.0.1"], "hints": {"forZones": [{"name": 1}]}}),
            "endpoints[0].hints.forZones[0].name: 1 is not text; this hint is not used",
        ),
        (
            json!({"addresses": ["10.0.0.1"], "hints": {"forNodes": "n1"}}),
            "endpoints[0].hints.forNodes: \"n1\" is not a list; this hint is not used",
        ),
    ] {
        let read = with(&json!([]), &json!([endpoint]));
        assert_eq!(findings(&read), [found]);
        assert_eq!(read.value.unwrap().endpoints, [ready("10.0.0.1")]);
    }
}

#[test]
fn absent_conditions_have_their_meaning() {
    let conditions = |ready, serving, terminating| Conditions {
        ready,
        serving,
        terminating,
    };
    for (given, expected) in [
        (json!(null), conditions(true, true, false)),
        (json!({}), conditions(true, true, false)),
        (
            json!({"ready": null, "serving": null, "terminating": null}),
            conditions(true, true, false),
        ),
        (json!({"ready": false}), conditions(false, true, false)),
        (
            json!({"ready": false, "serving": false}),
            conditions(false, false, false),
        ),
        (json!({"terminating": true}), conditions(true, true, true)),
    ] {
        let read = with(
            &json!([]),
            &json!([{"addresses": ["10.0.0.1"], "conditions": given}]),
        );
        assert!(read.problems.is_empty());
        assert_eq!(
            read.value.unwrap().endpoints[0].conditions,
            expected,
            "{given}"
        );
    }
}
