//! A blocking client.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::error::RequestKind;
use crate::netlink::{NetlinkProtocol, Transport, TransportError};
use crate::{
    Daemon, DaemonRole, Info, RealServer, RealServerConfig, RealServerKey, Timeouts, VirtualServer,
    VirtualServerConfig, VirtualServerKey,
};

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `ipvsadm -A`; fails if it exists.
    CreateVirtualServer(VirtualServerKey, VirtualServerConfig),
    /// `ipvsadm -E`; fails if it does not exist.
    UpdateVirtualServer(VirtualServerKey, VirtualServerConfig),
    /// `ipvsadm -D`, with its real servers; fails if it does not exist.
    DeleteVirtualServer(VirtualServerKey),
    /// `ipvsadm -a`; fails if it exists.
    CreateRealServer(VirtualServerKey, RealServerKey, RealServerConfig),
    /// `ipvsadm -e`; fails if it does not exist.
    UpdateRealServer(VirtualServerKey, RealServerKey, RealServerConfig),
    /// `ipvsadm -d`; fails if it does not exist.
    DeleteRealServer(VirtualServerKey, RealServerKey),
}

/// A blocking client of the kernel's IPVS, for the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Client {
    transport: Transport,
}

fn stub<T>() -> Result<T, Error> {
    Err(Error::Transport {
        request: RequestKind::Open,
        source: TransportError::Deadline,
    })
}

impl Client {
    /// Opens a client.
    pub fn open() -> Result<Self, Error> {
        let _: BTreeMap<u8, u8> = BTreeMap::new();
        Ok(Self {
            transport: Transport::open(NetlinkProtocol::Generic).map_err(|source| {
                Error::Transport {
                    request: RequestKind::Open,
                    source,
                }
            })?,
        })
    }
    /// Sets how long each exchange with the kernel may take.
    pub fn set_deadline(&mut self, per_exchange: std::time::Duration) {
        self.transport.set_deadline(per_exchange);
    }
    /// Version and size of the connection table.
    pub fn info(&mut self) -> Result<Info, Error> {
        stub()
    }
    /// Connection timeouts.
    pub fn timeouts(&mut self) -> Result<Timeouts, Error> {
        stub()
    }
    /// Sets connection timeouts.
    pub fn set_timeouts(&mut self, _timeouts: &Timeouts) -> Result<(), Error> {
        stub()
    }
    /// Every virtual server.
    pub fn virtual_servers(&mut self) -> Result<Vec<VirtualServer>, Error> {
        stub()
    }
    /// One virtual server.
    pub fn virtual_server(&mut self, _key: &VirtualServerKey) -> Result<VirtualServer, Error> {
        stub()
    }
    /// The real servers of one virtual server.
    pub fn real_servers(&mut self, _key: &VirtualServerKey) -> Result<Vec<RealServer>, Error> {
        stub()
    }
    /// Applies commands in order; one result for each.
    pub fn apply(&mut self, commands: Vec<Command>) -> Result<Vec<Result<(), Error>>, Error> {
        drop(commands);
        stub()
    }
    /// See [`Command::CreateVirtualServer`].
    pub fn create_virtual_server(
        &mut self,
        _key: VirtualServerKey,
        _config: VirtualServerConfig,
    ) -> Result<(), Error> {
        stub()
    }
    /// See [`Command::UpdateVirtualServer`].
    pub fn update_virtual_server(
        &mut self,
        _key: VirtualServerKey,
        _config: VirtualServerConfig,
    ) -> Result<(), Error> {
        stub()
    }
    /// See [`Command::DeleteVirtualServer`].
    pub fn delete_virtual_server(&mut self, _key: VirtualServerKey) -> Result<(), Error> {
        stub()
    }
    /// See [`Command::CreateRealServer`].
    pub fn create_real_server(
        &mut self,
        _of: VirtualServerKey,
        _key: RealServerKey,
        _config: RealServerConfig,
    ) -> Result<(), Error> {
        stub()
    }
    /// See [`Command::UpdateRealServer`].
    pub fn update_real_server(
        &mut self,
        _of: VirtualServerKey,
        _key: RealServerKey,
        _config: RealServerConfig,
    ) -> Result<(), Error> {
        stub()
    }
    /// See [`Command::DeleteRealServer`].
    pub fn delete_real_server(
        &mut self,
        _of: VirtualServerKey,
        _key: RealServerKey,
    ) -> Result<(), Error> {
        stub()
    }
    /// Zeroes the counters of one virtual server and its real servers.
    pub fn zero(&mut self, _key: &VirtualServerKey) -> Result<(), Error> {
        stub()
    }
    /// Zeroes all counters.
    pub fn zero_all(&mut self) -> Result<(), Error> {
        stub()
    }
    /// Deletes everything.
    pub fn flush(&mut self) -> Result<(), Error> {
        stub()
    }
    /// The running synchronisation daemons.
    pub fn daemons(&mut self) -> Result<Vec<Daemon>, Error> {
        stub()
    }
    /// Starts a synchronisation daemon.
    pub fn start_daemon(&mut self, _daemon: &Daemon) -> Result<(), Error> {
        stub()
    }
    /// Stops a synchronisation daemon.
    pub fn stop_daemon(&mut self, _role: DaemonRole) -> Result<(), Error> {
        stub()
    }
}
