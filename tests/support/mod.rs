//! What the test binaries share: builders of model values, kernels and plans as text, a generator of numbers, the contract suite.
//!
//! The address plan, from the documentation ranges (RFC 5737, RFC 3849):
//!
//! | range | what |
//! |---|---|
//! | 192.0.2.0/24, `2001:db8::/64` | VIPs; 192.0.2.1 and `2001:db8::1` are those of the inert virtual servers |
//! | 198.51.100.0/24, `2001:db8:1::/64` | endpoints |
//! | 203.0.113.0/24, `2001:db8:2::/64` | what is foreign |
//!
//! Nodes are `node-a` (the own one), `node-b`, `node-c`; zones `zone-a` and so on. The scenario `the_tutorial_on_an_empty_kernel`
//! keeps the tutorial's own addresses.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipvs::{Family, Protocol, RealServerKey, VirtualServerKey};
use weir::model::{
    Conditions, Endpoint, EndpointPort, EndpointSlice, Endpoints, Hints, Node, ObjectName, Parsed,
    Problems, Service, ServicePort, ServiceType, TrafficPolicy,
};

pub(crate) mod kernel_text;
pub(crate) mod random;

/// The node that weir runs on.
pub(crate) const OWN_NODE: &str = "node-a";
/// The dummy device.
pub(crate) const DEVICE: &str = "weir0";

/// What a helper says when a text of a test makes no sense.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// An address.
pub(crate) fn address(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

/// `192.0.2.10:80` or `[2001:db8::10]:80`.
pub(crate) fn socket(text: &str) -> Result<SocketAddr> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

/// A virtual server.
pub(crate) fn virtual_server(protocol: Protocol, text: &str) -> Result<VirtualServerKey> {
    let socket = socket(text)?;
    Ok(VirtualServerKey::Address {
        address: socket.ip(),
        port: socket.port(),
        protocol,
    })
}

/// A real server.
pub(crate) fn real_server(text: &str) -> Result<RealServerKey> {
    let socket = socket(text)?;
    Ok(RealServerKey {
        address: socket.ip(),
        port: socket.port(),
    })
}

/// An object of namespace `default` without anything to say about it.
pub(crate) fn parsed<T>(name: &str, value: T) -> Parsed<T> {
    Parsed {
        name: ObjectName::new("default", name),
        value: Some(value),
        problems: Problems::default(),
    }
}

/// A Service of type `ClusterIP` with a selector and ports as `http:80/TCP`.
pub(crate) fn service(name: &str, cluster_ips: &[&str], ports: &[&str]) -> Result<Service> {
    Ok(Service {
        name: ObjectName::new("default", name),
        created: None,
        service_type: ServiceType::ClusterIp,
        headless: false,
        cluster_ips: cluster_ips
            .iter()
            .map(|text| address(text))
            .collect::<Result<_>>()?,
        ports: ports
            .iter()
            .map(|text| {
                let port = port(text)?;
                Ok(ServicePort {
                    name: port.name,
                    port: port.port,
                    protocol: port.protocol,
                })
            })
            .collect::<Result<_>>()?,
        has_selector: true,
        affinity: None,
        internal_traffic_policy: TrafficPolicy::Cluster,
    })
}

/// A slice of a Service; its family is that of the first endpoint, IPv4 if there is none. Ports as for `service`.
pub(crate) fn slice(
    name: &str,
    service: &str,
    ports: &[&str],
    endpoints: &[&str],
) -> Result<EndpointSlice> {
    let endpoints: Vec<Endpoint> = endpoints
        .iter()
        .map(|text| endpoint(text))
        .collect::<Result<_>>()?;
    Ok(EndpointSlice {
        name: ObjectName::new("default", name),
        service: ObjectName::new("default", service),
        family: endpoints
            .first()
            .map_or(Family::Ipv4, |endpoint| Family::of(endpoint.address)),
        ports: ports.iter().map(|text| port(text)).collect::<Result<_>>()?,
        endpoints,
    })
}

/// An Endpoints object of one slice.
pub(crate) fn endpoints(service: &str, ports: &[&str], addresses: &[&str]) -> Result<Endpoints> {
    Ok(Endpoints {
        name: ObjectName::new("default", service),
        slices: vec![slice(service, service, ports, addresses)?],
    })
}

/// A node in a zone.
pub(crate) fn node(name: &str, zone: Option<&str>) -> Parsed<Node> {
    Parsed {
        name: ObjectName::new("", name),
        value: Some(Node {
            pod_cidrs: Vec::new(),
            name: name.into(),
            zone: zone.map(Arc::from),
        }),
        problems: Problems::default(),
    }
}

/// `http:80/TCP`, `80/UDP`.
pub(crate) fn port(text: &str) -> Result<EndpointPort> {
    let malformed = || format!("{text:?} is no port such as http:80/TCP");
    let (name, rest) = text.split_once(':').unwrap_or(("", text));
    let (number, protocol) = rest.split_once('/').ok_or_else(malformed)?;
    Ok(EndpointPort {
        name: name.into(),
        port: number
            .parse()
            .map_err(|error| format!("{}: {error}", malformed()))?,
        protocol: match protocol {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => return Err(malformed()),
        },
    })
}

/// An endpoint as `ADDRESS [STATE] [on=NODE] [zones=Z,Z] [nodes=N,N]`. The states:
///
/// | state | ready | serving | terminating |
/// |---|---|---|---|
/// | `ready` (or none) | true | true | false |
/// | `unready` | false | false | false |
/// | `starting` | false | true | false |
/// | `draining` | false | true | true |
/// | `ending` | false | false | true |
/// | `published` (`publishNotReadyAddresses`) | true | true | true |
pub(crate) fn endpoint(text: &str) -> Result<Endpoint> {
    let mut words = text.split_whitespace();
    let mut endpoint = Endpoint {
        address: address(words.next().unwrap_or_default())?,
        conditions: Conditions::READY,
        node: None,
        hints: Hints::default(),
    };
    let names = |list: &str| list.split(',').map(Arc::from).collect();
    for word in words {
        match word.split_once('=') {
            None => endpoint.conditions = conditions(word)?,
            Some(("on", node)) => endpoint.node = Some(node.into()),
            Some(("zones", zones)) => endpoint.hints.zones = names(zones),
            Some(("nodes", nodes)) => endpoint.hints.nodes = names(nodes),
            Some(_) => return Err(format!("{word:?} says nothing of an endpoint")),
        }
    }
    Ok(endpoint)
}

fn conditions(state: &str) -> Result<Conditions> {
    let (ready, serving, terminating) = match state {
        "ready" => (true, true, false),
        "unready" => (false, false, false),
        "starting" => (false, true, false),
        "draining" => (false, true, true),
        "ending" => (false, false, true),
        "published" => (true, true, true),
        _ => return Err(format!("{state:?} is no state of an endpoint")),
    };
    Ok(Conditions {
        ready,
        serving,
        terminating,
    })
}
