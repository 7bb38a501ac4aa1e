//! `/proc/net/ip_vs`: every virtual and real server with weight and connections, in one read.
//!
//! Over netlink the real servers need one dump for each virtual server. This text has all of them at a fifth of the cost,
//! but not everything: neither flags (but `ops`), nor counters, nor the type of a tunnel, nor the family of a firewall mark.
//!
//! **The text may lack virtual servers.** When another network namespace has virtual servers, the kernel loses its place between two
//! pages of the text and skips some (`ip_vs_info_seq_next` counts those of all namespaces, `ip_vs_info_array` only this one's;
//! 314 of 600 were told on 6.12.117, 323 on 6.1.192). What is told is right, and a virtual server's real servers are told whole;
//! what is not told is unknown. [`Client::real_servers_of_all`](crate::Client::real_servers_of_all) fills the gaps by dumps.
//!
//! Written by `ip_vs_info_seq_show` in the kernel's `ip_vs_ctl.c`, in this form since Linux 2.6.28.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;

use crate::{
    Family, ForwardMethod, Protocol, RealServer, RealServerKey, Scheduler, Tunnel,
    VirtualServerKey, Weight,
};

const PATH: &str = "/proc/thread-self/net/ip_vs";
/// The first names the version, the others the columns.
const HEADER_LINES: usize = 3;
const HEADER: &str = "IP Virtual Server version ";

/// A virtual server as `/proc/net/ip_vs` tells it, with its real servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What identifies it.
    pub subject: Subject,
    /// Its scheduler; the kernel writes `none` where there is none.
    pub scheduler: Scheduler,
    /// Whether each packet is scheduled alone. Of IPv6 addresses the text does not tell it: always false.
    pub one_packet: bool,
    /// Its persistence, in the kernel's own units.
    pub persistence: Option<JiffyPersistence>,
    /// Its real servers.
    pub real_servers: Vec<RealServerEntry>,
}

/// What identifies an [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// An address, a port and a protocol: always a [`VirtualServerKey::Address`].
    Address(VirtualServerKey),
    /// A firewall mark. The text does not tell its family; a mark may be there twice, once for each.
    Mark(NonZeroU32),
}

/// Persistence as the text has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JiffyPersistence {
    /// The timeout in jiffies: seconds times the kernel's `CONFIG_HZ`, which user space cannot ask for.
    pub jiffies: u32,
    /// For IPv4 the mask as a number, 255.255.255.0 being `0xffffff00`; for IPv6 the prefix length with its bytes swapped on
    /// little-endian machines, 128 being `0x80000000`.
    pub netmask: u32,
}

/// A real server as `/proc/net/ip_vs` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealServerEntry {
    /// What identifies it within its virtual server.
    pub key: RealServerKey,
    /// How packets reach it. Every tunnel is [`Tunnel::Ipip`] here: the text does not tell its type.
    pub forward: ForwardMethod,
    /// Its weight.
    pub weight: Weight,
    /// Established connections.
    pub active: u32,
    /// Connections in any other state.
    pub inactive: u32,
}

impl From<&RealServer> for RealServerEntry {
    fn from(server: &RealServer) -> Self {
        Self {
            key: server.key,
            forward: server.config.forward,
            weight: server.config.weight,
            active: server.connections.active,
            inactive: server.connections.inactive,
        }
    }
}

/// A text that is not what the kernel writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} cannot be understood: {text:?}")]
pub struct ParseError {
    /// The line, counted from 1.
    pub line: usize,
    /// Its text.
    pub text: String,
}

/// A reading of `/proc/net/ip_vs` that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcError {
    /// The file could not be read; it does not exist while the module `ip_vs` is not loaded.
    #[error("cannot read {PATH}")]
    Read(#[source] io::Error),
    /// The text is not what this crate knows.
    #[error("cannot understand {PATH}")]
    Parse(#[source] ParseError),
}

/// Reads the text for the network namespace of the calling thread.
///
/// # Errors
///
/// [`ProcError::Read`].
pub fn read() -> Result<String, ProcError> {
    let mut bytes = Vec::with_capacity(64 << 10);
    File::open(PATH)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .and_then(|_| String::from_utf8(bytes).map_err(io::Error::other))
        .map_err(ProcError::Read)
}

/// The real servers of the virtual servers that have an address and are told, those without real servers included.
///
/// A virtual server that is not in it may exist all the same: see [the module](self).
///
/// Firewall marks are left out, because their family is not told; ask
/// [`Client::real_servers`](crate::Client::real_servers) for those. The text is made piece by piece, so while virtual servers
/// change it is no snapshot in the strict sense.
///
/// # Errors
///
/// [`ProcError`].
pub fn snapshot() -> Result<BTreeMap<VirtualServerKey, Vec<RealServerEntry>>, ProcError> {
    let entries = parse(&read()?).map_err(ProcError::Parse)?;
    Ok(entries
        .into_iter()
        .filter_map(|entry| match entry.subject {
            Subject::Address(key) => Some((key, entry.real_servers)),
            Subject::Mark(_) => None,
        })
        .collect())
}

/// Parses the text. Virtual servers of protocols other than TCP, UDP and SCTP, which the kernel never sends a packet to, are
/// left out with their real servers, as in [`Client::virtual_servers`](crate::Client::virtual_servers).
///
/// # Errors
///
/// [`ParseError`] with the first line that is not what the kernel writes.
pub fn parse(text: &str) -> Result<Vec<Entry>, ParseError> {
    let mut entries: Vec<Entry> = Vec::new();
    // Whether the lines of real servers belong to an entry that is left out.
    let mut left_out = false;
    let mut lines = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        lines = index + 1;
        let understood = match (index, line.strip_suffix('\n')) {
            // The end is missing.
            (_, None) => None,
            (0, Some(line)) => line.starts_with(HEADER).then_some(()),
            (1 | 2, Some(_)) => Some(()),
            (_, Some(line)) => match line.trim_start().strip_prefix("-> ") {
                Some(_) if left_out => Some(()),
                Some(fields) => real_server(fields).and_then(|found| {
                    entries.last_mut()?.real_servers.push(found);
                    Some(())
                }),
                None => virtual_server(line).map(|found| match found {
                    Line::Entry(entry) => {
                        left_out = false;
                        entries.push(entry);
                    }
                    Line::LeftOut => left_out = true,
                }),
            },
        };
        understood.ok_or_else(|| ParseError {
            line: lines,
            text: line.trim_end().to_owned(),
        })?;
    }
    if lines < HEADER_LINES {
        return Err(ParseError {
            line: lines + 1,
            text: String::new(),
        });
    }
    Ok(entries)
}

/// A line about a virtual server.
enum Line {
    Entry(Entry),
    LeftOut,
}

/// `TCP  C0000201:0050 wrr  persistent 22500 FFFFFFFF`, `FWM  00000007 rr `, `UDP  [2001:…:0001]:0035 mh `.
fn virtual_server(line: &str) -> Option<Line> {
    let mut fields = line.split_ascii_whitespace().peekable();
    let protocol = fields.next()?;
    let place = fields.next()?;
    let scheduler = fields.next()?.parse().ok()?;
    let one_packet = fields.next_if_eq(&"ops").is_some();
    let persistence = match fields.next() {
        None => None,
        Some("persistent") => Some(JiffyPersistence {
            // Written as a signed number, kept as an unsigned one.
            jiffies: fields.next()?.parse::<i32>().ok()?.cast_unsigned(),
            netmask: hexadecimal(fields.next()?)?,
        }),
        Some(_) => return None,
    };
    if fields.next().is_some() {
        return None;
    }
    let protocol = match protocol {
        "FWM" => None,
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        // `ip_vs_proto_name`: AH, ESP, ICMP, ICMPv6 or IP_ and a number.
        name if is_protocol_name(name) => return Some(Line::LeftOut),
        _ => return None,
    };
    let subject = match protocol {
        None => Subject::Mark(NonZeroU32::new(hexadecimal(place)?)?),
        Some(protocol) => {
            let (address, port) = endpoint(place)?;
            Subject::Address(VirtualServerKey::Address {
                address,
                port,
                protocol,
            })
        }
    };
    Some(Line::Entry(Entry {
        subject,
        scheduler,
        one_packet,
        persistence,
        real_servers: Vec::new(),
    }))
}

fn is_protocol_name(name: &str) -> bool {
    matches!(name, "AH" | "ESP" | "ICMP" | "ICMPv6" | "IP")
        || name
            .strip_prefix("IP_")
            .is_some_and(|number| number.parse::<u16>().is_ok())
}

/// `7F000001:1F90      Masq    9      1          5`
fn real_server(fields: &str) -> Option<RealServerEntry> {
    let mut fields = fields.split_ascii_whitespace();
    let (address, port) = endpoint(fields.next()?)?;
    let forward = match fields.next()? {
        // Whatever `ip_vs_fwd_name` has no name for is written so too.
        "Masq" => ForwardMethod::Masquerade,
        "Local" => ForwardMethod::LocalNode,
        "Tunnel" => ForwardMethod::Tunnel(Tunnel::Ipip),
        "Route" => ForwardMethod::DirectRoute,
        _ => return None,
    };
    let weight = Weight(fields.next()?.parse().ok()?);
    let active = fields.next()?.parse().ok()?;
    let inactive = fields.next()?.parse().ok()?;
    if fields.next().is_some() {
        return None;
    }
    Some(RealServerEntry {
        key: RealServerKey { address, port },
        forward,
        weight,
        active,
        inactive,
    })
}

/// `C0000201:0050` or `[2001:0db8:0000:0000:0000:0000:0000:0001]:0050`.
fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.rsplit_once(':')?;
    let port = u16::try_from(hexadecimal(port).filter(|_| port.len() == 4)?).ok()?;
    let address = match address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(inside) => IpAddr::V6(inside.parse::<Ipv6Addr>().ok()?),
        None => IpAddr::V4(hexadecimal(address).filter(|_| address.len() == 8)?.into()),
    };
    Some((address, port))
}

/// One to eight hexadecimal digits, without a sign.
fn hexadecimal(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        u32::from_str_radix(text, 16).ok()
    } else {
        None
    }
}

impl Entry {
    /// The family of its address; `None` for a mark, whose family the text does not tell.
    pub fn family(&self) -> Option<Family> {
        match self.subject {
            Subject::Address(key) => Some(key.family()),
            Subject::Mark(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
