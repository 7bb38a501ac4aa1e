//! `weir cleanup`: removes all that weir owns on this node.

use crate::cli::CleanupArgs;
use crate::commands::{Exit, Outcome, host, print, say};
use crate::config::HostConfig;
use crate::lock::Locks;

/// Runs the command.
///
/// # Errors
/// When a weir runs here, or the kernel cannot be read.
pub fn cleanup(args: CleanupArgs) -> Outcome {
    let host = HostConfig::try_from(args.host)?;
    let _locks = Locks::take(&host.run_dir).map_err(host::lock_failure)?;
    let mut dataplane = host::dataplane(&host)?;
    let observed = dataplane.observe().map_err(host::observe_failure)?;
    let plan = crate::diff::removal(&observed, dataplane.ownership());
    print(&plan.to_string())?;
    let report = dataplane.apply(&plan);
    for failure in &report.failed {
        say(&format!("weir: failed: {failure}"));
    }
    Ok(if report.is_success() {
        Exit::Fine
    } else {
        Exit::Refused
    })
}
