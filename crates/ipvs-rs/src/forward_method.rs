//! How packets reach a real server.

/// How IPVS hands a packet to a real server: `IPVS_DEST_ATTR_FWD_METHOD`, masked with `IP_VS_CONN_F_FWD_MASK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ForwardMethod {
    /// Network address translation (`IP_VS_CONN_F_MASQ`, 0; `ipvsadm -m`).
    Masquerade,
    /// Local delivery (`IP_VS_CONN_F_LOCALNODE`, 1). The kernel chooses it itself; asking for it is an error there.
    LocalNode,
    /// Encapsulation (`IP_VS_CONN_F_TUNNEL`, 2; `ipvsadm -i`).
    Tunnel(Tunnel),
    /// Direct routing (`IP_VS_CONN_F_DROUTE`, 3; `ipvsadm -g`).
    DirectRoute,
    /// Forwarded by the cache of the node (`IP_VS_CONN_F_BYPASS`, 4). The kernel uses it, nobody sets it.
    Bypass,
    /// A method of a newer kernel, as its number.
    Other(u32),
}

/// The encapsulation of [`ForwardMethod::Tunnel`] (`IPVS_DEST_ATTR_TUN_TYPE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Tunnel {
    /// IP in IP (`IP_VS_CONN_F_TUNNEL_TYPE_IPIP`, 0).
    Ipip,
    /// Generic UDP encapsulation, since Linux 5.3 (`IP_VS_CONN_F_TUNNEL_TYPE_GUE`, 1).
    Gue {
        /// UDP destination port at the real server.
        port: u16,
        /// `IPVS_DEST_ATTR_TUN_FLAGS`: checksum handling.
        flags: u16,
    },
    /// Generic routing encapsulation, since Linux 5.3 (`IP_VS_CONN_F_TUNNEL_TYPE_GRE`, 2).
    Gre {
        /// `IPVS_DEST_ATTR_TUN_FLAGS`: checksum handling.
        flags: u16,
    },
    /// A type of a newer kernel, as its number.
    Other(u8),
}
