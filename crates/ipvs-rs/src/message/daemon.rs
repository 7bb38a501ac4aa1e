//! Messages about synchronisation daemons.

use std::net::{IpAddr, Ipv4Addr};

use super::attribute::{Attribute, DaemonAttribute as A};
use super::value::check_name;
use super::{Message, MessageError, MessageKind};
use crate::{Daemon, DaemonRole, Family, Multicast};

const IP_VS_STATE_MASTER: u32 = 1;
const IP_VS_STATE_BACKUP: u32 = 2;
/// `IP_VS_IFNAME_MAXLEN` without the NUL.
const LONGEST_INTERFACE: usize = 15;

impl Message {
    /// `IPVS_CMD_NEW_DAEMON`: `ipvsadm --start-daemon`.
    ///
    /// # Errors
    ///
    /// [`MessageError::Impossible`] if the interface's name cannot be one.
    pub fn start_daemon(daemon: &Daemon) -> Result<Self, MessageError> {
        check_name(
            &daemon.interface,
            LONGEST_INTERFACE,
            "IPVS_DAEMON_ATTR_MCAST_IFN",
        )?;
        let Multicast {
            max_length,
            group,
            port,
            ttl,
        } = daemon.multicast;
        let mut attributes = vec![
            A::State(state(daemon.role)),
            A::Interface(daemon.interface.clone()),
            A::SyncId(daemon.sync_id),
        ];
        attributes.extend(max_length.map(A::MaxLength));
        attributes.extend(port.map(A::Port));
        attributes.extend(ttl.map(A::Ttl));
        attributes.extend(group.map(|group| match group {
            IpAddr::V4(group) => A::Group4(group.octets()),
            IpAddr::V6(_) => A::Group6(group.into()),
        }));
        Ok(Self::new(
            MessageKind::StartDaemon,
            vec![Attribute::Daemon(attributes)],
        ))
    }

    /// `IPVS_CMD_DEL_DAEMON`: `ipvsadm --stop-daemon`.
    pub fn stop_daemon(role: DaemonRole) -> Self {
        let attributes = vec![A::State(state(role))];
        Self::new(MessageKind::StopDaemon, vec![Attribute::Daemon(attributes)])
    }

    /// `IPVS_CMD_GET_DAEMON`, as a dump: `ipvsadm -L --daemon`.
    pub fn get_daemons() -> Self {
        Self::new(MessageKind::GetDaemon, Vec::new())
    }

    /// Reads the synchronisation daemon that the message is about.
    ///
    /// # Errors
    ///
    /// [`MessageError`] if the kernel left out what it always tells, or told what means nothing.
    pub fn daemon(&self) -> Result<Daemon, MessageError> {
        let attributes = self
            .attributes()
            .iter()
            .find_map(|attribute| match attribute {
                Attribute::Daemon(attributes) => Some(attributes),
                Attribute::VirtualServer(_)
                | Attribute::RealServer(_)
                | Attribute::TcpTimeout(_)
                | Attribute::TcpFinTimeout(_)
                | Attribute::UdpTimeout(_)
                | Attribute::Other(_) => None,
            })
            .ok_or(MessageError::Missing("IPVS_CMD_ATTR_DAEMON"))?;
        read(attributes)
    }
}

fn state(role: DaemonRole) -> u32 {
    match role {
        DaemonRole::Master => IP_VS_STATE_MASTER,
        DaemonRole::Backup => IP_VS_STATE_BACKUP,
    }
}

fn read(attributes: &[A]) -> Result<Daemon, MessageError> {
    let mut role = None;
    let mut interface = None;
    let mut sync_id = None;
    let mut multicast = Multicast::default();
    for attribute in attributes {
        match attribute {
            A::State(IP_VS_STATE_MASTER) => role = Some(DaemonRole::Master),
            A::State(IP_VS_STATE_BACKUP) => role = Some(DaemonRole::Backup),
            A::State(state) => {
                return Err(MessageError::Impossible {
                    attribute: "IPVS_DAEMON_ATTR_STATE",
                    value: state.to_string(),
                });
            }
            A::Interface(name) => interface = Some(name.clone()),
            A::SyncId(id) => sync_id = Some(*id),
            A::MaxLength(length) => multicast.max_length = Some(*length),
            A::Group4(octets) => multicast.group = Some(Ipv4Addr::from(*octets).into()),
            A::Group6(address) => multicast.group = Some(address.address(Family::Ipv6)),
            A::Port(port) => multicast.port = Some(*port),
            A::Ttl(ttl) => multicast.ttl = Some(*ttl),
            A::Other(_) => {}
        }
    }
    Ok(Daemon {
        role: role.ok_or(MessageError::Missing("IPVS_DAEMON_ATTR_STATE"))?,
        interface: interface.ok_or(MessageError::Missing("IPVS_DAEMON_ATTR_MCAST_IFN"))?,
        sync_id: sync_id.ok_or(MessageError::Missing("IPVS_DAEMON_ATTR_SYNC_ID"))?,
        multicast,
    })
}
