//! `weir run`: the composition root. Makes the channel, the two threads and the tasks, and watches over them.
//!
//! Any part that ends ends the process, with the cause. The kernel stays as it is: what is programmed goes on without us.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use ipvs::Family;
use rustix::fs::Mode;
use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::cli::RunArgs;
use crate::commands::{Exit, Failure, Outcome, host};
use crate::config::{self, HostConfig};
use crate::control::{self, Answers};
use crate::dataplane::kernel::LinuxKernel;
use crate::dataplane::sysctl;
use crate::lock::Locks;
use crate::pipeline::Pipeline;
use crate::reconcile::{Input, Reconciler, Timing};
use crate::resolve::Settings;
use crate::source::Event;
use crate::source::manifests::Manifests;
use crate::{stats, telemetry};

/// How many inputs may wait for the loop.
const WAITING_INPUTS: usize = 64;
/// How many clients of the control socket are answered at a time; others wait.
const MOST_CLIENTS: usize = 16;
/// How often the manifests are looked at. They are read once they look the same twice.
const POLL: Duration = Duration::from_millis(250);

/// Runs the command.
///
/// # Errors
/// When weir cannot start, or a part of it ended.
pub fn run(args: RunArgs) -> Outcome {
    let logging = telemetry::start(&args.log)?;
    let host = HostConfig::try_from(args.host)?;
    let node_name = config::node_name(args.node)?;
    let timing = Timing {
        drain_timeout: config::drain_timeout(&args.drain_timeout)?,
        audit_cycle: config::audit_cycle(&args.audit_cycle)?,
    };
    let mut manifests = Manifests::new(args.manifests);
    let events = manifests.load()?;
    let locks = Locks::take(&host.run_dir).map_err(host::lock_failure)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let pipeline = Pipeline::new(&node_name, settings());
    info!(
        node = node_name,
        device = host.device,
        version = env!("CARGO_PKG_VERSION"),
        "starting"
    );
    // What weir writes is for its own user alone, whatever it inherited.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let reconciler = Reconciler::new(pipeline, host::dataplane(&host)?, timing);
    let outcome = runtime.block_on(supervise(host, reconciler, manifests, events));
    drop(locks);
    drop(logging);
    outcome
}

/// A thread, and a sign of its end that can be awaited.
struct Part {
    name: &'static str,
    ended: oneshot::Receiver<()>,
    handle: JoinHandle<()>,
}

impl Part {
    fn start(name: &'static str, work: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let (end, ended) = oneshot::channel();
        let handle = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                work();
                drop(end);
            })?;
        Ok(Self {
            name,
            ended,
            handle,
        })
    }

    /// Waits for its end without blocking the runtime, whose timers the thread may need to end.
    async fn join(self) {
        // The sender is dropped and never used: what comes is always its end.
        if !self.ended.is_terminated() {
            drop(self.ended.await);
        }
        if self.handle.join().is_err() {
            error!("the thread {} panicked", self.name);
        }
    }
}

async fn supervise(
    host: HostConfig,
    mut reconciler: Reconciler<LinuxKernel>,
    manifests: Manifests,
    events: Vec<Event>,
) -> Outcome {
    reconciler.probe().map_err(host::observe_failure)?;
    reconciler.set_standing_reasons(kernel_settings());
    let listener = control::listen(&host.run_dir).with_context(|| {
        format!(
            "cannot make the control socket in {}",
            host.run_dir.display()
        )
    })?;

    let (inputs, waiting) = mpsc::channel(WAITING_INPUTS);
    let (stats, requests) = mpsc::channel(WAITING_INPUTS);
    inputs.send(Input::Events(events)).await?;
    let runtime = Handle::current();
    let mut reconcile = Part::start("reconcile", move || reconciler.run(&runtime, waiting))?;
    let mut counters = Part::start("stats", move || stats::run(requests))?;

    let mut edge = Edge {
        answers: Answers { inputs, stats },
        listener,
        manifests,
        clients: JoinSet::new(),
    };
    let outcome = tokio::select! {
        outcome = edge.run() => outcome,
        _ = &mut reconcile.ended => Err(ended("reconcile")),
        _ = &mut counters.ended => Err(ended("stats")),
    };
    // With the last sender gone the threads come to their end; a pass that is under way is finished first.
    drop(edge);
    reconcile.join().await;
    counters.join().await;
    outcome
}

/// With `ipv6.disable=1` the kernel refuses every virtual server and address of IPv6.
fn settings() -> Settings {
    let mut settings = Settings::default();
    if !Path::new("/proc/sys/net/ipv6").exists() {
        info!("the kernel has no IPv6");
        settings.families.remove(&Family::Ipv6);
    }
    settings
}

/// Sets what IPVS must be set to; tells what could not be, which stays true until somebody else does it.
fn kernel_settings() -> Vec<String> {
    let (changed, failed) = sysctl::set();
    for name in changed {
        info!("{name} is set to 1");
    }
    failed
        .iter()
        .map(|error| crate::error_chain(error))
        .inspect(|reason| warn!("{reason}"))
        .collect()
}

fn ended(name: &str) -> Failure {
    anyhow::anyhow!("the thread {name} ended; the kernel keeps what is programmed").into()
}

/// Everything that waits for the outside world.
struct Edge {
    answers: Answers,
    listener: UnixListener,
    manifests: Manifests,
    clients: JoinSet<()>,
}

impl Edge {
    async fn run(&mut self) -> Outcome {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(stopped("SIGTERM")),
                _ = interrupt.recv() => return Ok(stopped("SIGINT")),
                _ = hangup.recv() => self.reload().await?,
                _ = poll.tick() => if self.manifests.settled_change() {
                    self.reload().await?;
                },
                accepted = self.listener.accept(), if self.clients.len() < MOST_CLIENTS => match accepted {
                    Ok((stream, _)) => {
                        self.clients.spawn(control::serve(stream, self.answers.clone()));
                    }
                    Err(error) => {
                        warn!("cannot take a client on the control socket: {error}");
                        tokio::time::sleep(POLL).await;
                    }
                },
                Some(_) = self.clients.join_next() => {}
            }
        }
    }

    async fn reload(&mut self) -> Result<(), Failure> {
        info!("reading the manifests again");
        let events = self.manifests.reload();
        self.answers.inputs.send(Input::Events(events)).await?;
        Ok(())
    }
}

fn stopped(signal: &str) -> Exit {
    info!("{signal}: stopping; the kernel keeps what is programmed");
    Exit::Fine
}
