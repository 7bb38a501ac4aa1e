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
