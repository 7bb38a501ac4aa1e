//! What weir keeps in nftables that depends on the cluster: sets, maps and their elements, and changes of them. The rules that read
//! them are fixed, see [`super::chains`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;
use ipvs::{Family, Protocol};

use crate::store::claims::Frontend;

/// A set or map of our tables, most of them once per family.
///
/// `owned` comes first here, so that it comes first wherever sets are written in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Set {
    /// Keys: all frontends of weir, before anything else is made of them. Dropped while their address is not local.
    Owned(Family),
    /// Addresses: every address that weir made local. What IPVS leaves of their packets is refused.
    Vips(Family),
    /// Keys: masquerade every client. External frontends of policy Cluster, and cluster IPs if all their clients are masqueraded.
    MasqueradeAll(Family),
    /// Keys: masquerade who is not in a pod. Cluster IPs; empty for a family without a range of pods.
    MasqueradeOffCluster(Family),
    /// Keys: masquerade the node itself and pods of other nodes. External frontends of policy Local.
    MasqueradeNode(Family),
    /// Keys and targets: external frontends of policy Local, for clients in the cluster, to a virtual server with all endpoints (the
    /// cluster IP's, or one at an inner address).
    Short(Family),
    /// Keys and targets: frontends at another machine's address, for all clients, to the cluster IP.
    Steer(Family),
    /// Keys: no usable endpoint anywhere. New connections are refused.
    Dark(Family),
    /// Keys: policy Local, no endpoint on this node, some elsewhere. New connections are dropped.
    Drop(Family),
    /// Keys: frontends with source ranges.
    Restricted(Family),
    /// Keys and prefixes: who may connect to a restricted frontend. The prefixes of a key must not overlap.
    Allowed(Family),
    /// Prefixes that do not overlap: pods of the cluster.
    Pods(Family),
    /// Prefixes that do not overlap: pods of this node.
    LocalPods(Family),
    /// Prefixes that do not overlap: `ServiceCIDRs`. Their addresses that are not local are unallocated.
    Cidrs(Family),
    /// Pairs: this node's endpoints, each as source and destination.
    Hairpin(Family),
    /// Keys: real servers (address, protocol, target port). Their packets that connection tracking cannot place are dropped.
    Endpoints(Family),
    /// Addresses: weir's own addresses, which nobody may address from the wire.
    Inner(Family),
    /// Addresses (IPv4): VIPs that the node does not answer ARP requests for, because no other link of the node carries them.
    Arp,
}

/// What the elements of a set consist of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// [`Element::Address`].
    Address,
    /// [`Element::Prefix`].
    Prefix,
    /// [`Element::Key`].
    Key,
    /// [`Element::KeyTo`].
    KeyTo,
    /// [`Element::KeyFrom`].
    KeyFrom,
    /// [`Element::Pair`].
    Pair,
}

/// The sets of one family.
const BY_FAMILY: [fn(Family) -> Set; 17] = [
    Set::Owned,
    Set::Vips,
    Set::MasqueradeAll,
    Set::MasqueradeOffCluster,
    Set::MasqueradeNode,
    Set::Short,
    Set::Steer,
    Set::Dark,
    Set::Drop,
    Set::Restricted,
    Set::Allowed,
    Set::Pods,
    Set::LocalPods,
    Set::Cidrs,
    Set::Hairpin,
    Set::Endpoints,
    Set::Inner,
];

impl Set {
    /// Every set, those of `inet weir` first.
    pub fn all() -> impl Iterator<Item = Self> {
        [Family::Ipv4, Family::Ipv6]
            .into_iter()
            .flat_map(|family| BY_FAMILY.into_iter().map(move |set| set(family)))
            .chain([Self::Arp])
    }

    /// The family of the set's addresses.
    pub fn family(self) -> Family {
        self.parts().1
    }

    /// What its elements consist of.
    pub fn shape(self) -> Shape {
        self.parts().2
    }

    /// What `nft` calls its type, without the family, and the number behind the name.
    fn parts(self) -> (&'static str, Family, Shape) {
        match self {
            Self::Owned(family) => ("owned", family, Shape::Key),
            Self::Vips(family) => ("vips", family, Shape::Address),
            Self::MasqueradeAll(family) => ("masq_all", family, Shape::Key),
            Self::MasqueradeOffCluster(family) => ("masq_offcluster", family, Shape::Key),
            Self::MasqueradeNode(family) => ("masq_node", family, Shape::Key),
            Self::Short(family) => ("short", family, Shape::KeyTo),
            Self::Steer(family) => ("steer", family, Shape::KeyTo),
            Self::Dark(family) => ("dark", family, Shape::Key),
            Self::Drop(family) => ("drop", family, Shape::Key),
            Self::Restricted(family) => ("fw", family, Shape::Key),
            Self::Allowed(family) => ("allow", family, Shape::KeyFrom),
            Self::Pods(family) => ("pods", family, Shape::Prefix),
            Self::LocalPods(family) => ("local_pods", family, Shape::Prefix),
            Self::Cidrs(family) => ("cidrs", family, Shape::Prefix),
            Self::Hairpin(family) => ("hairpin", family, Shape::Pair),
            Self::Endpoints(family) => ("endpoints", family, Shape::Key),
            Self::Inner(family) => ("inner", family, Shape::Address),
            Self::Arp => ("vips", Family::Ipv4, Shape::Address),
        }
    }
}

/// The name in the kernel: `owned4`, `owned6`; in the ARP table only `vips`.
impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, family, _) = self.parts();
        f.write_str(name)?;
        match (self, family) {
            (Self::Arp, _) => Ok(()),
            (_, Family::Ipv4) => f.write_str("4"),
            (_, Family::Ipv6) => f.write_str("6"),
        }
    }
}

/// An address, a protocol and a port: a frontend or a real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The address.
    pub address: IpAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: NonZeroU16,
}

impl From<Frontend> for Key {
    fn from(frontend: Frontend) -> Self {
        Self {
            address: frontend.address,
            protocol: frontend.protocol,
            port: frontend.port,
        }
    }
}

/// Where packets to a key are sent instead; the protocol stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: NonZeroU16,
}

/// An element of a set or map. All addresses of an element have the set's family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// An address.
    Address(IpAddr),
    /// All addresses of a prefix; host bits are zero.
    Prefix(IpNet),
    /// A key.
    Key(Key),
    /// A key and what it is translated to.
    KeyTo(Key, Target),
    /// A key and a prefix of sources; host bits are zero.
    KeyFrom(Key, IpNet),
    /// A source and a destination.
    Pair(IpAddr, IpAddr),
}

impl Element {
    /// An address as both source and destination.
    pub fn twice(address: IpAddr) -> Self {
        Self::Pair(address, address)
    }

    /// Its shape.
    pub fn shape(self) -> Shape {
        match self {
            Self::Address(_) => Shape::Address,
            Self::Prefix(_) => Shape::Prefix,
            Self::Key(_) => Shape::Key,
            Self::KeyTo(..) => Shape::KeyTo,
            Self::KeyFrom(..) => Shape::KeyFrom,
            Self::Pair(..) => Shape::Pair,
        }
    }

    /// Whether it may be an element of this set: of its shape and its family, without host bits.
    pub fn fits(self, set: Set) -> bool {
        let family = set.family();
        let is = |address| Family::of(address) == family;
        let plain = |prefix: IpNet| is(prefix.addr()) && prefix.trunc() == prefix;
        self.shape() == set.shape()
            && match self {
                Self::Address(address) => is(address),
                Self::Prefix(prefix) => plain(prefix),
                Self::Key(key) => is(key.address),
                Self::KeyTo(key, target) => is(key.address) && is(target.address),
                Self::KeyFrom(key, source) => is(key.address) && plain(source),
                Self::Pair(source, destination) => is(source) && is(destination),
            }
    }
}

/// As in `nft`: `10.96.0.1 . tcp . 80 : 10.96.0.2 . 80`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Prefix(prefix) => write!(f, "{prefix}"),
            Self::Key(key) => write!(f, "{key}"),
            Self::KeyTo(key, target) => write!(f, "{key} : {} . {}", target.address, target.port),
            Self::KeyFrom(key, source) => write!(f, "{key} . {source}"),
            Self::Pair(source, destination) => write!(f, "{source} . {destination}"),
        }
    }
}

/// As in `nft`: `10.96.0.1 . tcp . 80`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        write!(f, "{} . {protocol} . {}", self.address, self.port)
    }
}

/// The elements of all sets; a set that is absent has none.
pub type Elements = BTreeMap<Set, BTreeSet<Element>>;

/// Elements to add and to remove, applied together or not at all. To change the target of a key, remove the old element and add the
/// new one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ElementChanges {
    /// Elements that are not there yet.
    pub add: Elements,
    /// Elements that are there.
    pub remove: Elements,
}

impl ElementChanges {
    /// What turns `from` into `to`.
    pub fn between(from: &Elements, to: &Elements) -> Self {
        Self {
            add: without(to, from),
            remove: without(from, to),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.add
            .values()
            .chain(self.remove.values())
            .all(BTreeSet::is_empty)
    }
}

fn without(elements: &Elements, others: &Elements) -> Elements {
    let none = BTreeSet::new();
    elements
        .iter()
        .map(|(set, elements)| (*set, elements - others.get(set).unwrap_or(&none)))
        .filter(|(_, elements)| !elements.is_empty())
        .collect()
}

/// The fewest prefixes that cover the same addresses: without host bits, none within another, neighbours joined.
///
/// The kernel refuses an interval that overlaps another of its set.
pub fn disjoint(prefixes: impl IntoIterator<Item = IpNet>) -> BTreeSet<IpNet> {
    let prefixes: Vec<IpNet> = prefixes.into_iter().map(|prefix| prefix.trunc()).collect();
    IpNet::aggregate(&prefixes).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> Key {
        Key {
            address: address.parse().unwrap(),
            protocol: Protocol::Tcp,
            port: NonZeroU16::new(80).unwrap(),
        }
    }

    #[test]
    fn every_set_has_its_own_name_in_its_table() {
        let names: BTreeSet<String> = Set::all()
            .filter(|set| *set != Set::Arp)
            .map(|set| set.to_string())
            .collect();
        assert_eq!(names.len(), 34);
        assert_eq!(Set::all().count(), 35);
        assert_eq!(Set::all().min(), Some(Set::Owned(Family::Ipv4)));
    }

    #[test]
    fn elements_fit_only_sets_of_their_shape_and_family() {
        let element = Element::Key(key("192.0.2.1"));
        assert!(element.fits(Set::Dark(Family::Ipv4)));
        assert!(!element.fits(Set::Dark(Family::Ipv6)));
        assert!(!element.fits(Set::Vips(Family::Ipv4)));
        let with_host_bits = Element::Prefix("192.0.2.1/24".parse().unwrap());
        assert!(!with_host_bits.fits(Set::Pods(Family::Ipv4)));
    }

    #[test]
    fn a_changed_target_is_removed_and_added() {
        let target = |port| Target {
            address: "192.0.2.2".parse().unwrap(),
            port: NonZeroU16::new(port).unwrap(),
        };
        let short = |port| Element::KeyTo(key("192.0.2.1"), target(port));
        let set = Set::Short(Family::Ipv4);
        let from = Elements::from([(set, BTreeSet::from([short(1), short(2)]))]);
        let to = Elements::from([(set, BTreeSet::from([short(2), short(3)]))]);
        let changes = ElementChanges::between(&from, &to);
        assert_eq!(
            changes.add,
            Elements::from([(set, BTreeSet::from([short(3)]))])
        );
        assert_eq!(
            changes.remove,
            Elements::from([(set, BTreeSet::from([short(1)]))])
        );
        assert!(ElementChanges::between(&to, &to).is_empty());
    }

    #[test]
    fn prefixes_within_others_vanish_and_neighbours_join() {
        let prefixes = [
            "10.0.0.0/8",
            "10.1.0.7/16",
            "192.0.2.0/25",
            "192.0.2.128/25",
            "2001:db8::/32",
        ];
        let prefixes = disjoint(prefixes.map(|prefix| prefix.parse().unwrap()));
        let text: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"]);
    }
}
