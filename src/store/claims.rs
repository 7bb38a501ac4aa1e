//! Which Service claims which frontend and VIP, and which keys a change of claims touches.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

use ipvs::{
    Family, Protocol, RealServerConfig, RealServerKey, VirtualServerConfig, VirtualServerKey,
};

use crate::model::{Created, ObjectName, Problems};

/// An address, port and protocol that a Service answers on. Sorted by family, protocol, address, port, as virtual servers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frontend {
    /// The address clients connect to.
    pub address: IpAddr,
    /// The port clients connect to.
    pub port: NonZeroU16,
    /// The transport protocol.
    pub protocol: Protocol,
}

impl Frontend {
    /// The frontend's family.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }
}

impl From<Frontend> for VirtualServerKey {
    fn from(frontend: Frontend) -> Self {
        Self::Address {
            address: frontend.address,
            port: frontend.port.get(),
            protocol: frontend.protocol,
        }
    }
}

impl Ord for Frontend {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        VirtualServerKey::from(*self).cmp(&VirtualServerKey::from(*other))
    }
}

impl PartialOrd for Frontend {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// `TCP 192.0.2.1:80`.
impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}",
            self.protocol,
            SocketAddr::new(self.address, self.port.get())
        )
    }
}

/// What one Service asks for, computed from the cluster alone. Several Services may claim one frontend or VIP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims {
    /// When the Service was created: the older claim wins, one without a date is the youngest.
    pub created: Option<Created>,
    /// What it wants on each of its frontends.
    pub frontends: BTreeMap<Frontend, FrontendClaim>,
    /// Addresses to be made local.
    pub vips: BTreeSet<IpAddr>,
    /// What could not be honoured.
    pub problems: Problems,
}

/// What one Service wants on one frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontendClaim {
    /// The Service port's name; empty if it has none.
    pub port_name: Arc<str>,
    /// How connections are to be spread.
    pub config: VirtualServerConfig,
    /// Where they may go.
    pub serving: Serving,
    /// Addresses of real servers that are on this node: a connection of one to itself must be masqueraded.
    pub local: BTreeSet<IpAddr>,
    /// Whose connections are masqueraded.
    pub masquerade: Masquerade,
}

/// Which clients of a frontend are masqueraded, besides those that reach themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Masquerade {
    /// Those that are not in a pod.
    OffCluster,
    /// None: there is no telling who is in a pod.
    Nobody,
}

/// What a frontend can offer to a new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serving {
    /// At least one real server.
    RealServers(BTreeMap<RealServerKey, RealServerConfig>),
    /// No endpoint anywhere can take it: to be refused.
    NoEndpoints,
    /// Its policy is Local, and only other nodes have endpoints: to be dropped, so that the client tries again.
    NoLocalEndpoints,
}

/// All claims, by Service and by what they claim.
#[derive(Debug, Default)]
pub struct ClaimIndex {
    services: BTreeMap<ObjectName, Claims>,
    frontends: BTreeMap<Frontend, BTreeSet<ObjectName>>,
    vips: BTreeMap<IpAddr, BTreeSet<ObjectName>>,
}

/// Keys whose desired state may have changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TouchedKeys {
    /// Frontends claimed before or after the change.
    pub frontends: BTreeSet<Frontend>,
    /// VIPs claimed before or after the change.
    pub vips: BTreeSet<IpAddr>,
}

impl ClaimIndex {
    /// Sets a Service's claims (`None` if it has none any more) and adds what that touches.
    pub fn set(&mut self, service: &ObjectName, claims: Option<Claims>, touched: &mut TouchedKeys) {
        if let Some(before) = self.services.remove(service) {
            for frontend in before.frontends.into_keys() {
                remove(&mut self.frontends, &frontend, service);
                touched.frontends.insert(frontend);
            }
            for vip in before.vips {
                remove(&mut self.vips, &vip, service);
                touched.vips.insert(vip);
            }
        }
        let Some(claims) = claims else { return };
        for frontend in claims.frontends.keys() {
            self.frontends
                .entry(*frontend)
                .or_default()
                .insert(service.clone());
            touched.frontends.insert(*frontend);
        }
        for vip in &claims.vips {
            self.vips.entry(*vip).or_default().insert(service.clone());
            touched.vips.insert(*vip);
        }
        self.services.insert(service.clone(), claims);
    }

    /// Who claims a frontend, and with what.
    pub fn claimants(
        &self,
        frontend: &Frontend,
    ) -> impl Iterator<Item = (&ObjectName, &Claims, &FrontendClaim)> {
        let frontend = *frontend;
        self.frontends
            .get(&frontend)
            .into_iter()
            .flatten()
            .filter_map(move |service| {
                let claims = self.services.get(service)?;
                Some((service, claims, claims.frontends.get(&frontend)?))
            })
    }

    /// Whether any Service wants this address local.
    pub fn is_claimed(&self, vip: &IpAddr) -> bool {
        self.vips.contains_key(vip)
    }

    /// Every frontend that anybody claims.
    pub fn frontends(&self) -> impl Iterator<Item = &Frontend> {
        self.frontends.keys()
    }

    /// Every address that anybody wants local.
    pub fn vips(&self) -> impl Iterator<Item = &IpAddr> {
        self.vips.keys()
    }

    /// What resolving the Services gave rise to.
    pub fn problems(&self) -> impl Iterator<Item = &Problems> {
        self.services.values().map(|claims| &claims.problems)
    }
}

fn remove<K: Ord>(index: &mut BTreeMap<K, BTreeSet<ObjectName>>, key: &K, service: &ObjectName) {
    if let Some(services) = index.get_mut(key) {
        services.remove(service);
        if services.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipvs::Scheduler;

    fn frontend(text: &str, protocol: Protocol) -> Frontend {
        let address: SocketAddr = text.parse().unwrap();
        Frontend {
            address: address.ip(),
            port: address.port().try_into().unwrap(),
            protocol,
        }
    }

    fn claims(frontends: &[Frontend]) -> Claims {
        let claim = FrontendClaim {
            local: BTreeSet::new(),
            masquerade: Masquerade::Nobody,
            port_name: "".into(),
            config: VirtualServerConfig::new(Scheduler::RoundRobin),
            serving: Serving::NoEndpoints,
        };
        Claims {
            frontends: frontends.iter().map(|on| (*on, claim.clone())).collect(),
            vips: frontends.iter().map(|on| on.address).collect(),
            ..Claims::default()
        }
    }

    #[test]
    fn frontends_sort_as_virtual_servers_do() {
        let sorted = [
            frontend("192.0.2.9:80", Protocol::Tcp),
            frontend("192.0.2.10:53", Protocol::Tcp),
            frontend("192.0.2.10:80", Protocol::Tcp),
            frontend("192.0.2.1:53", Protocol::Udp),
            frontend("[2001:db8::1]:53", Protocol::Tcp),
        ];
        let mut shuffled = sorted;
        shuffled.reverse();
        shuffled.sort();
        assert_eq!(shuffled, sorted);
    }

    #[test]
    fn what_was_claimed_before_and_what_is_claimed_now_are_touched() {
        let before = frontend("192.0.2.10:80", Protocol::Tcp);
        let after = frontend("192.0.2.11:80", Protocol::Tcp);
        let service = ObjectName::new("default", "a");
        let mut index = ClaimIndex::default();
        index.set(
            &service,
            Some(claims(&[before])),
            &mut TouchedKeys::default(),
        );
        let mut touched = TouchedKeys::default();
        index.set(&service, Some(claims(&[after])), &mut touched);
        assert_eq!(touched.frontends, [before, after].into());
        assert_eq!(touched.vips, [before.address, after.address].into());
        assert_eq!(index.frontends().collect::<Vec<_>>(), [&after]);
        assert_eq!(index.vips().collect::<Vec<_>>(), [&after.address]);
        assert!(!index.is_claimed(&before.address));
    }

    #[test]
    fn claimants_of_one_frontend_are_told_apart() {
        let on = frontend("192.0.2.10:80", Protocol::Tcp);
        let (a, b) = (ObjectName::new("x", "a"), ObjectName::new("x", "b"));
        let mut index = ClaimIndex::default();
        let mut touched = TouchedKeys::default();
        index.set(&a, Some(claims(&[on])), &mut touched);
        index.set(&b, Some(claims(&[on])), &mut touched);
        let names = |index: &ClaimIndex| -> Vec<_> {
            let claimants = index.claimants(&on);
            claimants.map(|(name, _, _)| name.clone()).collect()
        };
        assert_eq!(names(&index), [a.clone(), b.clone()]);
        index.set(&a, None, &mut touched);
        assert_eq!(names(&index), [b]);
        assert!(index.is_claimed(&on.address));
    }
}
