//! The real kernel: IPVS, links and addresses of the network namespace it was opened in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipvs::{Client, Command, RealServerKey, VirtualServerConfig, VirtualServerKey};

use super::addresses::Addresses;
use super::{AddressCommand, Kernel, KernelError, Link, ObservedRealServer, VipBinding};

/// The kernel, as seen from one network namespace. It belongs to the thread that opened it.
#[derive(Debug)]
pub struct LinuxKernel {
    ipvs: Client,
    addresses: Addresses,
}

impl LinuxKernel {
    /// Opens the sockets.
    ///
    /// # Errors
    /// When the kernel has no IPVS, or gives no sockets.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self {
            ipvs: Client::open()?,
            addresses: Addresses::open()?,
        })
    }
}

impl Kernel for LinuxKernel {
    fn virtual_servers(
        &mut self,
    ) -> Result<BTreeMap<VirtualServerKey, VirtualServerConfig>, KernelError> {
        let servers = self.ipvs.virtual_servers()?;
        Ok(servers
            .into_iter()
            .map(|server| (server.key, server.config))
            .collect())
    }

    fn virtual_server(
        &mut self,
        key: &VirtualServerKey,
    ) -> Result<Option<VirtualServerConfig>, KernelError> {
        match self.ipvs.virtual_server(key) {
            Ok(server) => Ok(Some(server.config)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn real_servers(
        &mut self,
        key: &VirtualServerKey,
    ) -> Result<BTreeMap<RealServerKey, ObservedRealServer>, KernelError> {
        let servers = self.ipvs.real_servers(key)?;
        Ok(servers
            .into_iter()
            .map(|server| {
                let observed = ObservedRealServer {
                    config: server.config,
                    connections: Some(server.connections),
                };
                (server.key, observed)
            })
            .collect())
    }

    fn apply_ipvs(
        &mut self,
        commands: Vec<Command>,
    ) -> Result<Vec<Result<(), KernelError>>, KernelError> {
        let results = self.ipvs.apply(commands)?;
        Ok(results
            .into_iter()
            .map(|result| result.map_err(KernelError::from))
            .collect())
    }

    fn link(&mut self, name: &str) -> Result<Option<Link>, KernelError> {
        self.addresses.link(name)
    }

    fn addresses(&mut self, link: &Link) -> Result<BTreeMap<IpAddr, VipBinding>, KernelError> {
        self.addresses.addresses(link)
    }

    fn create_device(&mut self, name: &str) -> Result<(), KernelError> {
        self.addresses.create_device(name)
    }

    fn set_device_up(&mut self, name: &str) -> Result<(), KernelError> {
        self.addresses.set_device_up(name)
    }

    fn delete_device(&mut self, name: &str) -> Result<(), KernelError> {
        self.addresses.delete_device(name)
    }

    fn apply_addresses(
        &mut self,
        link: &Link,
        commands: &[AddressCommand],
    ) -> Result<Vec<Result<(), KernelError>>, KernelError> {
        self.addresses.apply(link, commands)
    }
}
