//! Connection timeouts that hold for every virtual server of a network namespace.

/// How long idle connections are kept (`IPVS_CMD_ATTR_TIMEOUT_*`, `struct ip_vs_timeout_user`; `ipvsadm --set`).
///
/// The kernel keeps one set for each network namespace; the defaults are 900, 120 and 300 seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeouts {
    /// Seconds an established TCP connection is kept (`IPVS_CMD_ATTR_TIMEOUT_TCP`). Zero in a change means "leave it".
    pub tcp: u32,
    /// Seconds a TCP connection is kept after a FIN (`IPVS_CMD_ATTR_TIMEOUT_TCP_FIN`). Zero in a change means "leave it".
    pub tcp_fin: u32,
    /// Seconds a UDP flow is kept (`IPVS_CMD_ATTR_TIMEOUT_UDP`). Zero in a change means "leave it".
    pub udp: u32,
}
