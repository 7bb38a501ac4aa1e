//! Random clusters: objects, changes of them, and the events that tell a fresh start of them.

use std::collections::BTreeMap;

use ipvs::Protocol;
use weir::model::{
    Affinity, Created, EndpointSlice, Endpoints, Finding, Kind, Node, ObjectName, Parsed, Problems,
    Service, ServiceType, Subject, TrafficPolicy,
};
use weir::source::{Change, Event};

use crate::support::random::Random;
use crate::support::{self, Result, endpoint, node, parsed};

/// The VIPs that Services have; the first of each family is that of an inert virtual server.
pub(crate) const VIPS: [&str; 6] = [
    "192.0.2.1",
    "192.0.2.10",
    "192.0.2.11",
    "2001:db8::1",
    "2001:db8::10",
    "2001:db8::11",
];
/// The ports that Services have; 1/TCP is that of the inert virtual servers.
pub(crate) const PORTS: [(u16, Protocol); 4] = [
    (80, Protocol::Tcp),
    (53, Protocol::Udp),
    (1, Protocol::Tcp),
    (80, Protocol::Sctp),
];
const SERVICE_PORTS: [&str; 4] = ["http:80/TCP", "dns:53/UDP", "1/TCP", "http:80/SCTP"];
/// Most fit a port of the Services; the last two are of another number and another protocol.
const SLICE_PORTS: [&str; 6] = [
    "http:8080/TCP",
    "dns:5353/UDP",
    "8080/TCP",
    "http:8080/SCTP",
    "http:9090/TCP",
    "dns:5353/TCP",
];
pub(crate) const SERVERS: [&str; 8] = [
    "198.51.100.1",
    "198.51.100.2",
    "198.51.100.3",
    "198.51.100.4",
    "2001:db8:1::1",
    "2001:db8:1::2",
    "2001:db8:1::3",
    "2001:db8:1::4",
];
const SERVICES: [&str; 3] = ["a", "b", "c"];
const SLICES: [&str; 5] = ["s1", "s2", "s3", "s4", "s5"];
const NODES: [&str; 2] = ["node-a", "node-b"];
const ZONES: [&str; 2] = ["zone-a", "zone-b"];
const STATES: [&str; 8] = [
    "ready",
    "ready",
    "ready",
    "unready",
    "starting",
    "draining",
    "ending",
    "published",
];

/// The objects of a cluster, as a source last told of them.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    services: Told<Service>,
    slices: Told<EndpointSlice>,
    endpoints: Told<Endpoints>,
    nodes: Told<Node>,
    source: Problems,
}

#[derive(Debug)]
struct Told<T> {
    objects: BTreeMap<ObjectName, Parsed<T>>,
    whole: bool,
}

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            whole: false,
        }
    }
}

impl<T: Clone> Told<T> {
    fn take(&mut self, change: Change<T>) {
        match change {
            Change::Upsert(object) => {
                self.objects.insert(object.name.clone(), object);
            }
            Change::Remove(name) => {
                self.objects.remove(&name);
            }
            Change::Replaced(objects) => {
                let named = objects
                    .into_iter()
                    .map(|object| (object.name.clone(), object));
                self.objects = named.collect();
                self.whole = true;
            }
        }
    }

    fn events(&self, event: fn(Change<T>) -> Event) -> Vec<Event> {
        let objects: Vec<_> = self.objects.values().cloned().collect();
        if self.whole {
            return vec![event(Change::Replaced(objects))];
        }
        objects
            .into_iter()
            .map(|object| event(Change::Upsert(object)))
            .collect()
    }
}

impl Cluster {
    pub(crate) fn take(&mut self, event: Event) {
        match event {
            Event::Services(change) => self.services.take(change),
            Event::EndpointSlices(change) => self.slices.take(change),
            Event::Endpoints(change) => self.endpoints.take(change),
            Event::Nodes(change) => self.nodes.take(change),
            Event::Source(problems) => self.source = problems,
        }
    }

    /// What a source that starts now would tell.
    pub(crate) fn told_anew(&self) -> Vec<Event> {
        let mut events = self.nodes.events(Event::Nodes);
        events.extend(self.slices.events(Event::EndpointSlices));
        events.extend(self.endpoints.events(Event::Endpoints));
        events.extend(self.services.events(Event::Services));
        events.push(Event::Source(self.source.clone()));
        events
    }
}

/// An event of any kind.
pub(crate) fn event(random: &mut Random) -> Result<Event> {
    Ok(match random.below(20) {
        0..6 => Event::Services(change(random, &SERVICES, "default", service)?),
        6..14 => Event::EndpointSlices(change(random, &SLICES, "default", slice)?),
        14..16 => Event::Endpoints(change(random, &SERVICES, "default", endpoints)?),
        16..19 => Event::Nodes(change(random, &NODES, "", zoned_node)?),
        _ => Event::Source(problems(random, "a")),
    })
}

/// Every kind whole.
pub(crate) fn first_events(random: &mut Random) -> Result<Vec<Event>> {
    Ok(vec![
        Event::Services(Change::Replaced(several(random, &SERVICES, service)?)),
        Event::EndpointSlices(Change::Replaced(several(random, &SLICES, slice)?)),
        Event::Endpoints(Change::Replaced(several(random, &SERVICES, endpoints)?)),
        Event::Nodes(Change::Replaced(several(random, &NODES, zoned_node)?)),
    ])
}

type Make<T> = fn(&mut Random, &str) -> Result<Parsed<T>>;

fn several<T>(random: &mut Random, names: &[&str], make: Make<T>) -> Result<Vec<Parsed<T>>> {
    let most = random.most(names);
    most.into_iter().map(|name| make(random, name)).collect()
}

fn change<T>(
    random: &mut Random,
    names: &[&str],
    namespace: &str,
    make: Make<T>,
) -> Result<Change<T>> {
    let name = random.pick(names);
    Ok(match random.below(8) {
        0..5 => Change::Upsert(make(random, name)?),
        5..7 => Change::Remove(ObjectName::new(namespace, name)),
        _ => Change::Replaced(several(random, names, make)?),
    })
}

fn problems(random: &mut Random, name: &str) -> Problems {
    let mut problems = Problems::default();
    if random.one_in(6) {
        problems.findings.push(Finding {
            subject: Subject::Object(Kind::Service, ObjectName::new("default", name)),
            field: "spec".to_owned(),
            problem: format!("{} is wrong", random.below(2)),
            consequence: "it is ignored".to_owned(),
        });
    }
    problems
}

/// An object that may be in part or wholly unusable.
fn read<T>(random: &mut Random, name: &str, value: T) -> Parsed<T> {
    let mut object = parsed(name, value);
    object.problems = problems(random, name);
    if random.one_in(12) {
        object.value = None;
    }
    object
}

fn service(random: &mut Random, name: &str) -> Result<Parsed<Service>> {
    let (v4, v6) = VIPS.split_at(3);
    let mut vips = Vec::new();
    for family in [v4, v6] {
        if !random.one_in(3) {
            vips.push(random.pick(family));
        }
    }
    let mut service = support::service(name, &vips, &random.most(&SERVICE_PORTS))?;
    let created = i64::try_from(random.below(3)).unwrap_or(0);
    service.created = (!random.one_in(3)).then_some(Created(created));
    service.has_selector = random.one_in(2);
    service.affinity = random.one_in(4).then_some(Affinity { timeout: 600 });
    if random.one_in(4) {
        service.internal_traffic_policy = TrafficPolicy::Local;
    }
    if random.one_in(12) {
        service.headless = true;
    }
    if random.one_in(12) {
        service.service_type = ServiceType::ExternalName;
    }
    Ok(read(random, name, service))
}

fn slice(random: &mut Random, name: &str) -> Result<Parsed<EndpointSlice>> {
    let of = random.pick(&SERVICES);
    let value = slice_of(random, name, of)?;
    Ok(read(random, name, value))
}

fn slice_of(random: &mut Random, name: &str, service: &str) -> Result<EndpointSlice> {
    let (v4, v6) = SERVERS.split_at(4);
    let family = random.pick(&[v4, v6]);
    let mut slice = support::slice(name, service, &random.most(&SLICE_PORTS), &[])?;
    let lines: Vec<String> = random
        .most(family)
        .into_iter()
        .map(|address| endpoint_line(random, address))
        .collect();
    for line in &lines {
        slice.endpoints.push(endpoint(line)?);
    }
    if let Some(first) = slice.endpoints.first() {
        slice.family = ipvs::Family::of(first.address);
    }
    Ok(slice)
}

fn endpoint_line(random: &mut Random, address: &str) -> String {
    let mut line = format!("{address} {}", random.pick(&STATES));
    if !random.one_in(3) {
        line.push_str(" on=");
        line.push_str(random.pick(&NODES));
    }
    if random.one_in(2) {
        line.push_str(" zones=");
        line.push_str(random.pick(&ZONES));
    }
    if random.one_in(4) {
        line.push_str(" nodes=");
        line.push_str(random.pick(&NODES));
    }
    line
}

fn endpoints(random: &mut Random, name: &str) -> Result<Parsed<Endpoints>> {
    let value = Endpoints {
        name: ObjectName::new("default", name),
        slices: vec![slice_of(random, name, name)?],
    };
    Ok(read(random, name, value))
}

#[expect(clippy::unnecessary_wraps, reason = "as the other kinds are made")]
fn zoned_node(random: &mut Random, name: &str) -> Result<Parsed<Node>> {
    let zone = random.pick(&ZONES);
    Ok(node(name, (!random.one_in(3)).then_some(zone)))
}
