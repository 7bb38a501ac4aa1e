//! Our tables and changes of their elements as the messages of a transaction.

use std::fmt;

use ipvs::Family;
use ipvs::netlink::{RawMessage, Request};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};

use super::chains::tables;
use super::elements::lists;
use super::expression::expressions;
use super::model::{Element, ElementChanges, Elements, Set, Shape};
use super::rules::{Chain, ChainKind, Counter, HookPoint, Settings, Table, TableName};
use super::text::comment;
use super::wire::{Attributes, Kind, message};

pub(super) const TABLE: &str = "weir";

pub(super) const NFTA_TABLE_NAME: u16 = 1;
pub(super) const NFTA_TABLE_FLAGS: u16 = 2;
pub(super) const NFTA_TABLE_USERDATA: u16 = 6;
pub(super) const NFTNL_UDATA_TABLE_COMMENT: u8 = 0;
pub(super) const NFTA_CHAIN_TABLE: u16 = 1;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_SET_TABLE: u16 = 1;
pub(super) const NFTA_SET_NAME: u16 = 2;
pub(super) const NFTA_SET_ID: u16 = 10;
pub(super) const NFTA_SET_USERDATA: u16 = 13;
pub(super) const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
pub(super) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub(super) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
pub(super) const NFTA_OBJ_TABLE: u16 = 1;
pub(super) const NFTA_OBJ_NAME: u16 = 2;
pub(super) const NFTA_OBJ_TYPE: u16 = 3;
pub(super) const NFTA_OBJ_DATA: u16 = 4;
pub(super) const NFT_OBJECT_COUNTER: u32 = 1;

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A table.
    Table(TableName),
    /// A named counter.
    Counter(Counter),
    /// A set or map, without its elements.
    Set(Set),
    /// A chain, without its rules.
    Chain(TableName, &'static str),
    /// The rules of a chain.
    Rules(TableName, &'static str),
    /// Elements of a set or map.
    Elements(Set),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(table) => write!(f, "table {table}"),
            Self::Counter(counter) => write!(f, "counter {}", counter.name()),
            Self::Set(set) => write!(f, "set {set} of table {}", table_of(*set)),
            Self::Chain(table, chain) => write!(f, "chain {chain} of table {table}"),
            Self::Rules(table, chain) => write!(f, "the rules of chain {chain} of table {table}"),
            Self::Elements(set) => {
                write!(f, "the elements of set {set} of table {}", table_of(*set))
            }
        }
    }
}

/// A message of a transaction.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) subject: Subject,
    pub(super) request: Request<RawMessage>,
}

impl Item {
    fn new(
        subject: Subject,
        (kind, table): (Kind, TableName),
        flags: u16,
        attributes: Attributes,
    ) -> Self {
        Self {
            subject,
            request: Request::new(message(kind, Some(table), attributes)).with_flags(flags),
        }
    }
}

/// Replaces both tables, whether they are there or not.
pub(super) fn replacement(settings: Settings, elements: &Elements) -> Vec<Item> {
    let mut items = removal();
    items.extend(structure(settings));
    items.extend(additions(elements, NLM_F_CREATE));
    items
}

/// Deletes both tables, whether they are there or not: only what exists can be deleted before Linux 6.3.
pub(super) fn removal() -> Vec<Item> {
    let mut items = Vec::new();
    for table in [TableName::Inet, TableName::Arp] {
        let name = || Attributes::new().string(NFTA_TABLE_NAME, TABLE);
        let subject = Subject::Table(table);
        items.push(Item::new(
            subject,
            (Kind::NewTable, table),
            NLM_F_CREATE,
            name(),
        ));
        items.push(Item::new(subject, (Kind::DeleteTable, table), 0, name()));
    }
    items
}

/// Both tables without elements.
pub(super) fn structure(settings: Settings) -> Vec<Item> {
    let comment = comment(settings);
    let mut items = Vec::new();
    let mut id = 0;
    for table in tables(settings) {
        let name = table.name;
        items.push(new_table(name, &comment));
        items.extend(table.counters.iter().map(|counter| new_counter(*counter)));
        for set in &table.sets {
            id += 1;
            items.push(new_set(*set, id));
        }
        items.extend(table.chains.iter().map(|chain| new_chain(name, chain)));
        items.extend(rules(&table));
    }
    items
}

/// Changes of elements: what goes away first, since an element may come back with another target.
pub(super) fn changes(changes: &ElementChanges) -> Vec<Item> {
    let mut items = Vec::new();
    for (set, elements) in &changes.remove {
        items.extend(element_items(
            *set,
            elements.iter(),
            Kind::DeleteSetElements,
            0,
        ));
    }
    items.extend(additions(&changes.add, NLM_F_CREATE | NLM_F_EXCL));
    items
}

fn additions(elements: &Elements, flags: u16) -> Vec<Item> {
    elements
        .iter()
        .flat_map(|(set, elements)| {
            element_items(*set, elements.iter(), Kind::NewSetElements, flags)
        })
        .collect()
}

fn element_items<'a>(
    set: Set,
    elements: impl Iterator<Item = &'a Element>,
    kind: Kind,
    flags: u16,
) -> Vec<Item> {
    lists(elements)
        .iter()
        .map(|list| {
            let attributes = elements_of(set).nested(NFTA_SET_ELEM_LIST_ELEMENTS, list);
            let table = table_of(set);
            Item::new(Subject::Elements(set), (kind, table), flags, attributes)
        })
        .collect()
}

/// Names a set as messages about elements do.
pub(super) fn elements_of(set: Set) -> Attributes {
    Attributes::new()
        .string(NFTA_SET_ELEM_LIST_TABLE, TABLE)
        .string(NFTA_SET_ELEM_LIST_SET, &set.to_string())
}

/// The table that a set is in.
pub(super) fn table_of(set: Set) -> TableName {
    if set == Set::Arp {
        TableName::Arp
    } else {
        TableName::Inet
    }
}

/// A table with a comment, which `nft` keeps as user data of type, length and value.
fn new_table(table: TableName, comment: &str) -> Item {
    let mut userdata = vec![
        NFTNL_UDATA_TABLE_COMMENT,
        u8::try_from(comment.len() + 1).unwrap_or(u8::MAX),
    ];
    userdata.extend(comment.bytes());
    userdata.push(0);
    let attributes = Attributes::new()
        .string(NFTA_TABLE_NAME, TABLE)
        .number(NFTA_TABLE_FLAGS, 0)
        .bytes(NFTA_TABLE_USERDATA, &userdata);
    Item::new(
        Subject::Table(table),
        (Kind::NewTable, table),
        NLM_F_CREATE,
        attributes,
    )
}

fn new_counter(counter: Counter) -> Item {
    let attributes = Attributes::new()
        .string(NFTA_OBJ_TABLE, TABLE)
        .string(NFTA_OBJ_NAME, counter.name())
        .number(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER)
        .nested(NFTA_OBJ_DATA, &Attributes::new());
    Item::new(
        Subject::Counter(counter),
        (Kind::NewObject, TableName::Inet),
        NLM_F_CREATE,
        attributes,
    )
}

/// What the kernel is told of a set, and `nft` through it.
struct SetType {
    /// `NFT_SET_*`.
    flags: u32,
    /// The fields of a key: what `nft` calls their type, and their length.
    key: Vec<(u32, u32)>,
    /// The fields of what a map has for a key.
    data: Vec<(u32, u32)>,
}

const NFT_SET_INTERVAL: u32 = 4;
const NFT_SET_MAP: u32 = 8;
const NFT_SET_CONCAT: u32 = 0x80;
/// `TYPE_INET_PROTOCOL` and `TYPE_INET_SERVICE` of `nft`, and the lengths of their values.
const PROTOCOL: (u32, u32) = (12, 1);
const PORT: (u32, u32) = (13, 2);

fn set_type(set: Set) -> SetType {
    // TYPE_IPADDR, TYPE_IP6ADDR
    let address = match set.family() {
        Family::Ipv4 => (7, 4),
        Family::Ipv6 => (8, 16),
    };
    let (flags, key, data) = match set.shape() {
        Shape::Address => (0, vec![address], vec![]),
        Shape::Prefix => (NFT_SET_INTERVAL, vec![address], vec![]),
        Shape::Key => (0, vec![address, PROTOCOL, PORT], vec![]),
        Shape::KeyTo => (
            NFT_SET_MAP,
            vec![address, PROTOCOL, PORT],
            vec![address, PORT],
        ),
        Shape::KeyFrom => (
            NFT_SET_INTERVAL | NFT_SET_CONCAT,
            vec![address, PROTOCOL, PORT, address],
            vec![],
        ),
        Shape::Pair => (0, vec![address, address], vec![]),
    };
    SetType { flags, key, data }
}

/// The number that `nft` has for joined types, 6 bits each.
fn joined_type(fields: &[(u32, u32)]) -> u32 {
    fields
        .iter()
        .fold(0, |joined, (kind, _)| joined << 6 | kind)
}

/// Joined fields are padded to four bytes; one alone is not.
fn joined_length(fields: &[(u32, u32)]) -> u32 {
    fields
        .iter()
        .map(|(_, length)| length.next_multiple_of(4))
        .sum()
}

fn new_set(set: Set, id: u32) -> Item {
    const NFTA_SET_FLAGS: u16 = 3;
    const NFTA_SET_KEY_TYPE: u16 = 4;
    const NFTA_SET_KEY_LEN: u16 = 5;
    const NFTA_SET_DATA_TYPE: u16 = 6;
    const NFTA_SET_DATA_LEN: u16 = 7;
    const NFTA_SET_DESC: u16 = 9;
    const NFTA_SET_DESC_CONCAT: u16 = 2;
    const NFTA_LIST_ELEM: u16 = 1;
    const NFTA_SET_FIELD_LEN: u16 = 1;

    let SetType { flags, key, data } = set_type(set);
    let mut attributes = Attributes::new()
        .string(NFTA_SET_TABLE, TABLE)
        .string(NFTA_SET_NAME, &set.to_string())
        .number(NFTA_SET_KEY_TYPE, joined_type(&key))
        .number(NFTA_SET_KEY_LEN, joined_length(&key))
        .number(NFTA_SET_ID, id)
        .bytes(NFTA_SET_USERDATA, &userdata(&key, &data));
    if flags != 0 {
        attributes = attributes.number(NFTA_SET_FLAGS, flags);
    }
    if !data.is_empty() {
        attributes = attributes
            .number(NFTA_SET_DATA_TYPE, joined_type(&data))
            .number(NFTA_SET_DATA_LEN, joined_length(&data));
    }
    if flags & NFT_SET_CONCAT != 0 {
        let mut fields = Attributes::new();
        for (_, length) in key {
            fields.put_nested(
                NFTA_LIST_ELEM,
                &Attributes::new().number(NFTA_SET_FIELD_LEN, length),
            );
        }
        let description = Attributes::new().nested(NFTA_SET_DESC_CONCAT, &fields);
        attributes = attributes.nested(NFTA_SET_DESC, &description);
    }
    let table = table_of(set);
    Item::new(
        Subject::Set(set),
        (Kind::NewSet, table),
        NLM_F_CREATE,
        attributes,
    )
}

/// What `nft` wants to know to print a set: `NFTNL_UDATA_SET_KEYBYTEORDER` and `NFTNL_UDATA_SET_DATABYTEORDER`, each a number in host order, of
/// which 2 is big endian; of joined fields 0, since each field's type has its own.
fn userdata(key: &[(u32, u32)], data: &[(u32, u32)]) -> Vec<u8> {
    let order = |kind, fields: &[(u32, u32)]| {
        let order: u32 = if fields.len() == 1 { 2 } else { 0 };
        let mut bytes = vec![kind, 4];
        bytes.extend(order.to_ne_bytes());
        bytes
    };
    let mut userdata = order(0, key);
    if !data.is_empty() {
        userdata.extend(order(1, data));
    }
    userdata
}

fn new_chain(table: TableName, chain: &Chain) -> Item {
    const NFTA_CHAIN_HOOK: u16 = 4;
    const NFTA_CHAIN_POLICY: u16 = 5;
    const NFTA_CHAIN_TYPE: u16 = 7;
    const NFTA_HOOK_HOOKNUM: u16 = 1;
    const NFTA_HOOK_PRIORITY: u16 = 2;
    const NF_ACCEPT: u32 = 1;

    let mut attributes = Attributes::new()
        .string(NFTA_CHAIN_TABLE, TABLE)
        .string(NFTA_CHAIN_NAME, chain.name);
    if let Some(hook) = chain.hook {
        let number = match hook.point {
            HookPoint::Prerouting | HookPoint::ArpInput => 0,
            HookPoint::Input => 1,
            HookPoint::Forward => 2,
            HookPoint::Output => 3,
            HookPoint::Postrouting => 4,
        };
        let kind = match hook.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        };
        let place = Attributes::new()
            .number(NFTA_HOOK_HOOKNUM, number)
            .bytes(NFTA_HOOK_PRIORITY, &hook.priority.to_be_bytes());
        attributes = attributes
            .nested(NFTA_CHAIN_HOOK, &place)
            .number(NFTA_CHAIN_POLICY, NF_ACCEPT)
            .string(NFTA_CHAIN_TYPE, kind);
    }
    Item::new(
        Subject::Chain(table, chain.name),
        (Kind::NewChain, table),
        NLM_F_CREATE,
        attributes,
    )
}

fn rules(table: &Table) -> impl Iterator<Item = Item> {
    const NFTA_RULE_EXPRESSIONS: u16 = 4;
    let name = table.name;
    table.chains.iter().flat_map(move |chain| {
        chain.rules.iter().map(move |rule| {
            let attributes = Attributes::new()
                .string(NFTA_RULE_TABLE, TABLE)
                .string(NFTA_RULE_CHAIN, chain.name)
                .nested(NFTA_RULE_EXPRESSIONS, &expressions(rule));
            Item::new(
                Subject::Rules(name, chain.name),
                (Kind::NewRule, name),
                NLM_F_CREATE | NLM_F_APPEND,
                attributes,
            )
        })
    })
}
