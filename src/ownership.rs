//! Is this virtual server ours? Pure.
//!
//! IPVS has no owner tag. A virtual server is *owned* if weir recorded its key on this boot and in this network namespace before
//! it made it, if its address is a VIP on our own device, or if it is one of the inert servers. All others are *foreign*: shown,
//! never changed. What stands under a key that weir wants is adopted in place, and from then on recorded.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipvs::VirtualServerKey;

use crate::arbitrate;
use crate::dataplane::Observed;

/// What tells owned from foreign.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ownership {
    /// Keys written down before weir made them (`owned.log` in the run directory).
    pub recorded: BTreeSet<VirtualServerKey>,
}

impl Ownership {
    /// Whether weir may change or delete this virtual server.
    pub fn owns(&self, key: &VirtualServerKey, observed: &Observed) -> bool {
        self.recorded.contains(key)
            || is_on_device(key, observed)
            || arbitrate::inert().any(|inert| inert == *key)
    }
}

fn is_on_device(key: &VirtualServerKey, observed: &Observed) -> bool {
    match key {
        VirtualServerKey::Address { address, .. } => is_bound(*address, observed),
        VirtualServerKey::Mark { .. } => false,
    }
}

fn is_bound(address: IpAddr, observed: &Observed) -> bool {
    observed.vips.contains_key(&address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::VipBinding;
    use ipvs::{Family, Protocol};
    use std::num::NonZeroU32;

    fn key(address: &str, port: u16) -> VirtualServerKey {
        VirtualServerKey::Address {
            address: address.parse().unwrap(),
            port,
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn a_key_is_ours_by_the_record_by_its_vip_or_by_being_inert() {
        let observed = Observed {
            vips: [
                ("192.0.2.11".parse().unwrap(), VipBinding::AsWanted),
                ("2001:db8::11".parse().unwrap(), VipBinding::Other),
            ]
            .into(),
            ..Observed::default()
        };
        let mark = |mark| VirtualServerKey::Mark {
            mark: NonZeroU32::new(mark).unwrap(),
            family: Family::Ipv4,
        };
        let ownership = Ownership {
            recorded: [key("192.0.2.10", 80), mark(7)].into(),
        };
        for (subject, ours) in [
            (key("192.0.2.10", 80), true),
            (key("192.0.2.10", 81), false),
            (key("192.0.2.11", 80), true),
            (key("192.0.2.11", 81), true),
            (key("2001:db8::11", 80), true),
            (key("192.0.2.12", 80), false),
            (mark(7), true),
            (mark(8), false),
            (key("192.0.2.1", 1), true),
            (key("2001:db8::1", 1), true),
            (key("192.0.2.1", 2), false),
        ] {
            assert_eq!(ownership.owns(&subject, &observed), ours, "{subject}");
        }
    }
}
