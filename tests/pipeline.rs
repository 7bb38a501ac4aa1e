//! The pure half as one: what an event touches, and what is said about the cluster besides what is desired of it.

use ipvs::VirtualServerKey;
use weir::model::{ObjectName, Parsed, Problems, ServiceType, TrafficPolicy};
use weir::pipeline::Pipeline;
use weir::resolve::Settings;
use weir::source::{Change, Event};
use weir::store::claims::TouchedKeys;

#[expect(dead_code, reason = "each test binary uses a part of it")]
mod support;

use support::{node, parsed, real_server, service, slice, virtual_server};

/// A pipeline that has read a Service `web` on two families with an endpoint in each of two zones.
fn pipeline() -> support::Result<Pipeline> {
    let mut pipeline = Pipeline::new(support::OWN_NODE, Settings::default());
    let web = service("web", &["192.0.2.10", "2001:db8::10"], &["http:80/TCP"])?;
    let endpoints = [
        "198.51.100.1 zones=zone-a on=node-a",
        "198.51.100.2 zones=zone-b on=node-b",
    ];
    let slice = slice("web-1", "web", &["http:8080/TCP"], &endpoints)?;
    pipeline.apply([
        Event::Services(Change::Replaced(vec![parsed("web", web)])),
        Event::EndpointSlices(Change::Replaced(vec![parsed("web-1", slice)])),
        Event::Endpoints(Change::Replaced(Vec::new())),
        Event::Nodes(Change::Replaced(vec![node("node-b", Some("zone-a"))])),
    ]);
    Ok(pipeline)
}

fn own_node(zone: Option<&str>) -> Event {
    Event::Nodes(Change::Upsert(node(support::OWN_NODE, zone)))
}

fn web() -> support::Result<VirtualServerKey> {
    virtual_server(ipvs::Protocol::Tcp, "192.0.2.10:80")
}

fn servers(pipeline: &Pipeline) -> support::Result<Vec<String>> {
    let server = pipeline.desired().virtual_servers.get(&web()?);
    let servers = server
        .ok_or("there is no virtual server")?
        .real_servers
        .keys();
    Ok(servers.map(ToString::to_string).collect())
}

fn notes(pipeline: &Pipeline) -> Vec<String> {
    let notes = pipeline.problems().notes;
    notes.iter().map(ToString::to_string).collect()
}

#[test]
fn the_zone_of_the_own_node_decides_for_every_service() {
    let mut pipeline = pipeline().unwrap();
    let both = ["198.51.100.1:8080", "198.51.100.2:8080"];
    assert_eq!(servers(&pipeline).unwrap(), both);
    let touched = pipeline.apply([own_node(Some("zone-b"))]);
    assert_eq!(touched.frontends.len(), 2);
    assert_eq!(servers(&pipeline).unwrap(), [both[1]]);
    pipeline.apply([own_node(Some("zone-a"))]);
    assert_eq!(servers(&pipeline).unwrap(), [both[0]]);
    let name = ObjectName::new("", support::OWN_NODE);
    pipeline.apply([Event::Nodes(Change::Remove(name))]);
    assert_eq!(servers(&pipeline).unwrap(), both);
}

#[test]
fn what_changes_nothing_here_touches_no_key() {
    let mut pipeline = pipeline().unwrap();
    pipeline.apply([own_node(Some("zone-a"))]);
    let other = slice("other-1", "other", &["80/TCP"], &["198.51.100.3"]).unwrap();
    for event in [
        own_node(Some("zone-a")),
        Event::Nodes(Change::Upsert(node("node-b", Some("zone-c")))),
        Event::EndpointSlices(Change::Upsert(parsed("other-1", other))),
        Event::Services(Change::Remove(ObjectName::new("default", "other"))),
        Event::Source(Problems::default()),
    ] {
        assert_eq!(
            pipeline.apply([event.clone()]),
            TouchedKeys::default(),
            "{event:?}"
        );
    }
}

#[test]
fn a_service_that_cannot_be_used_any_more_is_as_if_it_were_gone() {
    let mut pipeline = pipeline().unwrap();
    let broken = Parsed {
        name: ObjectName::new("default", "web"),
        value: None,
        problems: Problems::default(),
    };
    let touched = pipeline.apply([Event::Services(Change::Upsert(broken))]);
    assert_eq!(touched.vips.len(), 2);
    assert_eq!(*pipeline.desired(), weir::arbitrate::Desired::new());
}

#[test]
fn a_relabelled_slice_moves_its_endpoints() {
    let mut pipeline = pipeline().unwrap();
    let other = service("other", &["192.0.2.11"], &["http:80/TCP"]).unwrap();
    pipeline.apply([Event::Services(Change::Upsert(parsed("other", other)))]);
    let moved = slice("web-1", "other", &["http:8080/TCP"], &["198.51.100.1"]).unwrap();
    pipeline.apply([Event::EndpointSlices(Change::Upsert(parsed(
        "web-1", moved,
    )))]);
    let desired = &pipeline.desired().virtual_servers;
    assert!(!desired.contains_key(&web().unwrap()));
    let other = virtual_server(ipvs::Protocol::Tcp, "192.0.2.11:80").unwrap();
    let server = real_server("198.51.100.1:8080").unwrap();
    assert!(desired[&other].real_servers.contains_key(&server));
}

#[test]
fn what_has_nothing_to_balance_claims_nothing() {
    for change in [
        |service: &mut weir::model::Service| service.service_type = ServiceType::ExternalName,
        |service: &mut weir::model::Service| service.headless = true,
    ] {
        let mut pipeline = pipeline().unwrap();
        let mut web = service("web", &["192.0.2.10"], &["http:80/TCP"]).unwrap();
        change(&mut web);
        pipeline.apply([Event::Services(Change::Upsert(parsed("web", web)))]);
        assert_eq!(*pipeline.desired(), weir::arbitrate::Desired::new());
    }
}

#[test]
fn a_service_without_anything_to_serve_it_is_noted() {
    let mut pipeline = pipeline().unwrap();
    let said = notes(&pipeline);
    assert_eq!(said.len(), 2, "{said:?}");
    let place = "Service default/web: port 80/TCP (http), IPv6: ";
    assert!(said[0].starts_with(place), "{said:?}");
    assert!(said[0].contains("no endpoint is ready"), "{said:?}");
    assert!(
        said[1].starts_with("Node node-a: there is no such Node"),
        "{said:?}"
    );

    let mut local = service("web", &["192.0.2.10"], &["http:80/TCP"]).unwrap();
    local.internal_traffic_policy = TrafficPolicy::Local;
    let endpoints = ["198.51.100.2 on=node-b"];
    let elsewhere = slice("web-1", "web", &["http:8080/TCP"], &endpoints).unwrap();
    pipeline.apply([
        own_node(None),
        Event::Services(Change::Upsert(parsed("web", local))),
        Event::EndpointSlices(Change::Upsert(parsed("web-1", elsewhere))),
    ]);
    let said = notes(&pipeline);
    assert_eq!(said.len(), 1, "{said:?}");
    let place = "Service default/web: port 80/TCP (http), IPv4: ";
    assert!(said[0].starts_with(place), "{said:?}");
    assert!(said[0].contains("no endpoint is on this node"), "{said:?}");
    let vip = support::address("192.0.2.10").unwrap();
    assert!(pipeline.desired().vips.contains(&vip));
}

#[test]
fn a_family_that_the_kernel_lacks_costs_its_addresses_alone() {
    let settings = Settings {
        families: [ipvs::Family::Ipv4].into(),
        ..Settings::default()
    };
    let mut pipeline = Pipeline::new(support::OWN_NODE, settings);
    let web = service("web", &["192.0.2.10", "2001:db8::10"], &["http:80/TCP"]).unwrap();
    let slices = slice("web-1", "web", &["http:8080/TCP"], &["198.51.100.1"]).unwrap();
    pipeline.apply([
        Event::Services(Change::Replaced(vec![parsed("web", web)])),
        Event::EndpointSlices(Change::Replaced(vec![parsed("web-1", slices)])),
        Event::Endpoints(Change::Replaced(Vec::new())),
        Event::Nodes(Change::Replaced(Vec::new())),
    ]);
    let desired = pipeline.desired();
    assert_eq!(desired.vips, ["192.0.2.10".parse().unwrap()].into());
    // The Service's, and the inert one.
    assert_eq!(desired.virtual_servers.len(), 2);
    assert!(
        desired
            .virtual_servers
            .keys()
            .all(|key| key.family() == ipvs::Family::Ipv4)
    );
    let findings = pipeline.problems().findings;
    let said: Vec<_> = findings.iter().map(ToString::to_string).collect();
    let expected = "Service default/web: spec.clusterIPs: 2001:db8::10 is IPv6, which this node's kernel has disabled; \
                    it is not served on this node";
    assert_eq!(said, [expected]);
}
