//! A kernel in memory, with Linux's rules and with failures on demand. It must not be kinder than Linux: it passes the same
//! contract suite as the real one.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipvs::netlink::{Rejection, TransportError};
use ipvs::{
    Command, Connections, Error, Family, ForwardMethod, Netmask, RealServerConfig, RealServerKey,
    RequestKind, Scheduler, VirtualServerConfig, VirtualServerKey,
};

use super::{
    AddressCommand, Kernel, KernelError, Link, ObservedRealServer, ObservedVirtualServer,
    VipBinding,
};

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ERANGE: i32 = 34;
const EOPNOTSUPP: i32 = 95;
const EADDRNOTAVAIL: i32 = 99;

/// A kernel in memory.
#[derive(Default)]
pub struct FakeKernel {
    /// What IPVS holds.
    pub virtual_servers: BTreeMap<VirtualServerKey, ObservedVirtualServer>,
    /// Links, by name.
    pub links: BTreeMap<String, FakeLink>,
    /// Every change that was asked for and done, as text, in order.
    pub log: Vec<String>,
    failures: Option<Failures>,
    next_index: u32,
}

/// A link of the fake kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FakeLink {
    /// Its index.
    pub index: u32,
    /// Its kind, such as `dummy`.
    pub kind: String,
    /// Whether it is up.
    pub up: bool,
    /// Its addresses.
    pub addresses: BTreeMap<IpAddr, VipBinding>,
}

/// Decides whether an operation fails.
type Failures = Box<dyn FnMut(&Operation) -> Option<Injected>>;

/// An operation on the fake kernel, before it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Reading the virtual servers.
    ReadVirtualServers,
    /// Reading one virtual server's real servers.
    ReadRealServers(VirtualServerKey),
    /// Reading our link.
    ReadLink,
    /// Reading our link's addresses.
    ReadAddresses,
    /// One IPVS command.
    Ipvs(Command),
    /// One change of addresses.
    Address(AddressCommand),
    /// Creating, raising or deleting the link.
    ChangeLink,
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injected {
    /// It is refused with this errno, and not done.
    Refused(i32),
    /// The answer is lost and the operation not done; what came before it in the batch was.
    LostBefore,
    /// The operation is done, but the answer is lost.
    LostAfter,
}

impl fmt::Debug for FakeKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeKernel")
            .field("virtual_servers", &self.virtual_servers)
            .field("links", &self.links)
            .finish_non_exhaustive()
    }
}

impl FakeKernel {
    /// From now on this decides which operations fail.
    pub fn fail_when(&mut self, failures: impl FnMut(&Operation) -> Option<Injected> + 'static) {
        self.failures = Some(Box::new(failures));
    }

    /// From now on nothing fails but what Linux refuses.
    pub fn stop_failing(&mut self) {
        self.failures = None;
    }

    /// Somebody else adds a link.
    pub fn add_link(&mut self, name: &str, kind: &str) {
        self.next_index += 1;
        let link = FakeLink {
            index: self.next_index,
            kind: kind.to_owned(),
            ..FakeLink::default()
        };
        self.links.insert(name.to_owned(), link);
    }

    fn injected(&mut self, operation: &Operation) -> Option<Injected> {
        self.failures
            .as_mut()
            .and_then(|failures| failures(operation))
    }

    /// Fails a read or a change of links, if the test wants it to.
    fn check(&mut self, operation: &Operation, request: &'static str) -> Result<(), KernelError> {
        match self.injected(operation) {
            None => Ok(()),
            Some(Injected::Refused(errno)) => Err(rejected(request, errno)),
            Some(Injected::LostBefore | Injected::LostAfter) => Err(KernelError::Transport {
                request,
                source: TransportError::Overflow,
            }),
        }
    }

    fn execute(&mut self, command: &Command) -> Result<(), i32> {
        match command {
            Command::CreateVirtualServer(key, config) => self.create_virtual_server(*key, config),
            Command::UpdateVirtualServer(key, config) => self.update_virtual_server(key, config),
            Command::DeleteVirtualServer(key) => {
                self.virtual_servers.remove(key).map(|_| ()).ok_or(ESRCH)
            }
            Command::CreateRealServer(key, server, config) => {
                self.create_real_server(key, *server, *config)
            }
            Command::UpdateRealServer(key, server, config) => {
                self.update_real_server(key, *server, *config)
            }
            Command::DeleteRealServer(key, server) => {
                let virtual_server = self.virtual_servers.get_mut(key).ok_or(ESRCH)?;
                virtual_server
                    .real_servers
                    .remove(server)
                    .map(|_| ())
                    .ok_or(ENOENT)
            }
        }
    }

    fn create_virtual_server(
        &mut self,
        key: VirtualServerKey,
        config: &VirtualServerConfig,
    ) -> Result<(), i32> {
        if self.virtual_servers.contains_key(&key) {
            return Err(EEXIST);
        }
        check_virtual_server(&key, config)?;
        let virtual_server = ObservedVirtualServer {
            config: config.clone(),
            real_servers: BTreeMap::new(),
        };
        self.virtual_servers.insert(key, virtual_server);
        Ok(())
    }

    fn update_virtual_server(
        &mut self,
        key: &VirtualServerKey,
        config: &VirtualServerConfig,
    ) -> Result<(), i32> {
        let virtual_server = self.virtual_servers.get_mut(key).ok_or(ESRCH)?;
        check_virtual_server(key, config)?;
        virtual_server.config = config.clone();
        Ok(())
    }

    fn create_real_server(
        &mut self,
        key: &VirtualServerKey,
        server: RealServerKey,
        config: RealServerConfig,
    ) -> Result<(), i32> {
        let virtual_server = self.virtual_servers.get_mut(key).ok_or(ESRCH)?;
        check_real_server(key, server, config)?;
        if virtual_server.real_servers.contains_key(&server) {
            return Err(EEXIST);
        }
        let real_server = ObservedRealServer {
            config,
            connections: Connections::default(),
        };
        virtual_server.real_servers.insert(server, real_server);
        Ok(())
    }

    fn update_real_server(
        &mut self,
        key: &VirtualServerKey,
        server: RealServerKey,
        config: RealServerConfig,
    ) -> Result<(), i32> {
        let virtual_server = self.virtual_servers.get_mut(key).ok_or(ESRCH)?;
        check_real_server(key, server, config)?;
        let real_server = virtual_server.real_servers.get_mut(&server).ok_or(ENOENT)?;
        real_server.config = config;
        Ok(())
    }

    fn change_address(link: &mut FakeLink, command: AddressCommand) -> Result<(), i32> {
        match command {
            AddressCommand::Add(vip) => {
                if link.addresses.contains_key(&vip) {
                    return Err(EEXIST);
                }
                link.addresses.insert(vip, VipBinding::AsWanted);
                Ok(())
            }
            AddressCommand::Delete(vip) => {
                link.addresses.remove(&vip).map(|_| ()).ok_or(EADDRNOTAVAIL)
            }
        }
    }
}

impl Kernel for FakeKernel {
    fn virtual_servers(
        &mut self,
    ) -> Result<BTreeMap<VirtualServerKey, VirtualServerConfig>, KernelError> {
        self.check(&Operation::ReadVirtualServers, "read virtual servers")?;
        let configs = self.virtual_servers.iter();
        Ok(configs
            .map(|(key, server)| (*key, server.config.clone()))
            .collect())
    }

    fn real_servers(
        &mut self,
        key: &VirtualServerKey,
    ) -> Result<BTreeMap<RealServerKey, ObservedRealServer>, KernelError> {
        self.check(&Operation::ReadRealServers(*key), "read real servers")?;
        match self.virtual_servers.get(key) {
            Some(server) => Ok(server.real_servers.clone()),
            None => Err(refused(RequestKind::ReadRealServers, ESRCH, None).into()),
        }
    }

    fn apply_ipvs(
        &mut self,
        commands: Vec<Command>,
    ) -> Result<Vec<Result<(), KernelError>>, KernelError> {
        let mut results = Vec::new();
        let mut lost = false;
        for command in commands {
            let injected = self.injected(&Operation::Ipvs(command.clone()));
            let result = match injected {
                Some(Injected::Refused(errno)) => Err(errno),
                Some(Injected::LostBefore) => {
                    lost = true;
                    Ok(())
                }
                Some(Injected::LostAfter) | None => {
                    lost |= injected.is_some();
                    let result = self.execute(&command);
                    if result.is_ok() {
                        self.log.push(format!("{command:?}"));
                    }
                    result
                }
            };
            let request = request(&command);
            results.push(result.map_err(|errno| refused(request, errno, Some(&command)).into()));
        }
        if lost {
            return Err(KernelError::Ipvs(Error::Transport {
                request: RequestKind::Apply,
                source: TransportError::Overflow,
            }));
        }
        Ok(results)
    }

    fn link(&mut self, name: &str) -> Result<Option<Link>, KernelError> {
        self.check(&Operation::ReadLink, "read the link")?;
        Ok(self.links.get(name).map(|link| Link {
            name: name.to_owned(),
            index: link.index,
            kind: link.kind.clone(),
            up: link.up,
        }))
    }

    fn addresses(&mut self, link: &Link) -> Result<BTreeMap<IpAddr, VipBinding>, KernelError> {
        self.check(&Operation::ReadAddresses, "read addresses")?;
        Ok(self
            .links
            .get(&link.name)
            .map(|link| link.addresses.clone())
            .unwrap_or_default())
    }

    fn create_device(&mut self, name: &str) -> Result<(), KernelError> {
        let request = "create the link";
        self.check(&Operation::ChangeLink, request)?;
        if self.links.contains_key(name) {
            return Err(rejected(request, EEXIST));
        }
        self.add_link(name, "dummy");
        self.log.push(format!("create {name}"));
        Ok(())
    }

    fn set_device_up(&mut self, name: &str) -> Result<(), KernelError> {
        let request = "set the link up";
        self.check(&Operation::ChangeLink, request)?;
        let link = self
            .links
            .get_mut(name)
            .ok_or_else(|| rejected(request, ENODEV))?;
        link.up = true;
        self.log.push(format!("up {name}"));
        Ok(())
    }

    fn delete_device(&mut self, name: &str) -> Result<(), KernelError> {
        let request = "delete the link";
        self.check(&Operation::ChangeLink, request)?;
        self.links
            .remove(name)
            .ok_or_else(|| rejected(request, ENODEV))?;
        self.log.push(format!("delete {name}"));
        Ok(())
    }

    fn apply_addresses(
        &mut self,
        link: &Link,
        commands: &[AddressCommand],
    ) -> Result<Vec<Result<(), KernelError>>, KernelError> {
        let request = "change addresses";
        let mut results = Vec::new();
        let mut lost = false;
        for command in commands {
            let injected = self.injected(&Operation::Address(*command));
            lost |= matches!(injected, Some(Injected::LostBefore | Injected::LostAfter));
            let result = match injected {
                Some(Injected::Refused(errno)) => Err(errno),
                Some(Injected::LostBefore) => Ok(()),
                Some(Injected::LostAfter) | None => match self.links.get_mut(&link.name) {
                    Some(link) => Self::change_address(link, *command),
                    None => Err(ENODEV),
                },
            };
            if result.is_ok() {
                self.log.push(format!("{command:?}"));
            }
            results.push(result.map_err(|errno| rejected(request, errno)));
        }
        if lost {
            return Err(KernelError::Transport {
                request,
                source: TransportError::Overflow,
            });
        }
        Ok(results)
    }
}

/// `ip_vs_genl_parse_service`, `ip_vs_add_service`, `ip_vs_edit_service`.
fn check_virtual_server(key: &VirtualServerKey, config: &VirtualServerConfig) -> Result<(), i32> {
    if let VirtualServerKey::Address { port: 0, .. } = key
        && config.persistence.is_none()
    {
        return Err(EINVAL);
    }
    if matches!(config.scheduler, Scheduler::Other(_)) {
        return Err(ENOENT);
    }
    match config.persistence.map(|persistence| persistence.netmask) {
        Some(Netmask::V6(prefix)) if !(1..=128).contains(&prefix) => Err(EINVAL),
        _ => Ok(()),
    }
}

/// `ip_vs_genl_parse_dest`, `do_ip_vs_set_ctl`, `ip_vs_add_dest`, `ip_vs_edit_dest`.
fn check_real_server(
    key: &VirtualServerKey,
    server: RealServerKey,
    config: RealServerConfig,
) -> Result<(), i32> {
    let same_family = Family::of(server.address) == key.family();
    if !same_family && !matches!(config.forward, ForwardMethod::Tunnel(_)) {
        return Err(EINVAL);
    }
    if i32::try_from(config.weight.0).is_err() {
        return Err(ERANGE);
    }
    match config.thresholds {
        Some(thresholds) if thresholds.lower > thresholds.upper => Err(ERANGE),
        _ => Ok(()),
    }
}

fn request(command: &Command) -> RequestKind {
    match command {
        Command::CreateVirtualServer(..) => RequestKind::CreateVirtualServer,
        Command::UpdateVirtualServer(..) => RequestKind::UpdateVirtualServer,
        Command::DeleteVirtualServer(_) => RequestKind::DeleteVirtualServer,
        Command::CreateRealServer(..) => RequestKind::CreateRealServer,
        Command::UpdateRealServer(..) => RequestKind::UpdateRealServer,
        Command::DeleteRealServer(..) => RequestKind::DeleteRealServer,
    }
}

fn rejection(errno: i32) -> Rejection {
    Rejection { errno, text: None }
}

fn rejected(request: &'static str, errno: i32) -> KernelError {
    KernelError::Rejected {
        request,
        rejection: rejection(errno),
    }
}

fn refused(request: RequestKind, errno: i32, command: Option<&Command>) -> Error {
    let rejection = rejection(errno);
    let scheduler = match command {
        Some(Command::CreateVirtualServer(_, config) | Command::UpdateVirtualServer(_, config)) => {
            Some(config.scheduler.name().to_owned())
        }
        _ => None,
    };
    match (errno, request, scheduler) {
        (EPERM, ..) => Error::PermissionDenied { request, rejection },
        (ESRCH, ..) => Error::NoSuchVirtualServer { request, rejection },
        (EEXIST, RequestKind::CreateVirtualServer, _) => {
            Error::VirtualServerExists { request, rejection }
        }
        (EEXIST, ..) => Error::RealServerExists { request, rejection },
        (ENOENT, _, Some(scheduler)) => Error::NoSuchScheduler {
            request,
            scheduler,
            rejection,
        },
        (ENOENT, ..) => Error::NoSuchRealServer { request, rejection },
        (EINVAL | ERANGE | EOPNOTSUPP, ..) => Error::Invalid { request, rejection },
        _ => Error::Kernel { request, rejection },
    }
}
