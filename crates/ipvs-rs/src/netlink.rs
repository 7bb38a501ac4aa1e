//! A blocking, batching netlink transport, for any netlink protocol.
//!
//! One exchange is in flight at a time: a batch of changes, a dump, a single request, or a transaction. The kernel works
//! off what one send carries before the send returns, so its answers are waiting already and nothing is gained by
//! asynchronous sockets; 100 to 200 messages in a send cost a third of as many sends.
//!
//! Three rules keep answers honest. Only the last message of a batch asks for an acknowledgement (the kernel answers every
//! failing message by itself); success is reported only after that last answer came. An exchange that overflowed the receive
//! buffer or met its deadline has an unknown outcome and says so. After such an exchange the socket is closed and another
//! opened for the next, so that a late answer is never taken for another's.

use std::io;
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
};

use answer::{Answer, Kind, answers};
use connection::{Connection, Peek};

mod answer;
mod connection;
mod error;
mod raw;
mod rejection;

pub use error::{Refusal, TransactionError, TransportError};
pub use raw::RawMessage;
pub use rejection::Rejection;

/// How long one exchange may take unless [`Transport::set_deadline`] says otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// How often a dump that the kernel's own changes disturbed is tried before [`TransportError::Interrupted`].
const DUMP_ATTEMPTS: usize = 5;

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

/// Whether the kernel refuses reads whose header or attributes it does not know, and filters dumps by them
/// (`NETLINK_GET_STRICT_CHK`, since Linux 4.20).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checking {
    /// Unknown fields of a read are ignored, and so are most filters.
    #[default]
    Lenient,
    /// Unknown fields are refused, filters hold.
    Strict,
}

/// A netlink socket with at most one exchange in flight.
///
/// It belongs to the network namespace of the thread that opened it. Since a socket may be opened anew before any exchange,
/// use a transport only on threads of that namespace.
#[derive(Debug)]
pub struct Transport {
    protocol: NetlinkProtocol,
    checking: Checking,
    deadline: Duration,
    sequence: u32,
    /// `None` after an exchange whose answers may still come.
    connection: Option<Connection>,
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<M> {
    /// The message.
    pub message: M,
    /// `NLM_F_CREATE`, `NLM_F_EXCL`, `NLM_F_REPLACE`, `NLM_F_APPEND`; the transport itself sets `NLM_F_REQUEST`, `NLM_F_ACK` and
    /// `NLM_F_DUMP`.
    pub flags: u16,
}

impl<M> Request<M> {
    /// A message without flags of its own.
    pub fn new(message: M) -> Self {
        Self { message, flags: 0 }
    }

    /// The same message with these flags.
    #[must_use]
    pub fn with_flags(self, flags: u16) -> Self {
        Self { flags, ..self }
    }
}

impl Transport {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// The buffers are raised to some MiB where the caller may do so (`CAP_NET_ADMIN` in the initial user namespace); otherwise
    /// batches are kept so small that neither buffer overflows.
    ///
    /// # Errors
    ///
    /// [`TransportError::Open`] if the kernel gives no socket.
    pub fn open(protocol: NetlinkProtocol) -> Result<Self, TransportError> {
        Ok(Self {
            protocol,
            checking: Checking::Lenient,
            deadline: DEFAULT_DEADLINE,
            sequence: 0,
            connection: Some(Connection::open(protocol, Checking::Lenient)?),
        })
    }

    /// Sets how long each exchange may take, from sending its first message until its last answer.
    pub fn set_deadline(&mut self, per_exchange: Duration) {
        self.deadline = per_exchange;
    }

    /// Sets how the kernel treats reads, for this socket and those opened after it.
    ///
    /// # Errors
    ///
    /// [`TransportError::Open`] if the kernel does not know the option.
    pub fn set_checking(&mut self, checking: Checking) -> Result<(), TransportError> {
        self.checking = checking;
        match &self.connection {
            Some(connection) => connection.set_checking(checking),
            None => Ok(()),
        }
    }

    /// Sends all requests, some hundred in a send, and returns one result for each, in order.
    ///
    /// The kernel goes on after a message it refuses: this is no transaction. Requests that are answered by more than
    /// an error or an acknowledgement have that answer dropped.
    ///
    /// # Errors
    ///
    /// Any [`TransportError`] but those of reads. Then nothing is known of any of the requests, unless the socket could not even
    /// be opened; see [`TransportError::is_outcome_unknown`].
    pub fn batch<M>(
        &mut self,
        requests: Vec<Request<M>>,
    ) -> Result<Vec<Result<(), Rejection>>, TransportError>
    where
        M: NetlinkSerializable,
    {
        self.exchange(move |connection, sequence, deadline| {
            let mut results = Vec::with_capacity(requests.len());
            let mut waiting = requests.into_iter().peekable();
            while waiting.peek().is_some() {
                let until = now() + deadline;
                let mut send = Outgoing::new(connection.port(), sequence);
                while let Some(request) = waiting.next_if(|request| {
                    send.count == 0
                        || (send.count < connection.batch_limit()
                            && send.bytes.len() + encoded_length(&request.message)
                                <= connection.send_limit())
                }) {
                    send.push(
                        &request.message,
                        (request.flags & !NLM_F_ACK) | NLM_F_REQUEST,
                    );
                }
                send.acknowledge_last();
                connection.send(&send.bytes)?;
                results.extend(acknowledgements(connection, &send, until)?);
            }
            Ok(results)
        })
    }

    /// Reads everything that matches one request (`NLM_F_DUMP`), in the kernel's order.
    ///
    /// A dump that the kernel marks as disturbed by changes (`NLM_F_DUMP_INTR`) is started again a few times.
    ///
    /// # Errors
    ///
    /// [`TransportError::Rejected`] with the kernel's refusal, at the start or the end of the dump;
    /// [`TransportError::Interrupted`] if every attempt was disturbed; any other if the exchange failed.
    pub fn dump<M>(&mut self, request: Request<M>) -> Result<Vec<M>, TransportError>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.exchange(move |connection, sequence, deadline| {
            let until = now() + deadline;
            for _ in 0..DUMP_ATTEMPTS {
                let mut send = Outgoing::new(connection.port(), sequence);
                let flags = (request.flags & !NLM_F_ACK) | NLM_F_REQUEST | NLM_F_DUMP;
                send.push(&request.message, flags);
                connection.send(&send.bytes)?;
                if let Some(messages) = read_dump(connection, &send, until)? {
                    return Ok(messages);
                }
            }
            Err(TransportError::Interrupted)
        })
    }

    /// Sends one request that the kernel answers by one message.
    ///
    /// # Errors
    ///
    /// [`TransportError::Rejected`] with the kernel's refusal; [`TransportError::Unanswered`] if the kernel accepted the request
    /// without a reply; any other if the exchange failed.
    pub fn request<M>(&mut self, request: Request<M>) -> Result<M, TransportError>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.exchange(move |connection, sequence, deadline| {
            let until = now() + deadline;
            let mut send = Outgoing::new(connection.port(), sequence);
            send.push(&request.message, request.flags | NLM_F_REQUEST);
            send.acknowledge_last();
            connection.send(&send.bytes)?;
            read_reply(connection, &send, until)
        })
    }

    /// Sends a transaction of nfnetlink: `begin` (`NFNL_MSG_BATCH_BEGIN`), the requests, `end` (`NFNL_MSG_BATCH_END`), in one send.
    /// The kernel applies all requests or none. Without requests nothing is sent. The send buffer is raised to what the transaction
    /// needs, if the caller may do so (`CAP_NET_ADMIN` in the initial user namespace).
    ///
    /// Only the last request asks for an acknowledgement, because kernels before 6.10 do not answer for `begin` and `end`.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Refused`] with every refusal; then nothing was applied. [`TransactionError::Transport`] if the
    /// exchange failed.
    pub fn transact<M>(
        &mut self,
        begin: M,
        requests: Vec<Request<M>>,
        end: M,
    ) -> Result<(), TransactionError>
    where
        M: NetlinkSerializable,
    {
        if requests.is_empty() {
            return Ok(());
        }
        let refusals = self
            .exchange(move |connection, sequence, deadline| {
                let until = now() + deadline;
                let mut send = Outgoing::new(connection.port(), sequence);
                send.push(&begin, NLM_F_REQUEST);
                for request in &requests {
                    send.push(
                        &request.message,
                        (request.flags & !NLM_F_ACK) | NLM_F_REQUEST,
                    );
                }
                send.acknowledge_last();
                send.push(&end, NLM_F_REQUEST);
                connection.make_room(send.bytes.len());
                connection.send(&send.bytes)?;
                read_refusals(connection, &send, requests.len(), until)
            })
            .map_err(TransactionError::Transport)?;
        if refusals.is_empty() {
            Ok(())
        } else {
            Err(TransactionError::Refused(refusals))
        }
    }

    /// Runs one exchange on an open socket, and closes the socket if answers to it may still come.
    fn exchange<T>(
        &mut self,
        run: impl FnOnce(&mut Connection, &mut u32, Duration) -> Result<T, TransportError>,
    ) -> Result<T, TransportError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.protocol, self.checking)?,
        };
        let result = run(&mut connection, &mut self.sequence, self.deadline);
        if result
            .as_ref()
            .err()
            .is_none_or(TransportError::is_answered)
        {
            self.connection = Some(connection);
        }
        result
    }
}

/// The messages of one send.
struct Outgoing<'a> {
    bytes: Vec<u8>,
    port: u32,
    sequence: &'a mut u32,
    first: u32,
    count: usize,
    last_at: usize,
}

const HEADER: usize = 16;
const FLAGS_AT: usize = 6;

impl<'a> Outgoing<'a> {
    fn new(port: u32, sequence: &'a mut u32) -> Self {
        Self {
            bytes: Vec::new(),
            port,
            first: sequence.wrapping_add(1),
            sequence,
            count: 0,
            last_at: 0,
        }
    }

    fn push<M: NetlinkSerializable>(&mut self, message: &M, flags: u16) {
        *self.sequence = self.sequence.wrapping_add(1);
        self.last_at = self.bytes.len();
        let length = HEADER + message.buffer_len();
        let fields: [&[u8]; 5] = [
            &u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes(),
            &message.message_type().to_ne_bytes(),
            &flags.to_ne_bytes(),
            &self.sequence.to_ne_bytes(),
            &self.port.to_ne_bytes(),
        ];
        for field in fields {
            self.bytes.extend_from_slice(field);
        }
        self.bytes.resize(self.last_at + encoded_length(message), 0);
        if let Some(payload) = self
            .bytes
            .get_mut(self.last_at + HEADER..self.last_at + length)
        {
            message.serialize(payload);
        }
        self.count += 1;
    }

    fn acknowledge_last(&mut self) {
        let at = self.last_at + FLAGS_AT;
        if let Some(field) = self.bytes.get_mut(at..at + 2)
            && let Ok(flags) = <[u8; 2]>::try_from(&*field)
        {
            field.copy_from_slice(&(u16::from_ne_bytes(flags) | NLM_F_ACK).to_ne_bytes());
        }
    }

    /// Which of the messages an answer is for; `None` if it is a stale one or nobody's.
    fn position(&self, header: &NetlinkHeader) -> Option<usize> {
        let distance = header.sequence_number.wrapping_sub(self.first);
        let position = usize::try_from(distance).ok()?;
        (header.port_number == self.port && position < self.count).then_some(position)
    }
}

/// Reads the answers to a batch until the one to its last message.
fn acknowledgements(
    connection: &mut Connection,
    send: &Outgoing<'_>,
    until: Instant,
) -> Result<Vec<Result<(), Rejection>>, TransportError> {
    let mut results = vec![Ok(()); send.count];
    loop {
        for answer in answers(connection.receive(until, Peek::No)?) {
            let answer = answer?;
            let Some(position) = send.position(&answer.header) else {
                continue;
            };
            let Kind::Outcome(outcome) = answer.kind()? else {
                continue;
            };
            if let Some(result) = results.get_mut(position) {
                *result = outcome;
            }
            if position + 1 == send.count {
                return Ok(results);
            }
        }
    }
}

/// Reads a dump to its end; `None` if the kernel marked it as disturbed.
fn read_dump<M: NetlinkDeserializable>(
    connection: &mut Connection,
    send: &Outgoing<'_>,
    until: Instant,
) -> Result<Option<Vec<M>>, TransportError> {
    let mut messages = Vec::new();
    let mut disturbed = false;
    loop {
        for answer in answers(connection.receive(until, Peek::Length)?) {
            let answer = answer?;
            if send.position(&answer.header).is_none() {
                continue;
            }
            disturbed |= answer.is_disturbed();
            match answer.kind()? {
                Kind::Message => messages.push(decode(&answer)?),
                Kind::Outcome(Err(rejection)) | Kind::Done(Err(rejection)) => {
                    return Err(TransportError::Rejected(rejection));
                }
                Kind::Outcome(Ok(())) | Kind::Done(Ok(())) => {
                    return Ok((!disturbed).then_some(messages));
                }
            }
        }
    }
}

/// Reads the reply to one request and the acknowledgement that follows it.
fn read_reply<M: NetlinkDeserializable>(
    connection: &mut Connection,
    send: &Outgoing<'_>,
    until: Instant,
) -> Result<M, TransportError> {
    let mut reply = None;
    loop {
        for answer in answers(connection.receive(until, Peek::Length)?) {
            let answer = answer?;
            if send.position(&answer.header).is_none() {
                continue;
            }
            match answer.kind()? {
                Kind::Message => {
                    if reply.is_none() {
                        reply = Some(decode(&answer)?);
                    }
                }
                Kind::Done(Ok(())) => {}
                Kind::Outcome(Ok(())) => return reply.ok_or(TransportError::Unanswered),
                Kind::Outcome(Err(rejection)) | Kind::Done(Err(rejection)) => {
                    return Err(TransportError::Rejected(rejection));
                }
            }
        }
    }
}

/// Reads the answers to a transaction until the one to its last request, or until its `begin` is refused, which is how
/// nfnetlink says that it will not or could not run the transaction.
fn read_refusals(
    connection: &mut Connection,
    send: &Outgoing<'_>,
    requests: usize,
    until: Instant,
) -> Result<Vec<Refusal>, TransportError> {
    let mut refusals = Vec::new();
    loop {
        for answer in answers(connection.receive(until, Peek::No)?) {
            let answer = answer?;
            let Some(position) = send.position(&answer.header) else {
                continue;
            };
            let Kind::Outcome(outcome) = answer.kind()? else {
                continue;
            };
            let refused = outcome.is_err();
            refusals.extend(outcome.err().map(|rejection| Refusal {
                request: position.checked_sub(1),
                rejection,
            }));
            if position == requests || (position == 0 && refused) {
                return Ok(refusals);
            }
        }
    }
}

fn decode<M: NetlinkDeserializable>(answer: &Answer<'_>) -> Result<M, TransportError> {
    M::deserialize(&answer.header, answer.payload)
        .map_err(|error| TransportError::Decode(Box::new(error)))
}

/// The length of a message with its header and the padding behind it.
fn encoded_length<M: NetlinkSerializable>(message: &M) -> usize {
    (HEADER + message.buffer_len()).next_multiple_of(4)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the deadline of an exchange bounds a blocking call and decides nothing else"
)]
fn now() -> Instant {
    Instant::now()
}

/// What the kernel says through a system call.
fn system(error: rustix::io::Errno) -> io::Error {
    io::Error::from(error)
}

#[cfg(test)]
mod tests;
