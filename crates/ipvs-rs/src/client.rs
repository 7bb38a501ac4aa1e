//! A blocking client of the kernel's IPVS.

use std::collections::BTreeMap;
use std::time::Duration;

use netlink_packet_generic::GenlMessage;
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};

use crate::error::{Error, RequestKind, refused};
use crate::message::{Message, MessageError};
use crate::netlink::{NetlinkProtocol, Rejection, Request, Transport, TransportError};
use crate::proc::{self, RealServerEntry};
use crate::{
    Daemon, DaemonRole, Info, RealServer, RealServerConfig, RealServerKey, Timeouts, VirtualServer,
    VirtualServerConfig, VirtualServerKey,
};

const FAMILY_NAME: &str = "IPVS";
const ENOENT: i32 = 2;
/// How many virtual servers surely fit in the first piece of a dump, which is a page at least; each takes some 320 bytes.
const ONE_PIECE: usize = 8;
/// How often all virtual servers are read for two readings that agree.
const READ_ATTEMPTS: usize = 10;

/// A blocking client of the kernel's IPVS.
///
/// It works on the network namespace of the thread that opened it and must be used on threads of that namespace: after
/// an exchange that failed it opens its socket anew. One request, batch or dump is in flight at a time.
///
/// What is read is no snapshot: while another program changes the real servers of a virtual server, one of them may be missing
/// or be told twice.
#[derive(Debug)]
pub struct Client {
    transport: Transport,
    family: u16,
}

/// One change, for [`Client::apply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `ipvsadm -A`: [`Error::VirtualServerExists`] if it exists.
    #[doc(alias = "NEW_SERVICE")]
    CreateVirtualServer(VirtualServerKey, VirtualServerConfig),
    /// `ipvsadm -E`, keeping real servers and connections: [`Error::NoSuchVirtualServer`] if it does not exist.
    ///
    /// A change of scheduler lets go of the old one before it binds the new one, so for an instant the virtual server has none.
    #[doc(alias = "SET_SERVICE")]
    UpdateVirtualServer(VirtualServerKey, VirtualServerConfig),
    /// `ipvsadm -D`, with its real servers: [`Error::NoSuchVirtualServer`] if it does not exist.
    #[doc(alias = "DEL_SERVICE")]
    DeleteVirtualServer(VirtualServerKey),
    /// `ipvsadm -a`: [`Error::RealServerExists`] if it exists.
    #[doc(alias = "NEW_DEST")]
    CreateRealServer(VirtualServerKey, RealServerKey, RealServerConfig),
    /// `ipvsadm -e`: [`Error::NoSuchRealServer`] if it does not exist.
    #[doc(alias = "SET_DEST")]
    UpdateRealServer(VirtualServerKey, RealServerKey, RealServerConfig),
    /// `ipvsadm -d`: [`Error::NoSuchRealServer`] if it does not exist.
    #[doc(alias = "DEL_DEST")]
    DeleteRealServer(VirtualServerKey, RealServerKey),
}

impl Command {
    fn kind(&self) -> RequestKind {
        match self {
            Self::CreateVirtualServer(..) => RequestKind::CreateVirtualServer,
            Self::UpdateVirtualServer(..) => RequestKind::UpdateVirtualServer,
            Self::DeleteVirtualServer(..) => RequestKind::DeleteVirtualServer,
            Self::CreateRealServer(..) => RequestKind::CreateRealServer,
            Self::UpdateRealServer(..) => RequestKind::UpdateRealServer,
            Self::DeleteRealServer(..) => RequestKind::DeleteRealServer,
        }
    }

    fn message(&self) -> Result<Message, MessageError> {
        Ok(match self {
            Self::CreateVirtualServer(key, config) => Message::create_virtual_server(key, config)?,
            Self::UpdateVirtualServer(key, config) => Message::update_virtual_server(key, config)?,
            Self::DeleteVirtualServer(key) => Message::delete_virtual_server(key),
            Self::CreateRealServer(of, key, config) => Message::create_real_server(of, key, config),
            Self::UpdateRealServer(of, key, config) => Message::update_real_server(of, key, config),
            Self::DeleteRealServer(of, key) => Message::delete_real_server(of, key),
        })
    }

    fn refused(&self, rejection: Rejection) -> Error {
        let config = match self {
            Self::CreateVirtualServer(_, config) | Self::UpdateVirtualServer(_, config) => {
                Some(config)
            }
            Self::DeleteVirtualServer(_)
            | Self::CreateRealServer(..)
            | Self::UpdateRealServer(..)
            | Self::DeleteRealServer(..) => None,
        };
        refused(self.kind(), config, rejection)
    }
}

impl Client {
    /// Opens a client in the network namespace of the calling thread. Asking for the family makes the kernel load the module
    /// `ip_vs` if the caller may load modules.
    ///
    /// # Errors
    ///
    /// [`Error::NotAvailable`] if the kernel has no IPVS; [`Error::Transport`] if there is no socket or no answer.
    pub fn open() -> Result<Self, Error> {
        let mut transport = Transport::open(NetlinkProtocol::Generic).map_err(opening)?;
        let family = resolve(&mut transport)?;
        Ok(Self { transport, family })
    }

    /// Sets how long each exchange with the kernel may take; ten seconds if it is never called.
    pub fn set_deadline(&mut self, per_exchange: Duration) {
        self.transport.set_deadline(per_exchange);
    }

    /// Version and size of the connection table (`IPVS_CMD_GET_INFO`; first line of `ipvsadm -L`).
    ///
    /// # Errors
    ///
    /// Any [`Error`] of a read.
    pub fn info(&mut self) -> Result<Info, Error> {
        let request = RequestKind::ReadInfo;
        let reply = self.ask(request, Message::get_info())?;
        reply.info().map_err(answer(request))
    }

    /// The connection timeouts (`IPVS_CMD_GET_CONFIG`; `ipvsadm -L --timeout`).
    ///
    /// # Errors
    ///
    /// Any [`Error`] of a read.
    pub fn timeouts(&mut self) -> Result<Timeouts, Error> {
        let request = RequestKind::ReadTimeouts;
        let reply = self.ask(request, Message::get_timeouts())?;
        reply.timeouts().map_err(answer(request))
    }

    /// Sets the connection timeouts (`IPVS_CMD_SET_CONFIG`; `ipvsadm --set`). A zero leaves that timeout as it is.
    ///
    /// # Errors
    ///
    /// Any [`Error`] of a change.
    pub fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<(), Error> {
        self.tell(RequestKind::SetTimeouts, Message::set_timeouts(timeouts))
    }

    /// Every virtual server (`IPVS_CMD_GET_SERVICE`; `ipvsadm -L`), in the order of their keys.
    ///
    /// Left out are those of protocols other than TCP, UDP and SCTP, which the kernel stores but never sends a packet to.
    ///
    /// The kernel counts its place in a dump over the virtual servers of all network namespaces, so a change in any of
    /// them makes it skip some or tell them twice, and it says nothing of that (`ip_vs_genl_dump_services`; seen on 6.12). So a
    /// dump of more than one piece is read until two in a row have the same keys.
    ///
    /// # Errors
    ///
    /// [`TransportError::Interrupted`] if no two dumps agreed; any [`Error`] of a read.
    #[doc(alias = "services")]
    pub fn virtual_servers(&mut self) -> Result<Vec<VirtualServer>, Error> {
        let request = RequestKind::ReadVirtualServers;
        let mut before = None;
        for _ in 0..READ_ATTEMPTS {
            let messages = self.dump(request, Message::get_virtual_servers())?;
            let servers: BTreeMap<_, _> = messages
                .iter()
                .filter_map(|message| message.virtual_server().transpose())
                .map(|server| server.map(|server| (server.key, server)))
                .collect::<Result<_, _>>()
                .map_err(answer(request))?;
            let keys: Vec<_> = servers.keys().copied().collect();
            if messages.len() <= ONE_PIECE || before.as_ref() == Some(&keys) {
                return Ok(servers.into_values().collect());
            }
            before = Some(keys);
        }
        Err(Error::Transport {
            request,
            source: TransportError::Interrupted,
        })
    }

    /// One virtual server (`IPVS_CMD_GET_SERVICE`; `ipvsadm -L -t …`).
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchVirtualServer`]; any [`Error`] of a read.
    #[doc(alias = "service")]
    pub fn virtual_server(&mut self, key: &VirtualServerKey) -> Result<VirtualServer, Error> {
        let request = RequestKind::ReadVirtualServers;
        self.ask(request, Message::get_virtual_server(key))?
            .virtual_server()
            .and_then(|found| found.ok_or(MessageError::Missing("IPVS_SVC_ATTR_PROTOCOL")))
            .map_err(answer(request))
    }

    /// The real servers of one virtual server (`IPVS_CMD_GET_DEST`; `ipvsadm -L -t …`), in the kernel's order.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchVirtualServer`]: the kernel answers with no real servers then, so when there are none it is asked
    /// whether the virtual server exists. Any [`Error`] of a read.
    #[doc(alias = "destinations")]
    pub fn real_servers(&mut self, of: &VirtualServerKey) -> Result<Vec<RealServer>, Error> {
        let request = RequestKind::ReadRealServers;
        let messages = self.dump(request, Message::get_real_servers(of))?;
        if messages.is_empty() {
            self.ask(request, Message::get_virtual_server(of))?;
        }
        messages
            .iter()
            .map(|message| message.real_server(of.family()))
            .collect::<Result<_, _>>()
            .map_err(answer(request))
    }

    /// The real servers of every virtual server with weight and connections, at the least cost that is right: the virtual servers
    /// by one dump, their real servers from [`proc::snapshot`], and a dump for each virtual server that is missing there, which
    /// are firewall marks always and others when other network namespaces have virtual servers too.
    ///
    /// From `/proc` every tunnel is [`Tunnel::Ipip`](crate::Tunnel::Ipip), see [`RealServerEntry`].
    ///
    /// # Errors
    ///
    /// [`Error::Proc`] if the file cannot be read or understood; any [`Error`] of a read.
    pub fn real_servers_of_all(
        &mut self,
    ) -> Result<BTreeMap<VirtualServerKey, Vec<RealServerEntry>>, Error> {
        let servers = self.virtual_servers()?;
        let mut snapshot = proc::snapshot()?;
        let mut all = BTreeMap::new();
        for VirtualServer { key, .. } in servers {
            let of_one = match snapshot.remove(&key) {
                Some(entries) => entries,
                None => match self.real_servers(&key) {
                    Ok(servers) => servers.iter().map(RealServerEntry::from).collect(),
                    // Deleted since.
                    Err(error) if error.is_not_found() => continue,
                    Err(error) => return Err(error),
                },
            };
            all.insert(key, of_one);
        }
        Ok(all)
    }

    /// Applies commands in order, some hundred in each system call, and returns one result for each, in order.
    ///
    /// This is no transaction: the kernel goes on after a command that it refuses. A command that cannot be put in a message is
    /// [`Error::Unsendable`] and the others are sent.
    ///
    /// # Errors
    ///
    /// [`Error::Transport`] if the exchange failed; then it is unknown which commands were applied
    /// ([`Error::is_outcome_unknown`]), and what is must be read again.
    pub fn apply(&mut self, commands: Vec<Command>) -> Result<Vec<Result<(), Error>>, Error> {
        let mut requests = Vec::with_capacity(commands.len());
        let mut unsendable = Vec::new();
        for command in &commands {
            match command.message() {
                Ok(message) => {
                    requests.push(Request::new(self.genl(message)));
                    unsendable.push(None);
                }
                Err(source) => unsendable.push(Some(Error::Unsendable {
                    request: command.kind(),
                    source,
                })),
            }
        }
        let outcomes = self
            .transport
            .batch(requests)
            .map_err(|source| Error::Transport {
                request: RequestKind::Apply,
                source,
            })?;
        let mut outcomes = outcomes.into_iter();
        Ok(commands
            .into_iter()
            .zip(unsendable)
            .map(|(command, unsendable)| match unsendable {
                Some(error) => Err(error),
                None => match outcomes.next() {
                    Some(outcome) => outcome.map_err(|rejection| command.refused(rejection)),
                    None => Err(Error::Transport {
                        request: command.kind(),
                        source: TransportError::Unanswered,
                    }),
                },
            })
            .collect())
    }

    /// See [`Command::CreateVirtualServer`].
    ///
    /// # Errors
    ///
    /// Any [`Error`] of a change.
    pub fn create_virtual_server(
        &mut self,
        key: VirtualServerKey,
        config: VirtualServerConfig,
    ) -> Result<(), Error> {
        self.apply_one(&Command::CreateVirtualServer(key, config))
    }

    /// See [`Command::UpdateVirtualServer`].
    ///
    /// # Errors
    ///
    /// Any [`Error`] of a change.
    pub fn update_virtual_server(
        &mut self,
        key: VirtualServerKey,
        config: VirtualServerConfig,
    ) -> Result<(), Error> {
        self.apply_one(&Command::UpdateVirtualServer(key, config))
    }

    /// See [`Command::DeleteVirtualServer`].
    ///
    /// # Errors
    ///
    /// Any [`Error`] of a change.
    pub fn delete_virtual_server(&mut self, key: VirtualServerKey) -> Result<(), Error> {
        self.apply_one(&Command::DeleteVirtualServer(key))
    }

    /// See [`Command::CreateRealServer`].
    ///
    /// # Errors
    ///
    /// Any [`Error`] of a change.
    pub fn create_real_server(
        &mut self,
        of: VirtualServerKey,
        key: RealServerKey,
        config: RealServerConfig,
    ) -> Result<(), Error> {
        self.apply_one(&Command::CreateRealServer(of, key, config))
    }

    /// See [`Command::UpdateRealServer`].
    ///
    /// # Errors
    ///
    /// Any [`Error`] of a change.
    pub fn update_real_server(
        &mut self,
        of: VirtualServerKey,
        key: RealServerKey,
        config: RealServerConfig,
    ) -> Result<(), Error> {
        self.apply_one(&Command::UpdateRealServer(of, key, config))
    }

    /// See [`Command::DeleteRealServer`].
    ///
    /// # Errors
    ///
    /// Any [`Error`] of a change.
    pub fn delete_real_server(
        &mut self,
        of: VirtualServerKey,
        key: RealServerKey,
    ) -> Result<(), Error> {
        self.apply_one(&Command::DeleteRealServer(of, key))
    }

    /// Zeroes the counters of one virtual server and its real servers (`IPVS_CMD_ZERO`; `ipvsadm -Z -t …`).
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchVirtualServer`]; any [`Error`] of a change.
    pub fn zero(&mut self, key: &VirtualServerKey) -> Result<(), Error> {
        self.tell(RequestKind::Zero, Message::zero(key))
    }

    /// Zeroes all counters (`IPVS_CMD_ZERO`; `ipvsadm -Z`).
    ///
    /// # Errors
    ///
    /// Any [`Error`] of a change.
    pub fn zero_all(&mut self) -> Result<(), Error> {
        self.tell(RequestKind::Zero, Message::zero_all())
    }

    /// Deletes every virtual server (`IPVS_CMD_FLUSH`; `ipvsadm -C`), whoever made it.
    ///
    /// # Errors
    ///
    /// Any [`Error`] of a change.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.tell(RequestKind::Flush, Message::flush())
    }

    /// The running synchronisation daemons (`IPVS_CMD_GET_DAEMON`; `ipvsadm -L --daemon`).
    ///
    /// # Errors
    ///
    /// Any [`Error`] of a read.
    pub fn daemons(&mut self) -> Result<Vec<Daemon>, Error> {
        let request = RequestKind::ReadDaemons;
        self.dump(request, Message::get_daemons())?
            .iter()
            .map(Message::daemon)
            .collect::<Result<_, _>>()
            .map_err(answer(request))
    }

    /// Starts a synchronisation daemon (`IPVS_CMD_NEW_DAEMON`; `ipvsadm --start-daemon`).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] also while a virtual server has a real server of the other family: the kernel has either. Any
    /// [`Error`] of a change.
    pub fn start_daemon(&mut self, daemon: &Daemon) -> Result<(), Error> {
        let request = RequestKind::StartDaemon;
        let message = Message::start_daemon(daemon)
            .map_err(|source| Error::Unsendable { request, source })?;
        self.tell(request, message)
    }

    /// Stops a synchronisation daemon (`IPVS_CMD_DEL_DAEMON`; `ipvsadm --stop-daemon`).
    ///
    /// # Errors
    ///
    /// [`Error::Kernel`] with `ESRCH` if none runs; any [`Error`] of a change.
    pub fn stop_daemon(&mut self, role: DaemonRole) -> Result<(), Error> {
        self.tell(RequestKind::StopDaemon, Message::stop_daemon(role))
    }

    fn genl(&self, message: Message) -> GenlMessage<Message> {
        let mut message = GenlMessage::from_payload(message);
        message.set_resolved_family_id(self.family);
        message
    }

    fn apply_one(&mut self, command: &Command) -> Result<(), Error> {
        let request = command.kind();
        let message = command
            .message()
            .map_err(|source| Error::Unsendable { request, source })?;
        self.send(request, message)?
            .map_err(|rejection| command.refused(rejection))
    }

    /// Asks for a change.
    fn tell(&mut self, request: RequestKind, message: Message) -> Result<(), Error> {
        self.send(request, message)?
            .map_err(|rejection| refused(request, None, rejection))
    }

    fn send(
        &mut self,
        request: RequestKind,
        message: Message,
    ) -> Result<Result<(), Rejection>, Error> {
        let requests = vec![Request::new(self.genl(message))];
        let failed = |source| Error::Transport { request, source };
        self.transport
            .batch(requests)
            .map_err(failed)?
            .pop()
            .ok_or_else(|| failed(TransportError::Unanswered))
    }

    /// Asks for one reply.
    fn ask(&mut self, request: RequestKind, message: Message) -> Result<Message, Error> {
        let message = Request::new(self.genl(message));
        self.transport
            .request(message)
            .map(|reply| reply.payload)
            .map_err(failed(request))
    }

    /// Asks for all that matches.
    fn dump(&mut self, request: RequestKind, message: Message) -> Result<Vec<Message>, Error> {
        let message = Request::new(self.genl(message));
        let replies = self.transport.dump(message).map_err(failed(request))?;
        Ok(replies.into_iter().map(|reply| reply.payload).collect())
    }
}

fn failed(request: RequestKind) -> impl Fn(TransportError) -> Error {
    move |error| match error {
        TransportError::Rejected(rejection) => refused(request, None, rejection),
        TransportError::Open(_)
        | TransportError::Send(_)
        | TransportError::Receive(_)
        | TransportError::Overflow
        | TransportError::Deadline
        | TransportError::Interrupted
        | TransportError::Truncated
        | TransportError::Decode(_)
        | TransportError::Unanswered => Error::Transport {
            request,
            source: error,
        },
    }
}

fn answer(request: RequestKind) -> impl Fn(MessageError) -> Error {
    move |source| Error::Answer { request, source }
}

fn opening(source: TransportError) -> Error {
    Error::Transport {
        request: RequestKind::Open,
        source,
    }
}

/// Asks the generic netlink controller for the number of the family (`CTRL_CMD_GETFAMILY`).
fn resolve(transport: &mut Transport) -> Result<u16, Error> {
    let question = GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(FAMILY_NAME.to_owned())],
    });
    let reply =
        transport
            .request(Request::new(question))
            .map_err(|error| match error.rejection() {
                Some(rejection) if rejection.errno == ENOENT => {
                    Error::NotAvailable(rejection.clone())
                }
                _ => failed(RequestKind::Open)(error),
            })?;
    reply
        .payload
        .nlas
        .iter()
        .find_map(|attribute| {
            if let GenlCtrlAttrs::FamilyId(family) = attribute {
                Some(*family)
            } else {
                None
            }
        })
        .ok_or_else(|| answer(RequestKind::Open)(MessageError::Missing("CTRL_ATTR_FAMILY_ID")))
}
