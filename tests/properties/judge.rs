//! Tells whether a property was broken. It looks at the kernel, the plan and what is desired, and decides for itself what is foreign,
//! live and present.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;

use ipvs::{Protocol, VirtualServerKey, Weight};
use weir::arbitrate::Desired;
use weir::dataplane::fake::{FakeKernel, FakeLink};
use weir::dataplane::{ObservedVirtualServer, VipBinding};
use weir::plan::{Bind, Change, DeviceStep, Plan, Step};

use crate::support::DEVICE;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Property {
    Convergence,
    Ownership,
    Continuity,
    Minimality,
    NeverDark,
    Incremental,
}

impl Property {
    pub(crate) const ALL: [Self; 6] = [
        Self::Convergence,
        Self::Ownership,
        Self::Continuity,
        Self::Minimality,
        Self::NeverDark,
        Self::Incremental,
    ];
}

/// What was broken, and how. Clones share one list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Violations(Rc<RefCell<Vec<(Property, String)>>>);

impl Violations {
    pub(crate) fn add(&self, property: Property, how: String) {
        self.0.borrow_mut().push((property, how));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    pub(crate) fn properties(&self) -> BTreeSet<Property> {
        self.0
            .borrow()
            .iter()
            .map(|(property, _)| *property)
            .collect()
    }

    pub(crate) fn join(&self, between: &str) -> String {
        let violations = self.0.borrow();
        let lines = violations
            .iter()
            .map(|(property, how)| format!("{property:?}: {how}"));
        lines.collect::<Vec<_>>().join(between)
    }
}

/// What a kernel holds, and what weir has written down as its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) virtual_servers: BTreeMap<VirtualServerKey, ObservedVirtualServer>,
    pub(crate) links: BTreeMap<String, FakeLink>,
    pub(crate) recorded: BTreeSet<VirtualServerKey>,
}

impl Snapshot {
    pub(crate) fn of(kernel: &FakeKernel, recorded: &BTreeSet<VirtualServerKey>) -> Self {
        Self {
            virtual_servers: kernel.virtual_servers.clone(),
            links: kernel.links.clone(),
            recorded: recorded.clone(),
        }
    }

    fn vips(&self) -> BTreeMap<IpAddr, VipBinding> {
        let device = self.links.get(DEVICE);
        device
            .map(|device| device.addresses.clone())
            .unwrap_or_default()
    }

    /// By the record, by a VIP on our device, or as an inert server.
    pub(crate) fn owns(&self, key: &VirtualServerKey) -> bool {
        let VirtualServerKey::Address {
            address,
            port,
            protocol,
        } = *key
        else {
            return self.recorded.contains(key);
        };
        let inert = ["192.0.2.1", "2001:db8::1"].contains(&address.to_string().as_str())
            && port == 1
            && protocol == Protocol::Tcp;
        inert || self.recorded.contains(key) || self.vips().contains_key(&address)
    }
}

/// Whether a new connection finds a real server.
fn is_live(server: Option<&ObservedVirtualServer>) -> bool {
    server.is_some_and(|server| {
        let mut servers = server.real_servers.values();
        servers.any(|server| server.config.weight > Weight::QUIESCED)
    })
}

/// Watches one pass.
#[derive(Debug, Clone)]
pub(crate) struct Judge {
    before: Snapshot,
    desired: Desired,
    foreign: BTreeSet<VirtualServerKey>,
    must_serve: BTreeSet<VirtualServerKey>,
    violations: Violations,
}

impl Judge {
    pub(crate) fn new(before: Snapshot, desired: Desired, violations: Violations) -> Self {
        let is_desired = |key| desired.virtual_servers.contains_key(key);
        let keys = before.virtual_servers.keys();
        let foreign = keys
            .filter(|key| !is_desired(key) && !before.owns(key))
            .copied()
            .collect();
        let must_serve = desired
            .virtual_servers
            .iter()
            .filter(|(key, wanted)| {
                !wanted.real_servers.is_empty() && is_live(before.virtual_servers.get(key))
            })
            .map(|(key, _)| *key)
            .collect();
        Self {
            before,
            desired,
            foreign,
            must_serve,
            violations,
        }
    }

    /// After each operation of the kernel.
    pub(crate) fn see(&self, kernel: &FakeKernel) {
        let last = || kernel.log.last().cloned().unwrap_or_default();
        for key in &self.foreign {
            if kernel.virtual_servers.get(key) != self.before.virtual_servers.get(key) {
                let how = format!("{key} is foreign and was changed by {}", last());
                self.violations.add(Property::Ownership, how);
            }
        }
        let other = |name: &&String| name.as_str() != DEVICE;
        for name in self.before.links.keys().filter(other) {
            if kernel.links.get(name) != self.before.links.get(name) {
                let how = format!("the link {name} is foreign and was changed by {}", last());
                self.violations.add(Property::Ownership, how);
            }
        }
        for key in &self.must_serve {
            if !is_live(kernel.virtual_servers.get(key)) {
                let how = format!("{key} has no live real server after {}", last());
                self.violations.add(Property::NeverDark, how);
            }
        }
    }

    /// Before a plan is applied to a kernel that is as at the beginning of the pass.
    pub(crate) fn see_plan(&self, plan: &Plan) {
        for change in plan.changes.iter().chain(&plan.retire) {
            for step in &change.steps {
                if self.is_already(change, step) {
                    self.superfluous(&format!("{}: {step:?}", change.subject));
                }
            }
        }
        let vips = self.before.vips();
        for (vip, bind) in &plan.bind {
            let needed = match bind {
                Bind::Add => !vips.contains_key(vip),
                Bind::Replace => vips.get(vip) == Some(&VipBinding::Other),
            };
            if !needed {
                self.superfluous(&format!("{bind:?} {vip}"));
            }
        }
        for vip in &plan.unbind {
            if !vips.contains_key(vip) {
                self.superfluous(&format!("unbind {vip}"));
            }
        }
        let device = self.before.links.get(DEVICE);
        for step in &plan.device {
            let needed = match step {
                DeviceStep::Create => device.is_none(),
                DeviceStep::SetUp => !device.is_some_and(|device| device.up),
                DeviceStep::Delete => device.is_some(),
            };
            if !needed {
                self.superfluous(&format!("{step:?}"));
            }
        }
        for key in plan.record.intersection(&self.before.recorded) {
            self.superfluous(&format!("record {key}"));
        }
    }

    fn is_already(&self, change: &Change, step: &Step) -> bool {
        let server = self.before.virtual_servers.get(&change.subject);
        let real = |key| server.and_then(|server| server.real_servers.get(key));
        match step {
            Step::CreateVirtualServer(_) => server.is_some(),
            Step::UpdateVirtualServer(config) => {
                server.is_none_or(|server| server.config == *config)
            }
            Step::DeleteVirtualServer => server.is_none(),
            Step::CreateRealServer(key, _) => real(key).is_some(),
            Step::UpdateRealServer(key, config) => {
                real(key).is_none_or(|real| real.config == *config)
            }
            Step::DeleteRealServer(key) => real(key).is_none(),
        }
    }

    fn superfluous(&self, what: &str) {
        let how = format!("{what} asks for what already is");
        self.violations.add(Property::Minimality, how);
    }

    /// After the pass. A VIP with other attributes cannot be changed in place: while it is replaced a failure can lose it, so of
    /// these only passes without failures must keep it.
    pub(crate) fn see_end(&self, after: &Snapshot, failed: bool) {
        for (key, wanted) in &self.desired.virtual_servers {
            let Some(before) = self.before.virtual_servers.get(key) else {
                continue;
            };
            let Some(now) = after.virtual_servers.get(key) else {
                self.lost(&key.to_string());
                continue;
            };
            for server in wanted.real_servers.keys() {
                if before.real_servers.contains_key(server)
                    && !now.real_servers.contains_key(server)
                {
                    self.lost(&format!("{key} -> {server}"));
                }
            }
        }
        let (before, now) = (self.before.vips(), after.vips());
        for vip in &self.desired.vips {
            let must_stay = match before.get(vip) {
                Some(VipBinding::AsWanted) => true,
                Some(VipBinding::Other) => !failed,
                None => false,
            };
            if must_stay && !now.contains_key(vip) {
                self.lost(&format!("vip {vip}"));
            }
        }
    }

    fn lost(&self, what: &str) {
        let how = format!("{what} was there, is wanted and is gone");
        self.violations.add(Property::Continuity, how);
    }
}

/// Whether what is ours is what is desired, for keys that were ever ours as well.
pub(crate) fn see_convergence(
    now: &Snapshot,
    desired: &Desired,
    ever_ours: &BTreeSet<VirtualServerKey>,
    violations: &Violations,
) {
    let wrong = |how: String| violations.add(Property::Convergence, how);
    for (key, wanted) in &desired.virtual_servers {
        let Some(server) = now.virtual_servers.get(key) else {
            wrong(format!("{key} is missing"));
            continue;
        };
        let configs = server
            .real_servers
            .iter()
            .map(|(key, real)| (*key, real.config));
        if server.config != wanted.config
            || configs.collect::<BTreeMap<_, _>>() != wanted.real_servers
        {
            wrong(format!("{key} is {server:?} and should be {wanted:?}"));
        }
    }
    for key in now.virtual_servers.keys() {
        if !desired.virtual_servers.contains_key(key) && (now.owns(key) || ever_ours.contains(key))
        {
            wrong(format!(
                "{key} is or was ours, is not desired and is still there"
            ));
        }
    }
    let vips = now.vips();
    if vips.keys().copied().collect::<BTreeSet<_>>() != desired.vips {
        wrong(format!("bound are {vips:?}, desired {:?}", desired.vips));
    }
    if vips
        .values()
        .any(|binding| *binding != VipBinding::AsWanted)
    {
        wrong(format!("not as wanted: {vips:?}"));
    }
    if !now.links.get(DEVICE).is_some_and(|device| device.up) {
        wrong("the device is not up".to_owned());
    }
    if now.recorded != desired.virtual_servers.keys().copied().collect() {
        wrong(format!("recorded are {:?}", now.recorded));
    }
}
