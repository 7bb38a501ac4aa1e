//! A random history: a kernel as weir may find it, a cluster that changes, failures, passes, and in the end quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use ipvs::{
    Connections, Family, Netmask, Persistence, RealServerConfig, RealServerKey, Scheduler,
    VirtualServerConfig, VirtualServerKey, Weight,
};
use weir::arbitrate::Desired;
use weir::dataplane::fake::{FakeKernel, FakeLink, Injected};
use weir::dataplane::record::Record;
use weir::dataplane::{Dataplane, Observed, ObservedRealServer, ObservedVirtualServer, VipBinding};
use weir::diff::{Basis, Scope, diff};
use weir::drain::{BootTime, Clock, DEFAULT_TIMEOUT, Draining};
use weir::ownership::Ownership;
use weir::pipeline::Pipeline;
use weir::plan::{Change, FailedSubject, Plan, Report, Step};
use weir::resolve::Settings;
use weir::source::{Change as Changed, Event};

use crate::cluster::{self, Cluster, PORTS, SERVERS, VIPS};
use crate::judge::{Judge, Property, Snapshot, Violations, see_convergence};
use crate::support::random::Random;
use crate::support::{DEVICE, OWN_NODE, Result, address};

/// Passes with changes; in the first half of them things fail.
const PASSES: usize = 6;
/// Passes without failures and changes after which nothing may be left to do. A VIP that is bound makes what stands on it ours,
/// which takes a second pass; what is quiesced is deleted once it was read again, which takes a third.
const QUIET_PASSES: usize = 3;

/// What is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    None,
    EqualityIgnoresWeight,
    StopsBeforeUnbinding,
    NoOwnershipCheck,
    DeletesWhatDidNotSucceed,
    FailedClusterReadIsEmpty,
    UpdatesByDeletingAndCreating,
    SendsUpdatesAgain,
    FailedKernelReadIsEmpty,
    DeletesBeforeItCreates,
    ForgetsNodes,
    ForgetsRemovals,
}

/// Runs the history of a seed.
pub(crate) fn run(seed: u64, mutant: Mutant) -> Result<Violations> {
    let mut history = History::new(seed, mutant)?;
    for event in cluster::first_events(&mut history.random)? {
        history.event(&event);
    }
    for pass in 0..PASSES {
        for _ in 0..history.random.below(4) {
            let event = cluster::event(&mut history.random)?;
            history.event(&event);
        }
        let failing = pass < PASSES / 2;
        if failing {
            history.somebody_else_interferes();
            history.let_things_fail();
        } else {
            history.dataplane.kernel().stop_failing();
        }
        history.pass();
    }
    for _ in 0..QUIET_PASSES {
        history.pass();
    }
    history.see_the_end();
    Ok(history.violations)
}

struct History {
    random: Random,
    mutant: Mutant,
    cluster: Cluster,
    pipeline: Pipeline,
    dataplane: Dataplane<FakeKernel>,
    draining: Draining,
    ever_ours: BTreeSet<VirtualServerKey>,
    violations: Violations,
}

/// Histories are short: no deadline passes, everything that drains is free of connections when it is read again.
const CLOCK: Clock = Clock {
    now: BootTime(Duration::from_secs(1_000)),
    timeout: DEFAULT_TIMEOUT,
};

impl History {
    fn new(seed: u64, mutant: Mutant) -> Result<Self> {
        let mut random = Random::new(seed);
        let keys = keys()?;
        let kernel = kernel(&mut random, &keys)?;
        let mut record = Record::in_memory();
        record
            .add(&random.some(&keys).into_iter().collect())
            .map_err(|error| error.to_string())?;
        Ok(Self {
            random,
            mutant,
            cluster: Cluster::default(),
            pipeline: Pipeline::new(OWN_NODE, Settings::default()),
            dataplane: Dataplane::new(kernel, DEVICE.to_owned(), record),
            draining: Draining::default(),
            ever_ours: BTreeSet::new(),
            violations: Violations::default(),
        })
    }

    /// Tells the pipeline and compares it with one that starts now.
    fn event(&mut self, event: &Event) {
        self.cluster.take(event.clone());
        let forgotten = match self.mutant {
            Mutant::ForgetsNodes => matches!(event, Event::Nodes(Changed::Upsert(_))),
            Mutant::ForgetsRemovals => matches!(event, Event::EndpointSlices(Changed::Remove(_))),
            Mutant::None
            | Mutant::EqualityIgnoresWeight
            | Mutant::StopsBeforeUnbinding
            | Mutant::NoOwnershipCheck
            | Mutant::DeletesWhatDidNotSucceed
            | Mutant::FailedClusterReadIsEmpty
            | Mutant::UpdatesByDeletingAndCreating
            | Mutant::SendsUpdatesAgain
            | Mutant::FailedKernelReadIsEmpty
            | Mutant::DeletesBeforeItCreates => false,
        };
        if !forgotten {
            self.pipeline.apply([event.clone()]);
        }
        let mut fresh = Pipeline::new(OWN_NODE, Settings::default());
        fresh.apply(self.cluster.told_anew());
        if fresh.waiting_for() != self.pipeline.waiting_for()
            || fresh.desired() != self.pipeline.desired()
            || fresh.problems() != self.pipeline.problems()
        {
            let how = format!(
                "after {event:?}\nfrom scratch {:#?}\nincremental {:#?}",
                fresh.desired(),
                self.pipeline.desired()
            );
            self.violations.add(Property::Incremental, how);
        }
    }

    fn somebody_else_interferes(&mut self) {
        let kernel = self.dataplane.kernel();
        match self.random.below(10) {
            0 => kernel.set_device_down(DEVICE),
            1 => {
                kernel.links.remove(DEVICE);
            }
            2 => {
                let keys: Vec<_> = kernel.virtual_servers.keys().copied().collect();
                if !keys.is_empty() {
                    kernel.virtual_servers.remove(&self.random.pick(&keys));
                }
            }
            3 => {
                for server in kernel.virtual_servers.values_mut() {
                    for real in server.real_servers.values_mut() {
                        real.config.weight = self.random.pick(&[Weight(0), Weight(1), Weight(2)]);
                    }
                }
            }
            _ => {}
        }
    }

    fn let_things_fail(&mut self) {
        let mut random = Random::new(self.random.next());
        let odds = random.pick(&[2, 5, 15, 50]);
        self.dataplane.kernel().fail_when(move |_| {
            // EPERM, ENOMEM, EINVAL, ENOBUFS. What the kernel says of the presence of things is true.
            let injected = [
                Injected::Refused(1),
                Injected::Refused(12),
                Injected::Refused(22),
                Injected::Refused(105),
                Injected::LostBefore,
                Injected::LostAfter,
                Injected::NotSent,
            ];
            random.one_in(odds).then(|| random.pick(&injected))
        });
    }

    fn snapshot(&mut self) -> Snapshot {
        let recorded = self.dataplane.ownership().recorded.clone();
        Snapshot::of(self.dataplane.kernel(), &recorded)
    }

    fn pass(&mut self) {
        let before = self.snapshot();
        let observed = match self.dataplane.observe() {
            Ok(observed) => observed,
            Err(_) if self.mutant == Mutant::FailedKernelReadIsEmpty => Observed::default(),
            Err(_) => return,
        };
        let desired = self.pipeline.desired().clone();
        let keys = before.virtual_servers.keys();
        self.ever_ours.extend(
            keys.filter(|key| before.owns(key) || desired.virtual_servers.contains_key(key)),
        );
        let judge = Judge::new(before, desired.clone(), self.violations.clone());
        let watching = judge.clone();
        self.dataplane
            .kernel()
            .watch(move |kernel| watching.see(kernel));

        let plan = self.plan(desired, observed);
        let mut failed = false;
        for plan in self.split(plan, &judge) {
            let report = self.dataplane.apply(&plan);
            failed |= !report.is_success();
            if self.mutant == Mutant::DeletesWhatDidNotSucceed {
                self.dataplane.apply(&delete_failed(&report));
            }
        }
        self.dataplane.kernel().stop_watching();
        let after = self.snapshot();
        judge.see_end(&after, failed);
    }

    /// The plan, or what a mutant makes of it.
    fn plan(&mut self, mut desired: Desired, mut observed: Observed) -> Plan {
        let mut ownership = self.dataplane.ownership().clone();
        match self.mutant {
            Mutant::EqualityIgnoresWeight => {
                for server in observed.virtual_servers.values_mut() {
                    for real in server.real_servers.values_mut() {
                        real.config.weight = Weight::ONE;
                    }
                }
            }
            Mutant::NoOwnershipCheck => {
                ownership = Ownership {
                    recorded: observed.virtual_servers.keys().copied().collect(),
                };
            }
            Mutant::FailedClusterReadIsEmpty => {
                if self.random.one_in(4) {
                    desired = Desired::new();
                }
            }
            Mutant::None
            | Mutant::StopsBeforeUnbinding
            | Mutant::DeletesWhatDidNotSucceed
            | Mutant::UpdatesByDeletingAndCreating
            | Mutant::SendsUpdatesAgain
            | Mutant::FailedKernelReadIsEmpty
            | Mutant::DeletesBeforeItCreates
            | Mutant::ForgetsNodes
            | Mutant::ForgetsRemovals => {}
        }
        let basis = Basis {
            desired: &desired,
            observed: &observed,
            ownership: &ownership,
            draining: &self.draining,
            clock: CLOCK,
        };
        let mut plan = diff(basis, Scope::Everything);
        self.draining.apply(&plan.drain);
        if self.mutant == Mutant::StopsBeforeUnbinding {
            plan.unbind.clear();
        }
        if self.mutant == Mutant::SendsUpdatesAgain {
            plan.changes.extend(again(&desired, &observed));
        }
        plan
    }

    /// The plan, as one or, by a mutant, in two parts. The judge sees what is asked for as long as the kernel is as it was.
    fn split(&self, plan: Plan, judge: &Judge) -> Vec<Plan> {
        judge.see_plan(&plan);
        match self.mutant {
            Mutant::DeletesBeforeItCreates => delete_first(plan),
            Mutant::UpdatesByDeletingAndCreating => replace_updated(plan, self.pipeline.desired()),
            Mutant::None
            | Mutant::EqualityIgnoresWeight
            | Mutant::StopsBeforeUnbinding
            | Mutant::NoOwnershipCheck
            | Mutant::DeletesWhatDidNotSucceed
            | Mutant::FailedClusterReadIsEmpty
            | Mutant::SendsUpdatesAgain
            | Mutant::FailedKernelReadIsEmpty
            | Mutant::ForgetsNodes
            | Mutant::ForgetsRemovals => vec![plan],
        }
    }

    fn see_the_end(&mut self) {
        let now = self.snapshot();
        let desired = self.pipeline.desired();
        see_convergence(&now, desired, &self.ever_ours, &self.violations);
        match self.dataplane.observe() {
            Err(error) => {
                let how = format!("the kernel cannot be read: {error}");
                self.violations.add(Property::Convergence, how);
            }
            Ok(observed) => {
                let basis = Basis {
                    desired,
                    observed: &observed,
                    ownership: self.dataplane.ownership(),
                    draining: &self.draining,
                    clock: CLOCK,
                };
                let plan = diff(basis, Scope::Everything);
                if !plan.is_empty() {
                    let how = format!("still to do: {plan:?}");
                    self.violations.add(Property::Convergence, how);
                }
            }
        }
    }
}

fn delete_failed(report: &Report) -> Plan {
    let mut plan = Plan::default();
    for failure in &report.failed {
        if let FailedSubject::VirtualServer(subject) = failure.subject {
            plan.retire.push(Change {
                subject,
                steps: vec![Step::DeleteVirtualServer],
            });
        }
    }
    plan
}

/// Updates of all that is there and wanted.
fn again(desired: &Desired, observed: &Observed) -> Vec<Change> {
    let mut changes = Vec::new();
    for (subject, wanted) in &desired.virtual_servers {
        let Some(present) = observed.virtual_servers.get(subject) else {
            continue;
        };
        let steps: Vec<_> = wanted
            .real_servers
            .iter()
            .filter(|(server, _)| present.real_servers.contains_key(server))
            .map(|(server, config)| Step::UpdateRealServer(*server, *config))
            .collect();
        changes.push(Change {
            subject: *subject,
            steps,
        });
    }
    changes
}

fn delete_first(mut plan: Plan) -> Vec<Plan> {
    let mut first = Plan::default();
    for change in &mut plan.changes {
        let is_deletion = |step: &Step| matches!(step, Step::DeleteRealServer(_));
        let (deletions, rest) = change.steps.drain(..).partition(is_deletion);
        change.steps = rest;
        first.changes.push(Change {
            subject: change.subject,
            steps: deletions,
        });
    }
    vec![first, plan]
}

fn replace_updated(mut plan: Plan, desired: &Desired) -> Vec<Plan> {
    let mut first = Plan::default();
    for change in &mut plan.changes {
        let is_update = |step: &Step| {
            matches!(
                step,
                Step::UpdateVirtualServer(_) | Step::UpdateRealServer(..)
            )
        };
        let Some(wanted) = desired.virtual_servers.get(&change.subject) else {
            continue;
        };
        if change.steps.iter().any(is_update) {
            first.retire.push(Change {
                subject: change.subject,
                steps: vec![Step::DeleteVirtualServer],
            });
            change.steps = vec![Step::CreateVirtualServer(wanted.config.clone())];
            let servers = wanted.real_servers.iter();
            change
                .steps
                .extend(servers.map(|(server, config)| Step::CreateRealServer(*server, *config)));
        }
    }
    vec![first, plan]
}

/// Keys that Services may want and keys that nobody of ours ever wants.
fn keys() -> Result<Vec<VirtualServerKey>> {
    let mut keys = Vec::new();
    for vip in VIPS.iter().chain(&["203.0.113.1", "2001:db8:2::1"]) {
        for (port, protocol) in PORTS {
            keys.push(VirtualServerKey::Address {
                address: address(vip)?,
                port,
                protocol,
            });
        }
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        keys.push(VirtualServerKey::Mark {
            mark: NonZeroU32::MIN,
            family,
        });
    }
    Ok(keys)
}

fn kernel(random: &mut Random, keys: &[VirtualServerKey]) -> Result<FakeKernel> {
    let mut kernel = FakeKernel::default();
    for key in keys {
        if random.one_in(2) {
            kernel
                .virtual_servers
                .insert(*key, virtual_server(random, *key)?);
        }
    }
    kernel.add_link("eth0", "");
    if !random.one_in(3) {
        kernel.add_link(DEVICE, "dummy");
        let up = random.one_in(2);
        let mut addresses: BTreeMap<IpAddr, VipBinding> = BTreeMap::new();
        for vip in VIPS.iter().chain(&["192.0.2.99", "2001:db8::99"]) {
            let vip = address(vip)?;
            // A device that went down has lost its IPv6 addresses.
            if random.one_in(2) && (up || vip.is_ipv4()) {
                let binding = random.pick(&[VipBinding::AsWanted, VipBinding::Other]);
                addresses.insert(vip, binding);
            }
        }
        let device = FakeLink {
            up,
            addresses,
            ..kernel.links.get(DEVICE).cloned().unwrap_or_default()
        };
        kernel.links.insert(DEVICE.to_owned(), device);
    }
    Ok(kernel)
}

fn virtual_server(random: &mut Random, key: VirtualServerKey) -> Result<ObservedVirtualServer> {
    let scheduler = random.pick(&["rr", "rr", "rr", "wrr", "sh"]);
    let scheduler: Scheduler = scheduler.parse().map_err(|error| format!("{error}"))?;
    let mut config = VirtualServerConfig::new(scheduler);
    if random.one_in(4) {
        config.persistence = Some(Persistence {
            timeout: 600,
            netmask: Netmask::host(key.family()),
        });
    }
    let mut real_servers = BTreeMap::new();
    for server in SERVERS {
        let server = address(server)?;
        if Family::of(server) != key.family() || random.one_in(3) {
            continue;
        }
        let server = RealServerKey {
            address: server,
            port: random.pick(&[8080, 8080, 8080, 5353, 9090]),
        };
        let weight = Weight(random.pick(&[0, 1, 1, 1, 3]));
        let observed = ObservedRealServer {
            config: RealServerConfig::masquerade(weight),
            connections: Some(Connections::default()),
        };
        real_servers.insert(server, observed);
    }
    Ok(ObservedVirtualServer {
        config,
        real_servers,
    })
}
