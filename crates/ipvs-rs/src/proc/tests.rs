use std::collections::BTreeMap;

use super::*;

/// `/proc/net/ip_vs` of Linux 6.12.117 (HZ 250) beside what ipvsadm printed of the same.
const LINUX_6_12: &str = include_str!("linux-6.12.txt");
const TITLE: &str = "IP Virtual Server version 1.2.1 (size=4096)\n\
    Prot LocalAddress:Port Scheduler Flags\n  \
    -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";

fn address(text: &str, port: u16, protocol: Protocol) -> Subject {
    Subject::Address(VirtualServerKey::Address {
        address: text.parse().unwrap(),
        port,
        protocol,
    })
}

fn server(
    place: (&str, u16),
    forward: ForwardMethod,
    weight: u32,
    connections: (u32, u32),
) -> RealServerEntry {
    RealServerEntry {
        key: RealServerKey {
            address: place.0.parse().unwrap(),
            port: place.1,
        },
        forward,
        weight: Weight(weight),
        active: connections.0,
        inactive: connections.1,
    }
}

fn persistence(jiffies: u32, netmask: u32) -> JiffyPersistence {
    JiffyPersistence { jiffies, netmask }
}

#[test]
fn virtual_servers_are_read_with_scheduler_and_persistence() {
    use Protocol::{Sctp, Tcp, Udp};
    let mut expected: Vec<(Subject, &str, bool, Option<JiffyPersistence>)> = vec![
        (address("192.0.2.7", 80, Tcp), "rr", false, None),
        (address("192.0.2.1", 80, Tcp), "wrr", false, None),
        (address("192.0.2.2", 53, Udp), "sh", false, None),
        (address("192.0.2.3", 9899, Sctp), "lc", false, None),
        (
            address("192.0.2.6", 0, Tcp),
            "rr",
            false,
            Some(persistence(90 * 250, 0xffff_ffff)),
        ),
        (address("2001:db8::1", 443, Tcp), "wrr", false, None),
        (address("2001:db8::7", 80, Tcp), "rr", false, None),
        (
            address("192.0.2.5", 5060, Udp),
            "rr",
            false,
            Some(persistence(90 * 250, 0xffff_ffff)),
        ),
        (address("192.0.2.2", 5060, Udp), "rr", true, None),
        (
            address("192.0.2.4", 443, Tcp),
            "sh",
            false,
            Some(persistence(300 * 250, 0xffff_ff00)),
        ),
        (address("2001:db8::1", 9899, Sctp), "rr", false, None),
        (address("2001:db8::1", 53, Udp), "mh", false, None),
        (
            Subject::Mark(NonZeroU32::new(7).unwrap()),
            "rr",
            false,
            Some(persistence(60 * 250, 0x8000_0000)),
        ),
        (
            Subject::Mark(NonZeroU32::new(7).unwrap()),
            "rr",
            false,
            None,
        ),
    ];
    let entries = parse(LINUX_6_12).unwrap();
    let mut read: Vec<_> = entries
        .iter()
        .map(|entry| {
            (
                entry.subject,
                entry.scheduler.name(),
                entry.one_packet,
                entry.persistence,
            )
        })
        .collect();
    expected.sort();
    read.sort();
    assert_eq!(read, expected);
}

#[test]
fn real_servers_are_read_under_their_virtual_servers() {
    use ForwardMethod::{DirectRoute, Masquerade};
    const TUNNEL: ForwardMethod = ForwardMethod::Tunnel(Tunnel::Ipip);
    let entries = parse(LINUX_6_12).unwrap();
    let of: BTreeMap<Subject, &[RealServerEntry]> = entries
        .iter()
        .map(|entry| (entry.subject, entry.real_servers.as_slice()))
        .collect();
    assert_eq!(
        of[&address("192.0.2.1", 80, Protocol::Tcp)],
        [
            server(("2001:db8::2", 80), TUNNEL, 3, (0, 0)),
            server(("198.51.100.8", 80), TUNNEL, 1, (0, 0)),
            server(("198.51.100.7", 80), TUNNEL, 1, (0, 0)),
            server(("198.51.100.6", 80), TUNNEL, 1, (0, 0)),
            server(("198.51.100.5", 80), TUNNEL, 1, (0, 0)),
            server(("198.51.100.3", 80), DirectRoute, 70, (0, 0)),
            server(("198.51.100.2", 8080), Masquerade, 0, (0, 0)),
            server(("127.0.0.1", 8080), Masquerade, 9, (0, 0)),
        ]
    );
    assert_eq!(
        of[&address("192.0.2.7", 80, Protocol::Tcp)],
        [server(("127.0.0.1", 8080), Masquerade, 9, (1, 5))]
    );
    assert_eq!(
        of[&address("2001:db8::7", 80, Protocol::Tcp)],
        [server(("2001:db8::254", 8080), Masquerade, 1, (0, 5))]
    );
    assert!(of[&address("192.0.2.2", 53, Protocol::Udp)].is_empty());
}

#[test]
fn a_text_that_is_cut_off_is_an_error_and_not_less() {
    assert!(parse("").is_err());
    assert_eq!(parse(TITLE), Ok(Vec::new()));
    let whole = parse(LINUX_6_12).unwrap();
    for (end, _) in LINUX_6_12.char_indices() {
        let part = &LINUX_6_12[..end];
        match parse(part) {
            // Whole lines are a shorter text.
            Ok(entries) => {
                assert!(
                    part.ends_with('\n') && entries.len() <= whole.len(),
                    "{part}"
                );
            }
            Err(error) => assert_eq!(
                error.line,
                part.lines().count().max(1) + usize::from(part.ends_with('\n'))
            ),
        }
    }
}

#[test]
fn no_changed_byte_panics() {
    let mut bytes = LINUX_6_12.as_bytes().to_vec();
    for at in 0..bytes.len() {
        let original = bytes[at];
        for value in [b' ', b'\n', b':', b'0', b'G', b'-', b'>', b']', 0, 0x7f] {
            bytes[at] = value;
            let _seen = parse(str::from_utf8(&bytes).unwrap());
        }
        bytes[at] = original;
    }
}

#[test]
fn lines_that_the_kernel_does_not_write_are_refused() {
    for line in [
        "TCP",
        "TCP  C0000201 wrr",
        "TCP  C0000201:0050",
        "TCP  C0000201:0050 wrr persistent 5",
        "TCP  C0000201:0050 wrr what",
        "TCP  0000201:0050 wrr",
        "TCP  C0000201:050 wrr",
        "XYZ  C0000201:0050 wrr",
        "FWM  00000000 rr",
        "FWM  +0000007 rr",
        "  -> 7F000001:1F90      Masq    9      1          5",
    ] {
        let text = format!("{TITLE}{line}\n");
        let error = parse(&text).unwrap_err();
        assert_eq!((error.line, error.text.as_str()), (4, line.trim_end()));
    }
    let text = format!("{TITLE}TCP  C0000201:0050 wrr\n  -> 7F000001:1F90 Masq -9 1 5\n");
    assert_eq!(parse(&text).unwrap_err().line, 5);
}

#[test]
fn virtual_servers_of_other_protocols_are_left_out_with_their_real_servers() {
    let text = format!(
        "{TITLE}ESP  C0000201:0050 rr\n  -> 7F000001:1F90 Masq 1 0 0\n\
         UDP  C0000201:0050 none\n  -> 7F000001:1F90 Local 1 0 0\n"
    );
    let entries = parse(&text).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].scheduler.name(), "none");
    assert_eq!(
        entries[0].real_servers,
        [server(
            ("127.0.0.1", 8080),
            ForwardMethod::LocalNode,
            1,
            (0, 0)
        )]
    );
}
