//! The connection synchronisation daemons of IPVS.

use std::net::IpAddr;

/// A synchronisation daemon (`struct ip_vs_daemon_user`; `ipvsadm --start-daemon`).
///
/// A master multicasts its connections, a backup takes them over; a network namespace has at most one of each.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Daemon {
    /// Which side it is (`IPVS_DAEMON_ATTR_STATE`).
    pub role: DaemonRole,
    /// The device it multicasts on (`IPVS_DAEMON_ATTR_MCAST_IFN`): 1 to 15 bytes.
    pub interface: String,
    /// The group it belongs to, 0 to 255 (`IPVS_DAEMON_ATTR_SYNC_ID`); a backup with 0 listens to all.
    pub sync_id: u32,
    /// What newer kernels can set; all of it `None` takes the kernel's defaults.
    pub multicast: Multicast,
}

/// The side of a [`Daemon`] (`IP_VS_STATE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DaemonRole {
    /// Sends connections (`IP_VS_STATE_MASTER`, 1).
    Master,
    /// Receives connections (`IP_VS_STATE_BACKUP`, 2).
    Backup,
}

/// How a [`Daemon`] multicasts, since Linux 4.3. `None` in a request takes the default; the kernel tells every value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Multicast {
    /// Largest UDP payload in bytes (`IPVS_DAEMON_ATTR_SYNC_MAXLEN`).
    pub max_length: Option<u16>,
    /// The group (`IPVS_DAEMON_ATTR_MCAST_GROUP`, `IPVS_DAEMON_ATTR_MCAST_GROUP6`); default 224.0.0.81.
    pub group: Option<IpAddr>,
    /// The UDP port (`IPVS_DAEMON_ATTR_MCAST_PORT`); default 8848.
    pub port: Option<u16>,
    /// The time to live (`IPVS_DAEMON_ATTR_MCAST_TTL`); default 1.
    pub ttl: Option<u8>,
}
