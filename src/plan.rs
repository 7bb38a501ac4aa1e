//! What to do, in order, as a value: built whole, printed by `weir diff`, compared in tests, then applied.
//!
//! The phases: the device; the record of what is about to be ours; virtual and real servers created and updated; VIPs bound;
//! servers quiesced and deleted; VIPs unbound; the record of what no longer is. So no VIP is up without its virtual server, and
//! a virtual server that could serve before and should after never lacks a real server in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipvs::{ForwardMethod, RealServerConfig, RealServerKey, VirtualServerConfig, VirtualServerKey};

use crate::dataplane::{
    Device, Observed, ObservedRealServer, ObservedVirtualServer, StepError, VipBinding,
};
use crate::diff::Keys;
use crate::drain::DrainChanges;

/// What to do, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// What the dummy device needs.
    pub device: Vec<DeviceStep>,
    /// Keys to write down as ours before any of them is made.
    pub record: BTreeSet<VirtualServerKey>,
    /// Virtual and real servers to be created and updated, and real servers of these that go.
    pub changes: Vec<Change>,
    /// Addresses to be made local.
    pub bind: BTreeMap<IpAddr, Bind>,
    /// Virtual servers that go.
    pub retire: Vec<Change>,
    /// Addresses that go.
    pub unbind: BTreeSet<IpAddr>,
    /// Keys that are no longer ours once everything above is done.
    pub forget: BTreeSet<VirtualServerKey>,
    /// Real servers that start or end to drain.
    pub drain: DrainChanges,
}

/// A step for the dummy device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceStep {
    /// Create it (`ip link add NAME type dummy`).
    Create,
    /// Bring it up (`ip link set NAME up`).
    SetUp,
    /// Delete it with all its addresses (`ip link delete NAME`).
    Delete,
}

/// How an address comes to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bind {
    /// It is not there.
    Add,
    /// It is there with other attributes: taken away and added again.
    Replace,
}

/// The steps for one virtual server, in order. A failed step ends this change and no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The virtual server.
    pub subject: VirtualServerKey,
    /// What to do with it: first what creates and updates, then what quiesces, then what deletes.
    pub steps: Vec<Step>,
}

/// A step for one virtual server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// `ipvsadm -A`
    CreateVirtualServer(VirtualServerConfig),
    /// `ipvsadm -E`
    UpdateVirtualServer(VirtualServerConfig),
    /// `ipvsadm -D`
    DeleteVirtualServer,
    /// `ipvsadm -a`
    CreateRealServer(RealServerKey, RealServerConfig),
    /// `ipvsadm -e`
    UpdateRealServer(RealServerKey, RealServerConfig),
    /// `ipvsadm -d`
    DeleteRealServer(RealServerKey),
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many things it asks of the kernel.
    pub fn operations(&self) -> usize {
        let steps = |changes: &[Change]| {
            changes
                .iter()
                .map(|change| change.steps.len())
                .sum::<usize>()
        };
        let bind: usize = self
            .bind
            .values()
            .map(|bind| match bind {
                Bind::Add => 1,
                Bind::Replace => 2,
            })
            .sum();
        self.device.len() + steps(&self.changes) + bind + steps(&self.retire) + self.unbind.len()
    }
}

impl Plan {
    /// What is in the kernel once all of this is done.
    pub fn project(&self, mut observed: Observed) -> Observed {
        for step in &self.device {
            observed.device = match step {
                DeviceStep::Create => Device::Down,
                DeviceStep::SetUp => Device::Up,
                DeviceStep::Delete => {
                    observed.vips.clear();
                    Device::Absent
                }
            };
        }
        for change in self.changes.iter().chain(&self.retire) {
            change.project(&mut observed.virtual_servers);
        }
        for vip in self.bind.keys() {
            observed.vips.insert(*vip, VipBinding::AsWanted);
        }
        for vip in &self.unbind {
            observed.vips.remove(vip);
        }
        observed
    }
}

impl Change {
    fn project(&self, servers: &mut BTreeMap<VirtualServerKey, ObservedVirtualServer>) {
        for step in &self.steps {
            match step {
                Step::CreateVirtualServer(config) => {
                    let server = ObservedVirtualServer {
                        config: config.clone(),
                        real_servers: BTreeMap::new(),
                    };
                    servers.insert(self.subject, server);
                }
                Step::DeleteVirtualServer => {
                    servers.remove(&self.subject);
                }
                Step::UpdateVirtualServer(config) => {
                    if let Some(server) = servers.get_mut(&self.subject) {
                        server.config = config.clone();
                    }
                }
                Step::CreateRealServer(key, config) | Step::UpdateRealServer(key, config) => {
                    if let Some(server) = servers.get_mut(&self.subject) {
                        let real = ObservedRealServer {
                            config: *config,
                            connections: None,
                        };
                        server.real_servers.insert(*key, real);
                    }
                }
                Step::DeleteRealServer(key) => {
                    if let Some(server) = servers.get_mut(&self.subject) {
                        server.real_servers.remove(key);
                    }
                }
            }
        }
    }
}

/// One line a step, each with `+` for what is created, `~` for what is changed, `-` for what goes; an empty plan prints nothing.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.device {
            match step {
                DeviceStep::Create => writeln!(f, "+ device")?,
                DeviceStep::SetUp => writeln!(f, "~ device up")?,
                DeviceStep::Delete => {}
            }
        }
        for change in &self.changes {
            write!(f, "{change}")?;
        }
        for (vip, bind) in &self.bind {
            match bind {
                Bind::Add => writeln!(f, "+ vip {vip}")?,
                Bind::Replace => writeln!(f, "~ vip {vip}")?,
            }
        }
        for change in &self.retire {
            write!(f, "{change}")?;
        }
        for vip in &self.unbind {
            writeln!(f, "- vip {vip}")?;
        }
        if self.device.contains(&DeviceStep::Delete) {
            writeln!(f, "- device with all its addresses")?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = &self.subject;
        for step in &self.steps {
            match step {
                Step::CreateVirtualServer(config) => {
                    writeln!(
                        f,
                        "+ virtual server {subject} {}",
                        VirtualServerText(config)
                    )?;
                }
                Step::UpdateVirtualServer(config) => {
                    writeln!(
                        f,
                        "~ virtual server {subject} {}",
                        VirtualServerText(config)
                    )?;
                }
                Step::DeleteVirtualServer => writeln!(f, "- virtual server {subject}")?,
                Step::CreateRealServer(server, config) => {
                    writeln!(
                        f,
                        "+ real server {subject} -> {server} {}",
                        RealServerText(config)
                    )?;
                }
                Step::UpdateRealServer(server, config) => {
                    writeln!(
                        f,
                        "~ real server {subject} -> {server} {}",
                        RealServerText(config)
                    )?;
                }
                Step::DeleteRealServer(server) => {
                    writeln!(f, "- real server {subject} -> {server}")?;
                }
            }
        }
        Ok(())
    }
}

struct VirtualServerText<'a>(&'a VirtualServerConfig);

impl fmt::Display for VirtualServerText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.0;
        write!(f, "scheduler {}", config.scheduler)?;
        let flags = [
            (config.flags.scheduler_1, "flag-1"),
            (config.flags.scheduler_2, "flag-2"),
            (config.flags.scheduler_3, "flag-3"),
            (config.flags.one_packet, "one-packet"),
        ];
        for (_, name) in flags.iter().filter(|(set, _)| *set) {
            write!(f, " {name}")?;
        }
        if let Some(persistence) = config.persistence {
            write!(f, " persistent {} s", persistence.timeout)?;
        }
        Ok(())
    }
}

struct RealServerText<'a>(&'a RealServerConfig);

impl fmt::Display for RealServerText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.0;
        write!(f, "weight {}", config.weight)?;
        if config.forward != ForwardMethod::Masquerade {
            write!(f, " forward {:?}", config.forward)?;
        }
        if let Some(thresholds) = config.thresholds {
            write!(f, " limit {}/{}", thresholds.upper, thresholds.lower)?;
        }
        Ok(())
    }
}

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Report {
    /// Steps that the kernel has done.
    pub applied: usize,
    /// Steps that failed; what followed in the same change was not tried.
    pub failed: Vec<Failure>,
    /// Virtual servers and addresses of exchanges that failed as a whole: nothing is known of any of them.
    pub untold: Keys,
}

impl Report {
    /// Whether every step was done.
    pub fn is_success(&self) -> bool {
        self.failed.is_empty()
    }
}

/// A step that failed.
#[derive(Debug)]
pub struct Failure {
    /// What it was to be done to, as the plan prints it.
    pub subject: FailedSubject,
    /// The step, as the plan prints it.
    pub step: String,
    /// Why.
    pub error: StepError,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, crate::error_chain(&self.error))
    }
}

/// What a failed step was to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailedSubject {
    /// A virtual server or one of its real servers.
    VirtualServer(VirtualServerKey),
    /// An address.
    Vip(IpAddr),
    /// The dummy device.
    Device,
    /// The record of what is ours.
    Record,
}
