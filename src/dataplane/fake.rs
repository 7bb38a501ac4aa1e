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
const ENOMEM: i32 = 12;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ERANGE: i32 = 34;
const EOPNOTSUPP: i32 = 95;
const EAFNOSUPPORT: i32 = 97;
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
    watcher: Option<Watcher>,
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

/// Sees the kernel after each change.
type Watcher = Box<dyn FnMut(&FakeKernel)>;

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
    /// The answer is lost; what came before it in the batch was done, it and what follows were not.
    LostBefore,
    /// The operation is done and what follows it in the batch too, but the answer is lost.
    LostAfter,
    /// There is no socket to send it by: it and what follows it in the batch were not done, and that much is known.
    NotSent,
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

    /// From now on this sees the kernel after each change that was done, in the middle of a batch as well.
    pub fn watch(&mut self, watcher: impl FnMut(&Self) + 'static) {
        self.watcher = Some(Box::new(watcher));
    }

    /// Ends what `watch` began.
    pub fn stop_watching(&mut self) {
        self.watcher = None;
    }

    /// Somebody else takes a link down. Linux deletes its IPv6 addresses then (`addrconf_ifdown`) and keeps the IPv4 ones; they do
    /// not come back when it goes up.
    pub fn set_device_down(&mut self, name: &str) {
        if let Some(link) = self.links.get_mut(name) {
            link.up = false;
            link.addresses.retain(|address, _| address.is_ipv4());
        }
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

    /// Writes a change down and shows the kernel as it is now.
    fn done(&mut self, change: String) {
        self.log.push(change);
        if let Some(mut watcher) = self.watcher.take() {
            watcher(self);
            self.watcher = Some(watcher);
        }
    }

    fn injected(&mut self, operation: &Operation) -> Option<Injected> {
        self.failures
            .as_mut()
            .and_then(|failures| failures(operation))
    }

    /// Fails a read of IPVS, if the test wants it to.
    fn check_ipvs(
        &mut self,
        operation: &Operation,
        request: RequestKind,
    ) -> Result<(), KernelError> {
        match self.injected(operation) {
            None => Ok(()),
            Some(Injected::Refused(errno)) => Err(refused_read(request, errno).into()),
            Some(injected @ (Injected::LostBefore | Injected::LostAfter | Injected::NotSent)) => {
                Err(KernelError::Ipvs(Error::Transport {
                    request,
                    source: transport_error(injected),
                }))
            }
        }
    }

    /// Fails a read of links, if the test wants it to.
    fn check(&mut self, operation: &Operation, request: &'static str) -> Result<(), KernelError> {
        match self.injected(operation) {
            None => Ok(()),
            Some(Injected::Refused(errno)) => Err(rejected(request, errno)),
            Some(injected @ (Injected::LostBefore | Injected::LostAfter | Injected::NotSent)) => {
                Err(KernelError::Transport {
                    request,
                    source: transport_error(injected),
                })
            }
        }
    }

    /// Fails a change of links, before or after it was done, if the test wants it to.
    fn change_link(
        &mut self,
        request: &'static str,
        change: String,
        do_it: impl FnOnce(&mut Self) -> Result<(), i32>,
    ) -> Result<(), KernelError> {
        let injected = self.injected(&Operation::ChangeLink);
        match injected {
            None | Some(Injected::LostAfter) => {
                do_it(self).map_err(|errno| rejected(request, errno))?;
                self.done(change);
            }
            Some(Injected::Refused(errno)) => return Err(rejected(request, errno)),
            Some(Injected::LostBefore | Injected::NotSent) => {}
        }
        match injected {
            None => Ok(()),
            Some(injected) => Err(KernelError::Transport {
                request,
                source: transport_error(injected),
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
        check_virtual_server(config)?;
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
        check_virtual_server(config)?;
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
        if !can_be_a_server(server.address) {
            return Err(EINVAL);
        }
        let real_server = ObservedRealServer {
            config,
            connections: Some(Connections::default()),
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
        self.check_ipvs(
            &Operation::ReadVirtualServers,
            RequestKind::ReadVirtualServers,
        )?;
        let configs = self.virtual_servers.iter();
        Ok(configs
            .map(|(key, server)| (*key, server.config.clone()))
            .collect())
    }

    fn virtual_server(
        &mut self,
        key: &VirtualServerKey,
    ) -> Result<Option<VirtualServerConfig>, KernelError> {
        self.check(&Operation::ReadVirtualServers, "read virtual servers")?;
        Ok(self
            .virtual_servers
            .get(key)
            .map(|server| server.config.clone()))
    }

    fn real_servers(
        &mut self,
        key: &VirtualServerKey,
    ) -> Result<BTreeMap<RealServerKey, ObservedRealServer>, KernelError> {
        let request = RequestKind::ReadRealServers;
        self.check_ipvs(&Operation::ReadRealServers(*key), request)?;
        match self.virtual_servers.get(key) {
            Some(server) => Ok(server.real_servers.clone()),
            None => Err(refused_read(request, ESRCH).into()),
        }
    }

    fn apply_ipvs(
        &mut self,
        commands: Vec<Command>,
    ) -> Result<Vec<Result<(), KernelError>>, KernelError> {
        let mut results = Vec::new();
        let mut lost = None;
        for command in commands {
            let injected = self.injected(&Operation::Ipvs(command.clone()));
            let result = match injected {
                Some(Injected::Refused(errno)) => Err(errno),
                Some(Injected::LostBefore | Injected::NotSent) => {
                    lost = injected;
                    break;
                }
                Some(Injected::LostAfter) | None => {
                    lost = lost.or(injected);
                    let result = self.execute(&command);
                    if result.is_ok() {
                        self.done(format!("{command:?}"));
                    }
                    result
                }
            };
            results.push(result.map_err(|errno| refused_command(&command, errno).into()));
        }
        if let Some(injected) = lost {
            return Err(KernelError::Ipvs(Error::Transport {
                request: RequestKind::Apply,
                source: transport_error(injected),
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
        self.change_link("create the link", format!("create {name}"), |kernel| {
            if kernel.links.contains_key(name) {
                return Err(EEXIST);
            }
            kernel.add_link(name, "dummy");
            Ok(())
        })
    }

    fn set_device_up(&mut self, name: &str) -> Result<(), KernelError> {
        self.change_link("set the link up", format!("up {name}"), |kernel| {
            kernel.links.get_mut(name).ok_or(ENODEV)?.up = true;
            Ok(())
        })
    }

    fn delete_device(&mut self, name: &str) -> Result<(), KernelError> {
        self.change_link("delete the link", format!("delete {name}"), |kernel| {
            kernel.links.remove(name).map(|_| ()).ok_or(ENODEV)
        })
    }

    fn apply_addresses(
        &mut self,
        link: &Link,
        commands: &[AddressCommand],
    ) -> Result<Vec<Result<(), KernelError>>, KernelError> {
        let request = "change addresses";
        let mut results = Vec::new();
        let mut lost = None;
        for command in commands {
            let injected = self.injected(&Operation::Address(*command));
            let result = match injected {
                Some(Injected::Refused(errno)) => Err(errno),
                Some(Injected::LostBefore | Injected::NotSent) => {
                    lost = injected;
                    break;
                }
                Some(Injected::LostAfter) | None => {
                    lost = lost.or(injected);
                    let result = match self.links.get_mut(&link.name) {
                        Some(link) => Self::change_address(link, *command),
                        None => Err(ENODEV),
                    };
                    if result.is_ok() {
                        self.done(format!("{command:?}"));
                    }
                    result
                }
            };
            results.push(result.map_err(|errno| rejected(request, errno)));
        }
        if let Some(injected) = lost {
            return Err(KernelError::Transport {
                request,
                source: transport_error(injected),
            });
        }
        Ok(results)
    }
}

/// `ip_vs_genl_parse_service`, `ip_vs_add_service`, `ip_vs_edit_service`. Port 0 without persistence is taken, though nothing is
/// ever scheduled to it, and so is the scheduler `none` (both seen on 6.12).
fn check_virtual_server(config: &VirtualServerConfig) -> Result<(), i32> {
    if matches!(&config.scheduler, Scheduler::Other(name) if name.as_str() != "none") {
        return Err(ENOENT);
    }
    if config
        .persistence_engine
        .as_ref()
        .is_some_and(|engine| engine != "sip")
    {
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

/// `ip_vs_new_dest`: what is local or unicast, and for IPv6 not link-local.
fn can_be_a_server(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !address.is_unspecified() && !address.is_broadcast() && !address.is_multicast()
        }
        IpAddr::V6(address) => {
            !address.is_unspecified() && !address.is_multicast() && !address.is_unicast_link_local()
        }
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

fn transport_error(injected: Injected) -> TransportError {
    match injected {
        Injected::NotSent => TransportError::Open(std::io::Error::from_raw_os_error(ENOMEM)),
        Injected::Refused(_) | Injected::LostBefore | Injected::LostAfter => {
            TransportError::Overflow
        }
    }
}

fn refused_read(request: RequestKind, errno: i32) -> Error {
    let rejection = rejection(errno);
    match errno {
        EPERM => Error::PermissionDenied { request, rejection },
        ESRCH => Error::NoSuchVirtualServer { request, rejection },
        _ => Error::Kernel { request, rejection },
    }
}

/// As the client of `ipvs` types a refusal.
fn refused_command(command: &Command, errno: i32) -> Error {
    let request = request(command);
    let rejection = rejection(errno);
    match (errno, command) {
        (EPERM, _) => Error::PermissionDenied { request, rejection },
        (ENOMEM, _) => Error::NoMemory { request, rejection },
        (EINVAL | ERANGE | EOPNOTSUPP | EAFNOSUPPORT, _) => Error::Invalid { request, rejection },
        (EEXIST, Command::CreateVirtualServer(..)) => {
            Error::VirtualServerExists { request, rejection }
        }
        (EEXIST, Command::CreateRealServer(..)) => Error::RealServerExists { request, rejection },
        (
            ESRCH,
            Command::UpdateVirtualServer(..)
            | Command::DeleteVirtualServer(_)
            | Command::CreateRealServer(..)
            | Command::UpdateRealServer(..)
            | Command::DeleteRealServer(..),
        ) => Error::NoSuchVirtualServer { request, rejection },
        (ENOENT, Command::UpdateRealServer(..) | Command::DeleteRealServer(..)) => {
            Error::NoSuchRealServer { request, rejection }
        }
        (
            ENOENT,
            Command::CreateVirtualServer(_, config) | Command::UpdateVirtualServer(_, config),
        ) => missing_module(request, config, rejection),
        _ => Error::Kernel { request, rejection },
    }
}

fn missing_module(
    request: RequestKind,
    config: &VirtualServerConfig,
    rejection: Rejection,
) -> Error {
    let scheduler = config.scheduler.name().to_owned();
    match &config.persistence_engine {
        Some(engine) if engine != "sip" => Error::NoSuchPersistenceEngine {
            request,
            engine: engine.clone(),
            scheduler,
            rejection,
        },
        Some(_) | None => Error::NoSuchScheduler {
            request,
            scheduler,
            rejection,
        },
    }
}
