//! What the commands that touch the kernel share: opening it, and what its refusals mean.

use std::io;

use rustix::fs::stat;

use crate::commands::{Exit, Failure, say};
use crate::config::HostConfig;
use crate::dataplane::kernel::LinuxKernel;
use crate::dataplane::record::{Found, Record, Scope};
use crate::dataplane::{Dataplane, KernelError, ObserveError};
use crate::lock::LockError;

/// Opens the kernel of this network namespace and the record of what is ours in it.
///
/// # Errors
/// When either cannot be opened.
pub fn dataplane(host: &HostConfig) -> Result<Dataplane<LinuxKernel>, Failure> {
    let (record, found) = Record::open(&host.run_dir, scope()?)?;
    if let Found::Ignored(reason) = found {
        say(&format!(
            "weir: the record of what is weir's in {} is ignored: {reason}",
            host.run_dir.display()
        ));
    }
    let kernel = LinuxKernel::open().map_err(kernel_failure)?;
    Ok(Dataplane::new(kernel, host.device.clone(), record))
}

fn scope() -> io::Result<Scope> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let namespace = stat("/proc/thread-self/ns/net")?;
    Ok(Scope {
        boot_id: boot_id.trim().to_owned(),
        network_namespace: format!("{}:{}", namespace.st_dev, namespace.st_ino),
    })
}

/// Locks that could not be taken.
pub fn lock_failure(error: LockError) -> Failure {
    if error.is_refusal() {
        Failure::refused(error)
    } else {
        error.into()
    }
}

/// A refusal of the kernel, with what to do about it.
pub fn kernel_failure(error: KernelError) -> Failure {
    let permission = error.is_permission();
    let error = anyhow::Error::new(error);
    if permission {
        Failure::refused(
            error.context(
                "the kernel does not allow it: run weir as root, or give it CAP_NET_ADMIN",
            ),
        )
    } else {
        Failure::refused(error)
    }
}

/// A failed reading of the kernel, with what to do about it.
pub fn observe_failure(error: ObserveError) -> Failure {
    let permission = error.kernel().is_some_and(KernelError::is_permission);
    let error = anyhow::Error::new(error);
    if permission {
        return Failure::refused(
            error.context(
                "the kernel does not allow it: run weir as root, or give it CAP_NET_ADMIN",
            ),
        );
    }
    Failure {
        exit: Exit::Refused,
        error,
    }
}
