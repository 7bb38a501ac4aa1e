//! Kernel settings of IPVS that weir relies on, in the network namespace of the calling thread.

use std::io;
use std::path::PathBuf;

/// A setting that must have a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Setting {
    /// Below `/proc/sys`, with dots.
    name: &'static str,
    value: &'static str,
}

/// What must be set:
/// - `expire_nodest_conn`: a packet of a connection whose real server was deleted ends that connection; without it the packets are
///   dropped, and a UDP client that goes on sending hits nothing for up to five minutes (`ip_vs_in`, seen on 6.12);
/// - `expire_quiescent_template`: a client with session affinity leaves a server that drains.
const SETTINGS: [Setting; 2] = [
    Setting {
        name: "net.ipv4.vs.expire_nodest_conn",
        value: "1",
    },
    Setting {
        name: "net.ipv4.vs.expire_quiescent_template",
        value: "1",
    },
];

/// A setting that is wrong and could not be made right.
#[derive(Debug, thiserror::Error)]
#[error(
    "{name} must be {value} and cannot be set; run `sysctl -w {name}={value}` in this network namespace"
)]
pub struct SysctlError {
    name: &'static str,
    value: &'static str,
    #[source]
    source: io::Error,
}

/// Makes every setting right; tells those that were changed, and those that could not be.
pub fn set() -> (Vec<&'static str>, Vec<SysctlError>) {
    let mut changed = Vec::new();
    let mut failed = Vec::new();
    for Setting { name, value } in SETTINGS {
        let path = path(name);
        let set = match std::fs::read_to_string(&path) {
            Ok(found) if found.trim() == value => continue,
            Ok(_) => std::fs::write(&path, value),
            Err(error) => Err(error),
        };
        match set {
            Ok(()) => changed.push(name),
            Err(source) => failed.push(SysctlError {
                name,
                value,
                source,
            }),
        }
    }
    (changed, failed)
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name.replace('.', "/"))
}
