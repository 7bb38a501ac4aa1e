//! What the kernel holds of our tables: elements, and where the rest differs from what it should be.

use std::collections::{BTreeMap, BTreeSet};

use ipvs::netlink::RawMessage;

use super::chains::tables;
use super::elements::Decoded;
use super::encode::{
    Item, NFTA_CHAIN_NAME, NFTA_CHAIN_TABLE, NFTA_OBJ_NAME, NFTA_OBJ_TABLE, NFTA_OBJ_TYPE,
    NFTA_RULE_CHAIN, NFTA_RULE_TABLE, NFTA_SET_ID, NFTA_SET_NAME, NFTA_SET_TABLE,
    NFTA_SET_USERDATA, NFTA_TABLE_NAME, NFTA_TABLE_USERDATA, NFTNL_UDATA_TABLE_COMMENT, Subject,
    TABLE, structure,
};
use super::model::{Elements, Set};
use super::rules::{Settings, TableName};
use super::text::MARKER;
use super::wire::{Attribute, attributes_of, find, table_of};

/// Our tables as the kernel holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The elements of all sets, as far as they could be ours.
    pub elements: Elements,
    /// Sets that are there, with elements that we cannot have written.
    strange: BTreeSet<Set>,
    /// Everything but elements, as the kernel told it.
    structure: Structure,
}

/// Where the kernel differs from what it should hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deviation {
    /// It is absent.
    Absent(Subject),
    /// It is there, but not as it should be.
    Different(Subject),
    /// A chain, a set or a counter of this name should not be there.
    Unknown(TableName, String),
}

impl std::fmt::Display for Deviation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent(subject) => write!(f, "{subject}: absent"),
            Self::Different(subject) => write!(f, "{subject}: changed by another program"),
            Self::Unknown(table, name) => {
                write!(f, "{name} in table {table}: made by another program")
            }
        }
    }
}

/// Messages of the kernel by table and name; a chain's rules in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Structure {
    objects: BTreeMap<Name, Vec<RawMessage>>,
}

/// What kind of thing, where, and its name (of a rule, its chain's).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    thing: Thing,
    table: TableName,
    own: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Thing {
    Table,
    Counter,
    Set,
    Chain,
    Rule,
}

impl Thing {
    /// The attributes that name its table and itself.
    fn names(self) -> (u16, u16) {
        match self {
            Self::Table => (NFTA_TABLE_NAME, NFTA_TABLE_NAME),
            Self::Counter => (NFTA_OBJ_TABLE, NFTA_OBJ_NAME),
            Self::Set => (NFTA_SET_TABLE, NFTA_SET_NAME),
            Self::Chain => (NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME),
            Self::Rule => (NFTA_RULE_TABLE, NFTA_RULE_CHAIN),
        }
    }
}

impl Structure {
    /// Adds what a dump says of our tables; whatever else it says is left out.
    pub(super) fn add(&mut self, kind: Thing, messages: Vec<RawMessage>) {
        for message in messages {
            if let Some(name) = name(kind, &message) {
                self.objects.entry(name).or_default().push(message);
            }
        }
    }

    /// Whether one of our sets is there, so that its elements can be read.
    pub(super) fn has_set(&self, set: Set) -> bool {
        self.objects.contains_key(&Name {
            thing: Thing::Set,
            table: super::encode::table_of(set),
            own: set.to_string(),
        })
    }

    fn deviations(&self, settings: Settings) -> BTreeSet<Deviation> {
        let mut deviations = BTreeSet::new();
        let mut expected: BTreeMap<Name, (Subject, Vec<RawMessage>)> = BTreeMap::new();
        for Item { subject, request } in structure(settings) {
            if let Some(name) = thing(subject).and_then(|kind| name(kind, &request.message)) {
                let entry = expected.entry(name).or_insert((subject, Vec::new()));
                entry.1.push(request.message);
            }
        }
        for (name, (subject, ours)) in &expected {
            match self.objects.get(name) {
                None => {
                    deviations.insert(Deviation::Absent(*subject));
                }
                Some(theirs) if !is_same(name.thing, ours, theirs) => {
                    deviations.insert(Deviation::Different(*subject));
                }
                Some(_) => {}
            }
        }
        // A rule that should not be there makes its chain's different, or its chain is unknown itself.
        let unknown = self
            .objects
            .keys()
            .filter(|name| !expected.contains_key(name));
        deviations.extend(unknown.map(|name| Deviation::Unknown(name.table, name.own.clone())));
        deviations
    }
}

fn thing(subject: Subject) -> Option<Thing> {
    match subject {
        Subject::Table(_) => Some(Thing::Table),
        Subject::Counter(_) => Some(Thing::Counter),
        Subject::Set(_) => Some(Thing::Set),
        Subject::Chain(..) => Some(Thing::Chain),
        Subject::Rules(..) => Some(Thing::Rule),
        Subject::Elements(_) => None,
    }
}

fn name(thing: Thing, message: &RawMessage) -> Option<Name> {
    let (of_table, of_itself) = thing.names();
    let string = |kind| find(attributes_of(message), kind).and_then(Attribute::string);
    if string(of_table)? != TABLE {
        return None;
    }
    Some(Name {
        thing,
        table: table_of(message)?,
        own: string(of_itself)?.to_owned(),
    })
}

fn is_same(kind: Thing, ours: &[RawMessage], theirs: &[RawMessage]) -> bool {
    // A set's number is of its transaction only, its user data are for printing, an object's contents change.
    let compared = |attribute: &u16| match kind {
        Thing::Set => !matches!(*attribute, NFTA_SET_ID | NFTA_SET_USERDATA),
        Thing::Counter => *attribute <= NFTA_OBJ_TYPE,
        Thing::Table | Thing::Chain | Thing::Rule => true,
    };
    ours.len() == theirs.len()
        && ours.iter().zip(theirs).all(|(ours, theirs)| {
            let ours: Vec<_> = attributes_of(ours)
                .filter(|attribute| compared(&attribute.kind))
                .collect();
            let theirs: Vec<_> = attributes_of(theirs).collect();
            is_said(&ours, &theirs)
        })
}

/// Whether the kernel says everything that it was told. It says more: handles, defaults of later versions. Attributes of one kind are a
/// list.
fn is_said(ours: &[Attribute<'_>], theirs: &[Attribute<'_>]) -> bool {
    let kinds: BTreeSet<u16> = ours.iter().map(|attribute| attribute.kind).collect();
    kinds.into_iter().all(|kind| {
        let of_kind = |attribute: &&Attribute<'_>| attribute.kind == kind;
        let (mut ours, mut theirs) = (ours.iter().filter(of_kind), theirs.iter().filter(of_kind));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(ours), Some(theirs)) if is_equal(*ours, *theirs) => {}
                (Some(_) | None, Some(_)) | (Some(_), None) => return false,
            }
        }
    })
}

fn is_equal(ours: Attribute<'_>, theirs: Attribute<'_>) -> bool {
    if ours.is_nested {
        let ours: Vec<_> = ours.attributes().collect();
        let theirs: Vec<_> = theirs.attributes().collect();
        is_said(&ours, &theirs)
    } else {
        ours.value == theirs.value
    }
}

/// Whether a table is ours, as its comment says.
pub(super) fn is_ours(table: &RawMessage) -> bool {
    let comment = find(attributes_of(table), NFTA_TABLE_USERDATA).and_then(|userdata| {
        let (kind, rest) = userdata.value.split_first()?;
        let (_, text) = rest.split_first()?;
        (*kind == NFTNL_UDATA_TABLE_COMMENT).then_some(text)
    });
    comment.is_some_and(|comment| comment.starts_with(MARKER.as_bytes()))
}

impl Observed {
    pub(super) fn new(structure: Structure, decoded: BTreeMap<Set, Decoded>) -> Self {
        let mut elements = Elements::new();
        let mut strange = BTreeSet::new();
        for (set, decoded) in decoded {
            if decoded.strange > 0 {
                strange.insert(set);
            }
            if !decoded.elements.is_empty() {
                elements.insert(set, decoded.elements);
            }
        }
        Self {
            elements,
            strange,
            structure,
        }
    }

    /// Where tables, chains, rules, sets and counters differ from what these settings ask for, and sets with elements that we cannot have
    /// written. If there is anything, only replacing the tables helps. Of elements otherwise, compare [`Self::elements`].
    pub fn deviations(&self, settings: &Settings) -> BTreeSet<Deviation> {
        let mut deviations = self.structure.deviations(*settings);
        let strange = self.strange.iter().copied();
        deviations.extend(strange.map(|set| Deviation::Different(Subject::Elements(set))));
        deviations
    }

    /// The number of rules in both tables.
    pub fn rules(&self) -> usize {
        let rules = self.structure.objects.iter();
        rules
            .filter(|(name, _)| name.thing == Thing::Rule)
            .map(|(_, rules)| rules.len())
            .sum()
    }

    /// The number of rules in both tables that these settings ask for.
    pub fn rules_wanted(settings: &Settings) -> usize {
        let tables = tables(*settings);
        let chains = tables.iter().flat_map(|table| &table.chains);
        chains.map(|chain| chain.rules.len()).sum()
    }
}
