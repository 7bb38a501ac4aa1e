use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU32;

use netlink_packet_core::{DefaultNla, Emitable, NlasIterator, ParseableParametrized};
use netlink_packet_generic::GenlHeader;

use super::*;
use crate::*;

const LINUX_6_12: &str = include_str!("captures/linux-6.12.txt");
const LINUX_6_1: &str = include_str!("captures/linux-6.1.txt");
const NLMSG_ERROR: [u8; 2] = [2, 0];

/// One message of a capture, behind the netlink header.
struct Captured {
    command: &'static str,
    sent: bool,
    bytes: Vec<u8>,
}

impl Captured {
    fn message(&self) -> Message {
        parse(&self.bytes).unwrap_or_else(|error| panic!("{}: {error}", self.command))
    }
}

fn captured(text: &'static str) -> Vec<Captured> {
    let mut command = "";
    let mut messages = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((mark, rest)) = line.split_once(' ') else {
            continue;
        };
        if mark == "$" {
            command = rest;
            continue;
        }
        let bytes: Vec<u8> = (0..rest.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&rest[at..at + 2], 16).unwrap())
            .collect();
        if bytes[4..6] != NLMSG_ERROR {
            messages.push(Captured {
                command,
                sent: mark == ">",
                bytes: bytes[16..].to_vec(),
            });
        }
    }
    assert!(messages.len() > 90, "a capture is not whole");
    messages
}

fn both() -> impl Iterator<Item = Captured> {
    [LINUX_6_12, LINUX_6_1].into_iter().flat_map(captured)
}

/// What was sent for this command, but for the question after the version that precedes every other.
fn sent(command: &str) -> Message {
    captured(LINUX_6_12)
        .into_iter()
        .filter(|captured| captured.sent && captured.command == command)
        .map(|captured| captured.message())
        .find(|message| message.kind != MessageKind::GetInfo)
        .unwrap_or_else(|| panic!("{command} is not in the capture"))
}

fn received(command: &str) -> Vec<Message> {
    captured(LINUX_6_12)
        .into_iter()
        .filter(|captured| !captured.sent && captured.command == command)
        .map(|captured| captured.message())
        .filter(|message| message.kind != MessageKind::Info)
        .collect()
}

fn parse(bytes: &[u8]) -> Result<Message, DecodeError> {
    let header = GenlHeader::parse(bytes)?;
    Message::parse_with_param(&bytes[4..], header)
}

fn encode(message: &Message) -> Vec<u8> {
    let mut bytes = vec![message.command(), message.version(), 0, 0];
    bytes.resize(4 + message.buffer_len(), 0xaa);
    message.emit(&mut bytes[4..]);
    bytes
}

/// Takes `NLA_F_NESTED` away, which requests have and the kernel's answers have not.
fn without_nested_flag(bytes: &[u8]) -> Vec<u8> {
    let mut plain = bytes.to_vec();
    let mut at = 0;
    while at < plain.len() {
        let length = usize::from(u16::from_ne_bytes([plain[at], plain[at + 1]]));
        if plain[at + 3] & 0x80 != 0 {
            plain[at + 3] &= 0x7f;
            let inside = without_nested_flag(&plain[at + 4..at + length]);
            plain[at + 4..at + length].copy_from_slice(&inside);
        }
        at += length.next_multiple_of(4);
    }
    plain
}

fn address(text: &str, port: u16, protocol: Protocol) -> VirtualServerKey {
    VirtualServerKey::Address {
        address: text.parse().unwrap(),
        port,
        protocol,
    }
}

fn mark(family: Family) -> VirtualServerKey {
    VirtualServerKey::Mark {
        mark: NonZeroU32::new(7).unwrap(),
        family,
    }
}

fn real(text: &str, port: u16) -> RealServerKey {
    RealServerKey {
        address: text.parse().unwrap(),
        port,
    }
}

fn config(scheduler: &str) -> VirtualServerConfig {
    VirtualServerConfig::new(scheduler.parse().unwrap())
}

fn persistent(scheduler: &str, timeout: u32, netmask: Netmask) -> VirtualServerConfig {
    VirtualServerConfig {
        persistence: Some(Persistence { timeout, netmask }),
        ..config(scheduler)
    }
}

fn flagged(scheduler: &str, flags: Flags) -> VirtualServerConfig {
    VirtualServerConfig {
        flags,
        ..config(scheduler)
    }
}

#[test]
fn every_captured_message_is_written_as_it_was_read() {
    for captured in both() {
        let written = encode(&captured.message());
        if captured.sent {
            assert_eq!(written, captured.bytes, "{}", captured.command);
        } else {
            assert_eq!(written[..4], captured.bytes[..4], "{}", captured.command);
            assert_eq!(
                without_nested_flag(&written[4..]),
                captured.bytes[4..],
                "{}",
                captured.command
            );
        }
    }
}

/// The numbers of the attributes inside the value of one attribute, of whatever type.
fn numbers(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map(|attribute| {
        let attribute = attribute.unwrap();
        (attribute.kind(), {
            let start = attribute.inner_slice_start(bytes);
            &bytes[start..start + attribute.value_length()]
        })
    })
}

trait SliceStart {
    fn inner_slice_start(&self, of: &[u8]) -> usize;
}

impl SliceStart for netlink_packet_core::NlaBuffer<&[u8]> {
    fn inner_slice_start(&self, of: &[u8]) -> usize {
        self.value().as_ptr().addr() - of.as_ptr().addr()
    }
}

#[test]
fn every_command_and_attribute_of_the_header_is_in_the_captures_and_typed() {
    let mut commands = BTreeSet::new();
    // by the path of nested attributes; GET_INFO's answer apart
    let mut seen: BTreeSet<(&str, u16)> = BTreeSet::new();
    for captured in both() {
        let message = captured.message();
        commands.insert(message.kind.number());
        assert!(!format!("{message:?}").contains("Other"), "{message:?}");
        for (number, value) in numbers(&captured.bytes[4..]) {
            if message.kind == MessageKind::Info {
                seen.insert(("info", number));
                continue;
            }
            seen.insert(("command", number));
            let (name, narrow, wide) = match number {
                1 => ("service", 10, 12),
                2 => ("dest", 10, 12),
                3 => ("daemon", 0, 0),
                _ => continue,
            };
            for (number, value) in numbers(value) {
                seen.insert((name, number));
                let name = match number {
                    number if number == narrow => "stats",
                    number if number == wide => "stats64",
                    _ => continue,
                };
                seen.extend(numbers(value).map(|(number, _)| (name, number)));
            }
        }
    }
    assert_eq!(commands, (1..=17).collect());
    let header = [
        ("command", 6),
        ("service", 12),
        ("dest", 15),
        ("daemon", 8),
        ("stats", 10),
        ("stats64", 10),
        ("info", 2),
    ];
    let all: BTreeSet<_> = header
        .into_iter()
        .flat_map(|(name, last)| (1..=last).map(move |number| (name, number)))
        .collect();
    assert_eq!(seen, all);
}

#[test]
fn virtual_servers_are_created_and_updated_in_the_bytes_of_ipvsadm() {
    use Protocol::{Sctp, Tcp, Udp};
    let both_flags = Flags {
        scheduler_1: true,
        scheduler_2: true,
        ..Flags::default()
    };
    let sip = VirtualServerConfig {
        persistence_engine: Some("sip".into()),
        ..persistent("rr", 90, Netmask::host(Family::Ipv4))
    };
    let one_packet = Flags {
        one_packet: true,
        ..Flags::default()
    };
    #[rustfmt::skip]
    let created = [
        ("-t 192.0.2.1:80 -s wrr", address("192.0.2.1", 80, Tcp), config("wrr")),
        ("-u 192.0.2.2:53 -s sh -b flag-1,flag-2", address("192.0.2.2", 53, Udp), flagged("sh", both_flags)),
        ("-u 192.0.2.2:5060 -s rr -o", address("192.0.2.2", 5060, Udp), flagged("rr", one_packet)),
        ("--sctp-service 192.0.2.3:9899 -s lc", address("192.0.2.3", 9899, Sctp), config("lc")),
        ("-t [2001:db8::1]:443 -s wlc -p 10800 -M 64", address("2001:db8::1", 443, Tcp), persistent("wlc", 10800, Netmask::V6(64))),
        ("-u [2001:db8::1]:53 -s mh -b mh-fallback,mh-port", address("2001:db8::1", 53, Udp), flagged("mh", both_flags)),
        ("--sctp-service [2001:db8::1]:9899 -s rr", address("2001:db8::1", 9899, Sctp), config("rr")),
        ("-f 7 -s rr", mark(Family::Ipv4), config("rr")),
        ("-f 7 -6 -s rr -p 60", mark(Family::Ipv6), persistent("rr", 60, Netmask::V6(128))),
        ("-t 192.0.2.4:443 -s rr -p 300 -M 255.255.255.0", address("192.0.2.4", 443, Tcp), persistent("rr", 300, Netmask::V4([255, 255, 255, 0].into()))),
        ("-u 192.0.2.5:5060 -s rr -p 90 --pe sip", address("192.0.2.5", 5060, Udp), sip),
        ("-t 192.0.2.6:0 -s rr -p 90", address("192.0.2.6", 0, Tcp), persistent("rr", 90, Netmask::host(Family::Ipv4))),
    ];
    for (arguments, key, config) in created {
        let message = Message::create_virtual_server(&key, &config).unwrap();
        let command = format!("ipvsadm -A {arguments}");
        assert_eq!(message, sent(&command), "{command}");
    }
    let fallback = Flags {
        scheduler_1: true,
        ..Flags::default()
    };
    #[rustfmt::skip]
    let updated = [
        ("-t 192.0.2.4:443 -s wlc -p 600 -M 255.255.0.0", address("192.0.2.4", 443, Tcp), persistent("wlc", 600, Netmask::V4([255, 255, 0, 0].into()))),
        ("-t 192.0.2.4:443 -s sh -b sh-fallback", address("192.0.2.4", 443, Tcp), flagged("sh", fallback)),
        ("-t [2001:db8::1]:443 -s wrr", address("2001:db8::1", 443, Tcp), config("wrr")),
    ];
    for (arguments, key, config) in updated {
        let message = Message::update_virtual_server(&key, &config).unwrap();
        let command = format!("ipvsadm -E {arguments}");
        assert_eq!(message, sent(&command), "{command}");
    }
}

/// Asserts that `ours` says what `theirs` says. ipvsadm sends of a virtual server everything it has defaults for, and tunnel
/// attributes that are zero, where the kernel wants only what names it.
fn assert_says_the_same(ours: &Message, theirs: &Message) {
    assert_eq!(ours.kind, theirs.kind);
    let (ours, theirs) = (ours.attributes(), theirs.attributes());
    assert!(ours.len() <= theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        match (ours, theirs) {
            (Attribute::VirtualServer(ours), Attribute::VirtualServer(theirs)) => {
                assert!(theirs.starts_with(ours), "{ours:?} {theirs:?}");
            }
            (Attribute::RealServer(ours), Attribute::RealServer(theirs)) => {
                let theirs: Vec<_> = theirs
                    .iter()
                    .filter(|attribute| ours.contains(attribute) || !is_zero_of_tunnel(attribute))
                    .cloned()
                    .collect();
                assert!(theirs.starts_with(ours), "{ours:?} {theirs:?}");
            }
            (Attribute::Daemon(ours), Attribute::Daemon(theirs)) => {
                assert!(theirs.starts_with(ours), "{ours:?} {theirs:?}");
            }
            (ours, theirs) => assert_eq!(ours, theirs),
        }
    }
}

fn is_zero_of_tunnel(attribute: &RealServerAttribute) -> bool {
    use RealServerAttribute::{TunnelFlags, TunnelPort, TunnelType};
    [TunnelType(0), TunnelPort(Port(0)), TunnelFlags(0)].contains(attribute)
}

#[test]
fn real_servers_are_named_and_set_as_by_ipvsadm() {
    let of = address("192.0.2.1", 80, Protocol::Tcp);
    let of6 = address("2001:db8::1", 443, Protocol::Tcp);
    let set = |forward, weight| RealServerConfig {
        forward,
        weight: Weight(weight),
        thresholds: None,
    };
    let tunnel = |tunnel, weight| set(ForwardMethod::Tunnel(tunnel), weight);
    let masquerade = |weight| set(ForwardMethod::Masquerade, weight);
    let limited = RealServerConfig {
        thresholds: Some(Thresholds {
            upper: 1000,
            lower: 800,
        }),
        ..masquerade(0)
    };
    let gue = |port, flags| Tunnel::Gue { port, flags };
    #[rustfmt::skip]
    let created = [
        ("-t 192.0.2.1:80 -r 127.0.0.1:8080 -m -w 5", of, real("127.0.0.1", 8080), masquerade(5)),
        ("-t 192.0.2.1:80 -r 198.51.100.2:8080 -m -w 0 -x 1000 -y 800", of, real("198.51.100.2", 8080), limited),
        ("-t 192.0.2.1:80 -r 198.51.100.3 -g -w 70", of, real("198.51.100.3", 80), set(ForwardMethod::DirectRoute, 70)),
        ("-t 192.0.2.1:80 -r 198.51.100.4 -i -w 1", of, real("198.51.100.4", 80), tunnel(Tunnel::Ipip, 1)),
        ("-t 192.0.2.1:80 -r 198.51.100.5 -i --tun-type gue --tun-port 6080 -w 1", of, real("198.51.100.5", 80), tunnel(gue(6080, 0), 1)),
        ("-t 192.0.2.1:80 -r 198.51.100.6 -i --tun-type gue --tun-port 6080 --tun-csum -w 1", of, real("198.51.100.6", 80), tunnel(gue(6080, 1), 1)),
        ("-t 192.0.2.1:80 -r 198.51.100.7 -i --tun-type gre --tun-csum -w 1", of, real("198.51.100.7", 80), tunnel(Tunnel::Gre { flags: 1 }, 1)),
        ("-t 192.0.2.1:80 -r 198.51.100.8 -i --tun-type gue --tun-port 6081 --tun-remcsum -w 1", of, real("198.51.100.8", 80), tunnel(gue(6081, 2), 1)),
        ("-t 192.0.2.1:80 -r [2001:db8::2]:80 -i -w 3", of, real("2001:db8::2", 80), tunnel(Tunnel::Ipip, 3)),
        ("-t [2001:db8::1]:443 -r [2001:db8::3]:8443 -m -w 65535", of6, real("2001:db8::3", 8443), masquerade(65535)),
        ("-f 7 -r 198.51.100.9:0 -m -w 2", mark(Family::Ipv4), real("198.51.100.9", 0), masquerade(2)),
        ("-f 7 -6 -r [2001:db8::4]:0 -g -w 2", mark(Family::Ipv6), real("2001:db8::4", 0), set(ForwardMethod::DirectRoute, 2)),
    ];
    for (arguments, of, key, config) in created {
        let message = Message::create_real_server(&of, &key, &config);
        assert_says_the_same(&message, &sent(&format!("ipvsadm -a {arguments}")));
    }
    let message = Message::update_real_server(&of, &real("127.0.0.1", 8080), &masquerade(9));
    assert_says_the_same(
        &message,
        &sent("ipvsadm -e -t 192.0.2.1:80 -r 127.0.0.1:8080 -m -w 9"),
    );
    let message = Message::update_real_server(&of6, &real("2001:db8::3", 8443), &masquerade(0));
    assert_says_the_same(
        &message,
        &sent("ipvsadm -e -t [2001:db8::1]:443 -r [2001:db8::3]:8443 -m -w 0"),
    );
    let message = Message::delete_real_server(&of, &real("198.51.100.4", 80));
    assert_says_the_same(
        &message,
        &sent("ipvsadm -d -t 192.0.2.1:80 -r 198.51.100.4"),
    );
    let message = Message::delete_real_server(&mark(Family::Ipv6), &real("2001:db8::4", 0));
    assert_says_the_same(&message, &sent("ipvsadm -d -f 7 -6 -r [2001:db8::4]:0"));
}

#[test]
fn the_other_requests_say_what_ipvsadm_says() {
    let tcp = address("192.0.2.1", 80, Protocol::Tcp);
    let udp6 = address("2001:db8::1", 53, Protocol::Udp);
    let timeouts = Timeouts {
        tcp: 800,
        tcp_fin: 110,
        udp: 250,
    };
    #[rustfmt::skip]
    let requests = [
        ("-D -t 192.0.2.1:80", Message::delete_virtual_server(&tcp)),
        ("-D -u [2001:db8::1]:53", Message::delete_virtual_server(&udp6)),
        ("-D -f 7 -6", Message::delete_virtual_server(&mark(Family::Ipv6))),
        ("-Z -t 192.0.2.1:80", Message::zero(&tcp)),
        ("-Z", Message::zero_all()),
        ("-C", Message::flush()),
        ("-Ln", Message::get_virtual_servers()),
        ("-Ln -t 192.0.2.1:80", Message::get_virtual_server(&tcp)),
        ("-Ln --timeout", Message::get_timeouts()),
        ("-Ln --daemon", Message::get_daemons()),
        ("--set 800 110 250", Message::set_timeouts(&timeouts)),
        ("--stop-daemon master", Message::stop_daemon(DaemonRole::Master)),
        ("--stop-daemon backup", Message::stop_daemon(DaemonRole::Backup)),
        ("--start-daemon master --mcast-interface dummy0 --syncid 5 --sync-maxlen 1400 --mcast-group 224.0.0.81 --mcast-port 8848 --mcast-ttl 2", Message::start_daemon(&master()).unwrap()),
        ("--start-daemon backup --mcast-interface dummy0 --syncid 6 --sync-maxlen 1300 --mcast-group ff02::81 --mcast-port 8849 --mcast-ttl 3", Message::start_daemon(&backup()).unwrap()),
    ];
    for (arguments, message) in requests {
        assert_says_the_same(&message, &sent(&format!("ipvsadm {arguments}")));
    }
    let destinations = captured(LINUX_6_12)
        .into_iter()
        .map(|captured| captured.message())
        .find(|message| message.kind == MessageKind::GetRealServer)
        .unwrap();
    assert_says_the_same(&Message::get_real_servers(&tcp), &destinations);
    let first = captured(LINUX_6_12).remove(0).message();
    assert_eq!(first, Message::get_info());
}

fn master() -> Daemon {
    Daemon {
        role: DaemonRole::Master,
        interface: "dummy0".into(),
        sync_id: 5,
        multicast: Multicast {
            max_length: Some(1400),
            group: Some("224.0.0.81".parse().unwrap()),
            port: Some(8848),
            ttl: Some(2),
        },
    }
}

fn backup() -> Daemon {
    Daemon {
        role: DaemonRole::Backup,
        interface: "dummy0".into(),
        sync_id: 6,
        multicast: Multicast {
            max_length: Some(1300),
            group: Some("ff02::81".parse().unwrap()),
            port: Some(8849),
            ttl: Some(3),
        },
    }
}

#[test]
fn virtual_servers_are_read_as_ipvsadm_prints_them() {
    use Protocol::{Sctp, Tcp, Udp};
    let flags = |scheduler_1, scheduler_2, one_packet| Flags {
        scheduler_1,
        scheduler_2,
        scheduler_3: false,
        one_packet,
    };
    let host = Netmask::host(Family::Ipv4);
    // `ipvsadm -Ln`, in its order
    #[rustfmt::skip]
    let mut expected = vec![
        (address("192.0.2.1", 80, Tcp), config("wrr")),
        (address("192.0.2.4", 443, Tcp), VirtualServerConfig { flags: flags(false, true, false), ..persistent("sh", 300, Netmask::V4([255, 255, 255, 0].into())) }),
        (address("192.0.2.6", 0, Tcp), persistent("rr", 90, host)),
        (address("192.0.2.7", 80, Tcp), config("rr")),
        (address("192.0.2.2", 53, Udp), flagged("sh", flags(true, true, false))),
        (address("192.0.2.2", 5060, Udp), flagged("rr", flags(false, false, true))),
        (address("192.0.2.5", 5060, Udp), VirtualServerConfig { persistence_engine: Some("sip".into()), ..persistent("rr", 90, host) }),
        (address("192.0.2.3", 9899, Sctp), config("lc")),
        (address("2001:db8::1", 443, Tcp), config("wrr")),
        (address("2001:db8::7", 80, Tcp), config("rr")),
        (address("2001:db8::1", 53, Udp), flagged("mh", flags(true, true, false))),
        (address("2001:db8::1", 9899, Sctp), config("rr")),
        (mark(Family::Ipv4), config("rr")),
        (mark(Family::Ipv6), persistent("rr", 60, Netmask::V6(128))),
    ];
    let mut read: Vec<_> = received("ipvsadm -Ln")
        .iter()
        .filter(|message| message.kind == MessageKind::CreateVirtualServer)
        .map(|message| message.virtual_server().unwrap().unwrap())
        .map(|server| (server.key, server.config))
        .collect();
    expected.sort_by_key(|(key, _)| *key);
    read.sort_by_key(|(key, _)| *key);
    assert_eq!(read, expected);
}

#[test]
fn real_servers_are_read_as_ipvsadm_prints_them() {
    let set = |forward, weight| RealServerConfig {
        forward,
        weight: Weight(weight),
        thresholds: None,
    };
    let tunnel = |tunnel, weight| set(ForwardMethod::Tunnel(tunnel), weight);
    let limited = RealServerConfig {
        thresholds: Some(Thresholds {
            upper: 1000,
            lower: 800,
        }),
        ..set(ForwardMethod::Masquerade, 0)
    };
    let gue = |port, flags| Tunnel::Gue { port, flags };
    #[rustfmt::skip]
    let mut expected = vec![
        (real("127.0.0.1", 8080), set(ForwardMethod::Masquerade, 9)),
        (real("198.51.100.2", 8080), limited),
        (real("198.51.100.3", 80), set(ForwardMethod::DirectRoute, 70)),
        (real("198.51.100.5", 80), tunnel(gue(6080, 0), 1)),
        (real("198.51.100.6", 80), tunnel(gue(6080, 1), 1)),
        (real("198.51.100.7", 80), tunnel(Tunnel::Gre { flags: 1 }, 1)),
        (real("198.51.100.8", 80), tunnel(gue(6081, 2), 1)),
        (real("2001:db8::2", 80), tunnel(Tunnel::Ipip, 3)),
    ];
    let mut read: Vec<_> = received("ipvsadm -Ln -t 192.0.2.1:80")
        .iter()
        .filter(|message| message.kind == MessageKind::CreateRealServer)
        .map(|message| message.real_server(Family::Ipv4).unwrap())
        .map(|server| (server.key, server.config))
        .collect();
    expected.sort_by_key(|(key, _)| *key);
    read.sort_by_key(|(key, _)| *key);
    assert_eq!(read, expected);
}

#[test]
fn counters_are_those_that_ipvsadm_printed() {
    // `ipvsadm -Ln --stats --exact`, and the rates from the bytes themselves
    let expected = Stats {
        connections: 6,
        incoming_packets: 37,
        outgoing_packets: 36,
        incoming_bytes: 2062,
        outgoing_bytes: 2970,
        rates: Rates {
            connections: 0,
            incoming_packets: 1,
            outgoing_packets: 1,
            incoming_bytes: 0x52,
            outgoing_bytes: 0x75,
        },
    };
    let answers = received("ipvsadm -Ln -t 192.0.2.7:80");
    let server = answers[0].virtual_server().unwrap().unwrap();
    assert_eq!(server.stats, expected);
    let server = answers[1].real_server(Family::Ipv4).unwrap();
    assert_eq!(server.stats, expected);
    assert_eq!(
        server.connections,
        Connections {
            active: 1,
            inactive: 5,
            persistent: 0
        }
    );
    // the same from the 32-bit counters, which is all that kernels before 4.1 tell
    let old = without(&answers[0], &[12]).virtual_server().unwrap();
    assert_eq!(old.unwrap().stats, expected);
    let old = without(&answers[1], &[12]).real_server(Family::Ipv4);
    assert_eq!(old.unwrap().stats, expected);
}

/// The message without these attributes of its virtual or real server.
fn without(message: &Message, gone: &[u16]) -> Message {
    use netlink_packet_core::Nla;
    let mut message = message.clone();
    let Body::Attributes(attributes) = &mut message.body else {
        panic!("no attributes");
    };
    for attribute in attributes {
        match attribute {
            Attribute::VirtualServer(list) => {
                list.retain(|inner| !gone.contains(&(inner.kind() & 0x3fff)));
            }
            Attribute::RealServer(list) => {
                list.retain(|inner| !gone.contains(&(inner.kind() & 0x3fff)));
            }
            Attribute::Daemon(_)
            | Attribute::TcpTimeout(_)
            | Attribute::TcpFinTimeout(_)
            | Attribute::UdpTimeout(_)
            | Attribute::Other(_) => panic!("{attribute:?}"),
        }
    }
    message
}

#[test]
fn a_real_server_without_a_family_has_that_of_its_virtual_server() {
    let answers = received("ipvsadm -Ln -t [2001:db8::7]:80");
    let told = answers[1].real_server(Family::Ipv6).unwrap();
    // IPVS_DEST_ATTR_ADDR_FAMILY and the tunnel attributes are of later kernels
    let old = without(&answers[1], &[11, 13, 14, 15]);
    assert_eq!(old.real_server(Family::Ipv6).unwrap(), told);
    assert_eq!(told.key.address, "2001:db8::254".parse::<IpAddr>().unwrap());
}

#[test]
fn a_missing_count_of_connections_is_an_error_and_not_zero() {
    let answers = received("ipvsadm -Ln -t 192.0.2.7:80");
    for (number, name) in [
        (7, "IPVS_DEST_ATTR_ACTIVE_CONNS"),
        (8, "IPVS_DEST_ATTR_INACT_CONNS"),
        (4, "IPVS_DEST_ATTR_WEIGHT"),
        (1, "IPVS_DEST_ATTR_ADDR"),
    ] {
        assert_eq!(
            without(&answers[1], &[number]).real_server(Family::Ipv4),
            Err(MessageError::Missing(name))
        );
    }
}

#[test]
fn the_other_answers_are_read() {
    let info = captured(LINUX_6_12).remove(1).message().info().unwrap();
    assert_eq!(info.version.to_string(), "1.2.1");
    assert_eq!(info.connection_table_size, 4096);
    let timeouts = received("ipvsadm -Ln --timeout")[0].timeouts().unwrap();
    assert_eq!(
        timeouts,
        Timeouts {
            tcp: 800,
            tcp_fin: 110,
            udp: 250
        }
    );
    let daemons: Vec<_> = received("ipvsadm -Ln --daemon")
        .iter()
        .map(|message| message.daemon().unwrap())
        .collect();
    assert_eq!(daemons, [master(), backup()]);
}

#[test]
fn no_prefix_and_no_changed_byte_of_a_captured_message_panics() {
    let look = |bytes: &[u8]| {
        if let Ok(message) = parse(bytes) {
            let written = encode(&message);
            assert_eq!(
                parse(&written).as_ref().ok(),
                Some(&message),
                "what was understood is kept"
            );
            let _seen = (
                message.virtual_server(),
                message.real_server(Family::Ipv4),
                message.daemon(),
                message.timeouts(),
                message.info(),
            );
        }
    };
    let distinct: BTreeSet<Vec<u8>> = captured(LINUX_6_12)
        .into_iter()
        .map(|captured| captured.bytes)
        .collect();
    for bytes in distinct {
        for end in 0..bytes.len() {
            look(&bytes[..end]);
        }
        let mut changed = bytes.clone();
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 1, bytes[at] ^ 0x40] {
                changed[at] = value;
                look(&changed);
            }
            changed[at] = bytes[at];
        }
    }
}

#[test]
fn an_unknown_attribute_survives_a_round_trip_at_every_depth() {
    let unknown = || DefaultNla::new(99, vec![1, 2, 3]);
    let answers = received("ipvsadm -Ln -t 192.0.2.7:80");
    let mut message = answers[0].clone();
    let Body::Attributes(attributes) = &mut message.body else {
        panic!("no attributes");
    };
    let Attribute::VirtualServer(inside) = &mut attributes[0] else {
        panic!("no virtual server");
    };
    inside.push(VirtualServerAttribute::Other(unknown()));
    for attribute in inside {
        if let VirtualServerAttribute::Stats64(counters) = attribute {
            counters.push(Stats64Attribute::Other(unknown()));
        }
    }
    attributes.push(Attribute::Other(unknown()));
    let again = parse(&encode(&message)).unwrap();
    assert_eq!(again, message);
    assert_eq!(again.virtual_server(), answers[0].virtual_server());
    let odd = Message {
        kind: MessageKind::Other(40),
        ..message
    };
    assert_eq!(parse(&encode(&odd)).unwrap(), odd);
}

#[test]
fn values_that_no_message_can_hold_are_refused() {
    let key = address("192.0.2.1", 80, Protocol::Tcp);
    let netmask = persistent("rr", 1, Netmask::V6(128));
    let engine = |name: &str| VirtualServerConfig {
        persistence_engine: Some(name.into()),
        ..config("rr")
    };
    for config in [
        netmask,
        engine(""),
        engine("0123456789abcdef"),
        engine("\0"),
    ] {
        assert!(Message::create_virtual_server(&key, &config).is_err());
    }
    let nameless = Daemon {
        interface: String::new(),
        ..master()
    };
    assert!(Message::start_daemon(&nameless).is_err());
}

#[test]
fn a_virtual_server_of_another_protocol_is_none() {
    let mut message = received("ipvsadm -Ln -t 192.0.2.7:80").remove(0);
    let Body::Attributes(attributes) = &mut message.body else {
        panic!("no attributes");
    };
    let Attribute::VirtualServer(inside) = &mut attributes[0] else {
        panic!("no virtual server");
    };
    for attribute in inside {
        if let VirtualServerAttribute::Protocol(number) = attribute {
            *number = 50;
        }
    }
    assert_eq!(message.virtual_server(), Ok(None));
}
