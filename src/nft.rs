//! The node's packet rules: tables `inet weir` and `arp weir` of nftables, over netlink, without the `nft` program.
//!
//! The rules are fixed ([`chains`]); what depends on the cluster are elements of sets and maps ([`model`]), changed by element. Tables are
//! replaced whole, in one transaction, only at start and after drift: a packet then sees either the old rules or the new ones, and
//! connections that nftables translates live on.

use std::collections::BTreeMap;

use ipvs::netlink::{
    NetlinkProtocol, RawMessage, Rejection, Request, TransactionError, Transport, TransportError,
};

pub mod chains;
mod elements;
mod encode;
mod expression;
pub mod model;
mod observe;
pub mod rules;
pub mod text;
mod wire;

pub use encode::Subject;
pub use model::{Element, ElementChanges, Elements, Key, Set, Target};
pub use observe::{Deviation, Observed};
pub use rules::{Counter, Detector, MarkBit, Settings, TableName};

use elements::{Decoded, decode};
use encode::{
    Item, NFT_OBJECT_COUNTER, NFTA_OBJ_DATA, NFTA_OBJ_NAME, NFTA_OBJ_TABLE, NFTA_OBJ_TYPE,
    NFTA_RULE_TABLE, NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_TABLE, NFTA_TABLE_NAME, TABLE,
};
use observe::{Structure, Thing};
use wire::{Attribute, Attributes, Kind, attributes_of, brackets, find, message};

const ENOENT: i32 = 2;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;

/// How often a read that others' changes of any table disturbed is tried.
const READ_ATTEMPTS: usize = 5;
/// How often the elements of a set are read while the kernel reorganises it.
const ELEMENT_ATTEMPTS: usize = 10;

/// A socket to `nf_tables`, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    transport: Transport,
}

/// What could not be done, and why.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The socket could not be opened.
    #[error("cannot open a socket to nf_tables")]
    Open(#[source] TransportError),
    /// There is a table of our name that we did not make. Nothing was changed.
    #[error(
        "table {0} exists and was not made by weir; delete it (nft delete table {0}) if nothing needs it"
    )]
    Foreign(TableName),
    /// The element is of another shape or family than its set's. Nothing was sent.
    #[error("{element} cannot be an element of set {set}")]
    Misfit {
        /// The set.
        set: Set,
        /// The element.
        element: Element,
    },
    /// What the kernel holds could not be read.
    #[error("cannot read nftables ({what})")]
    Read {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        #[source]
        source: TransportError,
    },
    /// The tables could not be replaced.
    #[error("cannot replace the tables{}", of(.about.as_ref()))]
    Replace {
        /// What the kernel refused first.
        about: Option<Subject>,
        /// Why.
        #[source]
        source: TransactionError,
    },
    /// The elements could not be changed.
    #[error("cannot change elements{}", of(.about.as_ref()))]
    Change {
        /// What the kernel refused first.
        about: Option<Subject>,
        /// Why.
        #[source]
        source: TransactionError,
    },
    /// The tables could not be deleted.
    #[error("cannot delete the tables")]
    Delete(#[source] TransactionError),
}

fn of(about: Option<&Subject>) -> String {
    about.map_or_else(String::new, |about| format!(" ({about})"))
}

impl NftError {
    /// Whether the kernel does not hold what was believed: an element to remove is absent, one to add is present, or a table or a set
    /// is gone. Nothing was changed. Read again, and replace the tables.
    pub fn is_drift(&self) -> bool {
        match self {
            Self::Change {
                source: TransactionError::Refused(refusals),
                ..
            } => refusals
                .iter()
                .any(|refusal| matches!(refusal.rejection.errno, ENOENT | EBUSY | EEXIST)),
            Self::Change { .. }
            | Self::Open(_)
            | Self::Foreign(_)
            | Self::Misfit { .. }
            | Self::Read { .. }
            | Self::Replace { .. }
            | Self::Delete(_) => false,
        }
    }

    /// Whether the kernel may or may not have done what it was asked: read again before deciding anything.
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Replace { source, .. } | Self::Change { source, .. } | Self::Delete(source) => {
                matches!(source, TransactionError::Transport(error) if error.is_outcome_unknown())
            }
            Self::Open(_) | Self::Foreign(_) | Self::Misfit { .. } | Self::Read { .. } => false,
        }
    }
}

/// What a named counter has counted since its table was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes, with network headers.
    pub bytes: u64,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> Result<Self, NftError> {
        let transport = Transport::open(NetlinkProtocol::Netfilter).map_err(NftError::Open)?;
        Ok(Self { transport })
    }

    /// Makes both tables hold the rules for these settings, and these elements, in one transaction, whatever they held before.
    ///
    /// # Errors
    ///
    /// [`NftError::Foreign`] if a table of our name is not ours; else nothing was changed either, but see [`NftError::is_outcome_unknown`].
    pub fn replace(&mut self, settings: &Settings, elements: &Elements) -> Result<(), NftError> {
        fit(elements)?;
        self.tables()?;
        self.transact(encode::replacement(*settings, elements))
            .map_err(|(about, source)| NftError::Replace { about, source })
    }

    /// Adds and removes elements in one transaction.
    ///
    /// # Errors
    ///
    /// Nothing was changed; but see [`NftError::is_outcome_unknown`]. If the kernel does not hold what the change supposes,
    /// [`NftError::is_drift`].
    pub fn change(&mut self, changes: &ElementChanges) -> Result<(), NftError> {
        fit(&changes.add)?;
        fit(&changes.remove)?;
        self.transact(encode::changes(changes))
            .map_err(|(about, source)| NftError::Change { about, source })
    }

    /// Deletes both tables. Absent ones are fine.
    ///
    /// # Errors
    ///
    /// As of [`Self::replace`].
    pub fn delete(&mut self) -> Result<(), NftError> {
        if self.tables()?.is_empty() {
            return Ok(());
        }
        self.transact(encode::removal())
            .map_err(|(_, source)| NftError::Delete(source))
    }

    /// Reads both tables with everything in them; `None` if neither is there.
    ///
    /// # Errors
    ///
    /// [`NftError::Foreign`] if a table of our name is not ours; [`NftError::Read`] if any part could not be read.
    pub fn read(&mut self) -> Result<Option<Observed>, NftError> {
        for _ in 0..READ_ATTEMPTS {
            let before = self.generation()?;
            let observed = self.read_once();
            if self.generation()? == before {
                return observed;
            }
        }
        Err(NftError::Read {
            what: "everything at one time",
            source: TransportError::Interrupted,
        })
    }

    /// A number that changes with every transaction of any program on any table of this network namespace. While it is the same, nothing
    /// has changed.
    pub fn generation(&mut self) -> Result<u32, NftError> {
        const NFTA_GEN_ID: u16 = 1;
        let request = message(Kind::GetGeneration, None, Attributes::new());
        let answer = self.transport.request(Request::new(request));
        let answer = answer.map_err(reading("the generation"))?;
        find(attributes_of(&answer), NFTA_GEN_ID)
            .and_then(Attribute::number)
            .ok_or(TransportError::Unanswered)
            .map_err(reading("the generation"))
    }

    /// The named counters; those that are absent are left out.
    pub fn counters(&mut self) -> Result<BTreeMap<Counter, Count>, NftError> {
        let objects = self.dump(
            "counters",
            Kind::GetObject,
            Some(TableName::Inet),
            counters(),
        )?;
        let mut counts = BTreeMap::new();
        for object in &objects {
            let name = find(attributes_of(object), NFTA_OBJ_NAME).and_then(Attribute::string);
            let counter = Counter::ALL
                .into_iter()
                .find(|counter| Some(counter.name()) == name);
            if let (Some(counter), Some(count)) = (counter, count(object)) {
                counts.insert(counter, count);
            }
        }
        Ok(counts)
    }

    fn read_once(&mut self) -> Result<Option<Observed>, NftError> {
        let tables = self.tables()?;
        if tables.is_empty() {
            return Ok(None);
        }
        let mut structure = Structure::default();
        structure.add(Thing::Table, tables);
        let named = |table: u16| Attributes::new().string(table, TABLE);
        for (what, thing, kind, request) in [
            ("counters", Thing::Counter, Kind::GetObject, counters()),
            ("sets", Thing::Set, Kind::GetSet, named(NFTA_SET_TABLE)),
            ("chains", Thing::Chain, Kind::GetChain, Attributes::new()),
            ("rules", Thing::Rule, Kind::GetRule, named(NFTA_RULE_TABLE)),
        ] {
            for table in [TableName::Inet, TableName::Arp] {
                let messages = self.dump(what, kind, Some(table), request.clone())?;
                structure.add(thing, messages);
            }
        }
        let mut decoded = BTreeMap::new();
        for set in Set::all().filter(|set| structure.has_set(*set)) {
            decoded.insert(set, self.elements(set)?);
        }
        Ok(Some(Observed::new(structure, decoded)))
    }

    /// The elements of a set.
    ///
    /// The kernel dumps a large set in several messages, and walks its hash table anew for each, skipping as many elements as it has told
    /// already. While the table grows after many insertions, elements change places meanwhile, and one in ten may be left out or told twice
    /// without any sign of it (seen with 50,000 on 6.18). So a dump of several messages counts only when the next one says the same.
    fn elements(&mut self, set: Set) -> Result<Decoded, NftError> {
        let mut before = None;
        for _ in 0..ELEMENT_ATTEMPTS {
            let (table, request) = (encode::table_of(set), encode::elements_of(set));
            let messages = self.dump("elements", Kind::GetSetElements, Some(table), request)?;
            let lists = messages.iter().flat_map(|message| {
                attributes_of(message)
                    .filter(|attribute| attribute.kind == NFTA_SET_ELEM_LIST_ELEMENTS)
            });
            let decoded = decode(set, lists);
            if decoded.repeated == 0 {
                if messages.len() < 2 || before.as_ref() == Some(&decoded) {
                    return Ok(decoded);
                }
                before = Some(decoded);
            }
        }
        Err(NftError::Read {
            what: "elements",
            source: TransportError::Interrupted,
        })
    }

    /// Those of our tables that are there.
    fn tables(&mut self) -> Result<Vec<RawMessage>, NftError> {
        let mut tables = Vec::new();
        for table in [TableName::Inet, TableName::Arp] {
            let request = message(
                Kind::GetTable,
                Some(table),
                Attributes::new().string(NFTA_TABLE_NAME, TABLE),
            );
            match self.transport.request(Request::new(request)) {
                Ok(message) if observe::is_ours(&message) => tables.push(message),
                Ok(_) => return Err(NftError::Foreign(table)),
                Err(error) if is_absent(error.rejection()) => {}
                Err(error) => return Err(reading("tables")(error)),
            }
        }
        Ok(tables)
    }

    /// An absent table has nothing in it.
    fn dump(
        &mut self,
        what: &'static str,
        kind: Kind,
        table: Option<TableName>,
        request: Attributes,
    ) -> Result<Vec<RawMessage>, NftError> {
        let request = Request::new(message(kind, table, request));
        match self.transport.dump(request) {
            Ok(messages) => Ok(messages),
            Err(error) if is_absent(error.rejection()) => Ok(Vec::new()),
            Err(error) => Err(reading(what)(error)),
        }
    }

    fn transact(&mut self, items: Vec<Item>) -> Result<(), (Option<Subject>, TransactionError)> {
        let (begin, end) = brackets();
        let (subjects, requests): (Vec<_>, Vec<_>) = items
            .into_iter()
            .map(|item| (item.subject, item.request))
            .unzip();
        self.transport
            .transact(begin, requests, end)
            .map_err(|error| {
                let about = if let TransactionError::Refused(refusals) = &error
                    && let Some(refusal) = refusals.first()
                    && let Some(position) = refusal.request
                {
                    subjects.get(position).copied()
                } else {
                    None
                };
                (about, error)
            })
    }
}

fn counters() -> Attributes {
    Attributes::new()
        .string(NFTA_OBJ_TABLE, TABLE)
        .number(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER)
}

/// `NFTA_COUNTER_BYTES`, `NFTA_COUNTER_PACKETS`.
fn count(object: &RawMessage) -> Option<Count> {
    let data = find(attributes_of(object), NFTA_OBJ_DATA)?;
    let number = |kind| {
        let value = find(data.attributes(), kind)?.value;
        Some(u64::from_be_bytes(value.try_into().ok()?))
    };
    Some(Count {
        bytes: number(1)?,
        packets: number(2)?,
    })
}

fn fit(elements: &Elements) -> Result<(), NftError> {
    for (set, elements) in elements {
        if let Some(element) = elements.iter().find(|element| !element.fits(*set)) {
            return Err(NftError::Misfit {
                set: *set,
                element: *element,
            });
        }
    }
    Ok(())
}

fn is_absent(rejection: Option<&Rejection>) -> bool {
    rejection.is_some_and(|rejection| rejection.errno == ENOENT)
}

fn reading(what: &'static str) -> impl Fn(TransportError) -> NftError {
    move |source| NftError::Read { what, source }
}
