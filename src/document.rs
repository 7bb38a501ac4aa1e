//! The desired state as text: JSON that other programs read (and `weir diff` reads back), and lines as `ipvsadm -Sn` prints them.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipvs::{
    Flags, ForwardMethod, Netmask, Persistence, Protocol, RealServerConfig, RealServerKey,
    Scheduler, VirtualServerConfig, VirtualServerKey, Weight,
};
use serde::{Deserialize, Serialize};

use crate::arbitrate::{Desired, DesiredVirtualServer, Origin};
use crate::model::finding::{FindingDocument, NoteDocument};
use crate::model::{ObjectName, Problems};

/// The `apiVersion` of all JSON that weir prints.
pub const API_VERSION: &str = "weir/v1";

/// What `weir render -o json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RenderDocument {
    /// [`API_VERSION`].
    pub api_version: String,
    /// By family, protocol, address, port.
    pub virtual_servers: Vec<VirtualServerDocument>,
    /// Addresses to be local.
    pub vips: Vec<IpAddr>,
    /// Objects that could not be honoured in full.
    pub findings: Vec<FindingDocument>,
    /// What is right but may surprise.
    pub notes: Vec<NoteDocument>,
}

/// A virtual server as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualServerDocument {
    /// The virtual address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// `namespace/name`; empty for weir's own inert servers.
    pub service: String,
    /// The Service port's name; empty if it has none.
    pub port_name: String,
    /// The kernel's name of the scheduler.
    pub scheduler: String,
    /// The scheduler's flags, `flag-1` to `flag-3`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scheduler_flags: Vec<String>,
    /// Seconds a client stays with its real server; absent is no affinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence_seconds: Option<u32>,
    /// Where connections go.
    pub real_servers: Vec<RealServerDocument>,
}

/// A real server as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RealServerDocument {
    /// The endpoint's address.
    pub address: IpAddr,
    /// The endpoint's port.
    pub port: u16,
    /// Its share of new connections.
    pub weight: u32,
}

/// A document that does not say what is desired.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is not of this version.
    #[error("it is of version {0:?}, this weir reads {API_VERSION:?}")]
    Version(String),
    /// A protocol that weir does not know.
    #[error("it names the protocol {0:?}")]
    Protocol(String),
    /// A scheduler that cannot be one.
    #[error("it names a scheduler that cannot be one")]
    Scheduler(#[source] ipvs::scheduler::InvalidScheduler),
}

impl RenderDocument {
    /// The document of a desired state.
    pub fn new(desired: &Desired, problems: &Problems) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            virtual_servers: desired
                .virtual_servers
                .iter()
                .filter_map(|(key, server)| VirtualServerDocument::new(key, server))
                .collect(),
            vips: desired.vips.iter().copied().collect(),
            findings: problems
                .findings
                .iter()
                .map(FindingDocument::from)
                .collect(),
            notes: problems.notes.iter().map(NoteDocument::from).collect(),
        }
    }

    /// The desired state that a document says.
    ///
    /// # Errors
    /// When it is of another version, or holds what this weir does not know.
    pub fn desired(&self) -> Result<Desired, DocumentError> {
        if self.api_version != API_VERSION {
            return Err(DocumentError::Version(self.api_version.clone()));
        }
        let mut virtual_servers = BTreeMap::new();
        for document in &self.virtual_servers {
            let (key, server) = document.desired()?;
            virtual_servers.insert(key, server);
        }
        Ok(Desired {
            virtual_servers,
            vips: self.vips.iter().copied().collect(),
            conflicts: BTreeMap::new(),
            // The document does not tell the elements of the packet sets.
            wishes: Desired::new().wishes,
        })
    }
}

impl VirtualServerDocument {
    fn new(key: &VirtualServerKey, server: &DesiredVirtualServer) -> Option<Self> {
        let VirtualServerKey::Address {
            address,
            port,
            protocol,
        } = *key
        else {
            return None;
        };
        let (service, port_name) = origin_text(server.origin.as_ref());
        Some(Self {
            address,
            port,
            protocol: protocol.to_string(),
            service,
            port_name,
            scheduler: server.config.scheduler.name().to_owned(),
            scheduler_flags: flag_names(server.config.flags),
            persistence_seconds: server
                .config
                .persistence
                .map(|persistence| persistence.timeout),
            real_servers: server
                .real_servers
                .iter()
                .map(|(real, config)| RealServerDocument {
                    address: real.address,
                    port: real.port,
                    weight: config.weight.0,
                })
                .collect(),
        })
    }

    fn desired(&self) -> Result<(VirtualServerKey, DesiredVirtualServer), DocumentError> {
        let key = VirtualServerKey::Address {
            address: self.address,
            port: self.port,
            protocol: protocol(&self.protocol)?,
        };
        let scheduler: Scheduler = self.scheduler.parse().map_err(DocumentError::Scheduler)?;
        let has = |name: &str| self.scheduler_flags.iter().any(|flag| flag == name);
        let config = VirtualServerConfig {
            flags: Flags {
                scheduler_1: has("flag-1"),
                scheduler_2: has("flag-2"),
                scheduler_3: has("flag-3"),
                one_packet: false,
            },
            persistence: self.persistence_seconds.map(|timeout| Persistence {
                timeout,
                netmask: Netmask::host(key.family()),
            }),
            ..VirtualServerConfig::new(scheduler)
        };
        let real_servers = self.real_servers.iter().map(|server| {
            let key = RealServerKey {
                address: server.address,
                port: server.port,
            };
            (key, RealServerConfig::masquerade(Weight(server.weight)))
        });
        let server = DesiredVirtualServer {
            config,
            real_servers: real_servers.collect(),
            origin: self.origin(),
        };
        Ok((key, server))
    }

    fn origin(&self) -> Option<Origin> {
        let (namespace, name) = self.service.split_once('/')?;
        Some(Origin {
            service: ObjectName::new(namespace, name),
            port_name: self.port_name.as_str().into(),
        })
    }
}

/// `namespace/name` and the port's name, both empty for a virtual server that is no Service's.
pub fn origin_text(origin: Option<&Origin>) -> (String, String) {
    origin.map_or_else(Default::default, |origin| {
        (origin.service.to_string(), origin.port_name.to_string())
    })
}

fn protocol(text: &str) -> Result<Protocol, DocumentError> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|protocol| protocol.to_string() == text)
        .ok_or_else(|| DocumentError::Protocol(text.to_owned()))
}

fn flag_names(flags: Flags) -> Vec<String> {
    [
        (flags.scheduler_1, "flag-1"),
        (flags.scheduler_2, "flag-2"),
        (flags.scheduler_3, "flag-3"),
    ]
    .into_iter()
    .filter(|(set, _)| *set)
    .map(|(_, name)| name.to_owned())
    .collect()
}

/// The desired virtual servers as `ipvsadm -Sn` prints what a kernel holds: by family, protocol, address and port, each `-A` line
/// followed by its `-a` lines.
pub fn ipvsadm(desired: &Desired) -> String {
    let mut text = String::new();
    for (key, server) in &desired.virtual_servers {
        let key = IpvsadmKey(key);
        // Writing to a String cannot fail.
        let written = write!(text, "-A {key} -s {}", server.config.scheduler)
            .and_then(|()| write_config(&mut text, &server.config))
            .and_then(|()| writeln!(text));
        debug_assert!(written.is_ok());
        for (real, config) in &server.real_servers {
            let forward = forward_flag(config.forward);
            let written = writeln!(text, "-a {key} -r {real} {forward} -w {}", config.weight);
            debug_assert!(written.is_ok());
        }
    }
    text
}

fn write_config(text: &mut String, config: &VirtualServerConfig) -> fmt::Result {
    if let Some(persistence) = config.persistence {
        write!(text, " -p {}", persistence.timeout)?;
        match persistence.netmask {
            Netmask::V4(Ipv4Addr::BROADCAST) | Netmask::V6(128) => {}
            Netmask::V4(mask) => write!(text, " -M {mask}")?,
            Netmask::V6(prefix) => write!(text, " -M {prefix}")?,
        }
    }
    let names = if config.scheduler == Scheduler::SourceHashing {
        ["sh-fallback", "sh-port", "flag-3"]
    } else if config.scheduler == Scheduler::Maglev {
        ["mh-fallback", "mh-port", "flag-3"]
    } else {
        ["flag-1", "flag-2", "flag-3"]
    };
    let flags = [
        config.flags.scheduler_1,
        config.flags.scheduler_2,
        config.flags.scheduler_3,
    ];
    let set: Vec<_> = flags
        .iter()
        .zip(names)
        .filter(|(set, _)| **set)
        .map(|(_, name)| name)
        .collect();
    if !set.is_empty() {
        write!(text, " -b {}", set.join(","))?;
    }
    Ok(())
}

fn forward_flag(forward: ForwardMethod) -> &'static str {
    if let ForwardMethod::Tunnel(_) = forward {
        "-i"
    } else if forward == ForwardMethod::DirectRoute {
        "-g"
    } else {
        "-m"
    }
}

struct IpvsadmKey<'a>(&'a VirtualServerKey);

impl fmt::Display for IpvsadmKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self.0 {
            VirtualServerKey::Address {
                address,
                port,
                protocol,
            } => {
                let flag = match protocol {
                    Protocol::Tcp => "-t",
                    Protocol::Udp => "-u",
                    Protocol::Sctp => "--sctp-service",
                };
                write!(f, "{flag} {}", SocketAddr::new(address, port))
            }
            VirtualServerKey::Mark { mark, family } => match family {
                ipvs::Family::Ipv4 => write!(f, "-f {mark}"),
                ipvs::Family::Ipv6 => write!(f, "-f {mark} -6"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired() -> Desired {
        let mut desired = Desired::new();
        let key = |address: &str, protocol| VirtualServerKey::Address {
            address: address.parse().unwrap(),
            port: 80,
            protocol,
        };
        let server = |config, reals: &[&str]| DesiredVirtualServer {
            config,
            real_servers: reals
                .iter()
                .map(|address| {
                    let key = RealServerKey {
                        address: address.parse().unwrap(),
                        port: 8080,
                    };
                    (key, RealServerConfig::masquerade(Weight::ONE))
                })
                .collect(),
            origin: Some(Origin {
                service: ObjectName::new("default", "web"),
                port_name: "http".into(),
            }),
        };
        let sticky = VirtualServerConfig {
            persistence: Some(Persistence {
                timeout: 10_800,
                netmask: Netmask::V6(128),
            }),
            ..VirtualServerConfig::new(Scheduler::RoundRobin)
        };
        let hashed = VirtualServerConfig {
            flags: Flags {
                scheduler_1: true,
                scheduler_2: true,
                ..Flags::default()
            },
            ..VirtualServerConfig::new(Scheduler::Maglev)
        };
        let plain = VirtualServerConfig::new(Scheduler::RoundRobin);
        desired.vips.insert("198.51.100.7".parse().unwrap());
        desired.virtual_servers.extend([
            (
                key("198.51.100.7", Protocol::Sctp),
                server(plain, &["203.0.113.1"]),
            ),
            (
                key("198.51.100.7", Protocol::Udp),
                server(hashed, &["203.0.113.1", "203.0.113.2"]),
            ),
            (
                key("2001:db8:1::7", Protocol::Tcp),
                server(sticky, &["2001:db8:2::1"]),
            ),
        ]);
        desired
    }

    #[test]
    fn lines_are_those_of_ipvsadm() {
        let expected = "\
-A -t 192.0.2.1:1 -s rr
-A -u 198.51.100.7:80 -s mh -b mh-fallback,mh-port
-a -u 198.51.100.7:80 -r 203.0.113.1:8080 -m -w 1
-a -u 198.51.100.7:80 -r 203.0.113.2:8080 -m -w 1
-A --sctp-service 198.51.100.7:80 -s rr
-a --sctp-service 198.51.100.7:80 -r 203.0.113.1:8080 -m -w 1
-A -t [2001:db8::1]:1 -s rr
-A -t [2001:db8:1::7]:80 -s rr -p 10800
-a -t [2001:db8:1::7]:80 -r [2001:db8:2::1]:8080 -m -w 1
";
        assert_eq!(ipvsadm(&desired()), expected);
    }

    #[test]
    fn what_is_written_is_read_back_whole() {
        let desired = desired();
        let document = RenderDocument::new(&desired, &Problems::default());
        let text = serde_json::to_string(&document).unwrap();
        let again: RenderDocument = serde_json::from_str(&text).unwrap();
        assert_eq!(again.desired().unwrap(), desired);
    }

    #[test]
    fn another_version_is_refused() {
        let mut document = RenderDocument::new(&Desired::new(), &Problems::default());
        document.api_version = "weir/v9".to_owned();
        assert!(
            matches!(document.desired(), Err(DocumentError::Version(version)) if version == "weir/v9")
        );
    }
}
