use std::num::NonZeroU16;

use ipvs::Protocol;
use serde_json::json;

use super::*;
use crate::model::EndpointPort;

fn parsed(value: &Value) -> Parsed<Endpoints> {
    endpoints(value, "here").unwrap()
}

fn with(subsets: &Value) -> Parsed<Endpoints> {
    parsed(&json!({"metadata": {"name": "db"}, "subsets": subsets}))
}

fn endpoint(address: &str, conditions: Conditions, node: Option<&str>) -> Endpoint {
    Endpoint {
        address: address.parse().unwrap(),
        conditions,
        node: node.map(Arc::from),
        hints: Hints::default(),
    }
}

#[test]
fn mirrors_subsets_to_slices_of_one_family() {
    let read = with(&json!([
        {
            "addresses": [{"ip": "192.0.2.1", "nodeName": "n1"}, {"ip": "2001:db8::1", "hostname": "x"}],
            "notReadyAddresses": [{"ip": "192.000.002.2"}],
            "ports": [{"port": 3306}],
        },
        {"addresses": [{"ip": "192.0.2.3"}], "ports": [{"name": "admin", "port": 33060, "protocol": "TCP"}]},
        {"addresses": [], "ports": [{"port": 1}]},
    ]));
    assert!(read.problems.is_empty(), "{:?}", read.problems);
    let slice = |name, family, port, endpoints| EndpointSlice {
        name: ObjectName::new("default", name),
        service: ObjectName::new("default", "db"),
        family,
        ports: vec![port],
        endpoints,
    };
    let port = |name: &str, port| EndpointPort {
        name: name.into(),
        port: NonZeroU16::new(port).unwrap(),
        protocol: Protocol::Tcp,
    };
    assert_eq!(
        read.value.unwrap(),
        Endpoints {
            name: ObjectName::new("default", "db"),
            slices: vec![
                slice(
                    "db-mirrored-0-ipv4",
                    Family::Ipv4,
                    port("", 3306),
                    vec![
                        endpoint("192.0.2.1", Conditions::READY, Some("n1")),
                        endpoint("192.0.2.2", Conditions::NOT_READY, None),
                    ],
                ),
                slice(
                    "db-mirrored-0-ipv6",
                    Family::Ipv6,
                    port("", 3306),
                    vec![endpoint("2001:db8::1", Conditions::READY, None)],
                ),
                slice(
                    "db-mirrored-1-ipv4",
                    Family::Ipv4,
                    port("admin", 33060),
                    vec![endpoint("192.0.2.3", Conditions::READY, None)],
                ),
            ],
        }
    );
}

#[test]
fn some_are_not_mirrored() {
    for (metadata, note) in [
        (
            json!({"name": "db", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}),
            Some("not to be mirrored (label endpointslice.kubernetes.io/skip-mirror): not used"),
        ),
        (
            json!({"name": "db", "labels": {"endpointslice.kubernetes.io/skip-mirror": "false"}}),
            None,
        ),
        (
            json!({"name": "db", "annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}}),
            Some(
                "a leader election's lock (annotation control-plane.alpha.kubernetes.io/leader): not used",
            ),
        ),
        (
            json!({"name": "db", "labels": {"service.kubernetes.io/headless": ""}}),
            Some("marked headless (label service.kubernetes.io/headless): not used"),
        ),
    ] {
        let read = parsed(&json!({"metadata": metadata, "subsets": []}));
        let notes: Vec<&str> = read
            .problems
            .notes
            .iter()
            .map(|n| n.text.as_str())
            .collect();
        assert_eq!(notes, Vec::from_iter(note), "{metadata}");
        assert_eq!(read.value.is_none(), note.is_some(), "{metadata}");
    }
}

#[test]
fn mirrors_a_thousand_addresses_of_a_subset_ready_ones_first() {
    let addresses = |third: u8, count: u16| -> Vec<Value> {
        (0..count)
            .map(|n| json!({"ip": format!("10.{third}.{}.{}", n / 250, n % 250 + 1)}))
            .collect()
    };
    let mut ready = addresses(1, 600);
    ready.insert(0, json!({"ip": "nonsense"}));
    let read = with(&json!([
        {"notReadyAddresses": addresses(2, 500), "addresses": ready, "ports": [{"port": 1}]},
        {"addresses": addresses(3, 1000)},
    ]));
    let findings: Vec<String> = read
        .problems
        .findings
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        findings,
        [
            "Endpoints default/db: subsets[0].addresses[0].ip: \"nonsense\" is not an IP address; this endpoint is not used",
            "Endpoints default/db: subsets[0]: has 100 addresses more than the 1000 that are mirrored; these endpoints are not used",
        ]
    );
    let slices = read.value.unwrap().slices;
    let ready = |slice: &EndpointSlice| {
        slice
            .endpoints
            .iter()
            .filter(|e| e.conditions.ready)
            .count()
    };
    assert_eq!(
        slices
            .iter()
            .map(|slice| slice.endpoints.len())
            .collect::<Vec<_>>(),
        [1000, 1000]
    );
    assert_eq!(slices.iter().map(ready).collect::<Vec<_>>(), [600, 1000]);
}

#[test]
fn a_fault_costs_its_part() {
    for (subset, found, left) in [
        (
            json!("x"),
            "subsets[0]: \"x\" is not a mapping; this subset is not used",
            0,
        ),
        (
            json!({"addresses": [{}]}),
            "subsets[0].addresses[0].ip: is missing; this endpoint is not used",
            0,
        ),
        (
            json!({"addresses": {}, "notReadyAddresses": [{"ip": "192.0.2.1"}]}),
            "subsets[0].addresses: a mapping is not a list; these endpoints are not used",
            1,
        ),
        (
            json!({"addresses": [{"ip": "127.0.0.1"}, {"ip": "192.0.2.1"}]}),
            "subsets[0].addresses[0].ip: 127.0.0.1 is a loopback address; this endpoint is not used",
            1,
        ),
    ] {
        let read = with(&json!([subset]));
        let findings: Vec<String> = read
            .problems
            .findings
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(findings, [format!("Endpoints default/db: {found}")]);
        let endpoints = read
            .value
            .unwrap()
            .slices
            .iter()
            .map(|slice| slice.endpoints.len())
            .sum::<usize>();
        assert_eq!(endpoints, left, "{subset}");
    }
    assert_eq!(with(&json!("x")).value, None);
}
