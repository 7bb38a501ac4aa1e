//! The messages of the generic netlink family `IPVS`, between values and bytes.
//!
//! Nothing here touches a socket. A [`Message`] is a [`MessageKind`] (`IPVS_CMD_*`) and its attributes, typed one by one as
//! `linux/ip_vs.h` lists them. Parsing never panics, whatever the bytes: an attribute that this crate does not know, or
//! whose value has not the form it knows, is kept as it came, so a newer kernel's messages pass through unharmed.
//!
//! Above the attributes stand the constructors ([`Message::create_virtual_server`] and its sisters) and the readers
//! ([`Message::virtual_server`], …). They know what the kernel wants and what it means: addresses always in 16 bytes, ports in
//! network order, a persistence netmask as a mask for IPv4 and as a prefix length for IPv6, flags with their mask, a
//! destination's own address family.
//!
//! The kernel headers say *service* for a virtual server and *destination* for a real server.

use netlink_packet_core::{DecodeError, Emitable, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader};

mod attribute;
mod daemon;
mod real_server;
mod stats;
mod value;
mod virtual_server;

pub use attribute::{
    Attribute, DaemonAttribute, InfoAttribute, RealServerAttribute, Stats64Attribute,
    StatsAttribute, VirtualServerAttribute,
};
pub use value::{FlagsAndMask, Port, RawAddress, RawNetmask};

use crate::{Info, Timeouts, Version};

const IPVS_GENL_NAME: &str = "IPVS";
const IPVS_GENL_VERSION: u8 = 1;

const IPVS_CMD_NEW_SERVICE: u8 = 1;
const IPVS_CMD_SET_SERVICE: u8 = 2;
const IPVS_CMD_DEL_SERVICE: u8 = 3;
const IPVS_CMD_GET_SERVICE: u8 = 4;
const IPVS_CMD_NEW_DEST: u8 = 5;
const IPVS_CMD_SET_DEST: u8 = 6;
const IPVS_CMD_DEL_DEST: u8 = 7;
const IPVS_CMD_GET_DEST: u8 = 8;
const IPVS_CMD_NEW_DAEMON: u8 = 9;
const IPVS_CMD_DEL_DAEMON: u8 = 10;
const IPVS_CMD_GET_DAEMON: u8 = 11;
const IPVS_CMD_SET_CONFIG: u8 = 12;
const IPVS_CMD_GET_CONFIG: u8 = 13;
const IPVS_CMD_SET_INFO: u8 = 14;
const IPVS_CMD_GET_INFO: u8 = 15;
const IPVS_CMD_ZERO: u8 = 16;
const IPVS_CMD_FLUSH: u8 = 17;

/// What a message asks or tells (`IPVS_CMD_*`). All since Linux 2.6.28, when the netlink interface appeared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum MessageKind {
    /// `IPVS_CMD_NEW_SERVICE`, `struct ip_vs_service_user_kern`: creates a virtual server (`ipvsadm -A`). Also what the kernel answers
    /// [`MessageKind::GetVirtualServer`] with.
    #[doc(alias = "service")]
    CreateVirtualServer,
    /// `IPVS_CMD_SET_SERVICE`, `struct ip_vs_service_user_kern`: changes a virtual server (`ipvsadm -E`).
    UpdateVirtualServer,
    /// `IPVS_CMD_DEL_SERVICE`, `struct ip_vs_service_user_kern`: deletes a virtual server and its real servers (`ipvsadm -D`).
    DeleteVirtualServer,
    /// `IPVS_CMD_GET_SERVICE`, `struct ip_vs_service`: reads one, or in a dump all (`ipvsadm -L`).
    GetVirtualServer,
    /// `IPVS_CMD_NEW_DEST`, `struct ip_vs_dest_user_kern`: adds a real server (`ipvsadm -a`). Also what the kernel answers
    /// [`MessageKind::GetRealServer`] with.
    #[doc(alias = "destination")]
    CreateRealServer,
    /// `IPVS_CMD_SET_DEST`, `struct ip_vs_dest_user_kern`: changes a real server (`ipvsadm -e`).
    UpdateRealServer,
    /// `IPVS_CMD_DEL_DEST`, `struct ip_vs_dest_user_kern`: deletes a real server (`ipvsadm -d`).
    DeleteRealServer,
    /// `IPVS_CMD_GET_DEST`, `struct ip_vs_dest`: reads the real servers of one virtual server; a dump only (`ipvsadm -L -t …`).
    GetRealServer,
    /// `IPVS_CMD_NEW_DAEMON`, `struct ipvs_sync_daemon_cfg`: starts a synchronisation daemon (`ipvsadm --start-daemon`). Also what
    /// the kernel answers [`MessageKind::GetDaemon`] with.
    StartDaemon,
    /// `IPVS_CMD_DEL_DAEMON`: stops a synchronisation daemon (`ipvsadm --stop-daemon`).
    StopDaemon,
    /// `IPVS_CMD_GET_DAEMON`: reads the daemons; a dump only (`ipvsadm -L --daemon`).
    GetDaemon,
    /// `IPVS_CMD_SET_CONFIG`, `struct ip_vs_timeout_user`: sets the timeouts (`ipvsadm --set`). Also what the kernel answers
    /// [`MessageKind::GetTimeouts`] with.
    SetTimeouts,
    /// `IPVS_CMD_GET_CONFIG`: reads the timeouts (`ipvsadm -L --timeout`).
    GetTimeouts,
    /// `IPVS_CMD_SET_INFO`, `struct ip_vs_getinfo`: only the kernel's answer to [`MessageKind::GetInfo`]. Its attributes are
    /// [`InfoAttribute`]s, whose numbers mean something else in every other message.
    Info,
    /// `IPVS_CMD_GET_INFO`: reads version and table size (first line of `ipvsadm -L`).
    GetInfo,
    /// `IPVS_CMD_ZERO`: zeroes the counters of one virtual server and its real servers, or of all (`ipvsadm -Z`).
    Zero,
    /// `IPVS_CMD_FLUSH`: deletes every virtual server (`ipvsadm -C`).
    Flush,
    /// A command of a newer kernel, as its number.
    Other(u8),
}

impl MessageKind {
    /// The kernel's number.
    pub const fn number(self) -> u8 {
        match self {
            Self::CreateVirtualServer => IPVS_CMD_NEW_SERVICE,
            Self::UpdateVirtualServer => IPVS_CMD_SET_SERVICE,
            Self::DeleteVirtualServer => IPVS_CMD_DEL_SERVICE,
            Self::GetVirtualServer => IPVS_CMD_GET_SERVICE,
            Self::CreateRealServer => IPVS_CMD_NEW_DEST,
            Self::UpdateRealServer => IPVS_CMD_SET_DEST,
            Self::DeleteRealServer => IPVS_CMD_DEL_DEST,
            Self::GetRealServer => IPVS_CMD_GET_DEST,
            Self::StartDaemon => IPVS_CMD_NEW_DAEMON,
            Self::StopDaemon => IPVS_CMD_DEL_DAEMON,
            Self::GetDaemon => IPVS_CMD_GET_DAEMON,
            Self::SetTimeouts => IPVS_CMD_SET_CONFIG,
            Self::GetTimeouts => IPVS_CMD_GET_CONFIG,
            Self::Info => IPVS_CMD_SET_INFO,
            Self::GetInfo => IPVS_CMD_GET_INFO,
            Self::Zero => IPVS_CMD_ZERO,
            Self::Flush => IPVS_CMD_FLUSH,
            Self::Other(number) => number,
        }
    }

    /// The command with this number.
    pub const fn from_number(number: u8) -> Self {
        match number {
            IPVS_CMD_NEW_SERVICE => Self::CreateVirtualServer,
            IPVS_CMD_SET_SERVICE => Self::UpdateVirtualServer,
            IPVS_CMD_DEL_SERVICE => Self::DeleteVirtualServer,
            IPVS_CMD_GET_SERVICE => Self::GetVirtualServer,
            IPVS_CMD_NEW_DEST => Self::CreateRealServer,
            IPVS_CMD_SET_DEST => Self::UpdateRealServer,
            IPVS_CMD_DEL_DEST => Self::DeleteRealServer,
            IPVS_CMD_GET_DEST => Self::GetRealServer,
            IPVS_CMD_NEW_DAEMON => Self::StartDaemon,
            IPVS_CMD_DEL_DAEMON => Self::StopDaemon,
            IPVS_CMD_GET_DAEMON => Self::GetDaemon,
            IPVS_CMD_SET_CONFIG => Self::SetTimeouts,
            IPVS_CMD_GET_CONFIG => Self::GetTimeouts,
            IPVS_CMD_SET_INFO => Self::Info,
            IPVS_CMD_GET_INFO => Self::GetInfo,
            IPVS_CMD_ZERO => Self::Zero,
            IPVS_CMD_FLUSH => Self::Flush,
            number => Self::Other(number),
        }
    }
}

/// One message of the family, behind the generic netlink header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it asks or tells.
    pub kind: MessageKind,
    /// With what.
    pub body: Body,
}

/// The attributes of a [`Message`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Of every message but the next (`IPVS_CMD_ATTR_*`).
    Attributes(Vec<Attribute>),
    /// Of [`MessageKind::Info`] (`IPVS_INFO_ATTR_*`).
    Info(Vec<InfoAttribute>),
}

/// A value that makes no message, or a message that makes no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// An attribute that must be there is missing, or has not the form it must have.
    #[error("the attribute {0} is missing or malformed")]
    Missing(&'static str),
    /// An attribute has, or would have, a value that means nothing.
    #[error("the attribute {attribute} cannot be {value}")]
    Impossible {
        /// The kernel's name of the attribute.
        attribute: &'static str,
        /// The value, as text.
        value: String,
    },
}

impl Message {
    pub(crate) fn new(kind: MessageKind, attributes: Vec<Attribute>) -> Self {
        Self {
            kind,
            body: Body::Attributes(attributes),
        }
    }

    /// `IPVS_CMD_GET_INFO`: the first line of `ipvsadm -L`.
    pub fn get_info() -> Self {
        Self::new(MessageKind::GetInfo, Vec::new())
    }

    /// `IPVS_CMD_GET_CONFIG`: `ipvsadm -L --timeout`.
    pub fn get_timeouts() -> Self {
        Self::new(MessageKind::GetTimeouts, Vec::new())
    }

    /// `IPVS_CMD_SET_CONFIG`: `ipvsadm --set TCP TCP_FIN UDP`. A zero leaves that timeout as it is.
    pub fn set_timeouts(timeouts: &Timeouts) -> Self {
        Self::new(
            MessageKind::SetTimeouts,
            vec![
                Attribute::TcpTimeout(timeouts.tcp),
                Attribute::TcpFinTimeout(timeouts.tcp_fin),
                Attribute::UdpTimeout(timeouts.udp),
            ],
        )
    }

    /// `IPVS_CMD_FLUSH`: `ipvsadm -C`.
    pub fn flush() -> Self {
        Self::new(MessageKind::Flush, Vec::new())
    }

    /// The attributes of any message but [`MessageKind::Info`].
    pub fn attributes(&self) -> &[Attribute] {
        match &self.body {
            Body::Attributes(attributes) => attributes,
            Body::Info(_) => &[],
        }
    }

    /// Reads the answer to [`Message::get_info`].
    ///
    /// # Errors
    ///
    /// [`MessageError::Missing`] if it is another message.
    pub fn info(&self) -> Result<Info, MessageError> {
        let Body::Info(attributes) = &self.body else {
            return Err(MessageError::Missing("IPVS_INFO_ATTR_VERSION"));
        };
        let mut version = None;
        let mut size = None;
        for attribute in attributes {
            match attribute {
                InfoAttribute::Version(code) => version = Some(Version::from_code(*code)),
                InfoAttribute::ConnectionTableSize(buckets) => size = Some(*buckets),
                InfoAttribute::Other(_) => {}
            }
        }
        Ok(Info {
            version: version.ok_or(MessageError::Missing("IPVS_INFO_ATTR_VERSION"))?,
            connection_table_size: size
                .ok_or(MessageError::Missing("IPVS_INFO_ATTR_CONN_TAB_SIZE"))?,
        })
    }

    /// Reads the answer to [`Message::get_timeouts`].
    ///
    /// # Errors
    ///
    /// [`MessageError::Missing`] if it lacks one, which the kernel leaves out if it was built without that protocol.
    pub fn timeouts(&self) -> Result<Timeouts, MessageError> {
        let mut tcp = None;
        let mut tcp_fin = None;
        let mut udp = None;
        for attribute in self.attributes() {
            match attribute {
                Attribute::TcpTimeout(seconds) => tcp = Some(*seconds),
                Attribute::TcpFinTimeout(seconds) => tcp_fin = Some(*seconds),
                Attribute::UdpTimeout(seconds) => udp = Some(*seconds),
                Attribute::VirtualServer(_)
                | Attribute::RealServer(_)
                | Attribute::Daemon(_)
                | Attribute::Other(_) => {}
            }
        }
        Ok(Timeouts {
            tcp: tcp.ok_or(MessageError::Missing("IPVS_CMD_ATTR_TIMEOUT_TCP"))?,
            tcp_fin: tcp_fin.ok_or(MessageError::Missing("IPVS_CMD_ATTR_TIMEOUT_TCP_FIN"))?,
            udp: udp.ok_or(MessageError::Missing("IPVS_CMD_ATTR_TIMEOUT_UDP"))?,
        })
    }
}

impl GenlFamily for Message {
    fn family_name() -> &'static str {
        IPVS_GENL_NAME
    }

    fn command(&self) -> u8 {
        self.kind.number()
    }

    fn version(&self) -> u8 {
        IPVS_GENL_VERSION
    }
}

impl Emitable for Message {
    fn buffer_len(&self) -> usize {
        match &self.body {
            Body::Attributes(attributes) => value::length_of_all(attributes),
            Body::Info(attributes) => value::length_of_all(attributes),
        }
    }

    fn emit(&self, buffer: &mut [u8]) {
        match &self.body {
            Body::Attributes(attributes) => value::emit_all(attributes, buffer),
            Body::Info(attributes) => value::emit_all(attributes, buffer),
        }
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Message {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let kind = MessageKind::from_number(header.cmd);
        let body = if kind == MessageKind::Info {
            Body::Info(value::parse_all(bytes)?)
        } else {
            Body::Attributes(value::parse_all(bytes)?)
        };
        Ok(Self { kind, body })
    }
}

#[cfg(test)]
mod tests;
