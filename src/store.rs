//! The cluster as last reported, and which Services a change touches.
//!
//! Each kind is unknown until it has been reported whole once; while any kind is unknown there is nothing to plan from.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    EndpointSlice, Endpoints, Kind, Node, ObjectName, Parsed, Problems, Service, Subject,
};
use crate::source::{Change, Event};

pub mod claims;

/// The cluster as last reported.
#[derive(Debug, Default)]
pub struct Store {
    services: Kept<Service>,
    slices: Kept<EndpointSlice>,
    endpoints: Kept<Endpoints>,
    nodes: Kept<Node>,
    slices_of: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    problems: BTreeMap<Subject, Problems>,
    source_problems: Problems,
}

/// What one event touched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touched {
    /// Services whose claims may have changed.
    pub services: BTreeSet<ObjectName>,
    /// Nodes that changed; facts about the own one touch every Service.
    pub nodes: BTreeSet<ObjectName>,
}

impl Touched {
    /// Adds what another event touched.
    pub fn extend(&mut self, other: Self) {
        self.services.extend(other.services);
        self.nodes.extend(other.nodes);
    }
}

/// A Service with its endpoints.
#[derive(Debug, Clone)]
pub struct ServiceView<'a> {
    /// The Service.
    pub service: &'a Service,
    /// Its slices, or what its Endpoints object mirrors to where it has none; in the order of their names.
    pub slices: Vec<&'a EndpointSlice>,
}

impl Store {
    /// Takes an event in and tells what it touched. An event that changes nothing touches nothing.
    pub fn apply(&mut self, event: Event) -> Touched {
        let mut touched = Touched::default();
        match event {
            Event::Services(change) => {
                for changed in self.services.apply(change) {
                    self.note_problems(Kind::Service, &changed.name, changed.problems);
                    touched.services.insert(changed.name);
                }
            }
            Event::EndpointSlices(change) => {
                for changed in self.slices.apply(change) {
                    self.note_problems(Kind::EndpointSlice, &changed.name, changed.problems);
                    let after = self
                        .slices
                        .get(&changed.name)
                        .map(|slice| slice.service.clone());
                    let before = changed.before.map(|slice| slice.service);
                    self.move_slice(&changed.name, before.as_ref(), after.as_ref());
                    touched.services.extend(before);
                    touched.services.extend(after);
                }
            }
            Event::Endpoints(change) => {
                for changed in self.endpoints.apply(change) {
                    self.note_problems(Kind::Endpoints, &changed.name, changed.problems);
                    touched.services.insert(changed.name);
                }
            }
            Event::Nodes(change) => {
                for changed in self.nodes.apply(change) {
                    self.note_problems(Kind::Node, &changed.name, changed.problems);
                    touched.nodes.insert(changed.name);
                }
            }
            Event::Source(problems) => self.source_problems = problems,
        }
        touched
    }

    /// The kinds that no source has reported whole yet; empty when plans may be made.
    pub fn waiting_for(&self) -> Vec<Kind> {
        [
            (self.services.complete, Kind::Service),
            (self.slices.complete, Kind::EndpointSlice),
            (self.endpoints.complete, Kind::Endpoints),
            (self.nodes.complete, Kind::Node),
        ]
        .into_iter()
        .filter_map(|(complete, kind)| (!complete).then_some(kind))
        .collect()
    }

    /// A Service and its endpoints; `None` if there is no such Service that could be served.
    pub fn service(&self, name: &ObjectName) -> Option<ServiceView<'_>> {
        let service = self.services.get(name)?;
        let mut slices: Vec<_> = self
            .slices_of
            .get(name)
            .into_iter()
            .flatten()
            .filter_map(|slice| self.slices.get(slice))
            .collect();
        if slices.is_empty() && !service.has_selector {
            slices.extend(
                self.endpoints
                    .get(name)
                    .into_iter()
                    .flat_map(|endpoints| &endpoints.slices),
            );
        }
        Some(ServiceView { service, slices })
    }

    /// The names of all Services that could be served, and of those with something to say about them.
    pub fn services(&self) -> impl Iterator<Item = &ObjectName> {
        self.services.objects.keys()
    }

    /// A Node by name.
    pub fn node(&self, name: &ObjectName) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// What reading the cluster gave rise to, by object, then what the source says of itself.
    pub fn problems(&self) -> impl Iterator<Item = &Problems> {
        self.problems
            .values()
            .chain(std::iter::once(&self.source_problems))
    }

    fn note_problems(&mut self, kind: Kind, name: &ObjectName, problems: Problems) {
        let subject = Subject::Object(kind, name.clone());
        if problems.is_empty() {
            self.problems.remove(&subject);
        } else {
            self.problems.insert(subject, problems);
        }
    }

    fn move_slice(
        &mut self,
        slice: &ObjectName,
        before: Option<&ObjectName>,
        after: Option<&ObjectName>,
    ) {
        if before == after {
            return;
        }
        if let Some(before) = before
            && let Some(slices) = self.slices_of.get_mut(before)
        {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices_of.remove(before);
            }
        }
        if let Some(after) = after {
            self.slices_of
                .entry(after.clone())
                .or_default()
                .insert(slice.clone());
        }
    }
}

/// The objects of one kind.
#[derive(Debug)]
struct Kept<T> {
    objects: BTreeMap<ObjectName, Parsed<T>>,
    complete: bool,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            complete: false,
        }
    }
}

/// An object that is not what it was.
struct Changed<T> {
    name: ObjectName,
    before: Option<T>,
    problems: Problems,
}

impl<T: PartialEq> Kept<T> {
    fn get(&self, name: &ObjectName) -> Option<&T> {
        self.objects.get(name)?.value.as_ref()
    }

    fn apply(&mut self, change: Change<T>) -> Vec<Changed<T>> {
        match change {
            Change::Upsert(object) => self.upsert(object).into_iter().collect(),
            Change::Remove(name) => self.remove(name).into_iter().collect(),
            Change::Replaced(objects) => {
                self.complete = true;
                let names: BTreeSet<_> = objects.iter().map(|object| object.name.clone()).collect();
                let gone: Vec<_> = self
                    .objects
                    .keys()
                    .filter(|name| !names.contains(*name))
                    .cloned()
                    .collect();
                let removed: Vec<_> = gone
                    .into_iter()
                    .filter_map(|name| self.remove(name))
                    .collect();
                let upserted = objects.into_iter().filter_map(|object| self.upsert(object));
                removed.into_iter().chain(upserted).collect()
            }
        }
    }

    fn upsert(&mut self, object: Parsed<T>) -> Option<Changed<T>> {
        if self.objects.get(&object.name) == Some(&object) {
            return None;
        }
        let name = object.name.clone();
        let problems = object.problems.clone();
        let before = self
            .objects
            .insert(name.clone(), object)
            .and_then(|before| before.value);
        Some(Changed {
            name,
            before,
            problems,
        })
    }

    fn remove(&mut self, name: ObjectName) -> Option<Changed<T>> {
        let before = self.objects.remove(&name)?.value;
        Some(Changed {
            name,
            before,
            problems: Problems::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Finding, ServiceType, TrafficPolicy};
    use ipvs::Family;

    fn name(name: &str) -> ObjectName {
        ObjectName::new("default", name)
    }

    fn parsed<T>(of: &str, value: T) -> Parsed<T> {
        Parsed {
            name: name(of),
            value: Some(value),
            problems: Problems::default(),
        }
    }

    fn service(of: &str, has_selector: bool) -> Parsed<Service> {
        parsed(
            of,
            Service {
                name: name(of),
                created: None,
                service_type: ServiceType::ClusterIp,
                headless: false,
                cluster_ips: Vec::new(),
                ports: Vec::new(),
                has_selector,
                affinity: None,
                internal_traffic_policy: TrafficPolicy::Cluster,
            },
        )
    }

    fn slice_value(of: &str, service: &str) -> EndpointSlice {
        EndpointSlice {
            name: name(of),
            service: name(service),
            family: Family::Ipv4,
            ports: Vec::new(),
            endpoints: Vec::new(),
        }
    }

    fn slice(of: &str, service: &str) -> Parsed<EndpointSlice> {
        parsed(of, slice_value(of, service))
    }

    fn endpoints(of: &str) -> Parsed<Endpoints> {
        let value = Endpoints {
            name: name(of),
            slices: vec![slice_value("from-endpoints", of)],
        };
        parsed(of, value)
    }

    fn finding(of: &str) -> Problems {
        Problems {
            findings: vec![Finding {
                subject: Subject::Object(Kind::Service, name(of)),
                field: String::new(),
                problem: "it is wrong".to_owned(),
                consequence: "it is ignored".to_owned(),
            }],
            notes: Vec::new(),
        }
    }

    fn touched(services: &[&str]) -> Touched {
        Touched {
            services: services.iter().map(|service| name(service)).collect(),
            nodes: BTreeSet::new(),
        }
    }

    /// The names of the slices that a Service is served from.
    fn slices_of(store: &Store, service: &str) -> Option<Vec<String>> {
        let view = store.service(&name(service))?;
        let names = view.slices.iter().map(|slice| slice.name.name.to_string());
        Some(names.collect())
    }

    fn services(change: Change<Service>) -> Event {
        Event::Services(change)
    }

    fn slices(change: Change<EndpointSlice>) -> Event {
        Event::EndpointSlices(change)
    }

    #[test]
    fn every_kind_is_waited_for_until_it_was_reported_whole() {
        let mut store = Store::default();
        store.apply(services(Change::Upsert(service("a", true))));
        assert_eq!(
            store.waiting_for(),
            [
                Kind::Service,
                Kind::EndpointSlice,
                Kind::Endpoints,
                Kind::Node
            ]
        );
        store.apply(services(Change::Replaced(Vec::new())));
        store.apply(slices(Change::Replaced(Vec::new())));
        store.apply(Event::Endpoints(Change::Replaced(Vec::new())));
        assert_eq!(store.waiting_for(), [Kind::Node]);
        store.apply(Event::Nodes(Change::Replaced(Vec::new())));
        assert!(store.waiting_for().is_empty());
        store.apply(services(Change::Remove(name("a"))));
        assert!(store.waiting_for().is_empty());
    }

    #[test]
    fn a_slice_that_is_relabelled_moves_and_touches_both_services() {
        let mut store = Store::default();
        for of in ["a", "b"] {
            store.apply(services(Change::Upsert(service(of, true))));
        }
        assert_eq!(
            store.apply(slices(Change::Upsert(slice("s", "a")))),
            touched(&["a"])
        );
        assert_eq!(
            store.apply(slices(Change::Upsert(slice("s", "b")))),
            touched(&["a", "b"])
        );
        assert_eq!(slices_of(&store, "a"), Some(vec![]));
        assert_eq!(slices_of(&store, "b"), Some(vec!["s".to_owned()]));
    }

    #[test]
    fn a_slice_of_no_service_waits_for_it() {
        let mut store = Store::default();
        store.apply(slices(Change::Upsert(slice("s", "a"))));
        assert_eq!(slices_of(&store, "a"), None);
        store.apply(services(Change::Upsert(service("a", true))));
        assert_eq!(slices_of(&store, "a"), Some(vec!["s".to_owned()]));
    }

    #[test]
    fn a_slice_that_cannot_be_used_any_more_leaves_its_service() {
        let mut store = Store::default();
        store.apply(services(Change::Upsert(service("a", true))));
        store.apply(slices(Change::Upsert(slice("s", "a"))));
        let broken = Parsed {
            value: None,
            ..slice("s", "a")
        };
        assert_eq!(store.apply(slices(Change::Upsert(broken))), touched(&["a"]));
        assert_eq!(slices_of(&store, "a"), Some(vec![]));
    }

    #[test]
    fn what_a_replacement_does_not_hold_is_gone() {
        let mut store = Store::default();
        store.apply(services(Change::Replaced(vec![
            service("a", true),
            service("b", true),
        ])));
        let replaced = store.apply(services(Change::Replaced(vec![service("b", true)])));
        assert_eq!(replaced, touched(&["a"]));
        assert!(store.service(&name("a")).is_none());
        assert!(store.service(&name("b")).is_some());
    }

    #[test]
    fn what_changes_nothing_touches_nothing() {
        let mut store = Store::default();
        store.apply(services(Change::Replaced(vec![service("a", true)])));
        store.apply(slices(Change::Replaced(vec![slice("s", "a")])));
        for event in [
            services(Change::Replaced(vec![service("a", true)])),
            services(Change::Upsert(service("a", true))),
            services(Change::Remove(name("b"))),
            slices(Change::Replaced(vec![slice("s", "a")])),
            slices(Change::Upsert(slice("s", "a"))),
            Event::Source(finding("a")),
        ] {
            assert_eq!(store.apply(event.clone()), touched(&[]), "{event:?}");
        }
    }

    #[test]
    fn endpoints_count_only_without_a_selector_and_without_slices() {
        let mut store = Store::default();
        for (of, has_selector) in [("chosen", true), ("by-hand", false)] {
            store.apply(services(Change::Upsert(service(of, has_selector))));
            assert_eq!(
                store.apply(Event::Endpoints(Change::Upsert(endpoints(of)))),
                touched(&[of])
            );
        }
        assert_eq!(slices_of(&store, "chosen"), Some(vec![]));
        let mirrored = Some(vec!["from-endpoints".to_owned()]);
        assert_eq!(slices_of(&store, "by-hand"), mirrored);
        store.apply(slices(Change::Upsert(slice("s", "by-hand"))));
        assert_eq!(slices_of(&store, "by-hand"), Some(vec!["s".to_owned()]));
        store.apply(slices(Change::Remove(name("s"))));
        assert_eq!(slices_of(&store, "by-hand"), mirrored);
        store.apply(Event::Endpoints(Change::Remove(name("by-hand"))));
        assert_eq!(slices_of(&store, "by-hand"), Some(vec![]));
    }

    #[test]
    fn problems_follow_their_object() {
        let mut store = Store::default();
        let bad = Parsed {
            name: name("a"),
            value: None,
            problems: finding("a"),
        };
        let findings = |store: &Store| -> usize {
            store
                .problems()
                .map(|problems| problems.findings.len())
                .sum()
        };
        assert_eq!(store.apply(services(Change::Upsert(bad))), touched(&["a"]));
        assert!(store.service(&name("a")).is_none());
        assert_eq!(findings(&store), 1);
        store.apply(Event::Source(finding("b")));
        assert_eq!(findings(&store), 2);
        store.apply(Event::Source(Problems::default()));
        store.apply(services(Change::Upsert(service("a", true))));
        assert_eq!(findings(&store), 0);
    }
}
