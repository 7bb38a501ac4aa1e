//! Messages about real servers.

use super::attribute::{Attribute, RealServerAttribute as A};
use super::stats::stats;
use super::value::{Port, RawAddress, family_from, family_number};
use super::virtual_server::named;
use super::{Message, MessageError, MessageKind};
use crate::{
    Connections, Family, ForwardMethod, RealServer, RealServerConfig, RealServerKey, Thresholds,
    Tunnel, VirtualServerKey, Weight,
};

const IP_VS_CONN_F_FWD_MASK: u32 = 0x07;
const IP_VS_CONN_F_MASQ: u32 = 0;
const IP_VS_CONN_F_LOCALNODE: u32 = 1;
const IP_VS_CONN_F_TUNNEL: u32 = 2;
const IP_VS_CONN_F_DROUTE: u32 = 3;
const IP_VS_CONN_F_BYPASS: u32 = 4;

const IP_VS_CONN_F_TUNNEL_TYPE_IPIP: u8 = 0;
const IP_VS_CONN_F_TUNNEL_TYPE_GUE: u8 = 1;
const IP_VS_CONN_F_TUNNEL_TYPE_GRE: u8 = 2;

impl Message {
    /// `IPVS_CMD_NEW_DEST`: `ipvsadm -a`.
    pub fn create_real_server(
        of: &VirtualServerKey,
        key: &RealServerKey,
        config: &RealServerConfig,
    ) -> Self {
        whole(MessageKind::CreateRealServer, of, key, config)
    }

    /// `IPVS_CMD_SET_DEST`: `ipvsadm -e`.
    pub fn update_real_server(
        of: &VirtualServerKey,
        key: &RealServerKey,
        config: &RealServerConfig,
    ) -> Self {
        whole(MessageKind::UpdateRealServer, of, key, config)
    }

    /// `IPVS_CMD_DEL_DEST`: `ipvsadm -d`.
    pub fn delete_real_server(of: &VirtualServerKey, key: &RealServerKey) -> Self {
        let attributes = vec![named(of), Attribute::RealServer(key_attributes(key))];
        Self::new(MessageKind::DeleteRealServer, attributes)
    }

    /// `IPVS_CMD_GET_DEST`, as a dump: `ipvsadm -L -t …`.
    pub fn get_real_servers(of: &VirtualServerKey) -> Self {
        Self::new(MessageKind::GetRealServer, vec![named(of)])
    }

    /// Reads the real server that the message is about. `family` is the virtual server's: kernels before 3.18 tell no other.
    ///
    /// # Errors
    ///
    /// [`MessageError`] if the kernel left out what it always tells, or told what means nothing.
    pub fn real_server(&self, family: Family) -> Result<RealServer, MessageError> {
        let attributes = self
            .attributes()
            .iter()
            .find_map(|attribute| match attribute {
                Attribute::RealServer(attributes) => Some(attributes),
                Attribute::VirtualServer(_)
                | Attribute::Daemon(_)
                | Attribute::TcpTimeout(_)
                | Attribute::TcpFinTimeout(_)
                | Attribute::UdpTimeout(_)
                | Attribute::Other(_) => None,
            })
            .ok_or(MessageError::Missing("IPVS_CMD_ATTR_DEST"))?;
        let fields = Fields::of(attributes);
        Ok(RealServer {
            key: fields.key(family)?,
            config: fields.config()?,
            connections: fields.connections()?,
            stats: stats(fields.stats64, fields.stats),
        })
    }
}

fn key_attributes(key: &RealServerKey) -> Vec<A> {
    vec![
        A::Family(family_number(Family::of(key.address))),
        A::Address(key.address.into()),
        A::Port(Port(key.port)),
    ]
}

fn whole(
    kind: MessageKind,
    of: &VirtualServerKey,
    key: &RealServerKey,
    config: &RealServerConfig,
) -> Message {
    let (method, tunnel) = method_number(config.forward);
    let thresholds = config
        .thresholds
        .unwrap_or(Thresholds { upper: 0, lower: 0 });
    let mut attributes = key_attributes(key);
    attributes.extend([A::ForwardMethod(method), A::Weight(config.weight.0)]);
    if let Some(tunnel) = tunnel {
        let (kind, port, flags) = tunnel_numbers(tunnel);
        attributes.extend([
            A::TunnelType(kind),
            A::TunnelPort(Port(port)),
            A::TunnelFlags(flags),
        ]);
    }
    attributes.extend([
        A::UpperThreshold(thresholds.upper),
        A::LowerThreshold(thresholds.lower),
    ]);
    Message::new(kind, vec![named(of), Attribute::RealServer(attributes)])
}

fn method_number(forward: ForwardMethod) -> (u32, Option<Tunnel>) {
    match forward {
        ForwardMethod::Masquerade => (IP_VS_CONN_F_MASQ, None),
        ForwardMethod::LocalNode => (IP_VS_CONN_F_LOCALNODE, None),
        ForwardMethod::Tunnel(tunnel) => (IP_VS_CONN_F_TUNNEL, Some(tunnel)),
        ForwardMethod::DirectRoute => (IP_VS_CONN_F_DROUTE, None),
        ForwardMethod::Bypass => (IP_VS_CONN_F_BYPASS, None),
        ForwardMethod::Other(number) => (number, None),
    }
}

/// Type, port and flags of a tunnel.
fn tunnel_numbers(tunnel: Tunnel) -> (u8, u16, u16) {
    match tunnel {
        Tunnel::Ipip => (IP_VS_CONN_F_TUNNEL_TYPE_IPIP, 0, 0),
        Tunnel::Gue { port, flags } => (IP_VS_CONN_F_TUNNEL_TYPE_GUE, port, flags),
        Tunnel::Gre { flags } => (IP_VS_CONN_F_TUNNEL_TYPE_GRE, 0, flags),
        Tunnel::Other(number) => (number, 0, 0),
    }
}

/// The attributes of a real server, each at most once.
#[derive(Default)]
struct Fields<'a> {
    family: Option<u16>,
    address: Option<RawAddress>,
    port: Option<Port>,
    method: Option<u32>,
    weight: Option<u32>,
    upper: Option<u32>,
    lower: Option<u32>,
    active: Option<u32>,
    inactive: Option<u32>,
    persistent: Option<u32>,
    tunnel_type: Option<u8>,
    tunnel_port: Option<Port>,
    tunnel_flags: Option<u16>,
    stats: Option<&'a [super::StatsAttribute]>,
    stats64: Option<&'a [super::Stats64Attribute]>,
}

impl<'a> Fields<'a> {
    fn of(attributes: &'a [A]) -> Self {
        let mut fields = Self::default();
        for attribute in attributes {
            match attribute {
                A::Family(value) => fields.family = Some(*value),
                A::Address(value) => fields.address = Some(*value),
                A::Port(value) => fields.port = Some(*value),
                A::ForwardMethod(value) => fields.method = Some(*value),
                A::Weight(value) => fields.weight = Some(*value),
                A::UpperThreshold(value) => fields.upper = Some(*value),
                A::LowerThreshold(value) => fields.lower = Some(*value),
                A::ActiveConnections(value) => fields.active = Some(*value),
                A::InactiveConnections(value) => fields.inactive = Some(*value),
                A::PersistentConnections(value) => fields.persistent = Some(*value),
                A::TunnelType(value) => fields.tunnel_type = Some(*value),
                A::TunnelPort(value) => fields.tunnel_port = Some(*value),
                A::TunnelFlags(value) => fields.tunnel_flags = Some(*value),
                A::Stats(value) => fields.stats = Some(value),
                A::Stats64(value) => fields.stats64 = Some(value),
                A::Other(_) => {}
            }
        }
        fields
    }

    fn key(&self, default: Family) -> Result<RealServerKey, MessageError> {
        let family = match self.family {
            Some(number) => family_from(number, "IPVS_DEST_ATTR_ADDR_FAMILY")?,
            None => default,
        };
        let address = self
            .address
            .ok_or(MessageError::Missing("IPVS_DEST_ATTR_ADDR"))?;
        let Port(port) = self
            .port
            .ok_or(MessageError::Missing("IPVS_DEST_ATTR_PORT"))?;
        Ok(RealServerKey {
            address: address.address(family),
            port,
        })
    }

    fn config(&self) -> Result<RealServerConfig, MessageError> {
        let weight = self
            .weight
            .ok_or(MessageError::Missing("IPVS_DEST_ATTR_WEIGHT"))?;
        let upper = self
            .upper
            .ok_or(MessageError::Missing("IPVS_DEST_ATTR_U_THRESH"))?;
        let lower = self
            .lower
            .ok_or(MessageError::Missing("IPVS_DEST_ATTR_L_THRESH"))?;
        Ok(RealServerConfig {
            forward: self.forward()?,
            weight: Weight(weight),
            thresholds: (upper != 0 || lower != 0).then_some(Thresholds { upper, lower }),
        })
    }

    fn forward(&self) -> Result<ForwardMethod, MessageError> {
        let method = self
            .method
            .ok_or(MessageError::Missing("IPVS_DEST_ATTR_FWD_METHOD"))?;
        Ok(match method & IP_VS_CONN_F_FWD_MASK {
            IP_VS_CONN_F_MASQ => ForwardMethod::Masquerade,
            IP_VS_CONN_F_LOCALNODE => ForwardMethod::LocalNode,
            IP_VS_CONN_F_TUNNEL => ForwardMethod::Tunnel(self.tunnel()),
            IP_VS_CONN_F_DROUTE => ForwardMethod::DirectRoute,
            IP_VS_CONN_F_BYPASS => ForwardMethod::Bypass,
            number => ForwardMethod::Other(number),
        })
    }

    fn tunnel(&self) -> Tunnel {
        let Port(port) = self.tunnel_port.unwrap_or(Port(0));
        let flags = self.tunnel_flags.unwrap_or(0);
        match self.tunnel_type {
            None | Some(IP_VS_CONN_F_TUNNEL_TYPE_IPIP) => Tunnel::Ipip,
            Some(IP_VS_CONN_F_TUNNEL_TYPE_GUE) => Tunnel::Gue { port, flags },
            Some(IP_VS_CONN_F_TUNNEL_TYPE_GRE) => Tunnel::Gre { flags },
            Some(number) => Tunnel::Other(number),
        }
    }

    /// A count that is missing is an error and not 0: a caller may delete what has no connections.
    fn connections(&self) -> Result<Connections, MessageError> {
        Ok(Connections {
            active: self
                .active
                .ok_or(MessageError::Missing("IPVS_DEST_ATTR_ACTIVE_CONNS"))?,
            inactive: self
                .inactive
                .ok_or(MessageError::Missing("IPVS_DEST_ATTR_INACT_CONNS"))?,
            persistent: self
                .persistent
                .ok_or(MessageError::Missing("IPVS_DEST_ATTR_PERSIST_CONNS"))?,
        })
    }
}
