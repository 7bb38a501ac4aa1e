//! Our nftables on a kernel, with `nft` as the second opinion: what we send over netlink must be what `nft` makes of our text, and
//! that must be what it makes of `tests/nft/reference.nft`, which was written by hand from the reference design.
//!
//! Needs root and the program `nft`; each test works in a network namespace of its own, on its own thread. Lines
//! `::covers FAMILY PROTOCOL` on standard output tell the runner what was exercised.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "what fails in a helper fails the test, and the runner reads what is covered"
)]

use std::collections::BTreeSet;
use std::io::Write;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::process::{Command, Stdio};

use ipvs::{Family, Protocol};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use weir::nft::{
    Count, Counter, Detector, Deviation, Element, ElementChanges, Elements, Key, MarkBit, NftError,
    Set, Settings, Socket, Subject, TableName, Target, text,
};

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
const REFERENCE: &str = include_str!("nft/reference.nft");

/// A socket in a network namespace that only this thread is in.
fn socket() -> Socket {
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare: needs root");
    Socket::open().unwrap()
}

fn settings() -> Settings {
    Settings {
        mark: MarkBit::default(),
        detector: Detector::Ranges,
    }
}

/// The standard output of `nft`, which gets `input`.
fn nft(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("nft");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "nft {arguments:?} {input}");
    String::from_utf8(done.stdout).unwrap()
}

fn load(file: &str) {
    nft(&["-f", "-"], file);
}

/// Both tables as `nft` prints them, without what differs from load to load, and without order where there is none: objects by kind and name,
/// rules as they come.
fn listed() -> Vec<String> {
    let mut objects = Vec::new();
    for family in ["inet", "arp"] {
        let list: Value =
            serde_json::from_str(&nft(&["-j", "list", "table", family, "weir"], "")).unwrap();
        for object in list["nftables"].as_array().unwrap() {
            let (kind, value) = object.as_object().unwrap().iter().next().unwrap();
            let mut value = value.clone();
            let fields = value.as_object_mut().unwrap();
            fields.remove("handle");
            if kind == "table" {
                fields.remove("comment");
            }
            if let Some(elements) = fields.get_mut("elem") {
                elements
                    .as_array_mut()
                    .unwrap()
                    .sort_by_key(ToString::to_string);
            }
            let name = value
                .get("chain")
                .or_else(|| value.get("name"))
                .map(ToString::to_string);
            if kind != "metainfo" {
                objects.push((family, kind.clone(), name, value.to_string()));
            }
        }
    }
    // Stable: the rules of a chain stay in order.
    objects.sort_by(|left, right| (left.0, &left.1, &left.2).cmp(&(right.0, &right.1, &right.2)));
    objects
        .into_iter()
        .map(|(family, kind, _, value)| format!("{family} {kind} {value}"))
        .collect()
}

/// The text's source ranges compare the protocol with the IP header, ours with what the kernel found: see `weir::nft::text`.
fn with_found_protocol(listed: Vec<String>) -> Vec<String> {
    let found = r#"{"meta":{"key":"l4proto"}}"#;
    let mut changed = 0;
    let listed = listed
        .into_iter()
        .map(|line| {
            let mut new = line.clone();
            for (protocol, field) in [("ip", "protocol"), ("ip6", "nexthdr")] {
                let payload =
                    serde_json::json!({"payload": {"protocol": protocol, "field": field}});
                new = new.replace(&payload.to_string(), found);
            }
            changed += usize::from(new != line);
            new
        })
        .collect();
    assert_eq!(changed, 2);
    listed
}

fn assert_same(left: &[String], right: &[String]) {
    for (left, right) in left.iter().zip(right) {
        assert_eq!(left, right);
    }
    assert_eq!(left.len(), right.len());
}

fn covers(families: &[Family], protocols: &[Protocol]) {
    for family in families {
        for protocol in protocols {
            let names = format!("{family} {protocol}").to_lowercase();
            println!("::covers {names}");
        }
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn key(at: &str, protocol: Protocol, port: u16) -> Key {
    Key {
        address: address(at),
        protocol,
        port: NonZeroU16::new(port).unwrap(),
    }
}

fn target(at: &str, port: u16) -> Target {
    Target {
        address: address(at),
        port: NonZeroU16::new(port).unwrap(),
    }
}

fn prefix(text: &str) -> Element {
    Element::Prefix(text.parse().unwrap())
}

/// The elements of `tests/nft/reference.nft`.
fn sample() -> Elements {
    use Protocol::{Sctp, Tcp, Udp};
    let mut elements = Elements::new();
    let mut put = |set: Set, these: &[Element]| {
        elements.entry(set).or_default().extend(these);
    };
    for (family, cluster, external, node, inner, pod) in [
        (
            Family::Ipv4,
            "10.96.0.1",
            "10.200.0.",
            "192.168.50.1",
            "192.0.2.1",
            "10.244.1.2",
        ),
        (
            Family::Ipv6,
            "fd00:96::1",
            "fd00:200::",
            "fd00:50::1",
            "2001:db8::1",
            "fd00:244:1::2",
        ),
    ] {
        let cluster = |last: u8| format!("{cluster}{last}");
        let external = |last: u8| format!("{external}{last}");
        let node = |last: u8| format!("{node}{last}");
        let one = |at: &str, protocol, port| Element::Key(key(at, protocol, port));
        let service = cluster(0);
        put(
            Set::Vips(family),
            &[
                Element::Address(address(&service)),
                Element::Address(address(inner)),
            ],
        );
        put(
            Set::Owned(family),
            &[
                one(&service, Tcp, 80),
                one(&service, Udp, 53),
                one(&service, Sctp, 81),
            ],
        );
        put(Set::MasqueradeAll(family), &[one(&node(1), Tcp, 30080)]);
        put(Set::MasqueradeOffCluster(family), &[one(&service, Tcp, 80)]);
        put(Set::MasqueradeNode(family), &[one(&external(5), Tcp, 90)]);
        put(Set::Dark(family), &[one(&cluster(2), Udp, 80)]);
        put(Set::Drop(family), &[one(&external(6), Sctp, 90)]);
        put(Set::Restricted(family), &[one(&external(4), Tcp, 90)]);
        let restricted = key(&external(4), Tcp, 90);
        let sources = match family {
            Family::Ipv4 => ["172.20.0.0/24", "192.0.2.7/32"],
            Family::Ipv6 => ["fd00:77::/64", "2001:db8::7/128"],
        };
        let sources = sources.map(|source| Element::KeyFrom(restricted, source.parse().unwrap()));
        put(Set::Allowed(family), &sources);
        put(
            Set::Short(family),
            &[Element::KeyTo(
                key(&external(5), Tcp, 90),
                target(&cluster(1), 80),
            )],
        );
        put(
            Set::Steer(family),
            &[Element::KeyTo(
                key(&node(2), Udp, 8088),
                target(&service, 80),
            )],
        );
        put(Set::Inner(family), &[Element::Address(address(inner))]);
        put(Set::Hairpin(family), &[Element::twice(address(pod))]);
        put(Set::Endpoints(family), &[one(pod, Tcp, 8080)]);
    }
    put(Set::Arp, &[Element::Address(address("10.96.0.10"))]);
    elements.extend(sample_prefixes());
    assert!(Set::all().all(|set| elements.contains_key(&set)));
    elements
}

fn sample_prefixes() -> Elements {
    let mut elements = Elements::new();
    let mut put = |set: Set, these: &[Element]| {
        elements.entry(set).or_default().extend(these);
    };
    put(Set::Pods(Family::Ipv4), &[prefix("10.244.0.0/16")]);
    put(
        Set::LocalPods(Family::Ipv4),
        &[prefix("10.244.1.0/24"), prefix("10.244.3.0/25")],
    );
    put(Set::Cidrs(Family::Ipv4), &[prefix("10.96.0.0/16")]);
    put(Set::Pods(Family::Ipv6), &[prefix("fd00:244::/32")]);
    put(Set::LocalPods(Family::Ipv6), &[prefix("fd00:244:1::/64")]);
    put(Set::Cidrs(Family::Ipv6), &[prefix("fd00:96::/64")]);
    elements
}

#[test]
fn our_text_loads_as_the_reference() {
    let _socket = socket();
    load(REFERENCE);
    let reference = listed();
    load(&text::render(&settings(), &sample()));
    assert_same(&listed(), &reference);
    // Loading it over itself replaces it.
    load(&text::render(&settings(), &sample()));
    assert_same(&listed(), &reference);
    covers(&FAMILIES, &PROTOCOLS);
}

#[test]
fn what_we_send_is_listed_as_the_reference() {
    let mut socket = socket();
    load(REFERENCE);
    let reference = with_found_protocol(listed());
    load("delete table inet weir; delete table arp weir");
    socket.replace(&settings(), &sample()).unwrap();
    assert_same(&listed(), &reference);
    covers(&FAMILIES, &PROTOCOLS);
}

#[test]
fn without_a_detector_and_with_another_mark_both_ways_agree() {
    let mut socket = socket();
    let settings = Settings {
        mark: MarkBit::new(31).unwrap(),
        detector: Detector::None,
    };
    load(&text::render(&settings, &Elements::new()));
    let by_nft = with_found_protocol(listed());
    assert!(by_nft.iter().any(|line| line.contains("2147483648")));
    socket.replace(&settings, &Elements::new()).unwrap();
    assert_same(&listed(), &by_nft);
}

#[test]
fn the_kernel_holds_the_same_bytes_from_text_but_for_source_ranges() {
    let mut socket = socket();
    load(&text::render(&settings(), &sample()));
    let observed = socket.read().unwrap().unwrap();
    assert_eq!(observed.elements, sample());
    assert_eq!(
        observed.deviations(&settings()),
        BTreeSet::from([Deviation::Different(Subject::Rules(
            TableName::Inet,
            "ranges"
        ))])
    );
    covers(&FAMILIES, &PROTOCOLS);
}

#[test]
fn what_is_read_is_what_was_written() {
    let mut socket = socket();
    assert_eq!(socket.read().unwrap(), None);
    for elements in [Elements::new(), sample(), Elements::new()] {
        socket.replace(&settings(), &elements).unwrap();
        let observed = socket.read().unwrap().unwrap();
        assert_eq!(observed.elements, elements);
        assert_eq!(observed.deviations(&settings()), BTreeSet::new());
    }
    let observed = socket.read().unwrap().unwrap();
    let other = Settings {
        mark: MarkBit::new(3).unwrap(),
        ..settings()
    };
    assert!(!observed.deviations(&other).is_empty());
    socket.delete().unwrap();
    assert_eq!(socket.read().unwrap(), None);
    socket.delete().unwrap();
    covers(&FAMILIES, &PROTOCOLS);
}

#[test]
fn intervals_side_by_side_and_at_both_ends_are_read_as_written() {
    let mut socket = socket();
    for prefixes in [
        vec!["0.0.0.0/0"],
        vec![
            "0.0.0.0/8",
            "10.0.0.0/25",
            "10.0.0.128/25",
            "10.0.1.0/32",
            "240.0.0.0/4",
        ],
        vec!["::/0"],
        vec![
            "::/64",
            "2001:db8::/32",
            "2001:db9::/32",
            "2001:dba::1/128",
            "ff00::/8",
        ],
    ] {
        let prefixes: BTreeSet<Element> = prefixes.into_iter().map(prefix).collect();
        let set = prefixes.iter().find_map(|prefix| {
            Set::all().find(|set| matches!(set, Set::Pods(_)) && prefix.fits(*set))
        });
        let set = set.unwrap();
        let elements = Elements::from([(set, prefixes)]);
        socket.replace(&settings(), &elements).unwrap();
        assert_eq!(socket.read().unwrap().unwrap().elements, elements);
        load(&text::render(&settings(), &elements));
        assert_eq!(socket.read().unwrap().unwrap().elements, elements);
        socket.replace(&settings(), &Elements::new()).unwrap();
        let add = ElementChanges {
            add: elements,
            ..ElementChanges::default()
        };
        socket.change(&add).unwrap();
        assert_eq!(socket.read().unwrap().unwrap().elements, add.add);
        let remove = ElementChanges {
            remove: add.add,
            ..ElementChanges::default()
        };
        socket.change(&remove).unwrap();
        assert_eq!(socket.read().unwrap().unwrap().elements, Elements::new());
    }
    covers(&FAMILIES, &[]);
}

/// Each element alone, added to what is there and removed again; then all at once.
#[test]
fn elements_come_and_go_alone() {
    let mut socket = socket();
    socket.replace(&settings(), &Elements::new()).unwrap();
    let one = |set, element| Elements::from([(set, BTreeSet::from([element]))]);
    for (set, elements) in sample() {
        for element in elements {
            let add = ElementChanges {
                add: one(set, element),
                ..ElementChanges::default()
            };
            socket.change(&add).unwrap();
            assert_eq!(socket.read().unwrap().unwrap().elements, one(set, element));
            let remove = ElementChanges {
                remove: one(set, element),
                ..ElementChanges::default()
            };
            socket.change(&remove).unwrap();
            assert_eq!(socket.read().unwrap().unwrap().elements, Elements::new());
        }
    }
    let all = ElementChanges::between(&Elements::new(), &sample());
    socket.change(&all).unwrap();
    let observed = socket.read().unwrap().unwrap();
    assert_eq!(observed.elements, sample());
    assert_eq!(observed.deviations(&settings()), BTreeSet::new());
    let none = ElementChanges::between(&sample(), &Elements::new());
    socket.change(&none).unwrap();
    assert_eq!(socket.read().unwrap().unwrap().elements, Elements::new());
    covers(&FAMILIES, &PROTOCOLS);
}

#[test]
fn a_changed_target_and_a_changed_range_need_one_transaction() {
    let mut socket = socket();
    let mut before = sample();
    let mut after = sample();
    let frontend = key("10.200.0.5", Protocol::Tcp, 90);
    let short = |port| BTreeSet::from([Element::KeyTo(frontend, target("10.96.0.11", port))]);
    before.insert(Set::Short(Family::Ipv4), short(80));
    after.insert(Set::Short(Family::Ipv4), short(81));
    after.insert(
        Set::Pods(Family::Ipv4),
        BTreeSet::from([prefix("10.244.0.0/17")]),
    );
    let from = |source: &str| BTreeSet::from([Element::KeyFrom(frontend, source.parse().unwrap())]);
    before.insert(Set::Allowed(Family::Ipv4), from("10.0.0.0/8"));
    after.insert(Set::Allowed(Family::Ipv4), from("10.0.0.0/9"));
    socket.replace(&settings(), &before).unwrap();
    socket
        .change(&ElementChanges::between(&before, &after))
        .unwrap();
    assert_eq!(socket.read().unwrap().unwrap().elements, after);
    socket
        .change(&ElementChanges::between(&after, &before))
        .unwrap();
    assert_eq!(socket.read().unwrap().unwrap().elements, before);
    covers(&[Family::Ipv4], &[Protocol::Tcp]);
}

/// What is not as believed refuses the whole transaction.
#[test]
fn drift_is_told_and_changes_nothing() {
    let mut socket = socket();
    let change = ElementChanges::between(&Elements::new(), &sample());
    let error = socket.change(&change).unwrap_err();
    assert!(error.is_drift(), "no tables: {error:?}");
    socket.replace(&settings(), &sample()).unwrap();
    let new = Element::Key(key("10.96.0.99", Protocol::Tcp, 80));
    let there = Element::Key(key("10.96.0.10", Protocol::Tcp, 80));
    let owned = Set::Owned(Family::Ipv4);
    for changes in [
        ElementChanges {
            add: Elements::from([(owned, BTreeSet::from([new, there]))]),
            ..ElementChanges::default()
        },
        ElementChanges {
            remove: Elements::from([(owned, BTreeSet::from([new, there]))]),
            ..ElementChanges::default()
        },
    ] {
        let error = socket.change(&changes).unwrap_err();
        assert!(error.is_drift() && !error.is_outcome_unknown(), "{error:?}");
        assert!(error.to_string().contains("owned4"), "{error}");
        assert_eq!(socket.read().unwrap().unwrap().elements, sample());
    }
    covers(&[Family::Ipv4], &[Protocol::Tcp]);
}

#[test]
fn what_others_changed_is_seen_and_cured() {
    let mut socket = socket();
    let subject = |subject| Deviation::Different(subject);
    for (command, expected) in [
        (
            "flush chain inet weir out_nat",
            Deviation::Absent(Subject::Rules(TableName::Inet, "out_nat")),
        ),
        (
            "add rule inet weir refuse accept",
            subject(Subject::Rules(TableName::Inet, "refuse")),
        ),
        (
            "insert rule arp weir input accept",
            subject(Subject::Rules(TableName::Arp, "input")),
        ),
        (
            "add chain inet weir forward { policy drop; }",
            subject(Subject::Chain(TableName::Inet, "forward")),
        ),
        (
            "add table inet weir { flags dormant; }",
            subject(Subject::Table(TableName::Inet)),
        ),
        (
            "add set inet weir other { type mark; }",
            Deviation::Unknown(TableName::Inet, "other".into()),
        ),
        (
            "delete table arp weir",
            Deviation::Absent(Subject::Table(TableName::Arp)),
        ),
        (
            "add element inet weir pods4 { 192.0.2.1-192.0.2.6 }",
            subject(Subject::Elements(Set::Pods(Family::Ipv4))),
        ),
        (
            "add element inet weir owned4 { 192.0.2.1 . icmp . 1 }",
            subject(Subject::Elements(Set::Owned(Family::Ipv4))),
        ),
    ] {
        socket.replace(&settings(), &sample()).unwrap();
        let before = socket.generation().unwrap();
        assert_eq!(socket.generation().unwrap(), before);
        load(command);
        assert_ne!(socket.generation().unwrap(), before);
        let observed = socket.read().unwrap().unwrap();
        let deviations = observed.deviations(&settings());
        assert!(deviations.contains(&expected), "{command}: {deviations:?}");
        socket.replace(&settings(), &sample()).unwrap();
        let observed = socket.read().unwrap().unwrap();
        assert_eq!(observed.deviations(&settings()), BTreeSet::new());
        assert_eq!(observed.elements, sample());
    }
    load("delete element inet weir owned4 { 10.96.0.10 . tcp . 80 }");
    let observed = socket.read().unwrap().unwrap();
    assert_eq!(observed.deviations(&settings()), BTreeSet::new());
    assert_eq!(
        ElementChanges::between(&observed.elements, &sample())
            .add
            .len(),
        1
    );
}

#[test]
fn a_table_of_our_name_that_is_not_ours_is_left_alone() {
    let mut socket = socket();
    for (table, name) in [("inet weir", TableName::Inet), ("arp weir", TableName::Arp)] {
        load(&format!("add table {table}; add chain {table} mine"));
        assert!(matches!(socket.read(), Err(NftError::Foreign(found)) if found == name));
        assert!(matches!(socket.delete(), Err(NftError::Foreign(found)) if found == name));
        let error = socket.replace(&settings(), &sample()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "table {table} exists and was not made by weir; delete it (nft delete table {table}) if nothing needs it"
            )
        );
        assert!(nft(&["list", "ruleset"], "").contains("chain mine"));
        load(&format!("delete table {table}"));
    }
}

/// Ten thousand keys in each of two sets per family, which need several messages; all replaced, all removed.
#[test]
fn ten_thousand_elements_of_a_set_are_one_transaction() {
    let mut socket = socket();
    let mut elements = sample();
    for number in 0..10_000_u16 {
        let [high, low] = number.to_be_bytes();
        let protocol = PROTOCOLS[usize::from(number) % PROTOCOLS.len()];
        for (family, at) in [
            (Family::Ipv4, format!("198.18.{high}.{low}")),
            (Family::Ipv6, format!("2001:db8:1::{number:x}")),
        ] {
            let key = key(&at, protocol, number + 1);
            elements
                .entry(Set::Owned(family))
                .or_default()
                .insert(Element::Key(key));
            let to = target(&at, 80);
            elements
                .entry(Set::Short(family))
                .or_default()
                .insert(Element::KeyTo(key, to));
        }
    }
    socket.replace(&settings(), &elements).unwrap();
    assert!(socket.read().unwrap().unwrap().elements == elements);
    socket.replace(&settings(), &elements).unwrap();
    assert!(socket.read().unwrap().unwrap().elements == elements);
    let fewer = ElementChanges::between(&elements, &sample());
    socket.change(&fewer).unwrap();
    assert_eq!(socket.read().unwrap().unwrap().elements, sample());
    let more = ElementChanges::between(&sample(), &elements);
    socket.change(&more).unwrap();
    assert!(socket.read().unwrap().unwrap().elements == elements);
    covers(&FAMILIES, &PROTOCOLS);
}

/// Some 9 MiB, more than the send buffer takes at first.
#[test]
fn a_transaction_may_be_longer_than_the_send_buffer() {
    let mut socket = socket();
    let mut elements = Elements::new();
    for number in 0..20_000_u32 {
        let at = IpAddr::from(((0x2001_0db8_u128 << 96) | u128::from(number)).to_be_bytes());
        let key = Key {
            address: at,
            protocol: Protocol::Tcp,
            port: NonZeroU16::MIN,
        };
        for set in Set::all().filter(|set| set.family() == Family::Ipv6) {
            let target = Target {
                address: at,
                port: NonZeroU16::MIN,
            };
            for element in [Element::Key(key), Element::KeyTo(key, target)] {
                if element.fits(set) {
                    elements.entry(set).or_default().insert(element);
                }
            }
        }
    }
    // All or nothing, so that it need not be read; that would take the longest.
    socket.replace(&settings(), &elements).unwrap();
    covers(&[Family::Ipv6], &[Protocol::Tcp]);
}

#[test]
fn an_element_of_another_shape_is_never_sent() {
    let mut socket = socket();
    socket.replace(&settings(), &Elements::new()).unwrap();
    let element = Element::Address(address("192.0.2.1"));
    let wrong = Elements::from([(Set::Owned(Family::Ipv4), BTreeSet::from([element]))]);
    assert!(matches!(
        socket.replace(&settings(), &wrong),
        Err(NftError::Misfit { .. })
    ));
    let change = ElementChanges {
        add: wrong,
        ..ElementChanges::default()
    };
    assert!(matches!(
        socket.change(&change),
        Err(NftError::Misfit { .. })
    ));
}

/// A datagram to an undefined port of a VIP is refused and counted.
#[test]
fn counters_count() {
    let mut socket = socket();
    assert_eq!(socket.counters().unwrap().len(), 0);
    for arguments in [
        &["link", "set", "lo", "up"][..],
        &["address", "add", "192.0.2.9/32", "dev", "lo"],
    ] {
        assert!(
            Command::new("ip")
                .args(arguments)
                .status()
                .unwrap()
                .success()
        );
    }
    let vips = BTreeSet::from([Element::Address(address("192.0.2.9"))]);
    let elements = Elements::from([(Set::Vips(Family::Ipv4), vips)]);
    socket.replace(&settings(), &elements).unwrap();
    let none = socket.counters().unwrap();
    assert_eq!(none.len(), Counter::ALL.len());
    assert!(none.values().all(|count| *count == Count::default()));
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"hello", "192.0.2.9:4711").unwrap();
    let refused = socket.counters().unwrap()[&Counter::UndefinedPort];
    assert_eq!(
        refused,
        Count {
            packets: 1,
            bytes: 33
        }
    );
    covers(&[Family::Ipv4], &[Protocol::Udp]);
}
