//! The node's kernel behind one small interface: what is, and do this.
//!
//! [`Kernel`] is what the operating system offers, one call at a time; the real one (`kernel`) and the one in memory (`fake`)
//! pass the same contract suite. [`Dataplane`] stands on either and knows in which order a plan is applied.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipvs::{
    Command, Connections, RealServerConfig, RealServerKey, VirtualServerConfig, VirtualServerKey,
};

use crate::diff::Keys;
use crate::ownership::Ownership;
use crate::plan::{Bind, Change, DeviceStep, FailedSubject, Failure, Plan, Report, Step};

pub mod addresses;
pub mod fake;
pub mod kernel;
pub mod record;
pub mod sysctl;

use record::Record;

/// What the operating system offers. Each call is one exchange, and an outer error means that its outcome is unknown.
pub trait Kernel {
    /// All virtual servers, foreign ones included.
    fn virtual_servers(
        &mut self,
    ) -> Result<BTreeMap<VirtualServerKey, VirtualServerConfig>, KernelError>;

    /// One virtual server; `None` if it is not there.
    fn virtual_server(
        &mut self,
        key: &VirtualServerKey,
    ) -> Result<Option<VirtualServerConfig>, KernelError>;

    /// The real servers of one virtual server.
    fn real_servers(
        &mut self,
        key: &VirtualServerKey,
    ) -> Result<BTreeMap<RealServerKey, ObservedRealServer>, KernelError>;

    /// Does these in order; one result each, and a failing one does not stop the others.
    fn apply_ipvs(
        &mut self,
        commands: Vec<Command>,
    ) -> Result<Vec<Result<(), KernelError>>, KernelError>;

    /// The link of our device's name; `None` if there is none.
    fn link(&mut self, name: &str) -> Result<Option<Link>, KernelError>;

    /// The addresses on a link, without link-local ones.
    fn addresses(&mut self, link: &Link) -> Result<BTreeMap<IpAddr, VipBinding>, KernelError>;

    /// `ip link add NAME type dummy`
    fn create_device(&mut self, name: &str) -> Result<(), KernelError>;

    /// `ip link set NAME up`
    fn set_device_up(&mut self, name: &str) -> Result<(), KernelError>;

    /// `ip link delete NAME`
    fn delete_device(&mut self, name: &str) -> Result<(), KernelError>;

    /// Does these in order; one result each, and a failing one does not stop the others.
    fn apply_addresses(
        &mut self,
        link: &Link,
        commands: &[AddressCommand],
    ) -> Result<Vec<Result<(), KernelError>>, KernelError>;
}

/// A link as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index, from 1.
    pub index: u32,
    /// Its kind (`IFLA_INFO_KIND`), such as `dummy`; empty for hardware.
    pub kind: String,
    /// Whether it is up (`IFF_UP`).
    pub up: bool,
}

/// A change of the addresses on our device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressCommand {
    /// `ip address add VIP/32 scope host` or `ip address add VIP/128 nodad preferred_lft 0`
    Add(IpAddr),
    /// `ip address delete VIP`, whatever its attributes
    Delete(IpAddr),
}

/// Why the kernel did not do one thing, or could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// IPVS refused it, or did not answer.
    #[error(transparent)]
    Ipvs(#[from] ipvs::Error),
    /// Links and addresses: refused.
    #[error("cannot {request}: {rejection}")]
    Rejected {
        /// What was asked.
        request: &'static str,
        /// What the kernel said.
        rejection: ipvs::netlink::Rejection,
    },
    /// Links and addresses: no answer, so the outcome is unknown.
    #[error("cannot {request}")]
    Transport {
        /// What was asked.
        request: &'static str,
        /// Why.
        #[source]
        source: ipvs::netlink::TransportError,
    },
}

const EPERM: i32 = 1;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EADDRNOTAVAIL: i32 = 99;

impl KernelError {
    /// Whether what should go is gone already.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Ipvs(error) => error.is_not_found(),
            Self::Rejected { rejection, .. } => [ENODEV, EADDRNOTAVAIL].contains(&rejection.errno),
            Self::Transport { .. } => false,
        }
    }

    /// Whether what should come is there already.
    pub fn is_already_exists(&self) -> bool {
        match self {
            Self::Ipvs(error) => error.is_already_exists(),
            Self::Rejected { rejection, .. } => rejection.errno == EEXIST,
            Self::Transport { .. } => false,
        }
    }

    /// Whether the kernel may or may not have done it.
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Ipvs(error) => error.is_outcome_unknown(),
            Self::Rejected { .. } => false,
            Self::Transport { source, .. } => source.is_outcome_unknown(),
        }
    }

    /// Whether `CAP_NET_ADMIN` is missing.
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Ipvs(error) => error.is_permission(),
            Self::Rejected { rejection, .. } => rejection.errno == EPERM,
            Self::Transport { source, .. } => source.is_permission(),
        }
    }
}

/// What is in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// All virtual servers, foreign ones included.
    pub virtual_servers: BTreeMap<VirtualServerKey, ObservedVirtualServer>,
    /// Our dummy device.
    pub device: Device,
    /// The addresses on our device.
    pub vips: BTreeMap<IpAddr, VipBinding>,
}

/// A virtual server as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedVirtualServer {
    /// What was set on it.
    pub config: VirtualServerConfig,
    /// Its real servers.
    pub real_servers: BTreeMap<RealServerKey, ObservedRealServer>,
}

/// A real server as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservedRealServer {
    /// What was set on it.
    pub config: RealServerConfig,
    /// What it held when it was last read; `None` if it has not been read since it was last changed.
    pub connections: Option<Connections>,
}

/// The state of our dummy device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Device {
    /// There is no link of that name.
    #[default]
    Absent,
    /// It is there and down: IPv6 addresses do not work on it.
    Down,
    /// It is there and up.
    Up,
}

/// How an address is on our device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VipBinding {
    /// As weir adds it: IPv4 `/32 scope host`, IPv6 `/128` with preferred life time 0, so that the node never chooses it as
    /// the source of its own connections.
    AsWanted,
    /// With another prefix length, scope or life time.
    Other,
}

/// Why there is no picture of the kernel.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The virtual servers.
    #[error("cannot read what IPVS holds")]
    VirtualServers(#[source] KernelError),
    /// The dummy device.
    #[error("cannot read the link {device}")]
    Device {
        /// Its name.
        device: String,
        /// Why.
        #[source]
        source: KernelError,
    },
    /// A link of our device's name that is no dummy device.
    #[error(
        "the link {device} is {kind}, not a dummy device, so it is not weir's; rename it or choose another name with --device"
    )]
    ForeignDevice {
        /// Its name.
        device: String,
        /// What it is.
        kind: String,
    },
    /// The addresses on the dummy device.
    #[error("cannot read the addresses on {device}")]
    Addresses {
        /// The device's name.
        device: String,
        /// Why.
        #[source]
        source: KernelError,
    },
}

impl ObserveError {
    /// What the kernel said, if it was asked.
    pub fn kernel(&self) -> Option<&KernelError> {
        match self {
            Self::VirtualServers(source)
            | Self::Device { source, .. }
            | Self::Addresses { source, .. } => Some(source),
            Self::ForeignDevice { .. } => None,
        }
    }
}

/// Why a step of a plan was not done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The kernel refused it or did not answer.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The record of what is ours could not be written. Nothing new is made until it can be.
    #[error(transparent)]
    Record(#[from] record::RecordError),
    /// Not tried, because something it needs failed.
    #[error("not tried, because {0} failed")]
    NotTried(&'static str),
}

/// What [`Dataplane::refresh`] found besides what it put in place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refreshed {
    /// Virtual servers that the kernel refuses to tell of, and why.
    pub unreadable: BTreeMap<VirtualServerKey, String>,
    /// Addresses that somebody else bound, changed or took away.
    pub changed_vips: BTreeSet<IpAddr>,
}

/// Reads and programs one node.
#[derive(Debug)]
pub struct Dataplane<K> {
    kernel: K,
    device: String,
    record: Record,
}

impl<K: Kernel> Dataplane<K> {
    /// A dataplane that keeps its VIPs on the dummy device of this name.
    pub fn new(kernel: K, device: String, record: Record) -> Self {
        Self {
            kernel,
            device,
            record,
        }
    }

    /// The kernel itself.
    pub fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// The name of the dummy device.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// What tells owned from foreign.
    pub fn ownership(&self) -> &Ownership {
        self.record.ownership()
    }

    /// Everything there is, read whole.
    ///
    /// # Errors
    /// When any part could not be read to its end. There is then no picture at all, which is not an empty one.
    pub fn observe(&mut self) -> Result<Observed, ObserveError> {
        let (device, vips) = self.observe_device()?;
        let configs = self
            .kernel
            .virtual_servers()
            .map_err(ObserveError::VirtualServers)?;
        let mut virtual_servers = BTreeMap::new();
        for (key, config) in configs {
            match self.kernel.real_servers(&key) {
                Ok(real_servers) => {
                    virtual_servers.insert(
                        key,
                        ObservedVirtualServer {
                            config,
                            real_servers,
                        },
                    );
                }
                // Somebody deleted it between the two reads.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(ObserveError::VirtualServers(error)),
            }
        }
        Ok(Observed {
            virtual_servers,
            device,
            vips,
        })
    }

    /// Reads these again and nothing else: the virtual servers one by one, and with any VIP the device and all its addresses.
    ///
    /// # Errors
    /// When an answer was lost, or the device could not be read; what is believed may then be half new, and must be read whole.
    pub fn refresh(
        &mut self,
        observed: &mut Observed,
        keys: &Keys,
    ) -> Result<Refreshed, ObserveError> {
        let mut refreshed = Refreshed::default();
        for key in &keys.virtual_servers {
            match self.observe_virtual_server(key) {
                Ok(Some(server)) => {
                    observed.virtual_servers.insert(*key, server);
                }
                Ok(None) => {
                    observed.virtual_servers.remove(key);
                }
                Err(error)
                    if error
                        .kernel()
                        .is_some_and(|error| !error.is_outcome_unknown()) =>
                {
                    refreshed
                        .unreadable
                        .insert(*key, crate::error_chain(&error));
                }
                Err(error) => return Err(error),
            }
        }
        if !keys.vips.is_empty() {
            let (device, vips) = self.observe_device()?;
            let before = std::mem::replace(&mut observed.vips, vips);
            observed.device = device;
            let all = before.keys().chain(observed.vips.keys());
            let differs = |vip: &&IpAddr| before.get(*vip) != observed.vips.get(*vip);
            refreshed.changed_vips = all.filter(differs).copied().collect();
        }
        Ok(refreshed)
    }

    /// Finds out which virtual servers came and went since they were believed to be there, and reads those that came; reads the
    /// device and its addresses.
    ///
    /// # Errors
    /// As [`Self::refresh`].
    pub fn refresh_list(&mut self, observed: &mut Observed) -> Result<(), ObserveError> {
        let configs = self
            .kernel
            .virtual_servers()
            .map_err(ObserveError::VirtualServers)?;
        observed
            .virtual_servers
            .retain(|key, _| configs.contains_key(key));
        for (key, config) in configs {
            if let Some(server) = observed.virtual_servers.get_mut(&key) {
                server.config = config;
            } else if let Some(server) = self.observe_virtual_server(&key)? {
                observed.virtual_servers.insert(key, server);
            }
        }
        (observed.device, observed.vips) = self.observe_device()?;
        Ok(())
    }

    fn observe_virtual_server(
        &mut self,
        key: &VirtualServerKey,
    ) -> Result<Option<ObservedVirtualServer>, ObserveError> {
        let config = self
            .kernel
            .virtual_server(key)
            .map_err(ObserveError::VirtualServers)?;
        let Some(config) = config else {
            return Ok(None);
        };
        match self.kernel.real_servers(key) {
            Ok(real_servers) => Ok(Some(ObservedVirtualServer {
                config,
                real_servers,
            })),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(ObserveError::VirtualServers(error)),
        }
    }

    fn observe_device(&mut self) -> Result<(Device, BTreeMap<IpAddr, VipBinding>), ObserveError> {
        let link = self
            .kernel
            .link(&self.device)
            .map_err(|source| ObserveError::Device {
                device: self.device.clone(),
                source,
            })?;
        let Some(link) = link else {
            return Ok((Device::Absent, BTreeMap::new()));
        };
        if link.kind != "dummy" {
            return Err(ObserveError::ForeignDevice {
                device: self.device.clone(),
                kind: if link.kind.is_empty() {
                    "hardware".to_owned()
                } else {
                    link.kind
                },
            });
        }
        let vips = self
            .kernel
            .addresses(&link)
            .map_err(|source| ObserveError::Addresses {
                device: self.device.clone(),
                source,
            })?;
        let device = if link.up { Device::Up } else { Device::Down };
        Ok((device, vips))
    }

    /// Does what a plan says, in its order. A failed step ends its change and no other, but for a real server that is refused while
    /// another of the same change came up; what could not be done stands in the report. Deleting what is absent is done; creating what is present fails.
    pub fn apply(&mut self, plan: &Plan) -> Report {
        let mut report = Report::default();
        let deletes_device = plan.device.contains(&DeviceStep::Delete);
        if !deletes_device {
            self.apply_device(&plan.device, &mut report);
        }
        let recorded = match self.record.add(&plan.record) {
            Ok(()) => true,
            Err(error) => {
                fail(
                    &mut report,
                    FailedSubject::Record,
                    "record what is to be made",
                    error.into(),
                );
                false
            }
        };
        // What is new waits until it is written down; updates of what exists go on.
        let (new, present): (Vec<&Change>, Vec<&Change>) = plan
            .changes
            .iter()
            .partition(|change| plan.record.contains(&change.subject));
        let mut unmade = self.apply_changes(&present, &mut report).unmade;
        if recorded {
            unmade.extend(self.apply_changes(&new, &mut report).unmade);
        } else {
            for change in new {
                unmade.insert(change.subject);
                not_made(change, &mut report);
            }
        }
        self.apply_bind(plan, &unmade, &mut report);
        let retired = self.apply_changes(&plan.retire.iter().collect::<Vec<_>>(), &mut report);
        self.apply_unbind(&plan.unbind, &mut report);
        if deletes_device {
            self.apply_device(&plan.device, &mut report);
        }
        self.forget(plan, &retired.ended, &mut report);
        report
    }

    fn apply_device(&mut self, steps: &[DeviceStep], report: &mut Report) {
        for step in steps {
            let (text, result) = match step {
                DeviceStep::Create => {
                    ("create the device", self.kernel.create_device(&self.device))
                }
                DeviceStep::SetUp => ("set the device up", self.kernel.set_device_up(&self.device)),
                DeviceStep::Delete => (
                    "delete the device",
                    gone(self.kernel.delete_device(&self.device)),
                ),
            };
            match result {
                Ok(()) => report.applied += 1,
                Err(error) => {
                    fail(report, FailedSubject::Device, text, error.into());
                    return;
                }
            }
        }
    }

    /// Applies changes side by side, stage by stage, so that each stage is few exchanges. Within a change the order of its steps
    /// holds, because every plan orders them by stage. Tells whose changes were not done to the end.
    fn apply_changes(&mut self, changes: &[&Change], report: &mut Report) -> Applied {
        let mut applied = Applied::default();
        for stage in STAGES {
            let steps: Vec<(VirtualServerKey, &Step)> = changes
                .iter()
                .filter(|change| !applied.ended.contains(&change.subject))
                .flat_map(|change| change.steps.iter().map(|step| (change.subject, step)))
                .filter(|(_, step)| stage_of(step) == stage)
                .collect();
            let outcome = self.apply_stage(&steps, report);
            applied.ended.extend(match stage {
                // One that came up lets others leave although a third was refused: it would keep dead ones in service for ever.
                Stage::RealServerUp => &outcome.failed - &outcome.succeeded,
                Stage::VirtualServer => {
                    applied.unmade.extend(outcome.failed.iter().copied());
                    outcome.failed
                }
                Stage::Quiesce | Stage::DeleteRealServer | Stage::DeleteVirtualServer => {
                    outcome.failed
                }
            });
        }
        applied
    }

    fn apply_stage(
        &mut self,
        steps: &[(VirtualServerKey, &Step)],
        report: &mut Report,
    ) -> StageOutcome {
        let mut outcome = StageOutcome::default();
        let Some((first_key, first_step)) = steps.first() else {
            return outcome;
        };
        let commands = steps
            .iter()
            .map(|(key, step)| command(*key, step))
            .collect();
        let results = match self.kernel.apply_ipvs(commands) {
            Ok(results) => results,
            Err(error) => {
                // Nobody knows which of them were done: all count as failed and are read again.
                outcome.failed.extend(steps.iter().map(|(key, _)| *key));
                report.untold.virtual_servers.extend(&outcome.failed);
                let text = step_text(*first_key, first_step);
                fail(
                    report,
                    FailedSubject::VirtualServer(*first_key),
                    &text,
                    error.into(),
                );
                return outcome;
            }
        };
        for ((key, step), result) in steps.iter().zip(results) {
            let result = match step {
                Step::DeleteVirtualServer | Step::DeleteRealServer(_) => gone(result),
                Step::CreateVirtualServer(_)
                | Step::UpdateVirtualServer(_)
                | Step::CreateRealServer(..)
                | Step::UpdateRealServer(..) => result,
            };
            match result {
                Ok(()) => {
                    outcome.succeeded.insert(*key);
                    report.applied += 1;
                }
                Err(error) => {
                    outcome.failed.insert(*key);
                    let text = step_text(*key, step);
                    fail(
                        report,
                        FailedSubject::VirtualServer(*key),
                        &text,
                        error.into(),
                    );
                }
            }
        }
        outcome
    }

    /// Binds what has its virtual server, or wants none. An address none of whose virtual servers could be made would lead clients
    /// to the node's own listeners.
    fn apply_bind(
        &mut self,
        plan: &Plan,
        unmade: &BTreeSet<VirtualServerKey>,
        report: &mut Report,
    ) {
        let made = plan.changes.iter().map(|change| change.subject);
        let made: BTreeSet<IpAddr> = made
            .filter(|key| !unmade.contains(key))
            .filter_map(address_of)
            .collect();
        let blocked: BTreeSet<IpAddr> = unmade.iter().copied().filter_map(address_of).collect();
        let mut commands = Vec::new();
        for (vip, bind) in &plan.bind {
            match bind {
                Bind::Add if blocked.contains(vip) && !made.contains(vip) => {
                    let error = StepError::NotTried("making its virtual servers");
                    let command = AddressCommand::Add(*vip);
                    fail(report, subject(command), &address_text(command), error);
                }
                Bind::Add => commands.push(AddressCommand::Add(*vip)),
                Bind::Replace => {
                    commands.extend([AddressCommand::Delete(*vip), AddressCommand::Add(*vip)]);
                }
            }
        }
        self.apply_addresses(&commands, report);
    }

    fn apply_unbind(&mut self, vips: &BTreeSet<IpAddr>, report: &mut Report) {
        let commands: Vec<_> = vips
            .iter()
            .map(|vip| AddressCommand::Delete(*vip))
            .collect();
        self.apply_addresses(&commands, report);
    }

    fn apply_addresses(&mut self, commands: &[AddressCommand], report: &mut Report) {
        let Some(first) = commands.first() else {
            return;
        };
        let results = match self.kernel.link(&self.device) {
            Ok(Some(link)) => self.kernel.apply_addresses(&link, commands),
            Ok(None) => {
                let error = StepError::NotTried("creating the device");
                fail(report, FailedSubject::Device, "bind addresses", error);
                return;
            }
            Err(error) => Err(error),
        };
        let results = match results {
            Ok(results) => results,
            Err(error) => {
                report
                    .untold
                    .vips
                    .extend(commands.iter().map(|command| match command {
                        AddressCommand::Add(vip) | AddressCommand::Delete(vip) => *vip,
                    }));
                fail(report, subject(*first), &address_text(*first), error.into());
                return;
            }
        };
        for (command, result) in commands.iter().zip(results) {
            let result = match command {
                AddressCommand::Add(_) => result,
                AddressCommand::Delete(_) => gone(result),
            };
            match result {
                Ok(()) => report.applied += 1,
                Err(error) => fail(
                    report,
                    subject(*command),
                    &address_text(*command),
                    error.into(),
                ),
            }
        }
    }

    /// Strikes off what is gone. What could not be deleted, or may not have been, stays written down, or it would turn foreign.
    fn forget(&mut self, plan: &Plan, remaining: &BTreeSet<VirtualServerKey>, report: &mut Report) {
        let forget = plan.forget.difference(remaining).copied().collect();
        if let Err(error) = self.record.remove(&forget) {
            fail(
                report,
                FailedSubject::Record,
                "record what is gone",
                error.into(),
            );
        }
    }
}

/// What became of changes.
#[derive(Debug, Default)]
struct Applied {
    /// Changes that a failed step ended.
    ended: BTreeSet<VirtualServerKey>,
    /// Those of them whose virtual server itself could not be made or updated.
    unmade: BTreeSet<VirtualServerKey>,
}

/// What became of one stage, by change.
#[derive(Debug, Default)]
struct StageOutcome {
    /// At least one step succeeded.
    succeeded: BTreeSet<VirtualServerKey>,
    /// At least one step failed.
    failed: BTreeSet<VirtualServerKey>,
}

/// A new change waits for the record; its first step stands for all.
fn not_made(change: &Change, report: &mut Report) {
    let error = StepError::NotTried("recording what is to be made");
    let text = change
        .steps
        .first()
        .map(|step| step_text(change.subject, step));
    fail(
        report,
        FailedSubject::VirtualServer(change.subject),
        &text.unwrap_or_default(),
        error,
    );
}

fn address_of(key: VirtualServerKey) -> Option<IpAddr> {
    match key {
        VirtualServerKey::Address { address, .. } => Some(address),
        VirtualServerKey::Mark { .. } => None,
    }
}

/// The stages of a change: what creates and updates, what quiesces, what deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    VirtualServer,
    RealServerUp,
    Quiesce,
    DeleteRealServer,
    DeleteVirtualServer,
}

const STAGES: [Stage; 5] = [
    Stage::VirtualServer,
    Stage::RealServerUp,
    Stage::Quiesce,
    Stage::DeleteRealServer,
    Stage::DeleteVirtualServer,
];

fn stage_of(step: &Step) -> Stage {
    match step {
        Step::CreateVirtualServer(_) | Step::UpdateVirtualServer(_) => Stage::VirtualServer,
        Step::UpdateRealServer(_, config) if config.weight == ipvs::Weight::QUIESCED => {
            Stage::Quiesce
        }
        Step::CreateRealServer(..) | Step::UpdateRealServer(..) => Stage::RealServerUp,
        Step::DeleteRealServer(_) => Stage::DeleteRealServer,
        Step::DeleteVirtualServer => Stage::DeleteVirtualServer,
    }
}

fn command(key: VirtualServerKey, step: &Step) -> Command {
    match step {
        Step::CreateVirtualServer(config) => Command::CreateVirtualServer(key, config.clone()),
        Step::UpdateVirtualServer(config) => Command::UpdateVirtualServer(key, config.clone()),
        Step::DeleteVirtualServer => Command::DeleteVirtualServer(key),
        Step::CreateRealServer(server, config) => Command::CreateRealServer(key, *server, *config),
        Step::UpdateRealServer(server, config) => Command::UpdateRealServer(key, *server, *config),
        Step::DeleteRealServer(server) => Command::DeleteRealServer(key, *server),
    }
}

fn step_text(key: VirtualServerKey, step: &Step) -> String {
    let change = Change {
        subject: key,
        steps: vec![step.clone()],
    };
    change.to_string().trim_end().to_owned()
}

fn address_text(command: AddressCommand) -> String {
    match command {
        AddressCommand::Add(vip) => format!("+ vip {vip}"),
        AddressCommand::Delete(vip) => format!("- vip {vip}"),
    }
}

fn subject(command: AddressCommand) -> FailedSubject {
    match command {
        AddressCommand::Add(vip) | AddressCommand::Delete(vip) => FailedSubject::Vip(vip),
    }
}

/// Deleting what is absent is success.
fn gone(result: Result<(), KernelError>) -> Result<(), KernelError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

fn fail(report: &mut Report, subject: FailedSubject, step: &str, error: StepError) {
    report.failed.push(Failure {
        subject,
        step: step.trim_end().to_owned(),
        error,
    });
}

#[cfg(test)]
mod tests {
    use super::fake::{FakeKernel, Injected, Operation};
    use super::record::Scope;
    use super::*;
    use ipvs::{Protocol, Scheduler, Weight};

    const ENOMEM: i32 = 12;

    fn key(address: &str) -> VirtualServerKey {
        VirtualServerKey::Address {
            address: address.parse().unwrap(),
            port: 80,
            protocol: Protocol::Tcp,
        }
    }

    fn server(address: &str) -> RealServerKey {
        RealServerKey {
            address: address.parse().unwrap(),
            port: 8080,
        }
    }

    fn round_robin() -> VirtualServerConfig {
        VirtualServerConfig::new(Scheduler::RoundRobin)
    }

    fn weight(weight: u32) -> RealServerConfig {
        RealServerConfig::masquerade(Weight(weight))
    }

    fn change(address: &str, steps: Vec<Step>) -> Change {
        Change {
            subject: key(address),
            steps,
        }
    }

    fn creation(address: &str) -> Change {
        change(
            address,
            vec![
                Step::CreateVirtualServer(round_robin()),
                Step::CreateRealServer(server("198.51.100.1"), weight(1)),
            ],
        )
    }

    fn dataplane() -> Dataplane<FakeKernel> {
        Dataplane::new(
            FakeKernel::default(),
            "weir0".to_owned(),
            Record::in_memory(),
        )
    }

    /// A dataplane with the device up and virtual servers on these addresses.
    fn dataplane_with(addresses: &[&str]) -> Dataplane<FakeKernel> {
        let mut dataplane = dataplane();
        let plan = Plan {
            device: vec![DeviceStep::Create, DeviceStep::SetUp],
            record: addresses.iter().map(|address| key(address)).collect(),
            changes: addresses.iter().map(|address| creation(address)).collect(),
            ..Plan::default()
        };
        let report = dataplane.apply(&plan);
        assert!(report.is_success());
        assert_eq!(report.applied, plan.operations());
        dataplane
    }

    fn subjects(report: &Report) -> Vec<FailedSubject> {
        report
            .failed
            .iter()
            .map(|failure| failure.subject)
            .collect()
    }

    #[test]
    fn a_failed_step_ends_its_change_and_no_other() {
        let mut dataplane = dataplane_with(&["192.0.2.10", "192.0.2.11"]);
        dataplane.kernel().fail_when(|operation| {
            let is_it = matches!(
                operation,
                Operation::Ipvs(Command::CreateRealServer(of, ..)) if *of == key("192.0.2.10")
            );
            is_it.then_some(Injected::Refused(ENOMEM))
        });
        let steps = vec![
            Step::CreateRealServer(server("198.51.100.2"), weight(1)),
            Step::DeleteRealServer(server("198.51.100.1")),
        ];
        let report = dataplane.apply(&Plan {
            changes: vec![
                change("192.0.2.10", steps.clone()),
                change("192.0.2.11", steps),
            ],
            ..Plan::default()
        });
        assert_eq!(report.applied, 2);
        assert_eq!(
            subjects(&report),
            [FailedSubject::VirtualServer(key("192.0.2.10"))]
        );
        let held = |dataplane: &mut Dataplane<FakeKernel>, address| -> Vec<_> {
            let servers = &dataplane.kernel().virtual_servers[&key(address)].real_servers;
            servers.keys().copied().collect()
        };
        assert_eq!(held(&mut dataplane, "192.0.2.10"), [server("198.51.100.1")]);
        assert_eq!(held(&mut dataplane, "192.0.2.11"), [server("198.51.100.2")]);
    }

    #[test]
    fn deleting_what_is_absent_is_done_and_creating_what_is_present_fails() {
        let mut dataplane = dataplane_with(&["192.0.2.10"]);
        let report = dataplane.apply(&Plan {
            changes: vec![change(
                "192.0.2.10",
                vec![Step::DeleteRealServer(server("198.51.100.9"))],
            )],
            retire: vec![change("192.0.2.12", vec![Step::DeleteVirtualServer])],
            unbind: ["192.0.2.13".parse().unwrap()].into(),
            ..Plan::default()
        });
        assert!(report.is_success());
        assert_eq!(report.applied, 3);

        let report = dataplane.apply(&Plan {
            changes: vec![creation("192.0.2.10")],
            ..Plan::default()
        });
        assert_eq!(report.applied, 0);
        assert!(matches!(
            &report.failed[..],
            [Failure { error: StepError::Kernel(error), .. }] if error.is_already_exists()
        ));
    }

    #[test]
    fn the_order_of_the_phases_holds() {
        let mut dataplane = dataplane_with(&["192.0.2.10", "192.0.2.11"]);
        dataplane.kernel().log.clear();
        let report = dataplane.apply(&Plan {
            record: [key("192.0.2.12")].into(),
            changes: vec![
                change(
                    "192.0.2.10",
                    vec![
                        Step::CreateRealServer(server("198.51.100.2"), weight(1)),
                        Step::UpdateRealServer(server("198.51.100.1"), weight(0)),
                        Step::DeleteRealServer(server("198.51.100.1")),
                    ],
                ),
                creation("192.0.2.12"),
            ],
            bind: [("192.0.2.12".parse().unwrap(), Bind::Add)].into(),
            retire: vec![change("192.0.2.11", vec![Step::DeleteVirtualServer])],
            unbind: ["192.0.2.11".parse().unwrap()].into(),
            ..Plan::default()
        });
        assert!(report.is_success());
        let log = &dataplane.kernel().log;
        let order: Vec<_> = log.iter().map(|line| line.split('(').next()).collect();
        assert_eq!(
            order,
            [
                "CreateRealServer",
                "UpdateRealServer",
                "DeleteRealServer",
                "CreateVirtualServer",
                "CreateRealServer",
                "Add",
                "DeleteVirtualServer",
            ]
            .map(Some)
        );
    }

    #[test]
    fn what_is_new_waits_for_the_record_and_what_exists_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let scope = Scope {
            boot_id: "a".to_owned(),
            network_namespace: "4:1".to_owned(),
        };
        let (record, _) = Record::open(&directory.path().join("absent"), scope).unwrap();
        std::fs::write(directory.path().join("absent"), "a file is in the way").unwrap();
        let mut kernel = dataplane_with(&["192.0.2.10"]).kernel;
        kernel.log.clear();
        let mut dataplane = Dataplane::new(kernel, "weir0".to_owned(), record);
        let report = dataplane.apply(&Plan {
            record: [key("192.0.2.12")].into(),
            changes: vec![
                change(
                    "192.0.2.10",
                    vec![Step::UpdateRealServer(server("198.51.100.1"), weight(2))],
                ),
                creation("192.0.2.12"),
            ],
            ..Plan::default()
        });
        assert_eq!(report.applied, 1);
        assert_eq!(
            subjects(&report),
            [
                FailedSubject::Record,
                FailedSubject::VirtualServer(key("192.0.2.12"))
            ]
        );
        assert!(
            !dataplane
                .kernel()
                .virtual_servers
                .contains_key(&key("192.0.2.12"))
        );
    }

    #[test]
    fn what_could_not_be_deleted_stays_recorded() {
        for injected in [
            Injected::Refused(ENOMEM),
            Injected::LostBefore,
            Injected::LostAfter,
            Injected::NotSent,
        ] {
            let addresses = ["192.0.2.10", "192.0.2.11"];
            let mut dataplane = dataplane_with(&addresses);
            dataplane.kernel().fail_when(move |operation| {
                matches!(operation, Operation::Ipvs(_)).then_some(injected)
            });
            let plan = Plan {
                retire: addresses
                    .map(|address| change(address, vec![Step::DeleteVirtualServer]))
                    .into(),
                forget: addresses.map(key).into(),
                ..Plan::default()
            };
            assert!(!dataplane.apply(&plan).is_success());
            assert_eq!(
                dataplane.ownership().recorded,
                addresses.map(key).into(),
                "{injected:?}"
            );
            dataplane.kernel().stop_failing();
            assert!(dataplane.apply(&plan).is_success());
            assert!(dataplane.ownership().recorded.is_empty());
        }
    }

    #[test]
    fn a_read_that_fails_anywhere_gives_no_picture() {
        let mut dataplane = dataplane_with(&["192.0.2.10"]);
        for broken in [
            Operation::ReadVirtualServers,
            Operation::ReadRealServers(key("192.0.2.10")),
            Operation::ReadLink,
            Operation::ReadAddresses,
        ] {
            let expected = broken.clone();
            dataplane
                .kernel()
                .fail_when(move |operation| (*operation == broken).then_some(Injected::LostBefore));
            let error = dataplane.observe().unwrap_err();
            assert!(error.kernel().is_some(), "{expected:?}");
        }
        dataplane.kernel().stop_failing();
        let observed = dataplane.observe().unwrap();
        assert_eq!(observed.device, Device::Up);
        assert_eq!(observed.virtual_servers.len(), 1);
    }

    #[test]
    fn a_virtual_server_that_goes_between_two_reads_is_no_failure() {
        const ESRCH: i32 = 3;
        let mut dataplane = dataplane_with(&["192.0.2.10", "192.0.2.11"]);
        dataplane.kernel().fail_when(|operation| {
            (*operation == Operation::ReadRealServers(key("192.0.2.10")))
                .then_some(Injected::Refused(ESRCH))
        });
        let observed = dataplane.observe().unwrap();
        let keys: Vec<_> = observed.virtual_servers.into_keys().collect();
        assert_eq!(keys, [key("192.0.2.11")]);
    }

    #[test]
    fn a_link_of_our_name_that_is_no_dummy_is_refused() {
        let mut dataplane = dataplane();
        dataplane.kernel().add_link("weir0", "bridge");
        let error = dataplane.observe().unwrap_err();
        assert!(matches!(
            &error,
            ObserveError::ForeignDevice { kind, .. } if kind == "bridge"
        ));
        assert!(error.kernel().is_none());
    }

    #[test]
    fn without_a_device_addresses_wait_and_servers_do_not() {
        let mut dataplane = dataplane();
        dataplane.kernel().fail_when(|operation| {
            (*operation == Operation::ChangeLink).then_some(Injected::Refused(1))
        });
        let report = dataplane.apply(&Plan {
            device: vec![DeviceStep::Create, DeviceStep::SetUp],
            record: [key("192.0.2.10")].into(),
            changes: vec![creation("192.0.2.10")],
            bind: [("192.0.2.10".parse().unwrap(), Bind::Add)].into(),
            ..Plan::default()
        });
        assert_eq!(report.applied, 2);
        assert_eq!(
            subjects(&report),
            [FailedSubject::Device, FailedSubject::Device]
        );
    }
}
