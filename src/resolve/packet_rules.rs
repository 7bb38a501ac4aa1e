//! What to masquerade, drop and refuse: the elements of the packet sets that a node, a VIP and a cluster IP's frontend want. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use ipnet::IpNet;
use ipvs::{Family, Protocol, RealServerKey};

use super::{NodeFacts, Settings};
use crate::nft::model::{Element, Key, Set, disjoint};
use crate::nft::rules::Detector;
use crate::store::claims::{Frontend, FrontendClaim, Masquerade, Serving};

/// An element and the set it is in.
pub type Member = (Set, Element);

/// The ranges that tell clients in the cluster from others: as set, else the Node's own, each family for itself.
pub fn pod_ranges(settings: &Settings, node: &NodeFacts) -> BTreeSet<IpNet> {
    let mut ranges = BTreeSet::new();
    for family in [Family::Ipv4, Family::Ipv6] {
        let of_family = |range: &&IpNet| Family::of(range.addr()) == family;
        let set: Vec<_> = settings.cluster_cidrs.iter().filter(of_family).collect();
        if set.is_empty() {
            ranges.extend(node.pod_cidrs.iter().filter(of_family));
        } else {
            ranges.extend(set);
        }
    }
    ranges
}

/// weir's own addresses, from the documentation ranges (RFC 5737, RFC 3849): nobody may address them from outside.
pub fn inner() -> impl Iterator<Item = IpAddr> {
    [
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ]
    .into_iter()
}

/// What weir's own addresses want.
pub fn of_inner() -> BTreeSet<Member> {
    inner()
        .map(|address| (Set::Inner(Family::of(address)), Element::Address(address)))
        .collect()
}

/// How clients in the cluster are told from others, given the ranges.
pub fn detector(settings: &Settings, node: &NodeFacts) -> Detector {
    if pod_ranges(settings, node).is_empty() {
        Detector::None
    } else {
        Detector::Ranges
    }
}

/// What the node wants.
pub fn of_node(settings: &Settings, node: &NodeFacts) -> BTreeSet<Member> {
    let prefixes = |set: fn(Family) -> Set, ranges: BTreeSet<IpNet>| {
        let prefixes = disjoint(ranges).into_iter();
        prefixes.map(move |range| (set(Family::of(range.addr())), Element::Prefix(range)))
    };
    let local: BTreeSet<IpNet> = node.pod_cidrs.iter().copied().collect();
    prefixes(Set::Pods, pod_ranges(settings, node))
        .chain(prefixes(Set::LocalPods, local))
        .collect()
}

/// What an address wants that weir makes local.
pub fn of_vip(vip: IpAddr) -> BTreeSet<Member> {
    let family = Family::of(vip);
    let mut members = BTreeSet::from([(Set::Vips(family), Element::Address(vip))]);
    if family == Family::Ipv4 {
        members.insert((Set::Arp, Element::Address(vip)));
    }
    members
}

/// What a cluster IP's frontend wants.
pub fn of_frontend(frontend: Frontend, claim: &FrontendClaim) -> BTreeSet<Member> {
    let family = frontend.family();
    let key = Element::Key(frontend.into());
    let mut members = BTreeSet::from([(Set::Owned(family), key)]);
    if claim.masquerade == Masquerade::OffCluster {
        members.insert((Set::MasqueradeOffCluster(family), key));
    }
    match &claim.serving {
        Serving::NoEndpoints => {
            members.insert((Set::Dark(family), key));
        }
        Serving::NoLocalEndpoints => {
            members.insert((Set::Drop(family), key));
        }
        Serving::RealServers(servers) => {
            let endpoints = servers
                .keys()
                .filter_map(|server| endpoint(*server, frontend.protocol));
            members
                .extend(endpoints.map(|endpoint| (Set::Endpoints(family), Element::Key(endpoint))));
            let here = claim
                .local
                .iter()
                .filter(|address| Family::of(**address) == family);
            members.extend(here.map(|address| (Set::Hairpin(family), Element::twice(*address))));
        }
    }
    members
}

fn endpoint(server: RealServerKey, protocol: Protocol) -> Option<Key> {
    Some(Key {
        address: server.address,
        protocol,
        port: NonZeroU16::new(server.port)?,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ipvs::{RealServerConfig, Scheduler, VirtualServerConfig, Weight};

    use super::*;

    fn claim(serving: Serving, masquerade: Masquerade) -> FrontendClaim {
        FrontendClaim {
            port_name: "http".into(),
            config: VirtualServerConfig::new(Scheduler::RoundRobin),
            serving,
            local: ["198.51.100.1".parse().unwrap()].into(),
            masquerade,
        }
    }

    fn frontend() -> Frontend {
        Frontend {
            address: "192.0.2.10".parse().unwrap(),
            port: NonZeroU16::new(80).unwrap(),
            protocol: Protocol::Udp,
        }
    }

    fn text(members: &BTreeSet<Member>) -> Vec<String> {
        members
            .iter()
            .map(|(set, element)| format!("{set} {element}"))
            .collect()
    }

    #[test]
    fn a_frontend_that_serves_names_its_endpoints_and_those_that_may_reach_themselves() {
        let server = |address: &str| RealServerKey {
            address: address.parse().unwrap(),
            port: 5353,
        };
        let config = RealServerConfig::masquerade(Weight::ONE);
        let servers: BTreeMap<_, _> = ["198.51.100.1", "198.51.100.2"]
            .map(|address| (server(address), config))
            .into();
        let members = of_frontend(
            frontend(),
            &claim(Serving::RealServers(servers), Masquerade::OffCluster),
        );
        let expected = [
            "owned4 192.0.2.10 . udp . 80",
            "masq_offcluster4 192.0.2.10 . udp . 80",
            "hairpin4 198.51.100.1 . 198.51.100.1",
            "endpoints4 198.51.100.1 . udp . 5353",
            "endpoints4 198.51.100.2 . udp . 5353",
        ];
        assert_eq!(text(&members), expected);
    }

    #[test]
    fn a_frontend_that_cannot_serve_refuses_or_drops() {
        for (serving, expected) in [
            (Serving::NoEndpoints, "dark4 192.0.2.10 . udp . 80"),
            (Serving::NoLocalEndpoints, "drop4 192.0.2.10 . udp . 80"),
        ] {
            let members = of_frontend(frontend(), &claim(serving, Masquerade::Nobody));
            assert_eq!(text(&members), ["owned4 192.0.2.10 . udp . 80", expected]);
        }
    }

    #[test]
    fn only_ipv4_answers_arp() {
        let of = |vip: &str| text(&of_vip(vip.parse().unwrap()));
        assert_eq!(of("192.0.2.10"), ["vips4 192.0.2.10", "vips 192.0.2.10"]);
        assert_eq!(of("2001:db8::10"), ["vips6 2001:db8::10"]);
    }

    #[test]
    fn ranges_are_those_set_or_else_the_nodes_own_by_family() {
        let range = |text: &str| -> IpNet { text.parse().unwrap() };
        let node = NodeFacts {
            pod_cidrs: vec![range("10.244.1.0/24"), range("2001:db8:1::/64")],
            ..NodeFacts::default()
        };
        let own = pod_ranges(&Settings::default(), &node);
        assert_eq!(
            own,
            [range("10.244.1.0/24"), range("2001:db8:1::/64")].into()
        );
        let settings = Settings {
            cluster_cidrs: vec![range("10.244.0.0/16"), range("10.245.0.0/16")],
            ..Settings::default()
        };
        let expected = [
            range("10.244.0.0/16"),
            range("10.245.0.0/16"),
            range("2001:db8:1::/64"),
        ];
        assert_eq!(pod_ranges(&settings, &node), expected.into());
    }
}
