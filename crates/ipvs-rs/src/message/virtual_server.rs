//! Messages about virtual servers.

use std::net::IpAddr;
use std::num::NonZeroU32;

use super::attribute::{Attribute, VirtualServerAttribute as A};
use super::stats::stats;
use super::value::{
    FlagsAndMask, Port, RawAddress, RawNetmask, check_name, family_from, family_number,
};
use super::{Message, MessageError, MessageKind};
use crate::scheduler::InvalidScheduler;
use crate::{
    Family, Flags, Netmask, Persistence, Protocol, VirtualServer, VirtualServerConfig,
    VirtualServerKey,
};

const IP_VS_SVC_F_PERSISTENT: u32 = 0x01;
const IP_VS_SVC_F_ONEPACKET: u32 = 0x04;
const IP_VS_SVC_F_SCHED1: u32 = 0x08;
const IP_VS_SVC_F_SCHED2: u32 = 0x10;
const IP_VS_SVC_F_SCHED3: u32 = 0x20;
/// `IP_VS_PENAME_MAXLEN` without the NUL.
const LONGEST_PE_NAME: usize = 15;

impl Message {
    /// `IPVS_CMD_NEW_SERVICE`: `ipvsadm -A`.
    ///
    /// # Errors
    ///
    /// [`MessageError::Impossible`] if the netmask is of the other family, or the persistence engine's name cannot be one.
    pub fn create_virtual_server(
        key: &VirtualServerKey,
        config: &VirtualServerConfig,
    ) -> Result<Self, MessageError> {
        whole(MessageKind::CreateVirtualServer, key, config)
    }

    /// `IPVS_CMD_SET_SERVICE`: `ipvsadm -E`. The kernel wants scheduler, flags, timeout and netmask each time and would reset what
    /// is not told, so everything is.
    ///
    /// # Errors
    ///
    /// As [`Message::create_virtual_server`].
    pub fn update_virtual_server(
        key: &VirtualServerKey,
        config: &VirtualServerConfig,
    ) -> Result<Self, MessageError> {
        whole(MessageKind::UpdateVirtualServer, key, config)
    }

    /// `IPVS_CMD_DEL_SERVICE`: `ipvsadm -D`.
    pub fn delete_virtual_server(key: &VirtualServerKey) -> Self {
        Self::new(MessageKind::DeleteVirtualServer, vec![named(key)])
    }

    /// `IPVS_CMD_GET_SERVICE` for one virtual server: `ipvsadm -L -t …`.
    pub fn get_virtual_server(key: &VirtualServerKey) -> Self {
        Self::new(MessageKind::GetVirtualServer, vec![named(key)])
    }

    /// `IPVS_CMD_GET_SERVICE` for all, as a dump: `ipvsadm -L`.
    pub fn get_virtual_servers() -> Self {
        Self::new(MessageKind::GetVirtualServer, Vec::new())
    }

    /// `IPVS_CMD_ZERO` for one virtual server: `ipvsadm -Z -t …`.
    pub fn zero(key: &VirtualServerKey) -> Self {
        Self::new(MessageKind::Zero, vec![named(key)])
    }

    /// `IPVS_CMD_ZERO` for all: `ipvsadm -Z`.
    pub fn zero_all() -> Self {
        Self::new(MessageKind::Zero, Vec::new())
    }

    /// Reads the virtual server that the message is about; `None` if it is one of a protocol that IPVS stores and never matches.
    ///
    /// # Errors
    ///
    /// [`MessageError`] if the kernel left out what it always tells, or told what means nothing.
    pub fn virtual_server(&self) -> Result<Option<VirtualServer>, MessageError> {
        let attributes = self
            .attributes()
            .iter()
            .find_map(|attribute| match attribute {
                Attribute::VirtualServer(attributes) => Some(attributes),
                Attribute::RealServer(_)
                | Attribute::Daemon(_)
                | Attribute::TcpTimeout(_)
                | Attribute::TcpFinTimeout(_)
                | Attribute::UdpTimeout(_)
                | Attribute::Other(_) => None,
            })
            .ok_or(MessageError::Missing("IPVS_CMD_ATTR_SERVICE"))?;
        let fields = Fields::of(attributes);
        let Some(key) = fields.key()? else {
            return Ok(None);
        };
        Ok(Some(VirtualServer {
            key,
            config: fields.config(key.family())?,
            stats: stats(fields.stats64, fields.stats),
        }))
    }
}

/// What identifies a virtual server, as every request about one or about its real servers has it.
pub(super) fn named(key: &VirtualServerKey) -> Attribute {
    Attribute::VirtualServer(key_attributes(key))
}

fn key_attributes(key: &VirtualServerKey) -> Vec<A> {
    let mut attributes = vec![A::Family(family_number(key.family()))];
    match *key {
        VirtualServerKey::Address {
            address,
            port,
            protocol,
        } => attributes.extend([
            A::Protocol(protocol.number().into()),
            A::Address(address.into()),
            A::Port(Port(port)),
        ]),
        VirtualServerKey::Mark { mark, .. } => attributes.push(A::Mark(mark.get())),
    }
    attributes
}

fn whole(
    kind: MessageKind,
    key: &VirtualServerKey,
    config: &VirtualServerConfig,
) -> Result<Message, MessageError> {
    let family = key.family();
    let (timeout, netmask) = match config.persistence {
        Some(Persistence { timeout, netmask }) => (timeout, netmask),
        None => (0, Netmask::host(family)),
    };
    match (family, netmask) {
        (Family::Ipv4, Netmask::V4(_)) | (Family::Ipv6, Netmask::V6(_)) => {}
        (Family::Ipv4, Netmask::V6(_)) | (Family::Ipv6, Netmask::V4(_)) => {
            return Err(MessageError::Impossible {
                attribute: "IPVS_SVC_ATTR_NETMASK",
                value: format!("{netmask:?} for {family}"),
            });
        }
    }
    let mut attributes = key_attributes(key);
    attributes.push(A::Scheduler(config.scheduler.name().to_owned()));
    if let Some(engine) = &config.persistence_engine {
        check_name(engine, LONGEST_PE_NAME, "IPVS_SVC_ATTR_PE_NAME")?;
        attributes.push(A::PersistenceEngine(engine.clone()));
    }
    attributes.extend([
        A::Flags(FlagsAndMask {
            flags: flag_bits(config),
            mask: u32::MAX,
        }),
        A::Timeout(timeout),
        A::Netmask(netmask.into()),
    ]);
    Ok(Message::new(
        kind,
        vec![Attribute::VirtualServer(attributes)],
    ))
}

fn flag_bits(config: &VirtualServerConfig) -> u32 {
    [
        (config.persistence.is_some(), IP_VS_SVC_F_PERSISTENT),
        (config.flags.one_packet, IP_VS_SVC_F_ONEPACKET),
        (config.flags.scheduler_1, IP_VS_SVC_F_SCHED1),
        (config.flags.scheduler_2, IP_VS_SVC_F_SCHED2),
        (config.flags.scheduler_3, IP_VS_SVC_F_SCHED3),
    ]
    .into_iter()
    .filter(|(set, _)| *set)
    .fold(0, |bits, (_, bit)| bits | bit)
}

/// The attributes of a virtual server, each at most once.
#[derive(Default)]
struct Fields<'a> {
    family: Option<u16>,
    protocol: Option<u16>,
    address: Option<RawAddress>,
    port: Option<Port>,
    mark: Option<u32>,
    scheduler: Option<&'a str>,
    flags: Option<FlagsAndMask>,
    timeout: Option<u32>,
    netmask: Option<RawNetmask>,
    engine: Option<&'a str>,
    stats: Option<&'a [super::StatsAttribute]>,
    stats64: Option<&'a [super::Stats64Attribute]>,
}

impl<'a> Fields<'a> {
    fn of(attributes: &'a [A]) -> Self {
        let mut fields = Self::default();
        for attribute in attributes {
            match attribute {
                A::Family(value) => fields.family = Some(*value),
                A::Protocol(value) => fields.protocol = Some(*value),
                A::Address(value) => fields.address = Some(*value),
                A::Port(value) => fields.port = Some(*value),
                A::Mark(value) => fields.mark = Some(*value),
                A::Scheduler(value) => fields.scheduler = Some(value),
                A::Flags(value) => fields.flags = Some(*value),
                A::Timeout(value) => fields.timeout = Some(*value),
                A::Netmask(value) => fields.netmask = Some(*value),
                A::PersistenceEngine(value) => fields.engine = Some(value),
                A::Stats(value) => fields.stats = Some(value),
                A::Stats64(value) => fields.stats64 = Some(value),
                A::Other(_) => {}
            }
        }
        fields
    }

    fn key(&self) -> Result<Option<VirtualServerKey>, MessageError> {
        let family = self
            .family
            .ok_or(MessageError::Missing("IPVS_SVC_ATTR_AF"))?;
        let family = family_from(family, "IPVS_SVC_ATTR_AF")?;
        if let Some(mark) = self.mark.and_then(NonZeroU32::new) {
            return Ok(Some(VirtualServerKey::Mark { mark, family }));
        }
        let protocol = self
            .protocol
            .ok_or(MessageError::Missing("IPVS_SVC_ATTR_PROTOCOL"))?;
        let address: IpAddr = self
            .address
            .ok_or(MessageError::Missing("IPVS_SVC_ATTR_ADDR"))?
            .address(family);
        let Port(port) = self
            .port
            .ok_or(MessageError::Missing("IPVS_SVC_ATTR_PORT"))?;
        Ok(
            Protocol::from_number(protocol).map(|protocol| VirtualServerKey::Address {
                address,
                port,
                protocol,
            }),
        )
    }

    fn config(&self, family: Family) -> Result<VirtualServerConfig, MessageError> {
        let name = self
            .scheduler
            .ok_or(MessageError::Missing("IPVS_SVC_ATTR_SCHED_NAME"))?;
        let scheduler =
            name.parse()
                .map_err(|error: InvalidScheduler| MessageError::Impossible {
                    attribute: "IPVS_SVC_ATTR_SCHED_NAME",
                    value: error.to_string(),
                })?;
        let bits = self
            .flags
            .ok_or(MessageError::Missing("IPVS_SVC_ATTR_FLAGS"))?
            .flags;
        let has = |bit| bits & bit != 0;
        Ok(VirtualServerConfig {
            scheduler,
            flags: Flags {
                scheduler_1: has(IP_VS_SVC_F_SCHED1),
                scheduler_2: has(IP_VS_SVC_F_SCHED2),
                scheduler_3: has(IP_VS_SVC_F_SCHED3),
                one_packet: has(IP_VS_SVC_F_ONEPACKET),
            },
            persistence: has(IP_VS_SVC_F_PERSISTENT)
                .then(|| self.persistence(family))
                .transpose()?,
            persistence_engine: self.engine.map(str::to_owned),
        })
    }

    fn persistence(&self, family: Family) -> Result<Persistence, MessageError> {
        let netmask = self
            .netmask
            .ok_or(MessageError::Missing("IPVS_SVC_ATTR_NETMASK"))?;
        Ok(Persistence {
            timeout: self
                .timeout
                .ok_or(MessageError::Missing("IPVS_SVC_ATTR_TIMEOUT"))?,
            netmask: netmask
                .netmask(family)
                .ok_or_else(|| MessageError::Impossible {
                    attribute: "IPVS_SVC_ATTR_NETMASK",
                    value: format!("{netmask:?} for {family}"),
                })?,
        })
    }
}
