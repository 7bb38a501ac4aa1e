//! What can go wrong when the kernel is asked.
//!
//! An errno means nothing without its request: a missing virtual server is `ESRCH`; `ENOENT` is a missing real server, or a
//! scheduler or persistence engine that cannot be loaded. So [`Error`] is typed by both. Ask [`Error::is_not_found`] and its
//! sisters instead of comparing numbers.

use std::fmt;

use crate::netlink::{Rejection, TransportError};
use crate::{Scheduler, VirtualServerConfig};

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const ENOMEM: i32 = 12;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const ERANGE: i32 = 34;
const EOPNOTSUPP: i32 = 95;
const EAFNOSUPPORT: i32 = 97;

/// A request that did not succeed, or whose outcome is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel has no IPVS: the generic netlink family is missing even after the kernel tried to load its module.
    #[error("the kernel has no IPVS and could not load it; load it with `modprobe ip_vs`")]
    NotAvailable(#[source] Rejection),
    /// There is no such virtual server (`ESRCH`).
    #[error("cannot {request}: there is no such virtual server")]
    NoSuchVirtualServer {
        /// What was asked.
        request: RequestKind,
        /// What the kernel said.
        #[source]
        rejection: Rejection,
    },
    /// There is such a virtual server already (`EEXIST`).
    #[error("cannot {request}: the virtual server exists")]
    VirtualServerExists {
        /// What was asked.
        request: RequestKind,
        /// What the kernel said.
        #[source]
        rejection: Rejection,
    },
    /// The virtual server has no such real server (`ENOENT`).
    #[error("cannot {request}: the virtual server has no such real server")]
    NoSuchRealServer {
        /// What was asked.
        request: RequestKind,
        /// What the kernel said.
        #[source]
        rejection: Rejection,
    },
    /// The virtual server has this real server already (`EEXIST`).
    #[error("cannot {request}: the virtual server has this real server already")]
    RealServerExists {
        /// What was asked.
        request: RequestKind,
        /// What the kernel said.
        #[source]
        rejection: Rejection,
    },
    /// The kernel has no such scheduler and no module `ip_vs_NAME` for it (`ENOENT`).
    #[error(
        "cannot {request}: the kernel has no IPVS scheduler {scheduler:?} (module ip_vs_{scheduler})"
    )]
    NoSuchScheduler {
        /// What was asked.
        request: RequestKind,
        /// The kernel's name of the scheduler.
        scheduler: String,
        /// What the kernel said.
        #[source]
        rejection: Rejection,
    },
    /// The kernel has no such persistence engine, or no such scheduler (`ENOENT`); it does not say which of the two.
    #[error(
        "cannot {request}: the kernel has no IPVS persistence engine {engine:?} or no scheduler {scheduler:?}"
    )]
    NoSuchPersistenceEngine {
        /// What was asked.
        request: RequestKind,
        /// The kernel's name of the persistence engine.
        engine: String,
        /// The kernel's name of the scheduler.
        scheduler: String,
        /// What the kernel said.
        #[source]
        rejection: Rejection,
    },
    /// The caller lacks `CAP_NET_ADMIN` in the network namespace (`EPERM`).
    #[error("cannot {request}: CAP_NET_ADMIN is needed")]
    PermissionDenied {
        /// What was asked.
        request: RequestKind,
        /// What the kernel said.
        #[source]
        rejection: Rejection,
    },
    /// The kernel takes no such values (`EINVAL`, `ERANGE`, `EAFNOSUPPORT`, `EOPNOTSUPP`).
    #[error("cannot {request}: the kernel takes no such values")]
    Invalid {
        /// What was asked.
        request: RequestKind,
        /// What the kernel said.
        #[source]
        rejection: Rejection,
    },
    /// The kernel is out of memory (`ENOMEM`).
    #[error("cannot {request}: the kernel is out of memory")]
    NoMemory {
        /// What was asked.
        request: RequestKind,
        /// What the kernel said.
        #[source]
        rejection: Rejection,
    },
    /// Any other refusal.
    #[error("cannot {request}")]
    Kernel {
        /// What was asked.
        request: RequestKind,
        /// What the kernel said.
        #[source]
        rejection: Rejection,
    },
    /// The exchange failed; whether the kernel did what it was asked is unknown, see [`Error::is_outcome_unknown`].
    #[error("cannot {request}: the exchange with the kernel failed")]
    Transport {
        /// What was asked.
        request: RequestKind,
        /// Where it failed.
        #[source]
        source: TransportError,
    },
    /// The kernel answered something that makes no sense.
    #[error("cannot {request}: the kernel's answer cannot be understood")]
    Answer {
        /// What was asked.
        request: RequestKind,
        /// What is wrong with it.
        #[source]
        source: crate::message::MessageError,
    },
    /// `/proc/net/ip_vs` could not be read or understood.
    #[error("cannot read weights and connections")]
    Proc(#[from] crate::proc::ProcError),
    /// The value cannot be sent, and was not.
    #[error("cannot {request}: the value cannot be put in a message")]
    Unsendable {
        /// What was asked.
        request: RequestKind,
        /// What is wrong with it.
        #[source]
        source: crate::message::MessageError,
    },
}

impl Error {
    /// The kernel's errno, where the kernel refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::NotAvailable(rejection)
            | Self::NoSuchVirtualServer { rejection, .. }
            | Self::VirtualServerExists { rejection, .. }
            | Self::NoSuchRealServer { rejection, .. }
            | Self::RealServerExists { rejection, .. }
            | Self::NoSuchScheduler { rejection, .. }
            | Self::NoSuchPersistenceEngine { rejection, .. }
            | Self::PermissionDenied { rejection, .. }
            | Self::Invalid { rejection, .. }
            | Self::NoMemory { rejection, .. }
            | Self::Kernel { rejection, .. } => Some(rejection.errno),
            Self::Transport { source, .. } => source.rejection().map(|rejection| rejection.errno),
            Self::Answer { .. } | Self::Unsendable { .. } | Self::Proc(_) => None,
        }
    }

    /// Whether the virtual or real server that was named does not exist. False for a missing scheduler.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::NoSuchVirtualServer { .. } | Self::NoSuchRealServer { .. }
        )
    }

    /// Whether what should have been created exists already.
    pub fn is_already_exists(&self) -> bool {
        matches!(
            self,
            Self::VirtualServerExists { .. } | Self::RealServerExists { .. }
        )
    }

    /// Whether the caller lacks a capability, to send or to open the socket.
    pub fn is_permission(&self) -> bool {
        match self {
            Self::PermissionDenied { .. } => true,
            Self::Transport { source, .. } => source.is_permission(),
            Self::NotAvailable(_)
            | Self::NoSuchVirtualServer { .. }
            | Self::VirtualServerExists { .. }
            | Self::NoSuchRealServer { .. }
            | Self::RealServerExists { .. }
            | Self::NoSuchScheduler { .. }
            | Self::NoSuchPersistenceEngine { .. }
            | Self::Invalid { .. }
            | Self::NoMemory { .. }
            | Self::Kernel { .. }
            | Self::Proc(_)
            | Self::Answer { .. }
            | Self::Unsendable { .. } => false,
        }
    }

    /// Whether the kernel may or may not have done what it was asked: read again before deciding anything.
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Transport { source, .. } => source.is_outcome_unknown(),
            Self::Answer { .. } => true,
            Self::NotAvailable(_)
            | Self::NoSuchVirtualServer { .. }
            | Self::VirtualServerExists { .. }
            | Self::NoSuchRealServer { .. }
            | Self::RealServerExists { .. }
            | Self::NoSuchScheduler { .. }
            | Self::NoSuchPersistenceEngine { .. }
            | Self::PermissionDenied { .. }
            | Self::Invalid { .. }
            | Self::NoMemory { .. }
            | Self::Kernel { .. }
            | Self::Proc(_)
            | Self::Unsendable { .. } => false,
        }
    }
}

/// What the kernel was asked to do, as [`Error`] names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RequestKind {
    /// Opening the client: finding the generic netlink family.
    Open,
    /// `IPVS_CMD_GET_INFO`
    ReadInfo,
    /// `IPVS_CMD_GET_CONFIG`
    ReadTimeouts,
    /// `IPVS_CMD_SET_CONFIG`
    SetTimeouts,
    /// `IPVS_CMD_GET_SERVICE`, all or one
    ReadVirtualServers,
    /// `IPVS_CMD_GET_DEST`
    ReadRealServers,
    /// `IPVS_CMD_NEW_SERVICE`
    CreateVirtualServer,
    /// `IPVS_CMD_SET_SERVICE`
    UpdateVirtualServer,
    /// `IPVS_CMD_DEL_SERVICE`
    DeleteVirtualServer,
    /// `IPVS_CMD_NEW_DEST`
    CreateRealServer,
    /// `IPVS_CMD_SET_DEST`
    UpdateRealServer,
    /// `IPVS_CMD_DEL_DEST`
    DeleteRealServer,
    /// Several of the six above in one batch
    Apply,
    /// `IPVS_CMD_ZERO`
    Zero,
    /// `IPVS_CMD_FLUSH`
    Flush,
    /// `IPVS_CMD_GET_DAEMON`
    ReadDaemons,
    /// `IPVS_CMD_NEW_DAEMON`
    StartDaemon,
    /// `IPVS_CMD_DEL_DAEMON`
    StopDaemon,
}

impl fmt::Display for RequestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open the IPVS client",
            Self::ReadInfo => "read the IPVS version",
            Self::ReadTimeouts => "read timeouts",
            Self::SetTimeouts => "set timeouts",
            Self::ReadVirtualServers => "read virtual servers",
            Self::ReadRealServers => "read real servers",
            Self::CreateVirtualServer => "create the virtual server",
            Self::UpdateVirtualServer => "update the virtual server",
            Self::DeleteVirtualServer => "delete the virtual server",
            Self::CreateRealServer => "create the real server",
            Self::UpdateRealServer => "update the real server",
            Self::DeleteRealServer => "delete the real server",
            Self::Apply => "apply the commands",
            Self::Zero => "zero counters",
            Self::Flush => "flush all virtual servers",
            Self::ReadDaemons => "read the synchronisation daemons",
            Self::StartDaemon => "start the synchronisation daemon",
            Self::StopDaemon => "stop the synchronisation daemon",
        })
    }
}

/// Types the kernel's refusal of a request, given what was set on a virtual server if that was the request.
pub(crate) fn refused(
    request: RequestKind,
    config: Option<&VirtualServerConfig>,
    rejection: Rejection,
) -> Error {
    match (rejection.errno, request) {
        (EPERM, _) => Error::PermissionDenied { request, rejection },
        (ENOMEM, _) => Error::NoMemory { request, rejection },
        (EINVAL | ERANGE | EAFNOSUPPORT | EOPNOTSUPP, _) => Error::Invalid { request, rejection },
        (
            ESRCH,
            RequestKind::ReadVirtualServers
            | RequestKind::ReadRealServers
            | RequestKind::UpdateVirtualServer
            | RequestKind::DeleteVirtualServer
            | RequestKind::CreateRealServer
            | RequestKind::UpdateRealServer
            | RequestKind::DeleteRealServer
            | RequestKind::Zero,
        ) => Error::NoSuchVirtualServer { request, rejection },
        (EEXIST, RequestKind::CreateVirtualServer) => {
            Error::VirtualServerExists { request, rejection }
        }
        (EEXIST, RequestKind::CreateRealServer) => Error::RealServerExists { request, rejection },
        (ENOENT, RequestKind::UpdateRealServer | RequestKind::DeleteRealServer) => {
            Error::NoSuchRealServer { request, rejection }
        }
        (ENOENT, RequestKind::CreateVirtualServer | RequestKind::UpdateVirtualServer) => {
            missing_module(request, config, rejection)
        }
        _ => Error::Kernel { request, rejection },
    }
}

/// `ENOENT` for a virtual server: `ip_vs_scheduler_get` or `ip_vs_pe_getbyname` found nothing. The kernel looks for the
/// scheduler first and does not say which it missed, so with an engine only a scheduler that mainline lacks is blamed for sure.
fn missing_module(
    request: RequestKind,
    config: Option<&VirtualServerConfig>,
    rejection: Rejection,
) -> Error {
    let Some(config) = config else {
        return Error::Kernel { request, rejection };
    };
    let scheduler = config.scheduler.name().to_owned();
    match &config.persistence_engine {
        Some(engine) if !matches!(config.scheduler, Scheduler::Other(_)) || engine != "sip" => {
            Error::NoSuchPersistenceEngine {
                request,
                engine: engine.clone(),
                scheduler,
                rejection,
            }
        }
        _ => Error::NoSuchScheduler {
            request,
            scheduler,
            rejection,
        },
    }
}
