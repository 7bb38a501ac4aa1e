//! Exchanges that failed.

use std::error::Error;
use std::io;

use super::rejection::Rejection;

/// An exchange with the kernel that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The socket could not be opened or set up; nothing was sent.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// Sending failed. Of a batch, earlier messages may have been applied.
    #[error("cannot send to the kernel")]
    Send(#[source] io::Error),
    /// Receiving failed.
    #[error("cannot receive from the kernel")]
    Receive(#[source] io::Error),
    /// Answers were lost because they overflowed the receive buffer (`ENOBUFS`).
    #[error("the kernel's answers overflowed the receive buffer")]
    Overflow,
    /// Answers did not come in time.
    #[error("the kernel did not answer in time")]
    Deadline,
    /// The kernel's tables changed during every attempt to read them (`NLM_F_DUMP_INTR`).
    #[error("the kernel's tables kept changing while they were read")]
    Interrupted,
    /// An answer was cut off (`MSG_TRUNC`).
    #[error("the kernel's answer was cut off")]
    Truncated,
    /// An answer is no message of this protocol.
    #[error("the kernel's answer cannot be decoded")]
    Decode(#[source] Box<dyn Error + Send + Sync>),
    /// The kernel accepted a request without the reply it should have had.
    #[error("the kernel sent no reply")]
    Unanswered,
    /// The kernel refused the request.
    #[error("the kernel refused")]
    Rejected(#[source] Rejection),
}

impl TransportError {
    /// The kernel's refusal, if that is what it is.
    pub fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::Open(_)
            | Self::Send(_)
            | Self::Receive(_)
            | Self::Overflow
            | Self::Deadline
            | Self::Interrupted
            | Self::Truncated
            | Self::Decode(_)
            | Self::Unanswered => None,
        }
    }

    /// Whether the caller lacks a capability.
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Open(error) | Self::Send(error) | Self::Receive(error) => {
                error.kind() == io::ErrorKind::PermissionDenied
            }
            Self::Rejected(rejection) => rejection.is_permission(),
            Self::Overflow
            | Self::Deadline
            | Self::Interrupted
            | Self::Truncated
            | Self::Decode(_)
            | Self::Unanswered => false,
        }
    }

    /// Whether the kernel may or may not have done what it was asked: read again before deciding anything.
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Open(_) | Self::Rejected(_) | Self::Unanswered => false,
            Self::Send(_)
            | Self::Receive(_)
            | Self::Overflow
            | Self::Deadline
            | Self::Interrupted
            | Self::Truncated
            | Self::Decode(_) => true,
        }
    }

    /// Whether every answer to the exchange was taken off the socket.
    pub(super) fn is_answered(&self) -> bool {
        match self {
            Self::Rejected(_) | Self::Unanswered | Self::Interrupted => true,
            Self::Open(_)
            | Self::Send(_)
            | Self::Receive(_)
            | Self::Overflow
            | Self::Deadline
            | Self::Truncated
            | Self::Decode(_) => false,
        }
    }
}

/// A transaction that was not applied, or whose outcome is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// The kernel refused these messages and applied nothing.
    #[error("the kernel refused {} of the transaction's messages, first: {}", .0.len(), Refusal::first(.0))]
    Refused(Vec<Refusal>),
    /// The exchange failed; see [`TransportError::is_outcome_unknown`].
    #[error("the exchange of the transaction failed")]
    Transport(#[source] TransportError),
}

/// The kernel's refusal of one message of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which request, counted from 0; `None` if it is the transaction itself.
    pub request: Option<usize>,
    /// What the kernel said.
    pub rejection: Rejection,
}

impl Refusal {
    fn first(refusals: &[Self]) -> String {
        refusals
            .first()
            .map(|refusal| refusal.rejection.to_string())
            .unwrap_or_default()
    }
}
