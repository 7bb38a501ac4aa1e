//! The pure half as one thing: events in, desired state out, at the cost of what an event touched.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::arbitrate::Desired;
use crate::arbitrate::elements::Wisher;
use crate::model::{Finding, Kind, Note, ObjectName, Problems, Subject};
use crate::nft::rules::{self, MarkBit};
use crate::resolve::{NodeFacts, Settings, packet_rules, resolve};
use crate::source::Event;
use crate::store::claims::{ClaimIndex, TouchedKeys};
use crate::store::{Store, Touched};

/// Everything known of the cluster, and what should be on this node because of it.
#[derive(Debug)]
pub struct Pipeline {
    settings: Settings,
    facts: NodeFacts,
    store: Store,
    claims: ClaimIndex,
    desired: Desired,
}

impl Pipeline {
    /// Nothing known yet, for the node of this name.
    pub fn new(node_name: &str, settings: Settings) -> Self {
        let mut desired = Desired::new();
        desired
            .virtual_servers
            .retain(|key, _| settings.families.contains(&key.family()));
        Self {
            settings,
            facts: NodeFacts {
                name: node_name.into(),
                ..NodeFacts::default()
            },
            store: Store::default(),
            claims: ClaimIndex::default(),
            desired,
        }
        .with_node_facts()
    }

    fn with_node_facts(mut self) -> Self {
        self.take_node_facts();
        self
    }

    /// Takes events in and brings the desired state up to date; tells the keys whose desired state may have changed.
    pub fn apply(&mut self, events: impl IntoIterator<Item = Event>) -> TouchedKeys {
        let mut touched = Touched::default();
        for event in events {
            touched.extend(self.store.apply(event));
        }
        let mut services = touched.services;
        if touched.nodes.contains(&self.own_node()) && self.take_node_facts() {
            services.extend(self.store.services().cloned());
        }
        self.resolve(&services)
    }

    /// The kinds that no source has reported whole; empty when plans may be made.
    pub fn waiting_for(&self) -> Vec<Kind> {
        self.store.waiting_for()
    }

    /// What should be. Means something only once nothing is waited for.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// The node's name.
    pub fn node_name(&self) -> &Arc<str> {
        &self.facts.name
    }

    /// Every finding and note, sorted, each once.
    pub fn problems(&self) -> Problems {
        let mut all = Problems::default();
        for problems in self.store.problems().chain(self.claims.problems()) {
            all.extend(problems);
        }
        let conflicts: Vec<Finding> = self.desired.conflicts.values().flatten().cloned().collect();
        all.findings.extend(conflicts);
        if self.waiting_for().is_empty() && self.store.node(&self.own_node()).is_none() {
            all.notes.push(Note {
                subject: Subject::Object(Kind::Node, self.own_node()),
                text: "there is no such Node: topology hints for zones are not followed".to_owned(),
            });
        }
        all.normalise();
        all
    }

    /// What the packet rules depend on besides their elements.
    pub fn nft_settings(&self, mark: MarkBit) -> rules::Settings {
        rules::Settings {
            mark,
            detector: packet_rules::detector(&self.settings, &self.facts),
        }
    }

    fn own_node(&self) -> ObjectName {
        ObjectName {
            namespace: "".into(),
            name: Arc::clone(&self.facts.name),
        }
    }

    /// Whether the facts of the node that resolving looks at have changed.
    fn take_node_facts(&mut self) -> bool {
        let node = self.store.node(&self.own_node());
        let facts = NodeFacts {
            name: Arc::clone(&self.facts.name),
            zone: node.and_then(|node| node.zone.clone()),
            pod_cidrs: node.map(|node| node.pod_cidrs.clone()).unwrap_or_default(),
        };
        let changed = self.facts != facts;
        self.facts = facts;
        self.desired.wish(
            Wisher::Node,
            packet_rules::of_node(&self.settings, &self.facts),
        );
        changed
    }

    fn resolve(&mut self, services: &BTreeSet<ObjectName>) -> TouchedKeys {
        let mut touched = TouchedKeys::default();
        for name in services {
            let claims = self
                .store
                .service(name)
                .map(|view| resolve(&view, &self.facts, &self.settings));
            self.claims.set(name, claims, &mut touched);
        }
        self.desired.arbitrate(&self.claims, &touched);
        touched
    }
}
