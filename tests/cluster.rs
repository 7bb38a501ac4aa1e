//! A cluster as a real API server returned it (`fixtures/cluster.yaml`), for node-0, against what the real kube-proxy made of it there
//! (`fixtures/kube-proxy-ipvsadm-Sn.txt`). Every difference stands here with its reason; one that no longer occurs is as wrong as a
//! new one.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use ipvs::VirtualServerKey;
use serde_json::{Value, json};
use weir::document::{RenderDocument, ipvsadm};
use weir::model::Kind;
use weir::pipeline::Pipeline;
use weir::resolve::Settings;
use weir::source::manifests::Manifests;

#[expect(dead_code, reason = "each test binary uses a part of it")]
#[path = "support/random.rs"]
mod random;

use random::Random;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const CLUSTER: &str = include_str!("fixtures/cluster.yaml");
const KUBE_PROXY: &str = include_str!("fixtures/kube-proxy-ipvsadm-Sn.txt");
/// `--service-cluster-ip-range` of that cluster.
const CLUSTER_IPS: [&str; 2] = ["10.96.0.0/16", "fd00:96::/112"];
/// What the addresses of the frontends are that are no cluster IPs.
const OTHER_FRONTENDS: [(&str, Frontend); 8] = [
    // Addresses of node-0: its InternalIPs, and of its bridge, the first of its pod CIDRs.
    ("192.168.50.11/32", Frontend::NodePort),
    ("fd00:50::11/128", Frontend::NodePort),
    ("10.244.0.1/32", Frontend::NodePort),
    ("fd00:244::1/128", Frontend::NodePort),
    ("192.0.2.0/24", Frontend::ExternalIp),
    ("fd00:192::/64", Frontend::ExternalIp),
    ("203.0.113.0/24", Frontend::LoadBalancerIp),
    ("fd00:203::/64", Frontend::LoadBalancerIp),
];

/// What a virtual server of kube-proxy is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Frontend {
    ClusterIp,
    NodePort,
    ExternalIp,
    LoadBalancerIp,
}

/// Lines that one of the two has and the other has not.
struct Difference {
    only: Only,
    lines: &'static [&'static str],
    /// Why that is right, or what will close it.
    #[expect(dead_code, reason = "it is there for the reader")]
    reason: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Only {
    Weir,
    KubeProxy,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        only: Only::Weir,
        lines: &["-A -t 192.0.2.1:1 -s rr", "-A -t [2001:db8::1]:1 -s rr"],
        reason: "Right: weir's inert virtual servers, which keep the kernel's IPVS hooks registered. kube-proxy has none.",
    },
    Difference {
        only: Only::KubeProxy,
        lines: &[
            "-A -t 10.96.1.28:80 -s rr",
            "-A -t [fd00:96::128]:80 -s rr",
            "-A -t 10.96.1.29:80 -s rr",
            "-A -t [fd00:96::129]:80 -s rr",
        ],
        reason: "Right: empty and empty-lb have no endpoints. kube-proxy keeps a virtual server without real servers, which answers \
                 slowly or not at all; in weir the VIP alone is there, so that a connection ends at once.",
    },
    Difference {
        only: Only::KubeProxy,
        lines: &["-A -t 10.96.0.1:443 -s rr"],
        reason: "Right: kubernetes has no EndpointSlice in this file, so it is as the one before.",
    },
    Difference {
        only: Only::KubeProxy,
        lines: &["-A -t 10.96.1.16:80 -s rr", "-A -t [fd00:96::116]:80 -s rr"],
        reason: "Right: api-int-local has internalTrafficPolicy Local and no endpoint on node-0, so it is as the one before.",
    },
    Difference {
        only: Only::KubeProxy,
        lines: &[
            "-A -t 10.96.1.17:80 -s rr",
            "-a -t 10.96.1.17:80 -r 10.244.1.20:8080 -m -w 1",
            "-a -t 10.96.1.17:80 -r 10.244.2.20:8080 -m -w 1",
            "-A -t [fd00:96::117]:80 -s rr",
            "-a -t [fd00:96::117]:80 -r [fd00:244:0:1::14]:8080 -m -w 1",
            "-a -t [fd00:96::117]:80 -r [fd00:244:0:2::14]:8080 -m -w 1",
        ],
        reason: "Right: api-int-local-np has internalTrafficPolicy Local, no endpoint on node-0, and a node port with policy Cluster. \
                 kube-proxy's IPVS mode falls back to all endpoints whenever the Service uses them for anything (kubernetes#97081), \
                 against internalTrafficPolicy, whose traffic is dropped without a local endpoint; its iptables mode drops it.",
    },
];

/// What node-0 desires, with the cluster read from this file.
fn pipeline(file: &Path, node: &str) -> Result<Pipeline> {
    let mut pipeline = Pipeline::new(node, Settings::default());
    pipeline.apply(Manifests::new(vec![file.to_owned()]).load()?);
    assert_eq!(pipeline.waiting_for(), Vec::<Kind>::new());
    Ok(pipeline)
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cluster.yaml")
}

fn document(pipeline: &Pipeline) -> RenderDocument {
    RenderDocument::new(pipeline.desired(), &pipeline.problems())
}

/// The virtual address of a line.
fn frontend_address(line: &str) -> Result<IpAddr> {
    let socket = line
        .split(' ')
        .nth(2)
        .ok_or_else(|| format!("{line:?} is no line of ipvsadm -Sn"))?;
    Ok(socket.parse::<SocketAddr>()?.ip())
}

fn frontend(line: &str) -> Result<Frontend> {
    let address = frontend_address(line)?;
    // node-ext has a node's own address as external IP; the port tells it from the node ports, which begin at 30000.
    if line.contains(" 192.168.50.11:8088 ") {
        return Ok(Frontend::ExternalIp);
    }
    let cluster_ips = CLUSTER_IPS.map(|net| (net, Frontend::ClusterIp));
    for (net, kind) in cluster_ips.into_iter().chain(OTHER_FRONTENDS) {
        if net.parse::<IpNet>()?.contains(&address) {
            return Ok(kind);
        }
    }
    Err(format!("nobody knows what {address} is").into())
}

/// The lines of kube-proxy, by what they are for. The persistence timeout and all else of a line stay.
fn kube_proxy() -> Result<BTreeMap<Frontend, BTreeSet<&'static str>>> {
    let mut lines: BTreeMap<Frontend, BTreeSet<_>> = BTreeMap::new();
    for line in KUBE_PROXY.lines().filter(|line| !line.starts_with('#')) {
        let fresh = lines.entry(frontend(line)?).or_default().insert(line);
        assert!(fresh, "{line} stands there twice");
    }
    Ok(lines)
}

#[test]
fn every_cluster_ip_has_the_real_servers_of_kube_proxy() -> Result<()> {
    let text = ipvsadm(pipeline(&fixture(), "node-0")?.desired());
    let weir: BTreeSet<&str> = text.lines().collect();
    assert_eq!(
        weir.len(),
        text.lines().count(),
        "a line stands there twice"
    );
    let kube_proxy = kube_proxy()?;
    let kube_proxy = kube_proxy
        .get(&Frontend::ClusterIp)
        .ok_or("kube-proxy has no cluster IPs")?;
    assert_eq!(kube_proxy.len(), 286);

    let listed = |only| -> BTreeSet<&str> {
        DIFFERENCES
            .iter()
            .filter(|difference| difference.only == only)
            .flat_map(|difference| difference.lines)
            .copied()
            .collect()
    };
    let only_weir: BTreeSet<_> = weir.difference(kube_proxy).copied().collect();
    let only_kube_proxy: BTreeSet<_> = kube_proxy.difference(&weir).copied().collect();
    assert_eq!(only_weir, listed(Only::Weir));
    assert_eq!(only_kube_proxy, listed(Only::KubeProxy));
    Ok(())
}

#[test]
fn every_other_frontend_of_kube_proxy_is_accounted_for() -> Result<()> {
    let counts: BTreeMap<Frontend, usize> = kube_proxy()?
        .into_iter()
        .map(|(kind, lines)| {
            let virtual_servers = lines.iter().filter(|line| line.starts_with("-A "));
            (kind, virtual_servers.count())
        })
        .collect();
    let expected = BTreeMap::from([
        (Frontend::ClusterIp, 76),
        // Later: NodePort. 21 node ports in IPv4 and 18 in IPv6, on two addresses of the node each.
        (Frontend::NodePort, 78),
        // Later: external IPs.
        (Frontend::ExternalIp, 5),
        // Later: load balancer IPs.
        (Frontend::LoadBalancerIp, 13),
    ]);
    assert_eq!(counts, expected);
    Ok(())
}

/// kube-proxy binds an address, and weir makes a VIP, for every cluster IP that is not left to others.
#[test]
fn every_cluster_ip_is_a_vip() -> Result<()> {
    let pipeline = pipeline(&fixture(), "node-0")?;
    let theirs: BTreeSet<IpAddr> = kube_proxy()?
        .get(&Frontend::ClusterIp)
        .into_iter()
        .flatten()
        .map(|line| frontend_address(line))
        .collect::<Result<_>>()?;
    assert_eq!(pipeline.desired().vips, theirs);
    assert_eq!(pipeline.problems().findings, []);
    Ok(())
}

#[test]
fn the_lines_are_in_order() -> Result<()> {
    let pipeline = pipeline(&fixture(), "node-0")?;
    let text = ipvsadm(pipeline.desired());
    let mut expected = String::new();
    let mut keys: Vec<&VirtualServerKey> = pipeline.desired().virtual_servers.keys().collect();
    keys.sort_by_key(|key| match key {
        VirtualServerKey::Address {
            address,
            port,
            protocol,
        } => (address.is_ipv6(), *protocol, *address, *port),
        VirtualServerKey::Mark { .. } => unreachable!("weir makes no firewall marks"),
    });
    for key in keys {
        let VirtualServerKey::Address {
            address,
            port,
            protocol,
        } = key
        else {
            continue;
        };
        let flag = match protocol {
            ipvs::Protocol::Tcp => "-t",
            ipvs::Protocol::Udp => "-u",
            ipvs::Protocol::Sctp => "--sctp-service",
        };
        let name = format!("{flag} {}", SocketAddr::new(*address, *port));
        let own = |line: &&str| line.contains(&format!(" {name} "));
        let lines: Vec<&str> = text.lines().filter(own).collect();
        assert!(
            lines.first().is_some_and(|line| line.starts_with("-A ")),
            "{name}: {lines:?}"
        );
        for line in lines {
            expected.push_str(line);
            expected.push('\n');
        }
    }
    assert_eq!(text, expected);
    Ok(())
}

#[test]
fn the_order_of_the_objects_does_not_matter() -> Result<()> {
    let cluster: Value = serde_saphyr::from_str(CLUSTER)?;
    let items = cluster
        .get("items")
        .and_then(Value::as_array)
        .ok_or("the fixture is no list")?;
    let expected = document(&pipeline(&fixture(), "node-0")?);
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("shuffled.json");
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let mut shuffled = items.clone();
        for index in (1..shuffled.len()).rev() {
            shuffled.swap(index, random.below(index + 1));
        }
        assert_ne!(&shuffled, items);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": shuffled});
        std::fs::write(&file, serde_json::to_vec(&list)?)?;
        assert_eq!(document(&pipeline(&file, "node-0")?), expected, "{seed}");
    }
    Ok(())
}

/// The real servers of a frontend on a node.
fn real_servers(node: &str, address: &str) -> Result<Vec<String>> {
    let document = document(&pipeline(&fixture(), node)?);
    let address: IpAddr = address.parse()?;
    Ok(document
        .virtual_servers
        .iter()
        .filter(|server| server.address == address)
        .flat_map(|server| &server.real_servers)
        .map(|real| real.address.to_string())
        .collect())
}

#[test]
fn each_node_has_its_own_local_endpoints() -> Result<()> {
    for (node, web, api) in [
        ("node-0", &["10.244.0.10", "10.244.0.12"][..], &[][..]),
        ("node-1", &["10.244.1.10"], &["10.244.1.20"]),
        ("node-2", &["10.244.2.10"], &["10.244.2.20"]),
        ("node-9", &[], &[]),
    ] {
        // web-int-local and api-int-local.
        assert_eq!(real_servers(node, "10.96.1.18")?, web, "{node}");
        assert_eq!(real_servers(node, "10.96.1.16")?, api, "{node}");
        // web, with policy Cluster, is the same everywhere.
        assert_eq!(real_servers(node, "10.96.1.1")?.len(), 8, "{node}");
    }
    Ok(())
}
