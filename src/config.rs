//! Arguments as typed, turned into settings that are checked. The only reader of the environment.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::cli::{HostArgs, NodeArgs, PacketArgs};
use crate::nft::MarkBit;

/// The longest name of a network device (`IFNAMSIZ` without its NUL).
const LONGEST_DEVICE_NAME: usize = 15;

/// A setting that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `--device`
    #[error(
        "--device {0:?} cannot name a network device: 1 to 15 characters without spaces, / and :, not . or .."
    )]
    Device(String),
    /// `--node-name` or its environment variable.
    #[error(
        "the node name {0:?}, from --node-name or NODE_NAME, cannot name a node: letters, digits, - and ., at both ends a letter or digit"
    )]
    NodeName(String),
    /// `--drain-timeout`
    #[error("--drain-timeout {0:?} is no time; write it as 90s, 10m or 2h, up to 24h")]
    DrainTimeout(String),
    /// `--audit-cycle`
    #[error("--audit-cycle {0:?} is no time from 1s to 24h")]
    AuditCycle(String),
    /// `--cluster-cidr`
    #[error("--cluster-cidr {0:?} is not a range of addresses such as 10.244.0.0/16")]
    ClusterCidr(String),
    /// `--masquerade-bit`
    #[error("--masquerade-bit {0} is not a bit from 0 to 31")]
    MasqueradeBit(u8),
    /// No `--node-name`, and a host name that is none.
    #[error("the host name {0:?} cannot name a node; set --node-name or NODE_NAME")]
    HostName(String),
}

/// Settings about the host, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfig {
    /// The directory of the control socket and of the record of what weir owns.
    pub run_dir: PathBuf,
    /// The dummy device that carries the VIPs.
    pub device: String,
}

impl TryFrom<HostArgs> for HostConfig {
    type Error = ConfigError;

    fn try_from(args: HostArgs) -> Result<Self, Self::Error> {
        let fits = (1..=LONGEST_DEVICE_NAME).contains(&args.device.len());
        let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
        if !fits || !args.device.bytes().all(allowed) || [".", ".."].contains(&args.device.as_str())
        {
            return Err(ConfigError::Device(args.device));
        }
        Ok(Self {
            run_dir: args.run_dir,
            device: args.device,
        })
    }
}

/// Settings about packets, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketConfig {
    /// Ranges of the cluster's pods; empty for the Node's own.
    pub cluster_cidrs: Vec<IpNet>,
    /// The bit of the packet mark that means "masquerade".
    pub mark: MarkBit,
}

impl TryFrom<PacketArgs> for PacketConfig {
    type Error = ConfigError;

    fn try_from(args: PacketArgs) -> Result<Self, Self::Error> {
        let mut cluster_cidrs = Vec::new();
        for text in args.cluster_cidr {
            let Ok(range) = text.trim().parse::<IpNet>() else {
                return Err(ConfigError::ClusterCidr(text));
            };
            cluster_cidrs.push(range.trunc());
        }
        let bit = args.masquerade_bit;
        let mark = MarkBit::new(u32::from(bit)).ok_or(ConfigError::MasqueradeBit(bit))?;
        Ok(Self {
            cluster_cidrs,
            mark,
        })
    }
}

/// The longest of the times that can be set.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

fn time(text: &str) -> Option<Duration> {
    let time = text.parse::<jiff::SignedDuration>().ok()?;
    Duration::try_from(time)
        .ok()
        .filter(|time| *time <= LONGEST)
}

/// How long an audit cycle takes: 1 second to 24 hours.
///
/// # Errors
/// When the text is no such time.
pub fn audit_cycle(text: &str) -> Result<Duration, ConfigError> {
    time(text)
        .filter(|time| *time >= Duration::from_secs(1))
        .ok_or_else(|| ConfigError::AuditCycle(text.to_owned()))
}

/// How long an endpoint that leaves may keep its connections: 0 to 24 hours.
///
/// # Errors
/// When the text is no such time.
pub fn drain_timeout(text: &str) -> Result<Duration, ConfigError> {
    time(text).ok_or_else(|| ConfigError::DrainTimeout(text.to_owned()))
}

/// The name of this node: as given, else the host name; in lower case without spaces around it, as kubelet and kube-proxy take it.
///
/// # Errors
/// When neither can be the name of a Node.
pub fn node_name(args: NodeArgs) -> Result<String, ConfigError> {
    if let Some(given) = args.node_name {
        let name = given.trim().to_lowercase();
        return if is_node_name(&name) {
            Ok(name)
        } else {
            Err(ConfigError::NodeName(given))
        };
    }
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let name = host.trim().to_lowercase();
    if is_node_name(&name) {
        Ok(name)
    } else {
        Err(ConfigError::HostName(host))
    }
}

/// RFC 1123, as the API server checks the name of a Node.
fn is_node_name(name: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'
    };
    let ends_well = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    name.len() <= 253
        && name.bytes().all(allowed)
        && ends_well(name.bytes().next())
        && ends_well(name.bytes().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(device: &str) -> Result<HostConfig, ConfigError> {
        HostConfig::try_from(HostArgs {
            run_dir: "/run/weir".into(),
            device: device.to_owned(),
        })
    }

    #[test]
    fn a_device_is_named_as_the_kernel_allows() {
        for good in ["dummy-weir0", "a", "123456789012345"] {
            assert!(host(good).is_ok(), "{good}");
        }
        for bad in ["", "1234567890123456", "a b", "a/b", "a:b", "..", "é"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_drain_timeout_is_a_time() {
        for (text, seconds) in [
            ("0s", 0),
            ("90s", 90),
            ("10m", 600),
            ("1h 30m", 5_400),
            ("24h", 86_400),
        ] {
            assert_eq!(
                drain_timeout(text).unwrap(),
                Duration::from_secs(seconds),
                "{text}"
            );
        }
        for bad in ["", "10", "-1s", "25h", "soon"] {
            assert!(drain_timeout(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_node_is_named_as_kubernetes_allows() {
        let name = |given: &str| {
            node_name(NodeArgs {
                node_name: Some(given.to_owned()),
            })
        };
        assert_eq!(name(" Node-1.example.org ").unwrap(), "node-1.example.org");
        for bad in ["", "a_b", "-a", "a.", "ä"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }
}
