//! The dummy device and its addresses, over route netlink.
//!
//! IPv4 VIPs are added `/32 scope host`, IPv6 VIPs `/128 nodad preferred_lft 0`: with anything else the kernel chooses them as the
//! source of the node's own connections and of masqueraded ones, and every node owns every VIP (seen on 6.1 and 6.12).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipvs::Family;
use ipvs::netlink::{NetlinkProtocol, Rejection, Request, Transport, TransportError};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{AddressCommand, KernelError, Link, VipBinding};

const ENODEV: i32 = 19;
/// A life time without end (`INFINITY_LIFE_TIME`).
const FOREVER: u32 = u32::MAX;

/// A route netlink socket.
#[derive(Debug)]
pub struct Addresses {
    transport: Transport,
    /// IPv6 addresses with another prefix length than 128, as last read: the kernel deletes an address only by its exact length.
    prefix_lengths: BTreeMap<IpAddr, u8>,
}

impl Addresses {
    /// Opens the socket in the network namespace of the calling thread.
    pub fn open() -> Result<Self, KernelError> {
        let request = "open a route socket";
        let transport =
            Transport::open(NetlinkProtocol::Route).map_err(|source| failed(request, source))?;
        Ok(Self {
            transport,
            prefix_lengths: BTreeMap::new(),
        })
    }

    /// See [`super::Kernel::link`].
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, KernelError> {
        let request = "read the link";
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        match self
            .transport
            .request(plain(RouteNetlinkMessage::GetLink(message)))
        {
            Ok(RouteNetlinkMessage::NewLink(link)) => Ok(Some(read_link(name, &link))),
            Ok(_) => Err(failed(request, TransportError::Unanswered)),
            Err(error)
                if error
                    .rejection()
                    .is_some_and(|rejection| rejection.errno == ENODEV) =>
            {
                Ok(None)
            }
            Err(error) => Err(failed(request, error)),
        }
    }

    /// See [`super::Kernel::addresses`].
    pub fn addresses(&mut self, link: &Link) -> Result<BTreeMap<IpAddr, VipBinding>, KernelError> {
        let all = self
            .transport
            .dump(plain(RouteNetlinkMessage::GetAddress(
                AddressMessage::default(),
            )))
            .map_err(|source| failed("read the addresses", source))?;
        let mut bindings = BTreeMap::new();
        self.prefix_lengths.clear();
        for message in all {
            if let RouteNetlinkMessage::NewAddress(message) = message
                && message.header.index == link.index
                && let Some(address) = read_address(&message)
                && !is_link_local(address)
            {
                if message.header.prefix_len != host_length(address) {
                    self.prefix_lengths
                        .insert(address, message.header.prefix_len);
                }
                bindings.insert(address, binding(&message, address));
            }
        }
        Ok(bindings)
    }

    /// See [`super::Kernel::create_device`].
    pub fn create_device(&mut self, name: &str) -> Result<(), KernelError> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        message
            .attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(
                InfoKind::Dummy,
            )]));
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.one(
            "create the link",
            RouteNetlinkMessage::NewLink(message),
            flags,
        )
    }

    /// See [`super::Kernel::set_device_up`].
    pub fn set_device_up(&mut self, name: &str) -> Result<(), KernelError> {
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up | LinkFlags::Noarp;
        message.header.change_mask = LinkFlags::Up | LinkFlags::Noarp;
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.one("set the link up", RouteNetlinkMessage::SetLink(message), 0)
    }

    /// See [`super::Kernel::delete_device`].
    pub fn delete_device(&mut self, name: &str) -> Result<(), KernelError> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.one("delete the link", RouteNetlinkMessage::DelLink(message), 0)
    }

    /// See [`super::Kernel::apply_addresses`].
    pub fn apply(
        &mut self,
        link: &Link,
        commands: &[AddressCommand],
    ) -> Result<Vec<Result<(), KernelError>>, KernelError> {
        let requests = commands
            .iter()
            .map(|command| self.address_request(link, *command))
            .collect();
        let results = self
            .transport
            .batch(requests)
            .map_err(|source| failed("change the addresses", source))?;
        let texts = commands.iter().map(|command| match command {
            AddressCommand::Add(_) => "add the address",
            AddressCommand::Delete(_) => "delete the address",
        });
        Ok(texts
            .zip(results)
            .map(|(text, result)| result.map_err(|rejection| rejected(text, rejection)))
            .collect())
    }

    fn one(
        &mut self,
        request: &'static str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), KernelError> {
        let results = self
            .transport
            .batch(vec![Request { message, flags }])
            .map_err(|source| failed(request, source))?;
        results
            .into_iter()
            .next()
            .unwrap_or(Ok(()))
            .map_err(|rejection| rejected(request, rejection))
    }

    fn address_request(
        &self,
        link: &Link,
        command: AddressCommand,
    ) -> Request<RouteNetlinkMessage> {
        match command {
            AddressCommand::Add(vip) => Request {
                message: RouteNetlinkMessage::NewAddress(new_address(link, vip)),
                flags: NLM_F_CREATE | NLM_F_EXCL,
            },
            AddressCommand::Delete(vip) => {
                let length = self
                    .prefix_lengths
                    .get(&vip)
                    .copied()
                    .unwrap_or(host_length(vip));
                plain(RouteNetlinkMessage::DelAddress(address_message(
                    link, vip, length,
                )))
            }
        }
    }
}

fn plain(message: RouteNetlinkMessage) -> Request<RouteNetlinkMessage> {
    Request { message, flags: 0 }
}

fn read_link(name: &str, message: &LinkMessage) -> Link {
    Link {
        name: name.to_owned(),
        index: message.header.index,
        kind: message.attributes.iter().find_map(kind).unwrap_or_default(),
        up: message.header.flags.contains(LinkFlags::Up),
    }
}

fn kind(attribute: &LinkAttribute) -> Option<String> {
    let LinkAttribute::LinkInfo(infos) = attribute else {
        return None;
    };
    infos.iter().find_map(|info| {
        if let LinkInfo::Kind(kind) = info {
            Some(kind.to_string())
        } else {
            None
        }
    })
}

/// `IFA_LOCAL` where there is one (IPv4, and IPv6 with a peer), else `IFA_ADDRESS`.
fn read_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Local(address) = attribute {
            return Some(*address);
        }
        if let AddressAttribute::Address(address) = attribute {
            found = Some(*address);
        }
    }
    found
}

/// The kernel gives every link an address of `fe80::/64`; it is no VIP.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn host_length(address: IpAddr) -> u8 {
    match Family::of(address) {
        Family::Ipv4 => 32,
        Family::Ipv6 => 128,
    }
}

fn binding(message: &AddressMessage, address: IpAddr) -> VipBinding {
    let right = match Family::of(address) {
        Family::Ipv4 => message.header.scope == AddressScope::Host,
        Family::Ipv6 => message.attributes.iter().any(|attribute| {
            if let AddressAttribute::CacheInfo(life) = attribute {
                life.ifa_preferred == 0 && life.ifa_valid == FOREVER
            } else {
                false
            }
        }),
    };
    if right && message.header.prefix_len == host_length(address) {
        VipBinding::AsWanted
    } else {
        VipBinding::Other
    }
}

fn address_message(link: &Link, vip: IpAddr, prefix_length: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = match Family::of(vip) {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    };
    message.header.prefix_len = prefix_length;
    message.header.index = link.index;
    message.attributes.push(AddressAttribute::Local(vip));
    message
}

fn new_address(link: &Link, vip: IpAddr) -> AddressMessage {
    let mut message = address_message(link, vip, host_length(vip));
    message.attributes.push(AddressAttribute::Address(vip));
    match Family::of(vip) {
        Family::Ipv4 => message.header.scope = AddressScope::Host,
        Family::Ipv6 => {
            message.header.flags = AddressHeaderFlags::Nodad;
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
            let mut life = CacheInfo::default();
            life.ifa_preferred = 0;
            life.ifa_valid = FOREVER;
            message.attributes.push(AddressAttribute::CacheInfo(life));
        }
    }
    message
}

fn rejected(request: &'static str, rejection: Rejection) -> KernelError {
    KernelError::Rejected { request, rejection }
}

fn failed(request: &'static str, source: TransportError) -> KernelError {
    if let TransportError::Rejected(rejection) = source {
        rejected(request, rejection)
    } else {
        KernelError::Transport { request, source }
    }
}
