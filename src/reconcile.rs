//! The one loop that changes the kernel: wait, observe, diff, apply, publish. The only reader of the clock.
//!
//! It runs on a thread of its own with blocking sockets. Everything asynchronous reaches it through one bounded channel, whose end
//! is the signal to stop. A pass costs no kernel call unless there is something to do; what the kernel holds is read when it is
//! unknown (at the start, after a failure, when the audit comes by) and believed in between.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;
use tracing::{debug, info, warn};

use crate::arbitrate::Desired;
use crate::dataplane::{Dataplane, Kernel, ObserveError, Observed};
use crate::diff::{adopted, diff};
use crate::model::Problems;
use crate::pipeline::Pipeline;
use crate::plan::{Plan, Report};
use crate::source::Event;
use crate::status::{PassDocument, State};

/// At least this long between two passes, so that a burst of events is one pass.
const PAUSE: Duration = Duration::from_millis(20);
/// The first wait after a failure; it doubles up to [`LONGEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// The longest wait after a failure.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// How long the kernel is believed to be as it was left.
const AUDIT: Duration = Duration::from_secs(60);

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
    /// The last pass that had something to do.
    pub last_pass: Option<PassDocument>,
}

/// What is known of the kernel.
#[derive(Debug)]
enum Knowledge {
    /// Nothing that can be relied on; it must be read before anything is planned.
    Unknown,
    /// It was read, or left, like this.
    Believed(Observed),
}

/// The loop's state.
#[derive(Debug)]
pub struct Reconciler<K> {
    pipeline: Pipeline,
    dataplane: Dataplane<K>,
    knowledge: Knowledge,
    reasons: Vec<String>,
    last_pass: Option<PassDocument>,
    retry: Option<Duration>,
}

/// When the loop must run again though nothing reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Something failed.
    Retry(Duration),
    /// Nothing failed; the kernel is read again by then.
    Audit,
}

impl<K: Kernel> Reconciler<K> {
    /// A loop that has seen nothing yet.
    pub fn new(pipeline: Pipeline, dataplane: Dataplane<K>) -> Self {
        Self {
            pipeline,
            dataplane,
            knowledge: Knowledge::Unknown,
            reasons: Vec::new(),
            last_pass: None,
            retry: None,
        }
    }

    /// Reads the kernel once, to find out before anything else whether that is possible.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn probe(&mut self) -> Result<(), ObserveError> {
        self.knowledge = Knowledge::Believed(self.dataplane.observe()?);
        Ok(())
    }

    /// Runs until the other end of the channel is gone.
    pub fn run(mut self, runtime: &Handle, mut inputs: mpsc::Receiver<Input>) {
        let mut deadline = now() + AUDIT;
        loop {
            let mut due = false;
            let woken =
                runtime.block_on(async { timeout_at(deadline.into(), inputs.recv()).await });
            let first = match woken {
                Ok(None) => return,
                Ok(Some(input)) => Some(input),
                Err(_elapsed) => {
                    // A retry, or the audit: either way the kernel is read anew.
                    self.knowledge = Knowledge::Unknown;
                    due = true;
                    None
                }
            };
            let started = now();
            let mut asked = Vec::new();
            let inputs_now = first
                .into_iter()
                .chain(std::iter::from_fn(|| inputs.try_recv().ok()));
            let changed = self.take(inputs_now, &mut asked);
            if changed || due {
                let next = self.pass(started);
                deadline = now() + self.wait(next);
            }
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

    /// Takes in what waits; tells whether the desired state may have changed.
    fn take(
        &mut self,
        inputs: impl Iterator<Item = Input>,
        asked: &mut Vec<oneshot::Sender<Snapshot>>,
    ) -> bool {
        let mut changed = false;
        for input in inputs {
            match input {
                Input::Events(events) => {
                    changed = true;
                    self.pipeline.apply(events);
                }
                Input::Ask(reply) => asked.push(reply),
            }
        }
        changed
    }

    fn wait(&mut self, next: Next) -> Duration {
        match next {
            Next::Audit => {
                self.retry = None;
                AUDIT
            }
            Next::Retry(wait) => {
                self.retry = Some(wait);
                wait
            }
        }
    }

    fn retry(&self) -> Next {
        Next::Retry(
            self.retry
                .map_or(FIRST_RETRY, |last| (last * 2).min(LONGEST_RETRY)),
        )
    }

    /// One pass. Without a complete cluster and a complete picture of the kernel there is no plan.
    fn pass(&mut self, started: Instant) -> Next {
        let waiting = self.pipeline.waiting_for();
        if !waiting.is_empty() {
            let kinds: Vec<_> = waiting.iter().map(ToString::to_string).collect();
            self.reasons = vec![format!("waiting for all objects of: {}", kinds.join(", "))];
            return Next::Audit;
        }
        let observed = match std::mem::replace(&mut self.knowledge, Knowledge::Unknown) {
            Knowledge::Believed(observed) => observed,
            Knowledge::Unknown => match self.dataplane.observe() {
                Ok(observed) => observed,
                Err(error) => {
                    let reason = crate::error_chain(&error);
                    warn!("{reason}; nothing is changed until it can be read");
                    self.reasons = vec![reason];
                    return self.retry();
                }
            },
        };
        self.note_adopted(&observed);
        let plan = diff(
            self.pipeline.desired(),
            &observed,
            self.dataplane.ownership(),
        );
        if plan.is_empty() {
            self.knowledge = Knowledge::Believed(observed);
            self.reasons.clear();
            debug!("nothing to do");
            return Next::Audit;
        }
        let report = self.dataplane.apply(&plan);
        self.account(&plan, &report, started);
        if report.is_success() {
            self.knowledge = Knowledge::Believed(plan.project(observed));
            self.reasons.clear();
            return Next::Audit;
        }
        self.reasons = report.failed.iter().map(ToString::to_string).collect();
        self.retry()
    }

    fn note_adopted(&self, observed: &Observed) {
        let adopted = adopted(
            self.pipeline.desired(),
            observed,
            self.dataplane.ownership(),
        );
        if !adopted.is_empty() {
            info!(
                count = adopted.len(),
                "taking over virtual servers that were there before"
            );
        }
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
        for failure in &report.failed {
            warn!("failed: {failure}; it is retried");
        }
    }

    fn snapshot(&self) -> Snapshot {
        let state = if !self.pipeline.waiting_for().is_empty() {
            State::Waiting
        } else if self.reasons.is_empty() {
            State::Converged
        } else {
            State::Degraded
        };
        Snapshot {
            node: self.pipeline.node_name().to_string(),
            state,
            reasons: self.reasons.clone(),
            desired: self.pipeline.desired().clone(),
            problems: self.pipeline.problems(),
            device: self.dataplane.device().to_owned(),
            vips: match &self.knowledge {
                Knowledge::Believed(observed) => observed.vips.keys().copied().collect(),
                Knowledge::Unknown => self.pipeline.desired().vips.iter().copied().collect(),
            },
            last_pass: self.last_pass.clone(),
        }
    }
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
