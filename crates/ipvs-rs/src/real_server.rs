//! Real servers: what identifies one within its virtual server, what can be set, what the kernel tells.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::{ForwardMethod, Stats};

/// What identifies a real server within a virtual server (`struct ip_vs_dest_user_kern`: af, addr, port).
#[doc(alias = "destination")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealServerKey {
    /// The address of the real server; its family may differ from the virtual server's only with tunnels (since Linux 3.18).
    pub address: IpAddr,
    /// The port; 0 keeps the client's destination port (virtual servers of marks or of every port).
    pub port: u16,
}

impl fmt::Display for RealServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// What can be set on a real server. Equality covers every field, so "differs" means "must be set".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealServerConfig {
    /// `ipvsadm -m`, `-g`, `-i`.
    pub forward: ForwardMethod,
    /// `ipvsadm -w`.
    pub weight: Weight,
    /// `ipvsadm -x`, `-y`; `None` is no limit.
    pub thresholds: Option<Thresholds>,
}

impl RealServerConfig {
    /// A real server behind NAT with this weight and no connection limit.
    pub fn masquerade(weight: Weight) -> Self {
        Self {
            forward: ForwardMethod::Masquerade,
            weight,
            thresholds: None,
        }
    }
}

/// A real server's share among its peers (`IPVS_DEST_ATTR_WEIGHT`): 0 takes no new connection; the kernel takes up to 2^31 - 1,
/// `ipvsadm` up to 65,535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(pub u32);

impl Weight {
    /// Takes no new connections; established ones go on.
    pub const QUIESCED: Self = Self(0);
    /// The weight of a server among equals.
    pub const ONE: Self = Self(1);
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Connection limits of a real server (`IPVS_DEST_ATTR_U_THRESH`, `IPVS_DEST_ATTR_L_THRESH`), each up to 2^31 - 1: Linux 6.1.192 and
/// 6.12.117 refuse more with `EINVAL`, and a lower limit above the upper one with `ERANGE`. Both 0 is read back as no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thresholds {
    /// Connections above which it gets no new ones; 0 is no limit.
    pub upper: u32,
    /// Connections below which it gets new ones again; 0 lets the kernel take three quarters of `upper`.
    pub lower: u32,
}

/// Connections that a real server holds, as the kernel counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Connections {
    /// Established (`IPVS_DEST_ATTR_ACTIVE_CONNS`).
    pub active: u32,
    /// In any other state; every UDP flow (`IPVS_DEST_ATTR_INACT_CONNS`).
    pub inactive: u32,
    /// Persistence templates (`IPVS_DEST_ATTR_PERSIST_CONNS`).
    pub persistent: u32,
}

/// A real server as the kernel tells it.
#[doc(alias = "destination")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealServer {
    /// What identifies it within its virtual server.
    pub key: RealServerKey,
    /// What was set on it.
    pub config: RealServerConfig,
    /// What it holds now.
    pub connections: Connections,
    /// What it counted since it was created or zeroed.
    pub stats: Stats,
}
