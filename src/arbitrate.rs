//! Claims on a key, turned into what should be there. Pure.
//!
//! Of several Services that claim one frontend the older wins, then the lower namespace and name, so that every node decides
//! alike; the others get a finding, and the next one takes over when the winner goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipvs::{
    Protocol, RealServerConfig, RealServerKey, Scheduler, VirtualServerConfig, VirtualServerKey,
};

pub mod elements;

use elements::{Wisher, Wishes};

use crate::model::{Finding, Kind, ObjectName, Subject};
use crate::resolve::packet_rules::{self, Member};
use crate::store::claims::{ClaimIndex, Claims, Frontend, FrontendClaim, Serving, TouchedKeys};

/// What should be in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Virtual servers, the inert ones included.
    pub virtual_servers: BTreeMap<VirtualServerKey, DesiredVirtualServer>,
    /// Addresses to be local.
    pub vips: BTreeSet<IpAddr>,
    /// Frontends that lost to an older Service, by the loser.
    pub conflicts: BTreeMap<Frontend, Vec<Finding>>,
    /// Elements of the packet sets.
    pub wishes: Wishes,
}

/// A virtual server as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredVirtualServer {
    /// How connections are spread.
    pub config: VirtualServerConfig,
    /// Where they go.
    pub real_servers: BTreeMap<RealServerKey, RealServerConfig>,
    /// The Service it is for; `None` for weir's own inert servers.
    pub origin: Option<Origin>,
}

/// The Service port that a virtual server stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The Service.
    pub service: ObjectName,
    /// The port's name; empty if it has none.
    pub port_name: Arc<str>,
}

/// Virtual servers of our own without real servers, one a family, that keep the kernel's IPVS hooks registered: Linux takes them
/// away with the last virtual server of a family, and established connections die of that (`ip_vs_unregister_hooks`, seen on
/// 6.1 and 6.12). The addresses are from the documentation ranges (RFC 5737, RFC 3849) and never made local.
pub fn inert() -> impl Iterator<Item = VirtualServerKey> {
    packet_rules::inner().map(|address| VirtualServerKey::Address {
        address,
        port: 1,
        protocol: Protocol::Tcp,
    })
}

impl Desired {
    /// What is desired when nothing is claimed: the inert servers, and that nobody may address them from outside.
    pub fn new() -> Self {
        let mut desired = Self {
            virtual_servers: inert().map(|key| (key, inert_virtual_server())).collect(),
            ..Self::default()
        };
        desired.wish(Wisher::Inner, packet_rules::of_inner());
        desired
    }

    /// Decides anew for the keys that a change touched.
    pub fn arbitrate(&mut self, claims: &ClaimIndex, touched: &TouchedKeys) {
        for frontend in &touched.frontends {
            self.arbitrate_frontend(claims, frontend);
        }
        for vip in &touched.vips {
            if claims.is_claimed(vip) {
                self.vips.insert(*vip);
                self.wish(Wisher::Vip(*vip), packet_rules::of_vip(*vip));
            } else {
                self.vips.remove(vip);
                self.wish(Wisher::Vip(*vip), BTreeSet::new());
            }
        }
    }

    fn arbitrate_frontend(&mut self, claims: &ClaimIndex, frontend: &Frontend) {
        let mut claimants: Vec<_> = claims.claimants(frontend).collect();
        claimants.sort_by_key(|(name, claims, _)| seniority(name, claims));
        self.conflicts.remove(frontend);
        let key = VirtualServerKey::from(*frontend);
        let mut claimants = claimants.into_iter();
        let Some((winner, _, claim)) = claimants.next() else {
            self.set(key, None);
            self.wish(Wisher::Frontend(*frontend), BTreeSet::new());
            return;
        };
        self.wish(
            Wisher::Frontend(*frontend),
            packet_rules::of_frontend(*frontend, claim),
        );
        self.set(key, desired_virtual_server(winner, claim));
        let lost: Vec<_> = claimants
            .map(|(loser, _, _)| conflict(frontend, winner, loser))
            .collect();
        if !lost.is_empty() {
            self.conflicts.insert(*frontend, lost);
        }
    }

    /// Sets the elements that one wants.
    pub fn wish(&mut self, wisher: Wisher, members: BTreeSet<Member>) {
        self.wishes.set(wisher, members);
    }

    fn set(&mut self, key: VirtualServerKey, server: Option<DesiredVirtualServer>) {
        let server =
            server.or_else(|| inert().any(|inert| inert == key).then(inert_virtual_server));
        match server {
            Some(server) => self.virtual_servers.insert(key, server),
            None => self.virtual_servers.remove(&key),
        };
    }
}

fn inert_virtual_server() -> DesiredVirtualServer {
    DesiredVirtualServer {
        config: VirtualServerConfig::new(Scheduler::RoundRobin),
        real_servers: BTreeMap::new(),
        origin: None,
    }
}

/// Sorts the older claim first. A Service without a creation time (a manifest that was never applied) is younger than any other.
fn seniority<'a>(
    name: &'a ObjectName,
    claims: &Claims,
) -> (bool, Option<crate::model::Created>, &'a ObjectName) {
    (claims.created.is_none(), claims.created, name)
}

fn desired_virtual_server(
    service: &ObjectName,
    claim: &FrontendClaim,
) -> Option<DesiredVirtualServer> {
    match &claim.serving {
        Serving::RealServers(real_servers) => Some(DesiredVirtualServer {
            config: claim.config.clone(),
            real_servers: real_servers.clone(),
            origin: Some(Origin {
                service: service.clone(),
                port_name: Arc::clone(&claim.port_name),
            }),
        }),
        // Without a real server there is no virtual server: IPVS would answer slowly, or not at all (IPv6: after 1 s).
        Serving::NoEndpoints | Serving::NoLocalEndpoints => None,
    }
}

fn conflict(frontend: &Frontend, winner: &ObjectName, loser: &ObjectName) -> Finding {
    Finding {
        subject: Subject::Object(Kind::Service, loser.clone()),
        field: String::new(),
        problem: format!(
            "{frontend} is also claimed by Service {winner}, which is older or comes first by name"
        ),
        consequence: format!(
            "Service {winner} serves it; this Service takes over when that one goes"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Created;
    use crate::store::claims::Masquerade;
    use ipvs::Weight;

    fn frontend(address: &str, port: u16) -> Frontend {
        Frontend {
            address: address.parse().unwrap(),
            port: port.try_into().unwrap(),
            protocol: Protocol::Tcp,
        }
    }

    fn real_servers(address: &str) -> BTreeMap<RealServerKey, RealServerConfig> {
        let server = RealServerKey {
            address: address.parse().unwrap(),
            port: 8080,
        };
        [(server, RealServerConfig::masquerade(Weight::ONE))].into()
    }

    fn claims(created: Option<i64>, on: Frontend, serving: Serving) -> Claims {
        let claim = FrontendClaim {
            local: BTreeSet::new(),
            masquerade: Masquerade::Nobody,
            port_name: "http".into(),
            config: VirtualServerConfig::new(Scheduler::RoundRobin),
            serving,
        };
        Claims {
            created: created.map(Created),
            frontends: [(on, claim)].into(),
            vips: [on.address].into(),
            ..Claims::default()
        }
    }

    struct World {
        index: ClaimIndex,
        desired: Desired,
    }

    impl World {
        fn new() -> Self {
            Self {
                index: ClaimIndex::default(),
                desired: Desired::new(),
            }
        }

        fn set(&mut self, service: &str, claims: Option<Claims>) {
            let mut touched = TouchedKeys::default();
            let service = ObjectName::new("default", service);
            self.index.set(&service, claims, &mut touched);
            self.desired.arbitrate(&self.index, &touched);
        }

        fn serves(&self, frontend: Frontend) -> Option<String> {
            let server = self.desired.virtual_servers.get(&frontend.into())?;
            let origin = server.origin.as_ref()?;
            Some(origin.service.name.to_string())
        }

        fn losers(&self, frontend: Frontend) -> Vec<String> {
            let lost = self.desired.conflicts.get(&frontend);
            lost.into_iter()
                .flatten()
                .map(|finding| finding.subject.to_string())
                .collect()
        }
    }

    fn serving(created: Option<i64>, on: Frontend) -> Claims {
        claims(
            created,
            on,
            Serving::RealServers(real_servers("198.51.100.1")),
        )
    }

    #[test]
    fn the_older_service_wins_whoever_came_first() {
        let on = frontend("192.0.2.10", 80);
        for order in [["a-young", "b-old"], ["b-old", "a-young"]] {
            let mut world = World::new();
            for name in order {
                world.set(
                    name,
                    Some(serving(Some(if name == "b-old" { 1 } else { 2 }), on)),
                );
            }
            assert_eq!(world.serves(on).as_deref(), Some("b-old"));
            assert_eq!(world.losers(on), ["Service default/a-young"]);
        }
    }

    #[test]
    fn the_name_decides_between_equals_and_a_date_beats_none() {
        let on = frontend("192.0.2.10", 80);
        let mut world = World::new();
        world.set("b", Some(serving(Some(1), on)));
        world.set("a", Some(serving(Some(1), on)));
        world.set("0", Some(serving(None, on)));
        assert_eq!(world.serves(on).as_deref(), Some("a"));
        assert_eq!(world.losers(on), ["Service default/b", "Service default/0"]);
    }

    #[test]
    fn the_loser_takes_over_and_the_finding_goes() {
        let on = frontend("192.0.2.10", 80);
        let mut world = World::new();
        world.set("old", Some(serving(Some(1), on)));
        world.set("young", Some(serving(Some(2), on)));
        world.set("old", None);
        assert_eq!(world.serves(on).as_deref(), Some("young"));
        assert!(world.desired.conflicts.is_empty());
        world.set("young", None);
        assert_eq!(world.serves(on), None);
        assert_eq!(world.desired, Desired::new());
    }

    #[test]
    fn a_winner_without_endpoints_keeps_the_frontend() {
        let on = frontend("192.0.2.10", 80);
        let mut world = World::new();
        world.set("young", Some(serving(Some(2), on)));
        world.set("old", Some(claims(Some(1), on, Serving::NoEndpoints)));
        assert!(!world.desired.virtual_servers.contains_key(&on.into()));
        assert_eq!(world.losers(on), ["Service default/young"]);
        assert!(world.desired.vips.contains(&on.address));
    }

    #[test]
    fn a_shared_vip_stays_until_the_last_claimant_goes() {
        let mut world = World::new();
        world.set("a", Some(serving(None, frontend("192.0.2.10", 80))));
        world.set("b", Some(serving(None, frontend("192.0.2.10", 81))));
        world.set("a", None);
        assert_eq!(world.desired.vips, ["192.0.2.10".parse().unwrap()].into());
        assert_eq!(world.serves(frontend("192.0.2.10", 80)), None);
        world.set("b", None);
        assert!(world.desired.vips.is_empty());
    }

    #[test]
    fn a_service_that_claims_an_inert_key_and_leaves_restores_it() {
        for (address, port) in [("192.0.2.1", 1), ("2001:db8::1", 1)] {
            let on = frontend(address, port);
            let mut world = World::new();
            world.set("a", Some(serving(None, on)));
            let server = &world.desired.virtual_servers[&on.into()];
            assert_eq!(server.real_servers.len(), 1);
            world.set("a", Some(claims(None, on, Serving::NoLocalEndpoints)));
            let server = &world.desired.virtual_servers[&on.into()];
            assert!(server.real_servers.is_empty());
            world.set("a", None);
            assert_eq!(world.desired, Desired::new());
        }
    }
}
