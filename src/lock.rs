//! One weir per network namespace, and one per run directory.
//!
//! The network namespace is locked by a name in its abstract socket space, which the kernel keeps per namespace and frees with the
//! process; the run directory by `flock` on a file in it.

use std::fs::File;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

const NAMESPACE_NAME: &str = "weir.lock";
const LOCK_FILE: &str = "lock";

/// Both locks, held as long as this lives.
#[derive(Debug)]
#[must_use = "the locks are freed when this is dropped"]
pub struct Locks {
    _namespace: UnixDatagram,
    _directory: File,
}

/// Why the locks could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another weir runs in this network namespace.
    #[error(
        "another weir programs this network namespace; there can be one: `weir status` shows it, stop it first"
    )]
    NamespaceTaken,
    /// Another weir runs with this run directory.
    #[error(
        "another weir uses the run directory {0}; stop it, or give this one a --run-dir of its own"
    )]
    DirectoryTaken(PathBuf),
    /// The run directory cannot be used.
    #[error("cannot use the run directory {path}")]
    Directory {
        /// The directory, or the file in it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The network namespace could not be locked.
    #[error("cannot lock the network namespace")]
    Namespace(#[source] io::Error),
}

impl LockError {
    /// Whether somebody has the lock, or permission is missing; else the run directory cannot be one.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NamespaceTaken | Self::DirectoryTaken(_) | Self::Namespace(_) => true,
            Self::Directory { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
        }
    }
}

impl Locks {
    /// Takes both locks, making the run directory if it is not there.
    ///
    /// # Errors
    /// When another weir has one of them, or the run directory cannot be used.
    pub fn take(run_dir: &Path) -> Result<Self, LockError> {
        let directory = lock_directory(run_dir)?;
        let address =
            SocketAddr::from_abstract_name(NAMESPACE_NAME).map_err(LockError::Namespace)?;
        let namespace = match UnixDatagram::bind_addr(&address) {
            Ok(socket) => socket,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(LockError::NamespaceTaken);
            }
            Err(error) => return Err(LockError::Namespace(error)),
        };
        Ok(Self {
            _namespace: namespace,
            _directory: directory,
        })
    }
}

fn lock_directory(run_dir: &Path) -> Result<File, LockError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| LockError::Directory { path, source }
    };
    std::fs::create_dir_all(run_dir).map_err(failed(run_dir))?;
    let path = run_dir.join(LOCK_FILE);
    let file = File::create(&path).map_err(failed(&path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::DirectoryTaken(run_dir.to_owned())),
        Err(error) => Err(failed(&path)(error.into())),
    }
}
