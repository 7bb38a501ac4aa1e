//! Which elements of the packet sets are desired, and who wants them. Pure.
//!
//! Several frontends may want one element (Services share endpoints), so each says what it wants and an element is desired while
//! anybody wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::nft::model::Elements;
use crate::resolve::packet_rules::Member;
use crate::store::claims::Frontend;

/// Who wants elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wisher {
    /// weir's own addresses.
    Inner,
    /// The node: ranges of pods.
    Node,
    /// A frontend that a Service claims.
    Frontend(Frontend),
    /// An address that is local.
    Vip(IpAddr),
}

/// The desired elements, by who wants them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wishes {
    by_wisher: BTreeMap<Wisher, BTreeSet<Member>>,
    wishers: BTreeMap<Member, usize>,
}

impl Wishes {
    /// Sets what one wants; tells the elements that are newly desired, or no longer.
    pub fn set(&mut self, wisher: Wisher, members: BTreeSet<Member>) -> BTreeSet<Member> {
        let before = self.by_wisher.remove(&wisher).unwrap_or_default();
        let mut changed = BTreeSet::new();
        for member in members.difference(&before) {
            let wishers = self.wishers.entry(*member).or_default();
            *wishers += 1;
            if *wishers == 1 {
                changed.insert(*member);
            }
        }
        for member in before.difference(&members) {
            if let Some(wishers) = self.wishers.get_mut(member) {
                *wishers -= 1;
                if *wishers == 0 {
                    self.wishers.remove(member);
                    changed.insert(*member);
                }
            }
        }
        if !members.is_empty() {
            self.by_wisher.insert(wisher, members);
        }
        changed
    }

    /// Whether anybody wants it.
    pub fn contains(&self, member: &Member) -> bool {
        self.wishers.contains_key(member)
    }

    /// All desired elements.
    pub fn elements(&self) -> Elements {
        let mut elements = Elements::new();
        for (set, element) in self.wishers.keys() {
            elements.entry(*set).or_default().insert(*element);
        }
        elements
    }
}

#[cfg(test)]
mod tests {
    use ipvs::Family;

    use super::*;
    use crate::nft::model::{Element, Set};

    fn member(address: &str) -> Member {
        (
            Set::Vips(Family::Ipv4),
            Element::Address(address.parse().unwrap()),
        )
    }

    fn wisher(address: &str) -> Wisher {
        Wisher::Vip(address.parse().unwrap())
    }

    #[test]
    fn an_element_is_desired_while_anybody_wants_it() {
        let (one, two) = (wisher("192.0.2.1"), wisher("192.0.2.2"));
        let (a, b) = (member("198.51.100.1"), member("198.51.100.2"));
        let mut wishes = Wishes::default();
        assert_eq!(wishes.set(one, [a, b].into()), [a, b].into());
        assert_eq!(wishes.set(two, [a].into()), BTreeSet::new());
        assert_eq!(wishes.set(one, [b].into()), BTreeSet::new());
        assert!(wishes.contains(&a));
        assert_eq!(wishes.set(two, BTreeSet::new()), [a].into());
        assert!(!wishes.contains(&a));
        assert_eq!(wishes.set(one, BTreeSet::new()), [b].into());
        assert_eq!(wishes, Wishes::default());
    }
}
