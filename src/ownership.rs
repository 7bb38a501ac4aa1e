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
    /// Keys written down before weir made them (`owned.json` in the run directory).
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
