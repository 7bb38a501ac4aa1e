//! Which endpoints serve a port, as a table. The first part holds the cases of kube-proxy's `TestCategorizeEndpoints` (Kubernetes
//! 1.36, `pkg/proxy/topology_test.go`), the second what comes before them there: slices, names, protocols, families.
//!
//! weir computes both lists and `any` for every Service port; what kube-proxy leaves out because a Service does not use it stands
//! here all the same.

use std::collections::BTreeSet;

use ipvs::{Family, RealServerKey};
use weir::model::{EndpointSlice, ServicePort};
use weir::resolve::NodeFacts;
use weir::resolve::endpoints::Selection;
use weir::store::ServiceView;

#[expect(dead_code, reason = "each test binary uses a part of it")]
mod support;

struct Case {
    name: &'static str,
    /// The zone of node-a.
    zone: Option<&'static str>,
    endpoints: &'static [&'static str],
    /// The last numbers of the addresses on the cluster list.
    cluster: &'static [u8],
    local: &'static [u8],
    any: bool,
}

const CASES: &[Case] = &[
    Case {
        name: "zone hints are followed",
        zone: Some("zone-a"),
        endpoints: &[
            "198.51.100.1 zones=zone-a",
            "198.51.100.2 zones=zone-b",
            "198.51.100.3 zones=zone-c",
            "198.51.100.4 zones=zone-a",
        ],
        cluster: &[1, 4],
        local: &[],
        any: true,
    },
    Case {
        name: "a node without a zone follows no zone hint",
        zone: None,
        endpoints: &["198.51.100.1 zones=zone-a", "198.51.100.2 zones=zone-b"],
        cluster: &[1, 2],
        local: &[],
        any: true,
    },
    Case {
        name: "an empty zone follows no zone hint",
        zone: Some(""),
        endpoints: &["198.51.100.1 zones=zone-a", "198.51.100.2 zones=zone-b"],
        cluster: &[1, 2],
        local: &[],
        any: true,
    },
    Case {
        name: "a zone without an endpoint is not filtered for",
        zone: Some("zone-b"),
        endpoints: &["198.51.100.1 zones=zone-a"],
        cluster: &[1],
        local: &[],
        any: true,
    },
    Case {
        name: "an endpoint in the node's zone",
        zone: Some("zone-a"),
        endpoints: &["198.51.100.1 zones=zone-a"],
        cluster: &[1],
        local: &[],
        any: true,
    },
    Case {
        name: "an unready endpoint of the zone is left out",
        zone: Some("zone-a"),
        endpoints: &[
            "198.51.100.1 zones=zone-a",
            "198.51.100.2 zones=zone-b",
            "198.51.100.3 zones=zone-c",
            "198.51.100.4 unready zones=zone-a",
        ],
        cluster: &[1],
        local: &[],
        any: true,
    },
    Case {
        name: "only unready endpoints in the zone: no filter",
        zone: Some("zone-a"),
        endpoints: &[
            "198.51.100.1 unready zones=zone-a",
            "198.51.100.2 zones=zone-b",
            "198.51.100.3 zones=zone-c",
            "198.51.100.4 unready zones=zone-a",
        ],
        cluster: &[2, 3],
        local: &[],
        any: true,
    },
    Case {
        name: "one ready endpoint without a hint: no filter",
        zone: Some("zone-a"),
        endpoints: &[
            "198.51.100.1 zones=zone-a",
            "198.51.100.2 zones=zone-b",
            "198.51.100.3 zones=zone-c",
            "198.51.100.4",
        ],
        cluster: &[1, 2, 3, 4],
        local: &[],
        any: true,
    },
    Case {
        name: "an unready endpoint without a hint does not end the filter",
        zone: Some("zone-a"),
        endpoints: &[
            "198.51.100.1 zones=zone-a",
            "198.51.100.2 zones=zone-b",
            "198.51.100.3 unready",
            "198.51.100.4 draining",
        ],
        cluster: &[1],
        local: &[],
        any: true,
    },
    Case {
        name: "several zones in one hint",
        zone: Some("zone-c"),
        endpoints: &[
            "198.51.100.1 zones=zone-a",
            "198.51.100.2 zones=zone-b,zone-c",
            "198.51.100.3 zones=zone-b,zone-d",
            "198.51.100.4 zones=zone-c",
        ],
        cluster: &[2, 4],
        local: &[],
        any: true,
    },
    Case {
        name: "topology and locality need not agree",
        zone: Some("zone-a"),
        endpoints: &[
            "198.51.100.1 zones=zone-a on=node-a",
            "198.51.100.2 zones=zone-b on=node-b",
            "198.51.100.3 zones=zone-a on=node-b",
            "198.51.100.4 zones=zone-b on=node-a",
        ],
        cluster: &[1, 3],
        local: &[1, 4],
        any: true,
    },
    Case {
        name: "no endpoint",
        zone: None,
        endpoints: &[],
        cluster: &[],
        local: &[],
        any: false,
    },
    Case {
        name: "all endpoints are elsewhere",
        zone: None,
        endpoints: &["198.51.100.1 on=node-b", "198.51.100.2 on=node-c"],
        cluster: &[1, 2],
        local: &[],
        any: true,
    },
    Case {
        name: "all endpoints are here",
        zone: None,
        endpoints: &["198.51.100.1 on=node-a", "198.51.100.2 on=node-a"],
        cluster: &[1, 2],
        local: &[1, 2],
        any: true,
    },
    Case {
        name: "some endpoints are here",
        zone: None,
        endpoints: &["198.51.100.1 on=node-a", "198.51.100.2 on=node-b"],
        cluster: &[1, 2],
        local: &[1],
        any: true,
    },
    Case {
        name: "an endpoint on no node is not here",
        zone: None,
        endpoints: &["198.51.100.1"],
        cluster: &[1],
        local: &[],
        any: true,
    },
    Case {
        name: "no endpoint is ready",
        zone: None,
        endpoints: &["198.51.100.1 unready on=node-a", "198.51.100.2 unready"],
        cluster: &[],
        local: &[],
        any: false,
    },
    Case {
        name: "some endpoints are ready",
        zone: None,
        endpoints: &["198.51.100.1 unready", "198.51.100.2"],
        cluster: &[2],
        local: &[],
        any: true,
    },
    Case {
        name: "all endpoints terminate: those that serve are used",
        zone: None,
        endpoints: &[
            "198.51.100.1 draining on=node-a",
            "198.51.100.2 ending on=node-a",
            "198.51.100.3 draining on=node-b",
        ],
        cluster: &[1, 3],
        local: &[1],
        any: true,
    },
    Case {
        name: "all endpoints terminate and none serves",
        zone: None,
        endpoints: &["198.51.100.1 ending on=node-a", "198.51.100.2 ending"],
        cluster: &[],
        local: &[],
        any: false,
    },
    Case {
        name: "the lists fall back each for itself",
        zone: None,
        endpoints: &[
            "198.51.100.1 draining on=node-a",
            "198.51.100.2 ending on=node-a",
            "198.51.100.3 on=node-b",
            "198.51.100.4 draining on=node-b",
        ],
        cluster: &[3],
        local: &[1],
        any: true,
    },
    Case {
        name: "a ready endpoint here keeps those that terminate out",
        zone: None,
        endpoints: &[
            "198.51.100.1 on=node-a",
            "198.51.100.2 draining on=node-a",
            "198.51.100.3 draining on=node-b",
        ],
        cluster: &[1],
        local: &[1],
        any: true,
    },
    Case {
        name: "the fallback to those that terminate ignores topology",
        zone: Some("zone-a"),
        endpoints: &[
            "198.51.100.1 draining zones=zone-a",
            "198.51.100.2 draining zones=zone-b",
        ],
        cluster: &[1, 2],
        local: &[],
        any: true,
    },
    Case {
        name: "what serves but is neither ready nor terminating is not used",
        zone: None,
        endpoints: &["198.51.100.1 starting on=node-a"],
        cluster: &[],
        local: &[],
        any: false,
    },
    Case {
        name: "what is published although it terminates is ready",
        zone: None,
        endpoints: &[
            "198.51.100.1 published on=node-a",
            "198.51.100.2 draining on=node-a",
        ],
        cluster: &[1],
        local: &[1],
        any: true,
    },
    Case {
        name: "node hints are followed",
        zone: Some("zone-a"),
        endpoints: &[
            "198.51.100.1 nodes=node-a zones=zone-a",
            "198.51.100.2 nodes=node-b zones=zone-a",
            "198.51.100.3 nodes=node-c zones=zone-b",
        ],
        cluster: &[1],
        local: &[],
        any: true,
    },
    Case {
        name: "node hints need no zone",
        zone: None,
        endpoints: &[
            "198.51.100.1 nodes=node-a,node-b",
            "198.51.100.2 nodes=node-b",
        ],
        cluster: &[1],
        local: &[],
        any: true,
    },
    Case {
        name: "node hints that leave nothing fall back to the zone",
        zone: Some("zone-a"),
        endpoints: &[
            "198.51.100.1 nodes=node-b zones=zone-a",
            "198.51.100.2 nodes=node-c zones=zone-a",
            "198.51.100.3 nodes=node-d zones=zone-b",
        ],
        cluster: &[1, 2],
        local: &[],
        any: true,
    },
    Case {
        name: "a ready endpoint without a node hint: zone hints decide",
        zone: Some("zone-a"),
        endpoints: &[
            "198.51.100.1 nodes=node-a zones=zone-a",
            "198.51.100.2 zones=zone-a",
            "198.51.100.3 nodes=node-c zones=zone-b",
        ],
        cluster: &[1, 2],
        local: &[],
        any: true,
    },
    Case {
        name: "neither node nor zone: no filter",
        zone: Some("zone-a"),
        endpoints: &[
            "198.51.100.1 nodes=node-b zones=zone-b",
            "198.51.100.2 nodes=node-c zones=zone-c",
        ],
        cluster: &[1, 2],
        local: &[],
        any: true,
    },
    Case {
        name: "the hinted node is not the node it runs on",
        zone: None,
        endpoints: &[
            "198.51.100.1 nodes=node-a on=node-b",
            "198.51.100.2 nodes=node-b on=node-a",
        ],
        cluster: &[1],
        local: &[2],
        any: true,
    },
];

fn facts(zone: Option<&str>) -> NodeFacts {
    NodeFacts {
        pod_cidrs: Vec::new(),
        name: support::OWN_NODE.into(),
        zone: zone.map(Into::into),
    }
}

/// Selects for a port of a Service that has these slices.
fn select(
    port: &str,
    family: Family,
    slices: &[EndpointSlice],
    zone: Option<&str>,
) -> support::Result<Selection> {
    let service = support::service("web", &[], &[port])?;
    let port: &ServicePort = service.ports.first().ok_or("no port")?;
    let view = ServiceView {
        service: &service,
        slices: slices.iter().collect(),
    };
    Ok(Selection::of(&view, port, family, &facts(zone)))
}

fn keys(servers: &[&str]) -> support::Result<BTreeSet<RealServerKey>> {
    servers
        .iter()
        .map(|text| support::real_server(text))
        .collect()
}

fn numbered(numbers: &[u8]) -> support::Result<BTreeSet<RealServerKey>> {
    let servers = numbers
        .iter()
        .map(|number| format!("198.51.100.{number}:8080"));
    servers.map(|text| support::real_server(&text)).collect()
}

#[test]
fn endpoints_are_categorised_as_kube_proxy_does() {
    let mut wrong = Vec::new();
    for case in CASES {
        let slice = support::slice("web-1", "web", &["8080/TCP"], case.endpoints).unwrap();
        let selection = select("80/TCP", Family::Ipv4, &[slice], case.zone).unwrap();
        let expected = Selection {
            cluster: numbered(case.cluster).unwrap(),
            local: numbered(case.local).unwrap(),
            any: case.any,
        };
        if selection != expected {
            wrong.push(format!("{}: {selection:#?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_order_of_endpoints_does_not_matter() {
    for case in CASES {
        let mut turned = case.endpoints.to_vec();
        turned.reverse();
        let [there, back] = [case.endpoints, &turned].map(|endpoints| {
            let slice = support::slice("web-1", "web", &["8080/TCP"], endpoints).unwrap();
            select("80/TCP", Family::Ipv4, &[slice], case.zone).unwrap()
        });
        assert_eq!(there, back, "{}", case.name);
    }
}

#[test]
fn endpoints_of_several_slices_come_together() {
    let slices = [
        support::slice("web-1", "web", &["8080/TCP"], &["198.51.100.1 on=node-a"]).unwrap(),
        support::slice("web-2", "web", &["8080/TCP"], &["198.51.100.2"]).unwrap(),
        support::slice("web-3", "web", &["8080/TCP"], &[]).unwrap(),
    ];
    let selection = select("80/TCP", Family::Ipv4, &slices, None).unwrap();
    assert_eq!(selection.cluster, numbered(&[1, 2]).unwrap());
    assert_eq!(selection.local, numbered(&[1]).unwrap());
}

#[test]
fn topology_is_decided_over_all_slices() {
    let slices = [
        support::slice(
            "web-1",
            "web",
            &["8080/TCP"],
            &["198.51.100.1 zones=zone-a"],
        )
        .unwrap(),
        support::slice("web-2", "web", &["8080/TCP"], &["198.51.100.2"]).unwrap(),
    ];
    let selection = select("80/TCP", Family::Ipv4, &slices, Some("zone-b")).unwrap();
    assert_eq!(selection.cluster, numbered(&[1, 2]).unwrap());
    let selection = select("80/TCP", Family::Ipv4, &slices[..1], Some("zone-a")).unwrap();
    assert_eq!(selection.cluster, numbered(&[1]).unwrap());
}

#[test]
fn a_named_port_may_have_another_number_in_each_slice() {
    let slices = [
        support::slice("web-1", "web", &["http:8080/TCP"], &["198.51.100.1"]).unwrap(),
        support::slice("web-2", "web", &["http:9090/TCP"], &["198.51.100.2"]).unwrap(),
    ];
    let selection = select("http:80/TCP", Family::Ipv4, &slices, None).unwrap();
    let expected = keys(&["198.51.100.1:8080", "198.51.100.2:9090"]).unwrap();
    assert_eq!(selection.cluster, expected);
}

#[test]
fn a_port_matches_by_name_and_protocol() {
    let ports = [
        "http:8080/TCP",
        "http:8081/UDP",
        "admin:9090/TCP",
        "9091/TCP",
        "7:9092/SCTP",
    ];
    let slice = support::slice("web-1", "web", &ports, &["198.51.100.1"]).unwrap();
    for (port, expected) in [
        ("http:80/TCP", &["198.51.100.1:8080"][..]),
        ("http:80/UDP", &["198.51.100.1:8081"]),
        ("admin:80/TCP", &["198.51.100.1:9090"]),
        ("80/TCP", &["198.51.100.1:9091"]),
        ("7:80/SCTP", &["198.51.100.1:9092"]),
        ("admin:80/UDP", &[]),
        ("http:80/SCTP", &[]),
        ("other:80/TCP", &[]),
        ("80/UDP", &[]),
    ] {
        let slices = std::slice::from_ref(&slice);
        let selection = select(port, Family::Ipv4, slices, None).unwrap();
        assert_eq!(selection.cluster, keys(expected).unwrap(), "{port}");
        assert_eq!(selection.any, !expected.is_empty(), "{port}");
    }
}

#[test]
fn each_family_has_its_own_endpoints() {
    let slices = [
        support::slice("web-1", "web", &["8080/TCP"], &["198.51.100.1 on=node-a"]).unwrap(),
        support::slice("web-2", "web", &["8080/TCP"], &["2001:db8:1::1"]).unwrap(),
    ];
    let selection = select("80/TCP", Family::Ipv4, &slices, None).unwrap();
    assert_eq!(selection.cluster, keys(&["198.51.100.1:8080"]).unwrap());
    let selection = select("80/TCP", Family::Ipv6, &slices, None).unwrap();
    assert_eq!(selection.cluster, keys(&["[2001:db8:1::1]:8080"]).unwrap());
    assert!(selection.local.is_empty());
    let selection = select("80/TCP", Family::Ipv6, &slices[..1], None).unwrap();
    assert_eq!(selection, Selection::default());
}

/// kube-proxy left it to chance (kubernetes#135593, and seen on 1.36.2): an address in two slices, ready in one of them.
#[test]
fn an_address_in_two_slices_counts_once_and_in_its_best_state() {
    for (worse, better, cluster, any) in [
        ("unready", "ready", &[1][..], true),
        ("draining", "ready", &[1], true),
        ("ending", "ready", &[1], true),
        ("unready", "draining", &[1], true),
        ("ending", "draining", &[1], true),
        ("ending", "unready", &[], false),
        ("ready", "ready", &[1], true),
    ] {
        for order in [[worse, better], [better, worse]] {
            let slices = order.map(|state| {
                let endpoint = format!("198.51.100.1 {state} on=node-a");
                support::slice("web", "web", &["8080/TCP"], &[&endpoint]).unwrap()
            });
            let selection = select("80/TCP", Family::Ipv4, &slices, None).unwrap();
            assert_eq!(selection.cluster, numbered(cluster).unwrap(), "{order:?}");
            assert_eq!(selection.local, numbered(cluster).unwrap(), "{order:?}");
            assert_eq!(selection.any, any, "{order:?}");
        }
    }
}

#[test]
fn the_better_state_brings_its_node_and_hints_with_it() {
    let states = [
        "198.51.100.1 ending on=node-a zones=zone-b",
        "198.51.100.1 ready on=node-b zones=zone-a",
    ];
    for order in [[0, 1], [1, 0]] {
        let slices = order.map(|index: usize| {
            support::slice("web", "web", &["8080/TCP"], &[states[index]]).unwrap()
        });
        let selection = select("80/TCP", Family::Ipv4, &slices, Some("zone-a")).unwrap();
        assert_eq!(selection.cluster, numbered(&[1]).unwrap());
        assert!(selection.local.is_empty(), "{order:?}");
    }
}
