use serde_json::json;

use super::*;
use crate::model::{Created, ObjectName};

fn parsed(value: &Value) -> Parsed<Service> {
    service(value, "here").unwrap()
}

fn with(spec: &Value) -> Parsed<Service> {
    parsed(&json!({"metadata": {"name": "web"}, "spec": spec}))
}

fn findings(parsed: &Parsed<Service>) -> Vec<String> {
    let lines = parsed.problems.findings.iter().map(ToString::to_string);
    lines
        .map(|line| line.replace("Service default/web: ", ""))
        .collect()
}

fn notes(parsed: &Parsed<Service>) -> Vec<&str> {
    let notes = parsed.problems.notes.iter();
    notes.map(|note| note.text.as_str()).collect()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn port_of(name: &str, port: u16, protocol: Protocol) -> ServicePort {
    ServicePort {
        name: name.into(),
        port: NonZeroU16::new(port).unwrap(),
        protocol,
    }
}

#[test]
fn fills_in_what_the_api_server_would() {
    let read = with(&json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}));
    assert!(read.problems.is_empty(), "{:?}", read.problems);
    assert_eq!(
        read.value.unwrap(),
        Service {
            name: ObjectName::new("default", "web"),
            created: None,
            service_type: ServiceType::ClusterIp,
            headless: false,
            cluster_ips: ips(&["10.96.0.1"]),
            ports: vec![port_of("", 80, Protocol::Tcp)],
            has_selector: false,
            affinity: None,
            internal_traffic_policy: TrafficPolicy::Cluster,
        }
    );
}

#[test]
fn reads_every_field() {
    let read = parsed(&json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "dns",
            "namespace": "kube-system",
            "creationTimestamp": "1970-01-02T00:00:01Z",
            "deletionTimestamp": "2026-01-01T00:00:00Z",
            "unknown": [{}],
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "10.96.0.10",
            "clusterIPs": ["10.96.0.10", "fd00:96::a"],
            "ipFamilies": ["IPv4", "IPv6"],
            "selector": {"app": "dns"},
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            "internalTrafficPolicy": "Local",
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "appProtocol": "dns"},
                {"name": "sctp", "port": 53, "protocol": "SCTP"},
            ],
        },
    }));
    assert!(read.problems.is_empty(), "{:?}", read.problems);
    assert_eq!(
        read.value.unwrap(),
        Service {
            name: ObjectName::new("kube-system", "dns"),
            created: Some(Created(86_401)),
            service_type: ServiceType::ClusterIp,
            headless: false,
            cluster_ips: ips(&["10.96.0.10", "fd00:96::a"]),
            ports: vec![
                port_of("dns", 53, Protocol::Udp),
                port_of("dns-tcp", 53, Protocol::Tcp),
                port_of("sctp", 53, Protocol::Sctp),
            ],
            has_selector: true,
            affinity: Some(Affinity { timeout: 60 }),
            internal_traffic_policy: TrafficPolicy::Local,
        }
    );
}

#[test]
fn takes_at_most_one_cluster_ip_of_a_family() {
    for (spec, expected, found) in [
        (
            json!({"clusterIP": "010.96.000.1"}),
            ips(&["10.96.0.1"]),
            vec![],
        ),
        (
            json!({"clusterIPs": ["10.96.0.1"]}),
            ips(&["10.96.0.1"]),
            vec![],
        ),
        (
            json!({"clusterIP": "", "clusterIPs": ["fd00::1", "10.96.0.1"]}),
            ips(&["fd00::1", "10.96.0.1"]),
            vec![],
        ),
        (
            json!({"clusterIPs": ["10.96.0.1", "10.96.0.2", "fd00::1"]}),
            ips(&["10.96.0.1", "fd00::1"]),
            vec![
                "spec.clusterIPs[1]: 10.96.0.2 is a second IPv4 cluster IP; this address is not served",
            ],
        ),
        (
            json!({"clusterIPs": ["10.96.0.1", "fd00::1%eth0"]}),
            ips(&["10.96.0.1"]),
            vec![
                "spec.clusterIPs[1]: \"fd00::1%eth0\" is not an IP address; this address is not served",
            ],
        ),
        (
            json!({"clusterIPs": ["10.96.0.1", "fd00::1"], "ipFamilies": ["IPv4"]}),
            ips(&["10.96.0.1"]),
            vec![
                "spec.clusterIPs[1]: fd00::1 is IPv6, which spec.ipFamilies does not list; this address is not served",
            ],
        ),
        (
            json!({"clusterIP": "10.96.0.1", "ipFamilies": ["IPv5"]}),
            ips(&["10.96.0.1"]),
            vec!["spec.ipFamilies[0]: \"IPv5\" is not IPv4 or IPv6; it counts as absent"],
        ),
        (
            json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.1"]}),
            ips(&["10.96.0.1"]),
            vec![
                "spec.clusterIP: \"10.96.0.9\" is not the first of spec.clusterIPs; spec.clusterIPs counts",
            ],
        ),
        (
            json!({"clusterIP": "127.0.0.1"}),
            vec![],
            vec!["spec.clusterIP: 127.0.0.1 is a loopback address; this address is not served"],
        ),
        (
            json!({"clusterIP": "::ffff:10.96.0.1"}),
            vec![],
            vec![
                "spec.clusterIP: ::ffff:10.96.0.1 is an IPv4 address mapped to IPv6; this address is not served",
            ],
        ),
        (
            json!({"clusterIP": 10}),
            vec![],
            vec!["spec.clusterIP: 10 is not text; this address is not served"],
        ),
    ] {
        let read = with(&spec);
        assert_eq!(findings(&read), found, "{spec}");
        assert!(notes(&read).is_empty(), "{spec}");
        assert_eq!(read.value.unwrap().cluster_ips, expected, "{spec}");
    }
}

#[test]
fn a_bad_port_costs_only_itself() {
    let good = json!({"name": "good", "port": 443});
    for (bad, found) in [
        (
            json!({"name": "x", "port": 70000}),
            "spec.ports[1].port: 70000 is not a port (1 to 65535); this port is not served",
        ),
        (
            json!({"name": "x", "port": 0}),
            "spec.ports[1].port: 0 is not a port (1 to 65535); this port is not served",
        ),
        (
            json!({"name": "x", "port": -1}),
            "spec.ports[1].port: -1 is not a port (1 to 65535); this port is not served",
        ),
        (
            json!({"name": "x", "port": 80.5}),
            "spec.ports[1].port: 80.5 is not a port (1 to 65535); this port is not served",
        ),
        (
            json!({"name": "x", "port": "80"}),
            "spec.ports[1].port: \"80\" is text, not a number; this port is not served",
        ),
        (
            json!({"name": "x"}),
            "spec.ports[1].port: is missing; this port is not served",
        ),
        (
            json!({"name": "x", "port": 80, "protocol": "tcp"}),
            "spec.ports[1].protocol: \"tcp\" is not TCP, UDP or SCTP; this port is not served",
        ),
        (
            json!({"name": 8080, "port": 80}),
            "spec.ports[1].name: 8080 is not text; this port is not served",
        ),
        (
            json!({"name": "Web Port", "port": 80}),
            "spec.ports[1].name: \"Web Port\" is not a port's name (lower-case letters, digits and -, at most 63); this port is not served",
        ),
        (
            json!({"name": "x", "port": 443}),
            "spec.ports[1]: 443/TCP stands twice; this port is not served",
        ),
        (
            json!({"name": "good", "port": 80}),
            "spec.ports[1]: the name \"good\" stands twice; this port is not served",
        ),
        (
            json!(80),
            "spec.ports[1]: 80 is not a mapping; this port is not served",
        ),
        (
            json!(null),
            "spec.ports[1].port: is missing; this port is not served",
        ),
    ] {
        let last = json!({"name": "last", "port": 80});
        let spec = json!({"clusterIP": "10.96.0.1", "ports": [good, bad, last]});
        let read = with(&spec);
        assert_eq!(findings(&read), [found], "{spec}");
        assert_eq!(
            read.value.unwrap().ports,
            [
                port_of("good", 443, Protocol::Tcp),
                port_of("last", 80, Protocol::Tcp)
            ],
            "{spec}"
        );
    }
}

#[test]
fn a_second_port_without_a_name_is_a_finding() {
    let read = with(&json!({"clusterIP": "10.96.0.1", "ports": [{"port": 1}, {"port": 2}]}));
    assert_eq!(
        findings(&read),
        ["spec.ports[1]: has no name, and neither has an earlier one; this port is not served"]
    );
    assert_eq!(read.value.unwrap().ports.len(), 1);
}

#[test]
fn one_number_may_serve_two_protocols() {
    let read = with(&json!({"clusterIP": "10.96.0.1", "ports": [
        {"name": "a", "port": 53, "protocol": "UDP"}, {"name": "b", "port": 53},
    ]}));
    assert!(read.problems.is_empty());
    assert_eq!(read.value.unwrap().ports.len(), 2);
}

#[test]
fn some_faults_cost_the_service() {
    for (spec, found) in [
        (
            json!({"type": "Clusterip"}),
            "spec.type: \"Clusterip\" is not ClusterIP, NodePort, LoadBalancer or ExternalName; the Service is not served",
        ),
        (
            json!({"type": 1}),
            "spec.type: 1 is not text; the Service is not served",
        ),
        (
            json!("spec"),
            "spec: \"spec\" is not a mapping; the Service is not served",
        ),
        (
            json!({"clusterIP": "10.96.0.1", "ports": {"port": 80}}),
            "spec.ports: a mapping is not a list; the Service is not served",
        ),
        (
            json!({"clusterIPs": "10.96.0.1"}),
            "spec.clusterIPs: \"10.96.0.1\" is not a list; the Service is not served",
        ),
    ] {
        let read = with(&spec);
        assert_eq!(findings(&read), [found], "{spec}");
        assert_eq!(read.value, None, "{spec}");
    }
}

#[test]
fn reads_affinity() {
    let config = |seconds: Value| json!({"clientIP": {"timeoutSeconds": seconds}});
    let default = Some(Affinity { timeout: 10_800 });
    for (affinity, config, expected, found) in [
        (json!(null), json!(null), None, None),
        (json!("None"), config(json!(5)), None, None),
        (json!("ClientIP"), json!(null), default, None),
        (
            json!("ClientIP"),
            config(json!(1)),
            Some(Affinity { timeout: 1 }),
            None,
        ),
        (
            json!("ClientIP"),
            config(json!(86_400)),
            Some(Affinity { timeout: 86_400 }),
            None,
        ),
        (
            json!("ClientIP"),
            config(json!(86_401)),
            default,
            Some(
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: 86401 is not 1 to 86400 seconds; it lasts 10800 seconds, as by default",
            ),
        ),
        (
            json!("ClientIP"),
            config(json!(0)),
            default,
            Some(
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: 0 is not 1 to 86400 seconds; it lasts 10800 seconds, as by default",
            ),
        ),
        (
            json!("ClientIP"),
            config(json!("3h")),
            default,
            Some(
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: \"3h\" is not a whole number; it lasts 10800 seconds, as by default",
            ),
        ),
        (
            json!("Client"),
            json!(null),
            None,
            Some(
                "spec.sessionAffinity: \"Client\" is not None or ClientIP; the Service has no session affinity",
            ),
        ),
    ] {
        let read = with(&json!({
            "clusterIP": "10.96.0.1",
            "sessionAffinity": affinity,
            "sessionAffinityConfig": config,
        }));
        assert_eq!(
            findings(&read),
            Vec::from_iter(found),
            "{affinity} {config}"
        );
        assert_eq!(
            read.value.unwrap().affinity,
            expected,
            "{affinity} {config}"
        );
    }
}

#[test]
fn lesser_faults_cost_one_field() {
    let read = with(&json!({
        "clusterIP": "10.96.0.1", "internalTrafficPolicy": "local", "selector": "app=web",
    }));
    assert_eq!(
        findings(&read),
        [
            "spec.selector: \"app=web\" is not a mapping; Endpoints objects are not used for this Service",
            "spec.internalTrafficPolicy: \"local\" is not Cluster or Local; it counts as Cluster",
        ]
    );
    let service = read.value.unwrap();
    assert!(service.has_selector);
    assert_eq!(service.internal_traffic_policy, TrafficPolicy::Cluster);

    for (selector, expected) in [
        (json!({}), false),
        (json!(null), false),
        (json!({"a": "b"}), true),
    ] {
        let read = with(&json!({"clusterIP": "10.96.0.1", "selector": selector}));
        assert_eq!(read.value.unwrap().has_selector, expected, "{selector}");
    }
}

#[test]
fn reads_when_it_was_created() {
    for (timestamp, expected, found) in [
        (
            json!("2026-11-22T21:52:12Z"),
            Some(Created(1_795_384_332)),
            0,
        ),
        (
            json!("2026-11-22T22:52:12+01:00"),
            Some(Created(1_795_384_332)),
            0,
        ),
        (json!(null), None, 0),
        (json!("yesterday"), None, 1),
        (json!(1_795_384_332), None, 1),
    ] {
        let read = parsed(&json!({
            "metadata": {"name": "web", "creationTimestamp": timestamp},
            "spec": {"clusterIP": "10.96.0.1"},
        }));
        assert_eq!(read.problems.findings.len(), found, "{timestamp}");
        assert_eq!(read.value.unwrap().created, expected, "{timestamp}");
    }
}

#[test]
fn notes_why_there_is_nothing_to_program() {
    for (spec, headless, note) in [
        (
            json!({"clusterIP": "None"}),
            true,
            "headless (clusterIP None): nothing to program",
        ),
        (
            json!({"clusterIPs": ["None"]}),
            true,
            "headless (clusterIP None): nothing to program",
        ),
        (
            json!({"clusterIP": "None", "clusterIPs": ["None"]}),
            true,
            "headless (clusterIP None): nothing to program",
        ),
        (
            json!({}),
            false,
            "no cluster IP: nothing to program until it has one",
        ),
        (
            json!({"clusterIP": "", "clusterIPs": []}),
            false,
            "no cluster IP: nothing to program until it has one",
        ),
        (
            json!({"type": "ExternalName", "externalName": "db.example.org", "clusterIP": "10.96.0.1"}),
            false,
            "DNS only (externalName db.example.org): nothing to program",
        ),
    ] {
        let read = with(&spec);
        assert_eq!(notes(&read), [note], "{spec}");
        assert!(findings(&read).is_empty(), "{spec}");
        let service = read.value.unwrap();
        assert_eq!(service.headless, headless, "{spec}");
        assert!(service.cluster_ips.is_empty(), "{spec}");
    }
    let read = parsed(&json!({"metadata": {"name": "web"}}));
    assert_eq!(
        notes(&read),
        ["no cluster IP: nothing to program until it has one"]
    );
}

#[test]
fn notes_what_this_version_leaves_out() {
    let read = parsed(&json!({
        "metadata": {"name": "web"},
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.1",
            "externalIPs": ["192.0.2.1", "a", "b c", "2001:db8::1", "d", "e"],
            "externalTrafficPolicy": "Local",
            "loadBalancerSourceRanges": ["192.0.2.0/24"],
            "ports": [
                {"name": "a", "port": 80, "nodePort": 30080},
                {"name": "b", "port": 81, "nodePort": 0},
                {"name": "c", "port": 82, "nodePort": 30082},
            ],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}, {"hostname": "lb.example.org"}]}},
    }));
    assert!(findings(&read).is_empty());
    assert_eq!(
        notes(&read),
        [
            "spec.ports[].nodePort 30080, 30082: not served by this version; the cluster IP is",
            "spec.externalIPs 192.0.2.1, a, \"b c\", 2001:db8::1 and 2 more: not served by this version; the cluster IP is",
            "status.loadBalancer.ingress[].ip 198.51.100.1: not served by this version; the cluster IP is",
            "spec.loadBalancerSourceRanges 192.0.2.0/24: not served by this version; the cluster IP is",
            "spec.externalTrafficPolicy Local: not served by this version; the cluster IP is",
        ]
    );
    // They mean nothing to a plain cluster IP.
    let read = with(&json!({
        "clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local", "ports": [{"port": 80, "nodePort": 30080}],
    }));
    assert!(read.problems.is_empty(), "{:?}", read.problems);
}

#[test]
fn leaves_services_of_other_proxies_alone() {
    let read = parsed(&json!({
        "metadata": {"name": "web", "labels": {"service.kubernetes.io/service-proxy-name": ""}},
        "spec": {"type": "nonsense"},
    }));
    assert_eq!(read.value, None);
    assert!(findings(&read).is_empty());
    assert_eq!(
        notes(&read),
        ["left to another proxy (label service.kubernetes.io/service-proxy-name: \"\")"]
    );
}
