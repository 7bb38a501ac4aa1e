//! The one loop that changes the kernel: wait, observe, diff, apply, publish. The only reader of the clock.
//!
//! It runs on a thread of its own with blocking sockets. Everything asynchronous reaches it through one bounded channel, whose end
//! is the signal to stop. A pass costs what changed: it plans for the keys that an event touched, believes of the kernel what it
//! last read or did there, and reads again only what it does not know:
//! - everything at the start, and after an answer was lost;
//! - the keys of a failed step, before they are tried again;
//! - virtual servers with real servers that drain, every second, for their connections;
//! - one slice of the virtual servers each second, so that all are read once in an audit cycle; at the end of a cycle also the
//!   list of virtual servers, the device and its addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Bound;
use std::time::{Duration, Instant};

use ipvs::VirtualServerKey;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;
use tracing::{info, warn};

use crate::arbitrate::Desired;
use crate::dataplane::{Dataplane, Kernel, ObserveError, Observed, StepError};
use crate::diff::{Basis, Keys, Scope, adopted, diff};
use crate::drain::{BootTime, Clock, DEFAULT_TIMEOUT, Draining, Server};
use crate::model::Problems;
use crate::pipeline::Pipeline;
use crate::plan::{FailedSubject, Failure, Plan, Report};
use crate::source::Event;
use crate::status::{PassDocument, State};
use crate::store::claims::TouchedKeys;

/// At least this long between two passes that events cause, so that a burst of events is one pass.
const PAUSE: Duration = Duration::from_millis(20);
/// The first wait after a failure; it doubles up to [`LONGEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// The longest wait after a failure.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// How often a slice of the virtual servers, and everything that drains, is read again.
const TICK: Duration = Duration::from_secs(1);
/// How the loop takes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a real server may drain.
    pub drain_timeout: Duration,
    /// How long it takes to read all virtual servers again; at least a second.
    pub audit_cycle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            drain_timeout: DEFAULT_TIMEOUT,
            audit_cycle: DEFAULT_AUDIT_CYCLE,
        }
    }
}

/// How long an audit cycle takes unless `--audit-cycle` says otherwise.
pub const DEFAULT_AUDIT_CYCLE: Duration = Duration::from_secs(60);

/// How many failed steps of a pass are named.
const MOST_REASONS: usize = 20;

/// What reaches the loop.
#[derive(Debug)]
pub enum Input {
    /// The cluster changed.
    Events(Vec<Event>),
    /// Somebody wants to know how things stand.
    Ask(oneshot::Sender<Snapshot>),
}

/// How things stand, whole.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The node's name.
    pub node: String,
    /// How weir stands with its node.
    pub state: State,
    /// Why it is not converged.
    pub reasons: Vec<String>,
    /// What should be.
    pub desired: Desired,
    /// Findings and notes.
    pub problems: Problems,
    /// The dummy device.
    pub device: String,
    /// The addresses believed to be on it.
    pub vips: Vec<IpAddr>,
    /// Real servers that drain.
    pub draining: BTreeSet<Server>,
    /// The last pass that had something to do.
    pub last_pass: Option<PassDocument>,
}

/// What is known of the kernel.
#[derive(Debug)]
enum Knowledge {
    /// Nothing that can be relied on; it must be read whole before anything is planned.
    Unknown,
    /// It was read, or left, like this, but for some keys.
    Believed {
        observed: Observed,
        /// Keys that must be read before anything is planned for them.
        unknown: Keys,
    },
}

/// Why there is a pass.
#[derive(Debug, Default)]
struct Cause {
    /// Keys that events touched; `None` if no event came.
    touched: Option<Keys>,
    /// It is time to try again what failed.
    retry: bool,
    /// It is time to look at what drains and at a slice of the rest.
    tick: bool,
}

/// The loop's state.
#[derive(Debug)]
pub struct Reconciler<K> {
    pipeline: Pipeline,
    dataplane: Dataplane<K>,
    timing: Timing,
    draining: Draining,
    knowledge: Knowledge,
    audit: Audit,
    reasons: Vec<String>,
    /// Reasons that no pass can cure.
    standing_reasons: Vec<String>,
    last_pass: Option<PassDocument>,
    retry_at: Option<Instant>,
    backoff: Duration,
}

impl<K: Kernel> Reconciler<K> {
    /// A loop that has seen nothing yet.
    pub fn new(pipeline: Pipeline, dataplane: Dataplane<K>, timing: Timing) -> Self {
        Self {
            pipeline,
            dataplane,
            timing,
            draining: Draining::default(),
            knowledge: Knowledge::Unknown,
            audit: Audit::default(),
            reasons: Vec::new(),
            standing_reasons: Vec::new(),
            last_pass: None,
            retry_at: None,
            backoff: FIRST_RETRY,
        }
    }

    /// Reads the kernel once, to find out before anything else whether that is possible.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn probe(&mut self) -> Result<(), ObserveError> {
        self.dataplane.observe().map(drop)
    }

    /// What keeps the node from being as it should be and that no pass can cure, such as kernel settings.
    pub fn set_standing_reasons(&mut self, reasons: Vec<String>) {
        self.standing_reasons = reasons;
    }

    /// Runs until the other end of the channel is gone.
    pub fn run(mut self, runtime: &Handle, mut inputs: mpsc::Receiver<Input>) {
        let mut tick_at = now() + TICK;
        loop {
            let deadline = self
                .retry_at
                .map_or(tick_at, |retry_at| retry_at.min(tick_at));
            let woken =
                runtime.block_on(async { timeout_at(deadline.into(), inputs.recv()).await });
            let first = match woken {
                Ok(None) => return,
                Ok(Some(input)) => Some(input),
                Err(_elapsed) => None,
            };
            let started = now();
            let mut asked = Vec::new();
            let waiting = std::iter::from_fn(|| inputs.try_recv().ok());
            let cause = Cause {
                touched: self.take(first.into_iter().chain(waiting), &mut asked),
                retry: self.retry_at.is_some_and(|retry_at| retry_at <= started),
                tick: tick_at <= started,
            };
            if cause.tick {
                tick_at = started + TICK;
            }
            let changed = cause.touched.is_some();
            self.pass(&cause, started);
            // Answered after the pass, so that nobody who asks after a change is told of the time before it.
            for reply in asked {
                // Whoever asked may have gone; then nobody needs the answer.
                drop(reply.send(self.snapshot()));
            }
            if changed {
                runtime.block_on(async { tokio::time::sleep(PAUSE).await });
            }
        }
    }

    /// Takes in what waits; tells the keys whose desired state may have changed, if any event came.
    fn take(
        &mut self,
        inputs: impl Iterator<Item = Input>,
        asked: &mut Vec<oneshot::Sender<Snapshot>>,
    ) -> Option<Keys> {
        let mut touched: Option<Keys> = None;
        for input in inputs {
            match input {
                Input::Events(events) => {
                    let keys = keys(self.pipeline.apply(events));
                    touched.get_or_insert_default().extend(keys);
                }
                Input::Ask(reply) => asked.push(reply),
            }
        }
        touched
    }

    /// One pass. Without a complete cluster and a picture of the kernel there is no plan.
    fn pass(&mut self, cause: &Cause, started: Instant) {
        let waiting = self.pipeline.waiting_for();
        if !waiting.is_empty() {
            let kinds: Vec<_> = waiting.iter().map(ToString::to_string).collect();
            self.reasons = vec![format!("waiting for all objects of: {}", kinds.join(", "))];
            return;
        }
        // A change does not wait for a long backoff, but it does not ask a kernel that refuses at every event either.
        if cause.touched.is_some() && matches!(self.knowledge, Knowledge::Unknown) {
            let soon = started + FIRST_RETRY;
            self.retry_at = self.retry_at.map(|retry_at| retry_at.min(soon));
        }
        let waits = self.retry_at.is_some() && !cause.retry;
        match std::mem::replace(&mut self.knowledge, Knowledge::Unknown) {
            // Nothing is known, and it is not yet time to ask again.
            Knowledge::Unknown if waits => {}
            Knowledge::Unknown => match self.dataplane.observe() {
                Ok(observed) => self.program(observed, Keys::default(), Scope::Everything, started),
                Err(error) => self.unreadable(&error),
            },
            Knowledge::Believed {
                mut observed,
                mut unknown,
            } => match self.look_again(cause, &mut observed, &mut unknown) {
                Ok(Some(keys)) => self.program(observed, unknown, Scope::Keys(&keys), started),
                Ok(None) => {
                    self.knowledge = Knowledge::Believed { observed, unknown };
                    self.settle(&Report::default());
                }
                Err(error) => self.unreadable(&error),
            },
        }
    }

    /// Reads again what a pass must know, and tells what it is about; `None` if there is nothing to do.
    fn look_again(
        &mut self,
        cause: &Cause,
        observed: &mut Observed,
        unknown: &mut Keys,
    ) -> Result<Option<Keys>, ObserveError> {
        let mut scope = cause.touched.clone().unwrap_or_default();
        let mut again = Keys::default();
        if cause.retry {
            again.extend(std::mem::take(unknown));
        } else {
            again.virtual_servers = scope
                .virtual_servers
                .intersection(&unknown.virtual_servers)
                .copied()
                .collect();
            again.vips = scope.vips.intersection(&unknown.vips).copied().collect();
            unknown
                .virtual_servers
                .retain(|key| !again.virtual_servers.contains(key));
            unknown.vips.retain(|vip| !again.vips.contains(vip));
        }
        let mut everything = false;
        if cause.tick {
            again
                .virtual_servers
                .extend(self.draining.virtual_servers());
            match self.audit.tick(observed, self.timing.audit_cycle) {
                Slice::Keys(keys) => again.virtual_servers.extend(keys),
                Slice::EndOfCycle => {
                    self.dataplane.refresh_list(observed)?;
                    everything = true;
                }
            }
        }
        let refreshed = self.dataplane.refresh(observed, &again)?;
        scope.extend(again);
        scope.vips.extend(refreshed.changed_vips);
        if everything {
            let ownership = self.dataplane.ownership();
            scope = Keys::of_everything(self.pipeline.desired(), observed, ownership);
        }
        for (key, reason) in refreshed.unreadable {
            scope.virtual_servers.remove(&key);
            unknown.virtual_servers.insert(key);
            let reason = format!("{key}: {reason}");
            if !self.reasons.contains(&reason) {
                warn!("{reason}; it is left alone until it can be read");
                self.reasons.push(reason);
            }
        }
        Ok((!scope.is_empty()).then_some(scope))
    }

    /// Plans for the keys in scope and does it.
    fn program(
        &mut self,
        observed: Observed,
        mut unknown: Keys,
        scope: Scope<'_>,
        started: Instant,
    ) {
        let basis = Basis {
            desired: self.pipeline.desired(),
            observed: &observed,
            ownership: self.dataplane.ownership(),
            draining: &self.draining,
            clock: Clock {
                now: boot_time(),
                timeout: self.timing.drain_timeout,
            },
        };
        let plan = diff(basis, scope);
        let adopted = adopted(&plan, basis).len();
        if adopted > 0 {
            info!(
                count = adopted,
                "taking over virtual servers that were there before"
            );
        }
        self.draining.apply(&plan.drain);
        let report = self.dataplane.apply(&plan);
        if plan.operations() > 0 || !report.is_success() {
            self.account(&plan, &report, started);
        }
        let lost = report.failed.iter().any(is_lost);
        unknown.extend(failed_keys(&plan, &report));
        if lost {
            self.knowledge = Knowledge::Unknown;
        } else {
            self.knowledge = Knowledge::Believed {
                observed: plan.project(observed),
                unknown,
            };
        }
        self.settle(&report);
    }

    /// Decides whether and when to try again.
    fn settle(&mut self, report: &Report) {
        let (unknown, observed) = match &self.knowledge {
            Knowledge::Unknown => (true, None),
            Knowledge::Believed { observed, unknown } => (!unknown.is_empty(), Some(observed)),
        };
        if let Some(observed) = observed {
            self.draining.retain(|(key, server)| {
                let servers = observed.virtual_servers.get(key);
                servers.is_some_and(|servers| servers.real_servers.contains_key(server))
            });
        }
        if !report.is_success() {
            self.reasons = report
                .failed
                .iter()
                .take(MOST_REASONS)
                .map(ToString::to_string)
                .collect();
            let more = report.failed.len().saturating_sub(MOST_REASONS);
            if more > 0 {
                self.reasons.push(format!("and {more} more steps failed"));
            }
            self.try_again();
        } else if !unknown {
            self.reasons.clear();
            self.retry_at = None;
            self.backoff = FIRST_RETRY;
        } else if self.retry_at.is_none_or(|retry_at| retry_at <= now()) {
            self.try_again();
        }
    }

    fn try_again(&mut self) {
        self.retry_at = Some(now() + self.backoff);
        self.backoff = (self.backoff * 2).min(LONGEST_RETRY);
    }

    fn unreadable(&mut self, error: &ObserveError) {
        let reason = crate::error_chain(error);
        warn!("{reason}; nothing is changed until it can be read");
        self.reasons = vec![reason];
        self.knowledge = Knowledge::Unknown;
        self.try_again();
    }

    fn account(&mut self, plan: &Plan, report: &Report, started: Instant) {
        let elapsed = started.elapsed();
        let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.last_pass = Some(PassDocument {
            time: wall_clock(),
            operations: report.applied,
            failed: report.failed.len(),
            milliseconds,
        });
        info!(
            planned = plan.operations(),
            done = report.applied,
            failed = report.failed.len(),
            milliseconds,
            "pass"
        );
        for failure in report.failed.iter().take(MOST_REASONS) {
            warn!("failed: {failure}; it is retried");
        }
    }

    fn snapshot(&self) -> Snapshot {
        let state = if !self.pipeline.waiting_for().is_empty() {
            State::Waiting
        } else if self.reasons.is_empty() && self.standing_reasons.is_empty() {
            State::Converged
        } else {
            State::Degraded
        };
        Snapshot {
            node: self.pipeline.node_name().to_string(),
            state,
            reasons: self
                .standing_reasons
                .iter()
                .chain(&self.reasons)
                .cloned()
                .collect(),
            desired: self.pipeline.desired().clone(),
            problems: self.pipeline.problems(),
            device: self.dataplane.device().to_owned(),
            vips: match &self.knowledge {
                Knowledge::Believed { observed, .. } => observed.vips.keys().copied().collect(),
                Knowledge::Unknown => self.pipeline.desired().vips.iter().copied().collect(),
            },
            draining: self.draining.servers(),
            last_pass: self.last_pass.clone(),
        }
    }
}

/// How far the audit has come in its cycle.
#[derive(Debug, Default)]
struct Audit {
    /// Ticks since the cycle began.
    ticks: usize,
    /// The last virtual server that was read.
    last: Option<VirtualServerKey>,
}

/// What the audit reads at a tick.
#[derive(Debug, PartialEq, Eq)]
enum Slice {
    /// These virtual servers.
    Keys(BTreeSet<VirtualServerKey>),
    /// The list of all of them, the device and its addresses.
    EndOfCycle,
}

impl Audit {
    /// The next slice. Slices are of equal size, however many virtual servers there are.
    fn tick(&mut self, observed: &Observed, cycle: Duration) -> Slice {
        let ticks = usize::try_from(cycle.as_secs())
            .unwrap_or(usize::MAX)
            .max(1);
        if self.ticks >= ticks {
            *self = Self::default();
            return Slice::EndOfCycle;
        }
        let total = observed.virtual_servers.len();
        let share = |tick: usize| total.saturating_mul(tick) / ticks;
        let size = share(self.ticks + 1) - share(self.ticks);
        let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let range = observed.virtual_servers.range((from, Bound::Unbounded));
        let slice: BTreeSet<_> = range.map(|(key, _)| *key).take(size).collect();
        self.last = slice.last().copied().or(self.last);
        self.ticks += 1;
        Slice::Keys(slice)
    }
}

fn keys(touched: TouchedKeys) -> Keys {
    Keys {
        virtual_servers: touched
            .frontends
            .into_iter()
            .map(VirtualServerKey::from)
            .collect(),
        vips: touched.vips,
    }
}

/// Whether nobody knows what the kernel did, or whether there is a device.
fn is_lost(failure: &Failure) -> bool {
    let is_unknown = match &failure.error {
        StepError::Kernel(error) => error.is_outcome_unknown(),
        StepError::Record(_) | StepError::NotTried(_) => false,
    };
    is_unknown || failure.subject == FailedSubject::Device
}

/// What is no longer known after a pass.
fn failed_keys(plan: &Plan, report: &Report) -> Keys {
    let mut keys = report.untold.clone();
    for failure in &report.failed {
        match failure.subject {
            FailedSubject::VirtualServer(key) => {
                keys.virtual_servers.insert(key);
            }
            FailedSubject::Vip(vip) => {
                keys.vips.insert(vip);
            }
            // Everything is read again.
            FailedSubject::Device => {}
            FailedSubject::Record => keys.virtual_servers.extend(plan.record.union(&plan.forget)),
        }
    }
    keys
}

/// Time since boot, by which deadlines are kept.
pub fn boot_time() -> BootTime {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    BootTime(Duration::new(seconds, nanoseconds))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the loop is the only reader of the clock"
)]
fn now() -> Instant {
    Instant::now()
}

fn wall_clock() -> String {
    let now = jiff::Timestamp::now();
    now.round(jiff::Unit::Second).unwrap_or(now).to_string()
}

#[cfg(test)]
mod tests;
