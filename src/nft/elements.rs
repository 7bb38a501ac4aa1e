//! Elements of sets as bytes, both ways.
//!
//! Fields are joined in network order, each padded to four bytes. A set of prefixes holds bounds: an element where an interval begins and
//! one flagged `NFT_SET_ELEM_INTERVAL_END` behind its last address, or none if that is the last there is. A set of keys and prefixes
//! holds both ends of a range in each element, the last included.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;
use ipvs::{Family, Protocol};

use super::expression::data;
use super::model::{Element, Key, Set, Shape, Target};
use super::wire::{Attribute, Attributes, LARGEST_LIST, find};

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_SET_ELEM_KEY_END: u16 = 10;
const NFTA_DATA_VALUE: u16 = 1;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;

/// Lists of elements (`NFTA_SET_ELEM_LIST_ELEMENTS`), as few as their size allows.
pub(super) fn lists<'a>(elements: impl Iterator<Item = &'a Element>) -> Vec<Attributes> {
    let mut lists = Vec::new();
    let mut list = Attributes::new();
    for element in elements {
        // The bounds of an interval stay together.
        for bound in encode(*element) {
            list.put_nested(NFTA_LIST_ELEM, &bound);
        }
        if list.len() > LARGEST_LIST {
            lists.push(std::mem::take(&mut list));
        }
    }
    if !list.is_empty() {
        lists.push(list);
    }
    lists
}

/// The kernel's elements for one of ours: two for an interval, else one.
fn encode(element: Element) -> Vec<Attributes> {
    match element {
        Element::Address(address) => vec![key(&joined(&[address], None))],
        Element::Pair(source, destination) => vec![key(&joined(&[source, destination], None))],
        Element::Key(of) => vec![key(&key_bytes(of))],
        Element::KeyTo(of, target) => {
            let target = joined(&[target.address], Some(target.port));
            vec![key(&key_bytes(of)).nested(NFTA_SET_ELEM_DATA, &data(&target))]
        }
        Element::KeyFrom(of, source) => {
            let bound = |address| [key_bytes(of), joined(&[address], None)].concat();
            let last = data(&bound(last_of(source)));
            vec![key(&bound(source.network())).nested(NFTA_SET_ELEM_KEY_END, &last)]
        }
        Element::Prefix(prefix) => {
            let mut bounds = vec![key(&joined(&[prefix.network()], None))];
            bounds.extend(after(last_of(prefix)).map(|behind| {
                key(&joined(&[behind], None)).number(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END)
            }));
            bounds
        }
    }
}

fn key(bytes: &[u8]) -> Attributes {
    Attributes::new().nested(NFTA_SET_ELEM_KEY, &data(bytes))
}

fn key_bytes(key: Key) -> Vec<u8> {
    let mut bytes = joined(&[key.address], None);
    bytes.extend([key.protocol.number(), 0, 0, 0]);
    bytes.extend(padded(key.port));
    bytes
}

fn joined(addresses: &[IpAddr], port: Option<NonZeroU16>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in addresses {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend(port.map(padded).into_iter().flatten());
    bytes
}

fn padded(port: NonZeroU16) -> [u8; 4] {
    let [high, low] = port.get().to_be_bytes();
    [high, low, 0, 0]
}

/// The last address of a prefix; of IPv4, its broadcast address.
fn last_of(prefix: IpNet) -> IpAddr {
    prefix.broadcast()
}

/// The next address, if there is one.
fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(IpAddr::V4(address.to_bits().checked_add(1)?.into())),
        IpAddr::V6(address) => Some(IpAddr::V6(address.to_bits().checked_add(1)?.into())),
    }
}

fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(IpAddr::V4(address.to_bits().checked_sub(1)?.into())),
        IpAddr::V6(address) => Some(IpAddr::V6(address.to_bits().checked_sub(1)?.into())),
    }
}

/// What the kernel said of the elements of a set.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decoded {
    /// Those that could be elements of ours.
    pub(super) elements: BTreeSet<Element>,
    /// How many could not: not written by us.
    pub(super) strange: usize,
    /// How many were said twice, which happens while the kernel reorganises a set.
    pub(super) repeated: usize,
}

/// The elements in lists of the kernel.
pub(super) fn decode<'a>(set: Set, lists: impl Iterator<Item = Attribute<'a>>) -> Decoded {
    let mut decoded = Decoded::default();
    let mut bounds = BTreeSet::new();
    for element in lists.flat_map(Attribute::attributes) {
        let new = match set.shape() {
            Shape::Prefix => bound(element, set.family()).map(|bound| bounds.insert(bound)),
            Shape::Address | Shape::Key | Shape::KeyTo | Shape::KeyFrom | Shape::Pair => {
                single(element, set).map(|element| decoded.elements.insert(element))
            }
        };
        match new {
            Some(true) => {}
            Some(false) => decoded.repeated += 1,
            None => decoded.strange += 1,
        }
    }
    join(bounds, set.family(), &mut decoded);
    decoded
}

/// A bound of an interval. At the same address one ends before the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Bound {
    at: IpAddr,
    edge: Edge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    End,
    Begin,
}

fn bound(element: Attribute<'_>, family: Family) -> Option<Bound> {
    let mut bytes = value(element, NFTA_SET_ELEM_KEY)?;
    let at = take_address(&mut bytes, family)?;
    let flags =
        find(element.attributes(), NFTA_SET_ELEM_FLAGS).map_or(Some(0), Attribute::number)?;
    let edge = match flags {
        0 => Edge::Begin,
        NFT_SET_ELEM_INTERVAL_END => Edge::End,
        _ => return None,
    };
    bytes.is_empty().then_some(Bound { at, edge })
}

/// Makes prefixes of bounds. `nft` puts an end without a beginning at address 0.
fn join(bounds: BTreeSet<Bound>, family: Family, decoded: &mut Decoded) {
    let mut begun = None;
    for bound in bounds {
        match (bound.edge, begun.take()) {
            (Edge::Begin, None) => begun = Some(bound.at),
            (Edge::Begin, Some(earlier)) => {
                decoded.take(prefix(earlier, before(bound.at)));
                begun = Some(bound.at);
            }
            (Edge::End, Some(first)) => decoded.take(prefix(first, before(bound.at))),
            (Edge::End, None) if bound.at.is_unspecified() => {}
            (Edge::End, None) => decoded.strange += 1,
        }
    }
    if let Some(first) = begun {
        let last = match family {
            Family::Ipv4 => IpAddr::V4(u32::MAX.into()),
            Family::Ipv6 => IpAddr::V6(u128::MAX.into()),
        };
        decoded.take(prefix(first, Some(last)));
    }
}

impl Decoded {
    fn take(&mut self, prefix: Option<IpNet>) {
        match prefix {
            Some(prefix) => {
                self.elements.insert(Element::Prefix(prefix));
            }
            None => self.strange += 1,
        }
    }
}

/// The prefix from the first to the last address, if they are one.
fn prefix(first: IpAddr, last: Option<IpAddr>) -> Option<IpNet> {
    let (bits, width, same) = match (first, last?) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let different = first.to_bits() ^ last.to_bits();
            (u128::from(different), 32, different.leading_zeros())
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let different = first.to_bits() ^ last.to_bits();
            (different, 128, different.leading_zeros())
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let prefix = IpNet::new(first, u8::try_from(same).ok()?).ok()?;
    let whole = bits.checked_add(1).is_none_or(u128::is_power_of_two);
    (same <= width && whole && prefix.network() == first).then_some(prefix)
}

fn single(element: Attribute<'_>, set: Set) -> Option<Element> {
    let family = set.family();
    let mut bytes = value(element, NFTA_SET_ELEM_KEY)?;
    let found = match set.shape() {
        Shape::Address => Element::Address(take_address(&mut bytes, family)?),
        Shape::Pair => {
            let source = take_address(&mut bytes, family)?;
            Element::Pair(source, take_address(&mut bytes, family)?)
        }
        Shape::Key => Element::Key(take_key(&mut bytes, family)?),
        Shape::KeyTo => {
            let key = take_key(&mut bytes, family)?;
            let mut target = value(element, NFTA_SET_ELEM_DATA)?;
            let address = take_address(&mut target, family)?;
            let port = take_port(&mut target)?;
            Element::KeyTo(key, Target { address, port })
        }
        Shape::KeyFrom => {
            let key = take_key(&mut bytes, family)?;
            let first = take_address(&mut bytes, family)?;
            let last = match value(element, NFTA_SET_ELEM_KEY_END) {
                None => first,
                Some(mut bytes) => {
                    let same = take_key(&mut bytes, family)? == key;
                    take_address(&mut bytes, family).filter(|_| same)?
                }
            };
            Element::KeyFrom(key, prefix(first, Some(last))?)
        }
        Shape::Prefix => return None,
    };
    bytes.is_empty().then_some(found)
}

fn value(element: Attribute<'_>, kind: u16) -> Option<&[u8]> {
    let key = find(element.attributes(), kind)?;
    Some(find(key.attributes(), NFTA_DATA_VALUE)?.value)
}

fn take_key(bytes: &mut &[u8], family: Family) -> Option<Key> {
    let address = take_address(bytes, family)?;
    let [protocol, _, _, _] = take::<4>(bytes)?;
    Some(Key {
        address,
        protocol: Protocol::from_number(protocol.into())?,
        port: take_port(bytes)?,
    })
}

fn take_port(bytes: &mut &[u8]) -> Option<NonZeroU16> {
    let [high, low, _, _] = take::<4>(bytes)?;
    NonZeroU16::new(u16::from_be_bytes([high, low]))
}

fn take_address(bytes: &mut &[u8], family: Family) -> Option<IpAddr> {
    match family {
        Family::Ipv4 => take::<4>(bytes).map(IpAddr::from),
        Family::Ipv6 => take::<16>(bytes).map(IpAddr::from),
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::super::wire::attributes;
    use super::*;

    fn again(set: Set, elements: &BTreeSet<Element>) -> Decoded {
        let lists = lists(elements.iter());
        let mut whole = Attributes::new();
        for list in &lists {
            whole.put_nested(3, list);
        }
        decode(set, attributes(whole.as_bytes()))
    }

    fn prefixes(texts: &[&str]) -> BTreeSet<Element> {
        let prefix = |text: &&str| Element::Prefix(text.parse().unwrap());
        texts.iter().map(prefix).collect()
    }

    #[test]
    fn prefixes_are_read_as_written_even_at_both_ends_and_side_by_side() {
        for (set, texts) in [
            (Set::Pods(Family::Ipv4), &["0.0.0.0/0"][..]),
            (Set::Pods(Family::Ipv6), &["::/0"]),
            (
                Set::Pods(Family::Ipv4),
                &[
                    "0.0.0.0/8",
                    "10.0.0.0/25",
                    "10.0.0.128/25",
                    "192.0.2.1/32",
                    "255.0.0.0/8",
                ],
            ),
            (
                Set::Cidrs(Family::Ipv6),
                &["::/64", "2001:db8::/32", "2001:db9::1/128", "ff00::/8"],
            ),
        ] {
            let written = prefixes(texts);
            let read = again(set, &written);
            assert_eq!(read.elements, written);
            assert_eq!(read.strange, 0);
        }
    }

    #[test]
    fn an_interval_that_is_no_prefix_is_strange() {
        let bound = |at: &str, edge| Bound {
            at: at.parse().unwrap(),
            edge,
        };
        let mut decoded = Decoded::default();
        let bounds = [
            bound("0.0.0.0", Edge::End),
            bound("10.0.0.1", Edge::Begin),
            bound("10.0.0.4", Edge::End),
            bound("10.0.0.8", Edge::Begin),
            bound("10.0.0.16", Edge::End),
            bound("10.0.0.20", Edge::End),
        ];
        join(bounds.into(), Family::Ipv4, &mut decoded);
        assert_eq!(decoded.elements, prefixes(&["10.0.0.8/29"]));
        assert_eq!(decoded.strange, 2);
    }

    #[test]
    fn long_lists_are_split_below_the_limit_of_an_attribute() {
        let elements: Vec<Element> = (0..10_000_u128)
            .map(|last| Element::twice(IpAddr::from(last.to_be_bytes())))
            .collect();
        let lists = lists(elements.iter());
        assert!(lists.len() > 1);
        assert!(lists.iter().all(|list| list.len() < 65_000));
    }
}
