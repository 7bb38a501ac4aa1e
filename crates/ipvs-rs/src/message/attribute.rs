//! Every attribute of `linux/ip_vs.h`, typed. The kernel's numbers stay in here, under the kernel's names.

use netlink_packet_core::{DecodeError, DefaultNla, Nla, NlaBuffer, Parseable};

use super::value::{FlagsAndMask, FromAttribute, Port, RawAddress, RawNetmask, Value};

macro_rules! attributes {
    (
        $(#[$meta:meta])* $name:ident:
        $($(#[$doc:meta])* $variant:ident($value:ty) = $constant:ident $number:literal;)*
    ) => {
        $(const $constant: u16 = $number;)*

        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* $variant($value),)*
            /// An attribute that this crate does not know, or whose value has not the form that it knows: as it came.
            Other(DefaultNla),
        }

        impl Nla for $name {
            fn kind(&self) -> u16 {
                match self {
                    $(Self::$variant(_) => $constant | <$value as Value>::FLAGS,)*
                    Self::Other(attribute) => attribute.kind(),
                }
            }

            fn value_len(&self) -> usize {
                match self {
                    $(Self::$variant(value) => Value::length(value),)*
                    Self::Other(attribute) => attribute.value_len(),
                }
            }

            fn emit_value(&self, buffer: &mut [u8]) {
                match self {
                    $(Self::$variant(value) => Value::put(value, buffer),)*
                    Self::Other(attribute) => attribute.emit_value(buffer),
                }
            }
        }

        impl FromAttribute for $name {
            fn from_attribute(attribute: &NlaBuffer<&[u8]>) -> Result<Self, DecodeError> {
                let known = match attribute.kind() {
                    $($constant => Value::get(attribute.value()).map(Self::$variant),)*
                    _ => None,
                };
                match known {
                    Some(known) => Ok(known),
                    None => DefaultNla::parse(attribute).map(Self::Other),
                }
            }
        }
    };
}

attributes! {
    /// An attribute of a message (`IPVS_CMD_ATTR_*`), but of [`MessageKind::Info`](super::MessageKind::Info).
    Attribute:
    /// A virtual server.
    #[doc(alias = "service")]
    VirtualServer(Vec<VirtualServerAttribute>) = IPVS_CMD_ATTR_SERVICE 1;
    /// A real server.
    #[doc(alias = "destination")]
    RealServer(Vec<RealServerAttribute>) = IPVS_CMD_ATTR_DEST 2;
    /// A synchronisation daemon.
    Daemon(Vec<DaemonAttribute>) = IPVS_CMD_ATTR_DAEMON 3;
    /// Seconds an established TCP connection is kept; 0 in a request leaves it.
    TcpTimeout(u32) = IPVS_CMD_ATTR_TIMEOUT_TCP 4;
    /// Seconds a TCP connection is kept after a FIN; 0 in a request leaves it.
    TcpFinTimeout(u32) = IPVS_CMD_ATTR_TIMEOUT_TCP_FIN 5;
    /// Seconds a UDP flow is kept; 0 in a request leaves it.
    UdpTimeout(u32) = IPVS_CMD_ATTR_TIMEOUT_UDP 6;
}

attributes! {
    /// An attribute of a virtual server (`IPVS_SVC_ATTR_*`, `struct ip_vs_service_user_kern`).
    VirtualServerAttribute:
    /// `AF_INET` 2 or `AF_INET6` 10.
    Family(u16) = IPVS_SVC_ATTR_AF 1;
    /// `IPPROTO_*`; absent with a mark.
    Protocol(u16) = IPVS_SVC_ATTR_PROTOCOL 2;
    /// The virtual address; absent with a mark.
    Address(RawAddress) = IPVS_SVC_ATTR_ADDR 3;
    /// The virtual port; absent with a mark.
    Port(Port) = IPVS_SVC_ATTR_PORT 4;
    /// The firewall mark, instead of the three before.
    Mark(u32) = IPVS_SVC_ATTR_FWMARK 5;
    /// The scheduler's name; the kernel tells `none` where there is none.
    Scheduler(String) = IPVS_SVC_ATTR_SCHED_NAME 6;
    /// `IP_VS_SVC_F_*`.
    Flags(FlagsAndMask) = IPVS_SVC_ATTR_FLAGS 7;
    /// Seconds of persistence.
    Timeout(u32) = IPVS_SVC_ATTR_TIMEOUT 8;
    /// Granularity of persistence.
    Netmask(RawNetmask) = IPVS_SVC_ATTR_NETMASK 9;
    /// 32-bit counters (`struct ip_vs_stats_user`).
    Stats(Vec<StatsAttribute>) = IPVS_SVC_ATTR_STATS 10;
    /// The persistence engine's name, since Linux 2.6.37.
    PersistenceEngine(String) = IPVS_SVC_ATTR_PE_NAME 11;
    /// 64-bit counters (`struct ip_vs_kstats`), since Linux 4.1.
    Stats64(Vec<Stats64Attribute>) = IPVS_SVC_ATTR_STATS64 12;
}

attributes! {
    /// An attribute of a real server (`IPVS_DEST_ATTR_*`, `struct ip_vs_dest_user_kern`).
    RealServerAttribute:
    /// The address.
    Address(RawAddress) = IPVS_DEST_ATTR_ADDR 1;
    /// The port.
    Port(Port) = IPVS_DEST_ATTR_PORT 2;
    /// `IP_VS_CONN_F_*`, of which `IP_VS_CONN_F_FWD_MASK` says how packets are forwarded.
    ForwardMethod(u32) = IPVS_DEST_ATTR_FWD_METHOD 3;
    /// The weight, 0 to 2^31 - 1.
    Weight(u32) = IPVS_DEST_ATTR_WEIGHT 4;
    /// Connections above which it gets no new ones; 0 is no limit.
    UpperThreshold(u32) = IPVS_DEST_ATTR_U_THRESH 5;
    /// Connections below which it gets new ones again.
    LowerThreshold(u32) = IPVS_DEST_ATTR_L_THRESH 6;
    /// Established connections.
    ActiveConnections(u32) = IPVS_DEST_ATTR_ACTIVE_CONNS 7;
    /// Connections in any other state.
    InactiveConnections(u32) = IPVS_DEST_ATTR_INACT_CONNS 8;
    /// Persistence templates.
    PersistentConnections(u32) = IPVS_DEST_ATTR_PERSIST_CONNS 9;
    /// 32-bit counters (`struct ip_vs_stats_user`).
    Stats(Vec<StatsAttribute>) = IPVS_DEST_ATTR_STATS 10;
    /// `AF_INET` or `AF_INET6`, since Linux 3.18; absent is the virtual server's.
    Family(u16) = IPVS_DEST_ATTR_ADDR_FAMILY 11;
    /// 64-bit counters (`struct ip_vs_kstats`), since Linux 4.1.
    Stats64(Vec<Stats64Attribute>) = IPVS_DEST_ATTR_STATS64 12;
    /// `IP_VS_CONN_F_TUNNEL_TYPE_*`, since Linux 5.2.
    TunnelType(u8) = IPVS_DEST_ATTR_TUN_TYPE 13;
    /// The UDP port of a GUE tunnel, since Linux 5.2.
    TunnelPort(Port) = IPVS_DEST_ATTR_TUN_PORT 14;
    /// `IP_VS_TUNNEL_ENCAP_FLAG_*`, since Linux 5.3.
    TunnelFlags(u16) = IPVS_DEST_ATTR_TUN_FLAGS 15;
}

attributes! {
    /// An attribute of a synchronisation daemon (`IPVS_DAEMON_ATTR_*`, `struct ipvs_sync_daemon_cfg`).
    DaemonAttribute:
    /// `IP_VS_STATE_*`.
    State(u32) = IPVS_DAEMON_ATTR_STATE 1;
    /// The device it multicasts on.
    Interface(String) = IPVS_DAEMON_ATTR_MCAST_IFN 2;
    /// The group it belongs to.
    SyncId(u32) = IPVS_DAEMON_ATTR_SYNC_ID 3;
    /// Largest UDP payload, since Linux 4.3.
    MaxLength(u16) = IPVS_DAEMON_ATTR_SYNC_MAXLEN 4;
    /// IPv4 multicast group, network order, since Linux 4.3.
    Group4([u8; 4]) = IPVS_DAEMON_ATTR_MCAST_GROUP 5;
    /// IPv6 multicast group, since Linux 4.3.
    Group6(RawAddress) = IPVS_DAEMON_ATTR_MCAST_GROUP6 6;
    /// UDP port, in **host** order unlike every other port, since Linux 4.3.
    Port(u16) = IPVS_DAEMON_ATTR_MCAST_PORT 7;
    /// Time to live, since Linux 4.3.
    Ttl(u8) = IPVS_DAEMON_ATTR_MCAST_TTL 8;
}

attributes! {
    /// A 32-bit counter (`IPVS_STATS_ATTR_*`, `struct ip_vs_stats_user`); bytes have 64 bits even here.
    StatsAttribute:
    /// Connections scheduled.
    Connections(u32) = IPVS_STATS_ATTR_CONNS 1;
    /// Packets from clients.
    IncomingPackets(u32) = IPVS_STATS_ATTR_INPKTS 2;
    /// Packets to clients.
    OutgoingPackets(u32) = IPVS_STATS_ATTR_OUTPKTS 3;
    /// Bytes from clients.
    IncomingBytes(u64) = IPVS_STATS_ATTR_INBYTES 4;
    /// Bytes to clients.
    OutgoingBytes(u64) = IPVS_STATS_ATTR_OUTBYTES 5;
    /// Connections per second.
    ConnectionRate(u32) = IPVS_STATS_ATTR_CPS 6;
    /// Packets from clients per second.
    IncomingPacketRate(u32) = IPVS_STATS_ATTR_INPPS 7;
    /// Packets to clients per second.
    OutgoingPacketRate(u32) = IPVS_STATS_ATTR_OUTPPS 8;
    /// Bytes from clients per second.
    IncomingByteRate(u32) = IPVS_STATS_ATTR_INBPS 9;
    /// Bytes to clients per second.
    OutgoingByteRate(u32) = IPVS_STATS_ATTR_OUTBPS 10;
}

attributes! {
    /// An attribute of the kernel's answer about itself (`IPVS_INFO_ATTR_*`, `struct ip_vs_getinfo`).
    InfoAttribute:
    /// The version, one byte each of major, minor and patch.
    Version(u32) = IPVS_INFO_ATTR_VERSION 1;
    /// Buckets of the connection table.
    ConnectionTableSize(u32) = IPVS_INFO_ATTR_CONN_TAB_SIZE 2;
}

pub use wide::Stats64Attribute;

mod wide {
    //! The same numbers as [`StatsAttribute`](super::StatsAttribute)'s, every value with 64 bits.

    use super::{DecodeError, DefaultNla, FromAttribute, Nla, NlaBuffer, Parseable, Value};

    attributes! {
        /// A 64-bit counter (`IPVS_STATS_ATTR_*` inside `IPVS_SVC_ATTR_STATS64` and `IPVS_DEST_ATTR_STATS64`, `struct ip_vs_kstats`),
        /// since Linux 4.1.
        Stats64Attribute:
        /// Connections scheduled.
        Connections(u64) = IPVS_STATS_ATTR_CONNS 1;
        /// Packets from clients.
        IncomingPackets(u64) = IPVS_STATS_ATTR_INPKTS 2;
        /// Packets to clients.
        OutgoingPackets(u64) = IPVS_STATS_ATTR_OUTPKTS 3;
        /// Bytes from clients.
        IncomingBytes(u64) = IPVS_STATS_ATTR_INBYTES 4;
        /// Bytes to clients.
        OutgoingBytes(u64) = IPVS_STATS_ATTR_OUTBYTES 5;
        /// Connections per second.
        ConnectionRate(u64) = IPVS_STATS_ATTR_CPS 6;
        /// Packets from clients per second.
        IncomingPacketRate(u64) = IPVS_STATS_ATTR_INPPS 7;
        /// Packets to clients per second.
        OutgoingPacketRate(u64) = IPVS_STATS_ATTR_OUTPPS 8;
        /// Bytes from clients per second.
        IncomingByteRate(u64) = IPVS_STATS_ATTR_INBPS 9;
        /// Bytes to clients per second.
        OutgoingByteRate(u64) = IPVS_STATS_ATTR_OUTBPS 10;
    }
}
