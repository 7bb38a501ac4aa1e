use std::collections::{BTreeMap, BTreeSet};

use ipvs::proc::RealServerEntry;
use ipvs::{
    ForwardMethod, Protocol, RealServerConfig, RealServerKey, Scheduler, VirtualServerConfig,
    Weight,
};
use serde_json::Value;

use super::*;
use crate::arbitrate::Origin;
use crate::model::{Finding, Kind, Note, ObjectName, Subject as About};

const DEVICE: &str = "dummy-weir0";

fn key(protocol: Protocol, socket: &str) -> VirtualServerKey {
    let socket: SocketAddr = socket.parse().unwrap();
    VirtualServerKey::Address {
        address: socket.ip(),
        port: socket.port(),
        protocol,
    }
}

fn real_key(socket: &str) -> RealServerKey {
    let socket: SocketAddr = socket.parse().unwrap();
    RealServerKey {
        address: socket.ip(),
        port: socket.port(),
    }
}

/// Real servers as socket, weight, active, inactive.
fn entry(subject: Subject, reals: &[(&str, u32, u32, u32)]) -> Entry {
    Entry {
        subject,
        scheduler: Scheduler::RoundRobin,
        one_packet: false,
        persistence: None,
        real_servers: reals
            .iter()
            .map(|&(socket, weight, active, inactive)| RealServerEntry {
                key: real_key(socket),
                forward: ForwardMethod::Masquerade,
                weight: Weight(weight),
                active,
                inactive,
            })
            .collect(),
    }
}

fn at(protocol: Protocol, socket: &str) -> Subject {
    Subject::Address(key(protocol, socket))
}

fn mark(number: u32) -> Subject {
    Subject::Mark(NonZeroU32::new(number).unwrap())
}

/// `default/web` with port `http` on `192.0.2.10:80` and `[2001:db8::10]:80`, one real server each.
fn desired() -> Desired {
    let mut desired = Desired::new();
    for (socket, real) in [
        ("192.0.2.10:80", "198.51.100.1:8080"),
        ("[2001:db8::10]:80", "[2001:db8:1::1]:8080"),
    ] {
        let server = DesiredVirtualServer {
            config: VirtualServerConfig::new(Scheduler::RoundRobin),
            real_servers: BTreeMap::from([(
                real_key(real),
                RealServerConfig::masquerade(Weight::ONE),
            )]),
            origin: Some(Origin {
                service: ObjectName::new("default", "web"),
                port_name: "http".into(),
            }),
        };
        let socket: SocketAddr = socket.parse().unwrap();
        desired.vips.insert(socket.ip());
        desired
            .virtual_servers
            .insert(key(Protocol::Tcp, &socket.to_string()), server);
    }
    desired
}

/// What the kernel holds when it is as desired, not in order.
fn entries() -> Vec<Entry> {
    vec![
        entry(at(Protocol::Tcp, "[2001:db8::1]:1"), &[]),
        entry(
            at(Protocol::Tcp, "[2001:db8::10]:80"),
            &[("[2001:db8:1::1]:8080", 1, 7, 0)],
        ),
        entry(
            at(Protocol::Tcp, "192.0.2.10:80"),
            &[("198.51.100.1:8080", 1, 3, 2)],
        ),
        entry(at(Protocol::Tcp, "192.0.2.1:1"), &[]),
    ]
}

fn problems() -> Problems {
    Problems {
        findings: vec![Finding {
            subject: About::Object(Kind::Service, ObjectName::new("default", "db")),
            field: "spec.ports[0].port".to_owned(),
            problem: "0 is not a port".to_owned(),
            consequence: "this port is not served".to_owned(),
        }],
        notes: vec![Note {
            subject: About::Weir,
            text: "something".to_owned(),
        }],
    }
}

fn context<'a>(state: State, desired: Option<&'a Desired>, problems: &'a Problems) -> Context<'a> {
    Context {
        node: "node-a",
        state,
        reasons: Vec::new(),
        device: DEVICE,
        vips: Some(
            desired
                .map(|desired| desired.vips.clone())
                .unwrap_or_default(),
        ),
        last_pass: None,
        desired,
        draining: BTreeSet::new(),
        problems,
    }
}

fn converged(entries: Vec<Entry>) -> StatusDocument {
    let (desired, problems) = (desired(), Problems::default());
    let context = context(State::Converged, Some(&desired), &problems);
    StatusDocument::new(context, Some(entries))
}

fn servers(document: &StatusDocument) -> &[VirtualServerStatus] {
    document.virtual_servers.as_deref().unwrap()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn the_kernels_table_is_joined_with_the_services() {
    let document = converged(entries());
    let told: Vec<_> = servers(&document)
        .iter()
        .map(|server| {
            (
                server.address.as_str(),
                server.service.as_str(),
                server.port_name.as_str(),
                server.purpose,
                server.vip.is_some(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("192.0.2.1", "", "", Purpose::Inert, false),
            ("192.0.2.10", "default/web", "http", Purpose::Service, true),
            ("2001:db8::1", "", "", Purpose::Inert, false),
            (
                "2001:db8::10",
                "default/web",
                "http",
                Purpose::Service,
                true
            ),
        ]
    );
}

#[test]
fn the_table_shows_families_protocols_and_connections() {
    let expected = "\
Node        node-a
State       converged
Servers     4 virtual, 2 real; connections 10 active, 2 inactive
VIPs        2 on dummy-weir0
Findings    0
Notes       0

PROTOCOL  SERVER                   SCHEDULER  SERVICE                      PORT  WEIGHT  ACTIVE  INACTIVE
TCP       192.0.2.1:1              rr         (inert: keeps IPVS's hooks)
TCP       192.0.2.10:80            rr         default/web                  http
          -> 198.51.100.1:8080                                                        1       3         2
TCP       [2001:db8::1]:1          rr         (inert: keeps IPVS's hooks)
TCP       [2001:db8::10]:80        rr         default/web                  http
          -> [2001:db8:1::1]:8080                                                     1       7         0
";
    assert_eq!(converged(entries()).table(false), expected);
}

#[test]
fn brief_is_the_header_alone() {
    let document = converged(entries());
    let (header, _) = header_and_rows(&document.table(false));
    assert_eq!(document.table(true), header);
}

fn header_and_rows(text: &str) -> (String, String) {
    let (header, rows) = text.split_once("\n\n").unwrap();
    (format!("{header}\n"), rows.to_owned())
}

#[test]
fn json_has_the_promised_fields_and_no_others() {
    let (desired, problems) = (desired(), problems());
    let mut context = context(State::Converged, Some(&desired), &problems);
    context.last_pass = Some(PassDocument {
        time: "2026-01-02T03:04:05Z".to_owned(),
        operations: 1,
        failed: 0,
        milliseconds: 2,
    });
    let document = StatusDocument::new(context, Some(entries()));
    let json = serde_json::to_value(&document).unwrap();
    assert_eq!(
        keys(&json),
        [
            "apiVersion",
            "device",
            "findings",
            "lastPass",
            "node",
            "notes",
            "reasons",
            "state",
            "vips",
            "virtualServers",
        ]
        .into()
    );
    assert_eq!(json["apiVersion"], "weir/v1");
    assert_eq!(json["state"], "converged");
    assert_eq!(
        keys(&json["lastPass"]),
        ["failed", "milliseconds", "operations", "time"].into()
    );
    let web = &json["virtualServers"][1];
    assert_eq!(
        keys(web),
        [
            "address",
            "port",
            "portName",
            "protocol",
            "purpose",
            "realServers",
            "scheduler",
            "service",
            "vip",
        ]
        .into()
    );
    assert_eq!(web["address"], "192.0.2.10");
    assert_eq!(web["port"], 80);
    assert_eq!(web["protocol"], "TCP");
    assert_eq!(web["scheduler"], "rr");
    assert_eq!(
        web["vip"],
        serde_json::json!({"device": DEVICE, "mode": "address"})
    );
    assert_eq!(
        web["realServers"],
        serde_json::json!([{
            "address": "198.51.100.1",
            "port": 8080,
            "weight": 1,
            "active": 3,
            "inactive": 2,
            "draining": false,
        }])
    );
    assert_eq!(
        keys(&json["findings"][0]),
        ["consequence", "field", "object", "problem"].into()
    );
    assert_eq!(keys(&json["notes"][0]), ["object", "text"].into());
    let again: StatusDocument = serde_json::from_value(json).unwrap();
    assert_eq!(again, document);
}

#[test]
fn what_drains_is_what_the_loop_waits_for() {
    let (web, gone) = (
        key(Protocol::Tcp, "192.0.2.10:80"),
        key(Protocol::Tcp, "192.0.2.99:80"),
    );
    let leaving = real_key("198.51.100.2:8080");
    let entries = vec![
        entry(
            Subject::Address(web),
            &[
                ("198.51.100.1:8080", 0, 0, 0),
                ("198.51.100.2:8080", 0, 5, 0),
            ],
        ),
        entry(Subject::Address(gone), &[("198.51.100.2:8080", 0, 1, 0)]),
    ];
    let desired = desired();
    let problems = Problems::default();
    let context = Context {
        draining: [(web, leaving), (gone, leaving)].into(),
        ..context(State::Converged, Some(&desired), &problems)
    };
    let document = StatusDocument::new(context, Some(entries));
    let draining: Vec<Vec<bool>> = servers(&document)
        .iter()
        .map(|server| {
            server
                .real_servers
                .iter()
                .map(|real| real.draining)
                .collect()
        })
        .collect();
    // Quiesced by somebody else is not draining.
    assert_eq!(draining, [vec![false, true], vec![true]]);
    assert_eq!(servers(&document)[0].purpose, Purpose::Service);
    assert_eq!(servers(&document)[1].purpose, Purpose::Draining);
    let (_, rows) = header_and_rows(&document.table(false));
    assert!(rows.contains("(goes when its connections end)"), "{rows}");
    assert!(rows.contains("draining"), "{rows}");
}

#[test]
fn real_servers_are_in_order() {
    let document = converged(vec![entry(
        at(Protocol::Tcp, "192.0.2.10:80"),
        &[
            ("198.51.100.10:80", 1, 0, 0),
            ("198.51.100.9:8080", 1, 0, 0),
            ("198.51.100.9:80", 1, 0, 0),
        ],
    )]);
    let order: Vec<_> = servers(&document)[0]
        .real_servers
        .iter()
        .map(|real| format!("{}:{}", real.address, real.port))
        .collect();
    assert_eq!(
        order,
        ["198.51.100.9:80", "198.51.100.9:8080", "198.51.100.10:80"]
    );
}

#[test]
fn what_is_foreign_is_shown_as_of_no_service() {
    let document = converged(vec![
        entry(mark(7), &[("203.0.113.8:80", 1, 0, 0)]),
        entry(
            at(Protocol::Udp, "[2001:db8:2::7]:53"),
            &[("[2001:db8:2::8]:53", 0, 0, 1)],
        ),
        entry(at(Protocol::Sctp, "203.0.113.7:9999"), &[]),
    ]);
    for server in servers(&document) {
        assert_eq!(server.purpose, Purpose::Other);
        assert_eq!((server.service.as_str(), &server.vip), ("", &None));
        assert!(server.real_servers.iter().all(|real| !real.draining));
    }
    let (_, rows) = header_and_rows(&document.table(false));
    let expected = "\
PROTOCOL  SERVER                 SCHEDULER  SERVICE               PORT  WEIGHT  ACTIVE  INACTIVE
SCTP      203.0.113.7:9999       rr         (not from a Service)
UDP       [2001:db8:2::7]:53     rr         (not from a Service)
          -> [2001:db8:2::8]:53                                              0       0         1
FWM       7                      rr         (not from a Service)
          -> 203.0.113.8:80                                                  1       0         0
";
    assert_eq!(rows, expected);
}

#[test]
fn a_firewall_mark_is_its_number() {
    let document = converged(vec![entry(mark(4_000_000_000), &[])]);
    let server = &servers(&document)[0];
    assert_eq!(
        (
            server.address.as_str(),
            server.port,
            server.protocol.as_str()
        ),
        ("4000000000", 0, "FWM")
    );
}

#[test]
fn a_degraded_node_says_why_and_what_failed() {
    let (desired, problems) = (desired(), problems());
    let mut context = context(State::Degraded, Some(&desired), &problems);
    context.reasons = vec!["the first".to_owned(), "the second".to_owned()];
    context.last_pass = Some(PassDocument {
        time: "2026-01-02T03:04:05Z".to_owned(),
        operations: 1,
        failed: 2,
        milliseconds: 30,
    });
    let expected = "\
Node        node-a
State       degraded
            the first
            the second
Servers     0 virtual, 0 real; connections 0 active, 0 inactive
VIPs        2 on dummy-weir0
Last change 2026-01-02T03:04:05Z, 1 operation, 2 failed, 30 ms
Findings    1
            Service default/db: spec.ports[0].port: 0 is not a port; this port is not served
Notes       1, shown by -o json
";
    assert_eq!(
        StatusDocument::new(context, Some(Vec::new())).table(false),
        expected
    );
}

/// Without the cluster, or without weir, nobody knows whose a virtual server is: then the table does not say that it is nobody's.
#[test]
fn while_nothing_is_desired_yet_nothing_is_called_foreign() {
    for state in [State::Waiting, State::Down] {
        let problems = Problems::default();
        let document = StatusDocument::new(context(state, None, &problems), Some(entries()));
        let table = document.table(false);
        assert!(table.contains(&format!("State       {}\n", state.word())));
        assert!(!table.contains("not from a Service"), "{table}");
        assert!(table.contains("(inert: keeps IPVS's hooks)"), "{table}");
        assert!(table.contains("192.0.2.10:80"), "{table}");
    }
}

#[test]
fn down_has_neither_node_nor_findings() {
    let problems = Problems::default();
    let table =
        StatusDocument::new(context(State::Down, None, &problems), Some(entries())).table(true);
    let expected = "\
State       down
Servers     4 virtual, 2 real; connections 10 active, 2 inactive
VIPs        0 on dummy-weir0
";
    assert_eq!(table, expected);
}

#[test]
fn what_could_not_be_read_is_unknown_and_not_empty() {
    let (desired, problems) = (desired(), Problems::default());
    let mut context = context(State::Degraded, Some(&desired), &problems);
    context.vips = None;
    let document = StatusDocument::new(context, None);
    let json = serde_json::to_value(&document).unwrap();
    assert_eq!(json["virtualServers"], Value::Null);
    assert_eq!(json["vips"], Value::Null);
    let table = document.table(false);
    assert!(table.contains("\nServers     unknown\n"), "{table}");
    assert!(
        table.contains("\nVIPs        unknown on dummy-weir0\n"),
        "{table}"
    );
    assert!(!table.contains("PROTOCOL"), "{table}");
}

#[test]
fn the_words_of_the_states_are_those_of_the_json() {
    for state in [
        State::Waiting,
        State::Converged,
        State::Degraded,
        State::Down,
    ] {
        assert_eq!(serde_json::to_value(state).unwrap(), state.word());
    }
}
