//! `/proc/net/ip_vs`.

use std::collections::BTreeMap;
use std::io;

use crate::{ForwardMethod, RealServerKey, Scheduler, VirtualServerKey, Weight};

/// A virtual server as `/proc/net/ip_vs` tells it, with its real servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What identifies it.
    pub subject: Subject,
    /// Its scheduler; `None` while it has none.
    pub scheduler: Option<Scheduler>,
    /// Its real servers.
    pub real_servers: Vec<RealServerEntry>,
}

/// What identifies an [`Entry`]: the text does not tell the family of a firewall mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// An address, a port and a protocol.
    Address(VirtualServerKey),
    /// A firewall mark of either family.
    Mark(u32),
}

/// A real server as `/proc/net/ip_vs` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealServerEntry {
    /// What identifies it within its virtual server.
    pub key: RealServerKey,
    /// How packets reach it; the type of a tunnel is not told.
    pub forward: ForwardMethod,
    /// Its weight.
    pub weight: Weight,
    /// Established connections.
    pub active: u32,
    /// Other connections.
    pub inactive: u32,
}

/// A text that is not `/proc/net/ip_vs`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of /proc/net/ip_vs cannot be understood: {text:?}")]
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
    /// The file could not be read; it is missing while the module `ip_vs` is not loaded.
    #[error("cannot read /proc/thread-self/net/ip_vs")]
    Read(#[source] io::Error),
    /// The text is not what this crate knows.
    #[error("cannot understand /proc/thread-self/net/ip_vs")]
    Parse(#[source] ParseError),
}

/// Parses the text of `/proc/net/ip_vs`.
pub fn parse(_text: &str) -> Result<Vec<Entry>, ParseError> {
    Ok(Vec::new())
}
/// Reads the text of `/proc/thread-self/net/ip_vs`.
pub fn read() -> Result<String, ProcError> {
    Ok(String::new())
}
/// Every real server of every virtual server.
pub fn snapshot() -> Result<BTreeMap<VirtualServerKey, Vec<RealServerEntry>>, ProcError> {
    Ok(BTreeMap::new())
}
