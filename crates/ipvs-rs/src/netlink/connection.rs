//! One open netlink socket: its buffers, sending, and receiving with a deadline.

use std::time::{Duration, Instant};

use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::sockopt::{
    Timeout, set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force,
    set_socket_timeout, socket_recv_buffer_size, socket_send_buffer_size,
};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::error::TransportError;
use super::{Checking, NetlinkProtocol, now, system};

/// What both buffers are raised to; memory is used only while messages wait.
const BUFFER: usize = 4 << 20;
/// Above the 32 KiB that the kernel puts in one piece of a dump.
const RECEIVE: usize = 64 << 10;
/// What one refusal, with the kernel's words, takes of the receive buffer at most (832 bytes seen without words).
const ANSWER: usize = 2048;
/// Larger batches gain nothing.
const MOST_MESSAGES: usize = 200;
/// `netlink_sendmsg` refuses what is longer than the send buffer less this.
const SEND_OVERHEAD: usize = 32;

#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    port: u32,
    send_limit: usize,
    batch_limit: usize,
    buffer: Vec<u8>,
}

/// Whether to ask for the length of an answer before taking it off the queue.
#[derive(Debug, Clone, Copy)]
pub(super) enum Peek {
    /// The answers are known to be short.
    No,
    /// The answers may have any length.
    Length,
}

impl Connection {
    pub(super) fn open(
        protocol: NetlinkProtocol,
        checking: Checking,
    ) -> Result<Self, TransportError> {
        let mut socket = Socket::new(match protocol {
            NetlinkProtocol::Route => NETLINK_ROUTE,
            NetlinkProtocol::Generic => NETLINK_GENERIC,
            NetlinkProtocol::Netfilter => NETLINK_NETFILTER,
        })
        .map_err(TransportError::Open)?;
        let port = socket
            .bind_auto()
            .map_err(TransportError::Open)?
            .port_number();
        // Connected to the kernel, a socket takes no message from other processes.
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(TransportError::Open)?;
        // Before Linux 4.2 and 4.12 an answer repeats the request and has no words; both are understood.
        let _ = socket.set_cap_ack(true).is_ok() && socket.set_ext_ack(true).is_ok();
        // Refused without CAP_NET_ADMIN: then the limits below follow from what there is.
        let _ = set_socket_send_buffer_size_force(&socket, BUFFER).is_ok()
            && set_socket_recv_buffer_size_force(&socket, BUFFER).is_ok();
        let open = |error| TransportError::Open(system(error));
        let send_limit = socket_send_buffer_size(&socket)
            .map_err(open)?
            .saturating_sub(SEND_OVERHEAD);
        let batch_limit =
            (socket_recv_buffer_size(&socket).map_err(open)? / ANSWER).clamp(1, MOST_MESSAGES);
        let connection = Self {
            socket,
            port,
            send_limit,
            batch_limit,
            buffer: vec![0; RECEIVE],
        };
        match checking {
            Checking::Lenient => {}
            Checking::Strict => connection.set_checking(checking)?,
        }
        Ok(connection)
    }

    pub(super) fn set_checking(&self, checking: Checking) -> Result<(), TransportError> {
        self.socket
            .set_netlink_get_strict_chk(checking == Checking::Strict)
            .map_err(TransportError::Open)
    }

    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// How many messages may go in one send so that as many refusals fit in the receive buffer.
    pub(super) fn batch_limit(&self) -> usize {
        self.batch_limit
    }

    /// How many bytes may go in one send.
    pub(super) fn send_limit(&self) -> usize {
        self.send_limit
    }

    /// Raises the send buffer if what is to go in one send does not fit, as far as the caller may. It stays raised.
    pub(super) fn make_room(&mut self, bytes: usize) {
        if bytes <= self.send_limit {
            return;
        }
        let size = bytes.saturating_add(SEND_OVERHEAD);
        if set_socket_send_buffer_size_force(&self.socket, size).is_ok()
            && let Ok(size) = socket_send_buffer_size(&self.socket)
        {
            self.send_limit = size.saturating_sub(SEND_OVERHEAD);
        }
    }

    /// Sends, which includes that the kernel works off every message.
    pub(super) fn send(&self, bytes: &[u8]) -> Result<(), TransportError> {
        loop {
            match send(&self.socket, bytes, SendFlags::empty()) {
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(_) => return Err(TransportError::Send(std::io::ErrorKind::WriteZero.into())),
                Err(Errno::INTR) => {}
                Err(error) => return Err(TransportError::Send(system(error))),
            }
        }
    }

    /// The next datagram.
    pub(super) fn receive(&mut self, until: Instant, peek: Peek) -> Result<&[u8], TransportError> {
        if let Peek::Length = peek {
            let length = self.wait(until, RecvFlags::PEEK | RecvFlags::TRUNC, 0)?;
            if length > self.buffer.len() {
                self.buffer.resize(length, 0);
            }
        }
        let length = self.wait(until, RecvFlags::TRUNC, self.buffer.len())?;
        self.buffer.get(..length).ok_or(TransportError::Truncated)
    }

    /// Receives up to `room` bytes into the buffer and returns the length of the datagram. Nearly always the answer is
    /// there already, so the socket's own timer is set only when it is not.
    fn wait(
        &mut self,
        until: Instant,
        flags: RecvFlags,
        room: usize,
    ) -> Result<usize, TransportError> {
        let mut extra = RecvFlags::DONTWAIT;
        loop {
            let buffer = self.buffer.get_mut(..room).unwrap_or_default();
            match recv(&self.socket, buffer, flags | extra) {
                Ok((_, length)) => return Ok(length),
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => return Err(TransportError::Overflow),
                Err(Errno::AGAIN) => {
                    let left = until.saturating_duration_since(now());
                    if left.is_zero() {
                        return Err(TransportError::Deadline);
                    }
                    let timer = Some(left.max(Duration::from_millis(1)));
                    set_socket_timeout(&self.socket, Timeout::Recv, timer)
                        .map_err(|error| TransportError::Receive(system(error)))?;
                    extra = RecvFlags::empty();
                }
                Err(error) => return Err(TransportError::Receive(system(error))),
            }
        }
    }
}
