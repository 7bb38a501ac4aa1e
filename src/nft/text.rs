//! Our tables as a file that `nft -f` loads, replacing what is there.
//!
//! It differs from what `super::encode` makes in one thing: in the set of source ranges the protocol is compared with the field of the IP
//! header, not with what the kernel found behind extension headers, because nft 1.0.6 cannot say the latter for a set with ranges ("Operation
//! not supported"). An IPv6 packet with extension headers then is in no range.

use std::fmt;

use ipvs::Family;

use super::chains::tables;
use super::model::{Elements, Set, Shape};
use super::rules::{
    Chain, ChainKind, Expression, Fields, HookPoint, IpProtocol, Reject, Rule, Settings, State,
    Table, TableName,
};

/// What the comment of both tables begins with. A table without it is not ours.
pub(super) const MARKER: &str = "made by weir, changes are undone; rules ";

/// The whole file.
pub fn render(settings: &Settings, elements: &Elements) -> String {
    let comment = comment(*settings);
    let mut file = String::new();
    for table in tables(*settings) {
        let name = table.name;
        file.extend([format!("add table {name}\ndelete table {name}\n")]);
    }
    for table in tables(*settings) {
        file += &Block {
            table: &table,
            comment: Some(&comment),
            elements,
        }
        .to_string();
    }
    file
}

/// The comment of both tables: it tells ours from others', and by other rules.
pub(super) fn comment(settings: Settings) -> String {
    let mut rules = String::new();
    for table in tables(settings) {
        rules += &Block {
            table: &table,
            comment: None,
            elements: &Elements::new(),
        }
        .to_string();
    }
    format!("{MARKER}{:016x}", fnv1a(rules.as_bytes()))
}

/// FNV-1a, 64 bits: not to be proof against anybody, but the same in every build.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

struct Block<'a> {
    table: &'a Table,
    comment: Option<&'a str>,
    elements: &'a Elements,
}

impl fmt::Display for Block<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {{", self.table.name)?;
        if let Some(comment) = self.comment {
            writeln!(f, "\tcomment \"{comment}\"")?;
        }
        for counter in &self.table.counters {
            writeln!(f, "\tcounter {} {{ }}", counter.name())?;
        }
        for set in &self.table.sets {
            self.set(f, *set)?;
        }
        for chain in &self.table.chains {
            write!(f, "{chain}")?;
        }
        f.write_str("}\n")
    }
}

impl Block<'_> {
    fn set(&self, f: &mut fmt::Formatter<'_>, set: Set) -> fmt::Result {
        let address = match set.family() {
            Family::Ipv4 => "ipv4_addr",
            Family::Ipv6 => "ipv6_addr",
        };
        let key = format!("{address} . inet_proto . inet_service");
        let (kind, of, flags) = match set.shape() {
            Shape::Address => ("set", address.to_owned(), ""),
            Shape::Prefix => ("set", address.to_owned(), "\t\tflags interval\n"),
            Shape::Key => ("set", key, ""),
            Shape::KeyTo => ("map", format!("{key} : {address} . inet_service"), ""),
            Shape::KeyFrom => ("set", format!("{key} . {address}"), "\t\tflags interval\n"),
            Shape::Pair => ("set", format!("{address} . {address}"), ""),
        };
        writeln!(f, "\t{kind} {set} {{\n\t\ttype {of}")?;
        f.write_str(flags)?;
        let mut separator = "\t\telements = {\n\t\t\t";
        let elements = self.elements.get(&set).into_iter().flatten();
        for element in elements {
            write!(f, "{separator}{element}")?;
            separator = ",\n\t\t\t";
        }
        if separator.starts_with(',') {
            f.write_str("\n\t\t}\n")?;
        }
        f.write_str("\t}\n")
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet weir",
            Self::Arp => "arp weir",
        })
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        if let Some(hook) = self.hook {
            let kind = match hook.kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
            };
            let point = match hook.point {
                HookPoint::Prerouting => "prerouting",
                HookPoint::Input | HookPoint::ArpInput => "input",
                HookPoint::Forward => "forward",
                HookPoint::Output => "output",
                HookPoint::Postrouting => "postrouting",
            };
            let priority = hook.priority;
            writeln!(
                f,
                "\t\ttype {kind} hook {point} priority {priority}; policy accept;"
            )?;
        }
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        f.write_str("\t}\n")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for expression in &self.0 {
            write!(f, "{separator}{expression}")?;
            separator = " ";
        }
        Ok(())
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::State(state) => f.write_str(match state {
                State::New => "ct state new",
                State::NotNew => "ct state != new",
                State::EstablishedOrRelated => "ct state established,related",
                State::Invalid => "ct state invalid",
            }),
            Self::Family(Family::Ipv4) => f.write_str("meta nfproto ipv4"),
            Self::Family(Family::Ipv6) => f.write_str("meta nfproto ipv6"),
            Self::Protocol(protocol) => f.write_str(match protocol {
                IpProtocol::Icmp => "meta l4proto icmp",
                IpProtocol::Tcp => "meta l4proto tcp",
                IpProtocol::Icmpv6 => "meta l4proto ipv6-icmp",
                IpProtocol::Sctp => "meta l4proto sctp",
            }),
            Self::In(fields, set) => write!(f, "{} @{set}", joined(fields, set)),
            Self::NotIn(fields, set) => write!(f, "{} != @{set}", joined(fields, set)),
            Self::Marked(bit) => {
                let mark = bit.mark();
                write!(f, "meta mark & {mark:#x} == {mark:#x}")
            }
            Self::Mark(bit) => write!(f, "meta mark set meta mark or {:#x}", bit.mark()),
            Self::Unmark(bit) => write!(f, "meta mark set meta mark xor {:#x}", bit.mark()),
            Self::NotLocal => f.write_str("fib daddr type != local"),
            Self::ArpRequest => f.write_str("arp operation request"),
            Self::Count(counter) => write!(f, "counter name {}", counter.name()),
            Self::Reject(reject) => f.write_str(match reject {
                Reject::TcpReset => "reject with tcp reset",
                Reject::ProtocolUnreachable => "reject with icmp type prot-unreachable",
                Reject::PortUnreachable => "reject",
            }),
            Self::Translate(fields, map) => {
                let header = header(map.family());
                write!(f, "dnat {header} to {} map @{map}", joined(fields, map))
            }
            Self::Masquerade => f.write_str("masquerade fully-random"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

fn header(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip6",
    }
}

fn joined(fields: Fields, set: Set) -> String {
    let ip = header(set.family());
    let protocol = match (set.shape(), set.family()) {
        (Shape::KeyFrom, Family::Ipv4) => "ip protocol",
        (Shape::KeyFrom, Family::Ipv6) => "ip6 nexthdr",
        (
            Shape::Address | Shape::Prefix | Shape::Key | Shape::KeyTo | Shape::Pair,
            Family::Ipv4 | Family::Ipv6,
        ) => "meta l4proto",
    };
    match fields {
        Fields::Source => format!("{ip} saddr"),
        Fields::Destination => format!("{ip} daddr"),
        Fields::SourceKey => format!("{ip} saddr . {protocol} . th sport"),
        Fields::DestinationKey => format!("{ip} daddr . {protocol} . th dport"),
        Fields::DestinationKeyAndSource => {
            format!("{ip} daddr . {protocol} . th dport . {ip} saddr")
        }
        Fields::Both => format!("{ip} saddr . {ip} daddr"),
        Fields::ArpDestination => "arp daddr ip".to_owned(),
    }
}
