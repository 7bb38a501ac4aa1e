//! Netlink attributes and messages of `nf_tables` as bytes. Numbers are big endian unless the kernel copies them into a register.

use ipvs::netlink::RawMessage;

use super::rules::TableName;

/// What one attribute may hold, less what surrounds it: its length is 16 bits wide.
pub(super) const LARGEST_LIST: usize = 60_000;

const HEADER: usize = 4;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
const NFPROTO_ARP: u8 = 3;

/// `enum nf_tables_msg_types`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    GetRule = 7,
    NewSet = 9,
    GetSet = 10,
    NewSetElements = 12,
    GetSetElements = 13,
    DeleteSetElements = 14,
    GetGeneration = 16,
    NewObject = 18,
    GetObject = 19,
}

impl Kind {
    #[expect(
        clippy::as_conversions,
        reason = "the numbers of a field-less enum, all below 256"
    )]
    pub(super) fn message_type(self) -> u16 {
        NFNL_SUBSYS_NFTABLES << 8 | self as u16
    }
}

/// A message about a table, or about all of them.
pub(super) fn message(kind: Kind, table: Option<TableName>, attributes: Attributes) -> RawMessage {
    let family = match table {
        None => NFPROTO_UNSPEC,
        Some(TableName::Inet) => NFPROTO_INET,
        Some(TableName::Arp) => NFPROTO_ARP,
    };
    // struct nfgenmsg: family, version 0, resource id
    let mut payload = vec![family, 0, 0, 0];
    payload.extend(attributes.0);
    RawMessage {
        message_type: kind.message_type(),
        payload,
    }
}

/// What begins and ends a transaction of `nf_tables`.
pub(super) fn brackets() -> (RawMessage, RawMessage) {
    let [high, low] = NFNL_SUBSYS_NFTABLES.to_be_bytes();
    let bracket = |message_type| RawMessage {
        message_type,
        payload: vec![NFPROTO_UNSPEC, 0, high, low],
    };
    (bracket(NFNL_MSG_BATCH_BEGIN), bracket(NFNL_MSG_BATCH_END))
}

/// The table that a message is about.
pub(super) fn table_of(message: &RawMessage) -> Option<TableName> {
    match message.payload.first() {
        Some(&NFPROTO_INET) => Some(TableName::Inet),
        Some(&NFPROTO_ARP) => Some(TableName::Arp),
        _ => None,
    }
}

/// The attributes of a message from the kernel.
pub(super) fn attributes_of(message: &RawMessage) -> impl Iterator<Item = Attribute<'_>> {
    attributes(message.payload.get(4..).unwrap_or_default())
}

/// Attributes to send.
#[derive(Debug, Clone, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.put(kind, value);
        self
    }

    pub(super) fn byte(self, kind: u16, value: u8) -> Self {
        self.bytes(kind, &[value])
    }

    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// With the zero behind it.
    pub(super) fn string(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(super) fn nested(self, kind: u16, attributes: &Self) -> Self {
        self.bytes(kind | NESTED, &attributes.0)
    }

    pub(super) fn put_nested(&mut self, kind: u16, attributes: &Self) {
        self.put(kind | NESTED, &attributes.0);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(HEADER + value.len());
        debug_assert!(length.is_ok(), "lists are split");
        let field = length.unwrap_or(u16::MAX);
        self.0.extend_from_slice(&field.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// A received attribute, or one of ours read again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attribute<'a> {
    pub(super) kind: u16,
    pub(super) is_nested: bool,
    pub(super) value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The attributes within.
    pub(super) fn attributes(self) -> impl Iterator<Item = Attribute<'a>> {
        attributes(self.value)
    }

    /// A number; `None` unless it has four bytes.
    pub(super) fn number(self) -> Option<u32> {
        Some(u32::from_be_bytes(self.value.try_into().ok()?))
    }

    /// A string without the zero behind it; `None` if it is no UTF-8.
    pub(super) fn string(self) -> Option<&'a str> {
        std::str::from_utf8(self.value.strip_suffix(&[0]).unwrap_or(self.value)).ok()
    }
}

/// Attributes up to the first that cannot be one.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk()?;
        let (kind, _) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_ne_bytes(*length));
        let value = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes(*kind);
        Some(Attribute {
            kind: kind & TYPE_MASK,
            is_nested: kind & NESTED != 0,
            value,
        })
    })
}

/// The attribute of this kind.
pub(super) fn find<'a>(
    mut attributes: impl Iterator<Item = Attribute<'a>>,
    kind: u16,
) -> Option<Attribute<'a>> {
    attributes.find(|attribute| attribute.kind == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_written() {
        let inner = Attributes::new().number(2, 7).string(3, "abc");
        let outer = Attributes::new().byte(1, 9).nested(4, &inner);
        assert_eq!(outer.len() % 4, 0);
        let read: Vec<_> = attributes(outer.as_bytes()).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].kind, read[0].value), (1, &[9][..]));
        assert!(read[1].is_nested);
        assert_eq!(
            find(read[1].attributes(), 2).and_then(Attribute::number),
            Some(7)
        );
        assert_eq!(
            find(read[1].attributes(), 3).and_then(Attribute::string),
            Some("abc")
        );
    }

    #[test]
    fn no_bytes_make_reading_panic_or_go_on_for_ever() {
        let bytes = [5, 0, 1, 0, 9, 0, 0, 0, 3, 0, 1, 0, 0xff, 0xff, 1, 0];
        for start in 0..bytes.len() {
            for end in start..=bytes.len() {
                assert!(attributes(&bytes[start..end]).count() <= bytes.len());
            }
        }
    }
}
