//! `weir diff`: the desired state against this kernel. Prints the plan that would lead there, and changes nothing.

use anyhow::Context as _;

use crate::arbitrate::Desired;
use crate::cli::DiffArgs;
use crate::commands::{Exit, Failure, Outcome, host, print, say};
use crate::config::{self, HostConfig};
use crate::control::{self, Question};
use crate::diff::{Basis, Scope};
use crate::document::RenderDocument;
use crate::drain::{Clock, DEFAULT_TIMEOUT, Draining};
use crate::pipeline::Pipeline;
use crate::reconcile::boot_time;
use crate::resolve::Settings;
use crate::source::manifests::Manifests;

/// Runs the command.
///
/// # Errors
/// When the desired state or the kernel cannot be read.
pub fn diff(args: DiffArgs) -> Outcome {
    let host = HostConfig::try_from(args.host)?;
    let desired = if args.manifests.is_empty() {
        from_running(&host)?
    } else {
        let node_name = config::node_name(args.node)?;
        let mut pipeline = Pipeline::new(&node_name, Settings::default());
        pipeline.apply(Manifests::new(args.manifests).load()?);
        for finding in pipeline.problems().findings {
            say(&format!("finding: {finding}"));
        }
        pipeline.desired().clone()
    };
    let mut dataplane = host::dataplane(&host)?;
    let observed = dataplane.observe().map_err(host::observe_failure)?;
    let basis = Basis {
        desired: &desired,
        observed: &observed,
        ownership: dataplane.ownership(),
        draining: &Draining::default(),
        clock: Clock {
            now: boot_time(),
            timeout: DEFAULT_TIMEOUT,
        },
    };
    let plan = crate::diff::diff(basis, Scope::Everything);
    print(&plan.to_string())?;
    Ok(if plan.operations() == 0 {
        Exit::Fine
    } else {
        Exit::Different
    })
}

fn from_running(host: &HostConfig) -> Result<Desired, Failure> {
    let document: RenderDocument =
        control::ask(&host.run_dir, Question::Desired).map_err(|error| Failure {
            exit: Exit::NoAnswer,
            error: anyhow::Error::new(error)
                .context("no --manifests given, so the running weir was asked"),
        })?;
    Ok(document
        .desired()
        .context("cannot use what the running weir says is desired")?)
}
