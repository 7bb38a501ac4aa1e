//! Counters.

/// What a virtual or a real server counted (`IPVS_SVC_ATTR_STATS64`, `IPVS_DEST_ATTR_STATS64`, since Linux 4.1; the 32-bit
/// counters of older kernels widened).
///
/// The kernel adds up what each processor counted every two seconds; between that, counters stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Connections scheduled (`IPVS_STATS_ATTR_CONNS`).
    pub connections: u64,
    /// Packets from clients (`IPVS_STATS_ATTR_INPKTS`).
    pub incoming_packets: u64,
    /// Packets to clients (`IPVS_STATS_ATTR_OUTPKTS`).
    pub outgoing_packets: u64,
    /// Bytes from clients (`IPVS_STATS_ATTR_INBYTES`).
    pub incoming_bytes: u64,
    /// Bytes to clients (`IPVS_STATS_ATTR_OUTBYTES`).
    pub outgoing_bytes: u64,
    /// The kernel's estimates, per second, over the last seconds.
    pub rates: Rates,
}

/// Estimated rates, each per second (`struct ip_vs_estimator`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// `IPVS_STATS_ATTR_CPS`.
    pub connections: u64,
    /// `IPVS_STATS_ATTR_INPPS`.
    pub incoming_packets: u64,
    /// `IPVS_STATS_ATTR_OUTPPS`.
    pub outgoing_packets: u64,
    /// `IPVS_STATS_ATTR_INBPS`.
    pub incoming_bytes: u64,
    /// `IPVS_STATS_ATTR_OUTBPS`.
    pub outgoing_bytes: u64,
}
