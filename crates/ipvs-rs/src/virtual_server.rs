//! Virtual servers: what identifies one, what can be set on one, what the kernel tells of one.

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use crate::{Family, Protocol, Scheduler, Stats};

/// What identifies a virtual server in the kernel (`struct ip_vs_service_user_kern`: af, protocol, addr, port or fwmark).
///
/// Sorted by family, protocol, address, port; marks come after all addresses.
#[doc(alias = "service")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VirtualServerKey {
    /// An address, a port and a protocol (`ipvsadm -t`, `-u`, `--sctp-service`).
    Address {
        /// The virtual address.
        address: IpAddr,
        /// The port; 0 is "every port", which the kernel takes only with persistence.
        port: u16,
        /// The transport protocol.
        protocol: Protocol,
    },
    /// A firewall mark (`ipvsadm -f`), for one family.
    Mark {
        /// The whole mark of the packet; the kernel compares without a mask.
        mark: NonZeroU32,
        /// The family whose packets are meant.
        family: Family,
    },
}

impl VirtualServerKey {
    /// The family whose packets this virtual server takes.
    pub fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(*address),
            Self::Mark { family, .. } => *family,
        }
    }

    fn order(&self) -> (u8, Family, Option<Protocol>, Option<IpAddr>, u32) {
        match *self {
            Self::Address {
                address,
                port,
                protocol,
            } => (
                0,
                Family::of(address),
                Some(protocol),
                Some(address),
                u32::from(port),
            ),
            Self::Mark { mark, family } => (1, family, None, None, mark.get()),
        }
    }
}

impl Ord for VirtualServerKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for VirtualServerKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// `TCP 192.0.2.1:80`, `UDP [2001:db8::1]:53`, `FWM 7 IPv4`.
impl fmt::Display for VirtualServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Address {
                address,
                port,
                protocol,
            } => write!(f, "{protocol} {}", SocketAddr::new(address, port)),
            Self::Mark { mark, family } => write!(f, "FWM {mark} {family}"),
        }
    }
}

/// What can be set on a virtual server. Equality covers every field, so "differs" means "must be set".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualServerConfig {
    /// `ipvsadm -s`.
    pub scheduler: Scheduler,
    /// `ipvsadm -b`, `-o`.
    pub flags: Flags,
    /// `ipvsadm -p`, `-M`; `None` is no persistence.
    pub persistence: Option<Persistence>,
    /// `IPVS_SVC_ATTR_PE_NAME` (`ipvsadm --pe`), such as `sip`; `None` is none.
    pub persistence_engine: Option<String>,
}

impl VirtualServerConfig {
    /// A virtual server with this scheduler and nothing else set.
    pub fn new(scheduler: Scheduler) -> Self {
        Self {
            scheduler,
            flags: Flags::default(),
            persistence: None,
            persistence_engine: None,
        }
    }
}

/// The bits of `IPVS_SVC_ATTR_FLAGS` that a user sets, without persistence, which is a field of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent bits of one word of the kernel"
)]
pub struct Flags {
    /// `IP_VS_SVC_F_SCHED1` 0x08: `sh-fallback`, `mh-fallback`; `ipvsadm -b flag-1`.
    pub scheduler_1: bool,
    /// `IP_VS_SVC_F_SCHED2` 0x10: `sh-port`, `mh-port`; `ipvsadm -b flag-2`.
    pub scheduler_2: bool,
    /// `IP_VS_SVC_F_SCHED3` 0x20: no scheduler of mainline uses it; `ipvsadm -b flag-3`.
    pub scheduler_3: bool,
    /// `IP_VS_SVC_F_ONEPACKET` 0x04: each UDP packet is scheduled alone; `ipvsadm -o`.
    pub one_packet: bool,
}

/// Connections of one client go to one real server while the template lives (`IP_VS_SVC_F_PERSISTENT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Persistence {
    /// Seconds the template lives after its last connection ended (`IPVS_SVC_ATTR_TIMEOUT`).
    pub timeout: u32,
    /// How much of the client's address counts (`IPVS_SVC_ATTR_NETMASK`).
    pub netmask: Netmask,
}

/// How much of a client's address persistence looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Netmask {
    /// A mask; 255.255.255.255 is each address alone.
    V4(Ipv4Addr),
    /// A prefix length from 1 to 128.
    V6(u8),
}

impl Netmask {
    /// Each address alone.
    pub fn host(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self::V4(Ipv4Addr::BROADCAST),
            Family::Ipv6 => Self::V6(128),
        }
    }
}

/// A virtual server as the kernel tells it.
#[doc(alias = "service")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualServer {
    /// What identifies it.
    pub key: VirtualServerKey,
    /// What was set on it.
    pub config: VirtualServerConfig,
    /// What it counted since it was created or zeroed.
    pub stats: Stats,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str, port: u16, protocol: Protocol) -> VirtualServerKey {
        VirtualServerKey::Address {
            address: address.parse().unwrap(),
            port,
            protocol,
        }
    }

    #[test]
    fn keys_sort_by_family_then_protocol_then_address_then_port() {
        let sorted = [
            key("192.0.2.9", 80, Protocol::Tcp),
            key("192.0.2.10", 53, Protocol::Tcp),
            key("192.0.2.10", 80, Protocol::Tcp),
            key("192.0.2.1", 53, Protocol::Udp),
            key("2001:db8::1", 53, Protocol::Tcp),
            key("2001:db8::1", 53, Protocol::Sctp),
            VirtualServerKey::Mark {
                mark: NonZeroU32::MIN,
                family: Family::Ipv4,
            },
            VirtualServerKey::Mark {
                mark: NonZeroU32::MIN,
                family: Family::Ipv6,
            },
        ];
        let mut shuffled = sorted;
        shuffled.reverse();
        shuffled.sort();
        assert_eq!(shuffled, sorted);
    }

    #[test]
    fn keys_print_as_an_operator_writes_them() {
        assert_eq!(
            key("192.0.2.1", 80, Protocol::Tcp).to_string(),
            "TCP 192.0.2.1:80"
        );
        assert_eq!(
            key("2001:db8::1", 53, Protocol::Udp).to_string(),
            "UDP [2001:db8::1]:53"
        );
    }
}
