//! The forms that values of attributes have, and lists of attributes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{
    DecodeError, NLA_ALIGNTO, NLA_F_NESTED, NLA_HEADER_SIZE, Nla, NlaBuffer, NlasIterator,
};

use super::MessageError;
use crate::{Family, Netmask};

/// A value as it stands in an attribute.
pub(super) trait Value: Sized {
    /// What is set in the type of an attribute that holds such a value.
    const FLAGS: u16 = 0;

    /// The value of these bytes; `None` if they have not the form.
    fn get(bytes: &[u8]) -> Option<Self>;

    /// How many bytes [`Value::put`] fills.
    fn length(&self) -> usize;

    /// Fills the buffer, which has the length of the value.
    fn put(&self, buffer: &mut [u8]);
}

/// A type whose values are attributes.
pub(super) trait FromAttribute: Sized {
    fn from_attribute(attribute: &NlaBuffer<&[u8]>) -> Result<Self, DecodeError>;
}

/// Every attribute of a list.
pub(super) fn parse_all<T: FromAttribute>(bytes: &[u8]) -> Result<Vec<T>, DecodeError> {
    NlasIterator::new(bytes)
        .map(|attribute| T::from_attribute(&attribute?))
        .collect()
}

/// How many bytes [`emit_all`] fills.
pub(super) fn length_of_all<T: Nla>(attributes: &[T]) -> usize {
    attributes
        .iter()
        .map(|attribute| NLA_HEADER_SIZE + attribute.value_len().next_multiple_of(NLA_ALIGNTO))
        .sum()
}

/// Writes a list of attributes. The crate for netlink has a function for it, which loses one of the two flags of a type that has
/// both (netlink-packet-core 0.9.0); what came with both must leave with both.
pub(super) fn emit_all<T: Nla>(attributes: &[T], mut buffer: &mut [u8]) {
    for attribute in attributes {
        let value = attribute.value_len();
        let length = u16::try_from(NLA_HEADER_SIZE + value).unwrap_or(u16::MAX);
        let padded = value.next_multiple_of(NLA_ALIGNTO);
        let Some((header, rest)) = buffer.split_first_chunk_mut::<NLA_HEADER_SIZE>() else {
            return;
        };
        copy(
            header,
            [length.to_ne_bytes(), attribute.kind().to_ne_bytes()].as_flattened(),
        );
        let Some((room, rest)) = rest.split_at_mut_checked(padded) else {
            return;
        };
        room.fill(0);
        if let Some(room) = room.get_mut(..value) {
            attribute.emit_value(room);
        }
        buffer = rest;
    }
}

fn copy(buffer: &mut [u8], bytes: &[u8]) {
    for (to, from) in buffer.iter_mut().zip(bytes) {
        *to = *from;
    }
}

macro_rules! native_number {
    ($($number:ty)*) => {$(
        impl Value for $number {
            fn get(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self::from_ne_bytes)
            }

            fn length(&self) -> usize {
                size_of::<Self>()
            }

            fn put(&self, buffer: &mut [u8]) {
                copy(buffer, &self.to_ne_bytes());
            }
        }
    )*};
}

native_number!(u8 u16 u32 u64);

/// A port: the one kind of number in network order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub u16);

impl Value for Port {
    fn get(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(u16::from_be_bytes).map(Self)
    }

    fn length(&self) -> usize {
        2
    }

    fn put(&self, buffer: &mut [u8]) {
        copy(buffer, &self.0.to_be_bytes());
    }
}

/// `union nf_inet_addr`: always 16 bytes, of which an IPv4 address takes the first 4. What it is, another attribute says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawAddress(pub [u8; 16]);

impl RawAddress {
    /// The address, read as one of this family.
    pub fn address(self, family: Family) -> IpAddr {
        let [a, b, c, d, ..] = self.0;
        match family {
            Family::Ipv4 => Ipv4Addr::new(a, b, c, d).into(),
            Family::Ipv6 => Ipv6Addr::from(self.0).into(),
        }
    }
}

impl From<IpAddr> for RawAddress {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                Self([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            }
            IpAddr::V6(address) => Self(address.octets()),
        }
    }
}

impl Value for RawAddress {
    fn get(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    fn length(&self) -> usize {
        16
    }

    fn put(&self, buffer: &mut [u8]) {
        copy(buffer, &self.0);
    }
}

impl Value for [u8; 4] {
    fn get(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }

    fn length(&self) -> usize {
        4
    }

    fn put(&self, buffer: &mut [u8]) {
        copy(buffer, self);
    }
}

/// A persistence netmask: for IPv4 a mask in network order, for IPv6 a prefix length in host order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawNetmask(pub [u8; 4]);

impl RawNetmask {
    /// The netmask, read as one of this family; `None` if an IPv6 prefix length is above 255.
    pub fn netmask(self, family: Family) -> Option<Netmask> {
        match family {
            Family::Ipv4 => Some(Netmask::V4(self.0.into())),
            Family::Ipv6 => u8::try_from(u32::from_ne_bytes(self.0))
                .ok()
                .map(Netmask::V6),
        }
    }
}

impl From<Netmask> for RawNetmask {
    fn from(netmask: Netmask) -> Self {
        match netmask {
            Netmask::V4(mask) => Self(mask.octets()),
            Netmask::V6(length) => Self(u32::from(length).to_ne_bytes()),
        }
    }
}

impl Value for RawNetmask {
    fn get(bytes: &[u8]) -> Option<Self> {
        Value::get(bytes).map(Self)
    }

    fn length(&self) -> usize {
        self.0.length()
    }

    fn put(&self, buffer: &mut [u8]) {
        self.0.put(buffer);
    }
}

/// `struct ip_vs_flags`: bits, and which of them are meant. The kernel leaves bits outside the mask as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlagsAndMask {
    /// The bits.
    pub flags: u32,
    /// Those that are meant.
    pub mask: u32,
}

impl Value for FlagsAndMask {
    fn get(bytes: &[u8]) -> Option<Self> {
        let (flags, mask) = bytes.split_first_chunk()?;
        Some(Self {
            flags: u32::from_ne_bytes(*flags),
            mask: u32::from_ne_bytes(mask.try_into().ok()?),
        })
    }

    fn length(&self) -> usize {
        8
    }

    fn put(&self, buffer: &mut [u8]) {
        let bytes = [self.flags.to_ne_bytes(), self.mask.to_ne_bytes()];
        copy(buffer, bytes.as_flattened());
    }
}

/// Text that ends with its only NUL.
impl Value for String {
    fn get(bytes: &[u8]) -> Option<Self> {
        let (0, text) = bytes.split_last()? else {
            return None;
        };
        let text = str::from_utf8(text).ok()?;
        (!text.contains('\0')).then(|| text.to_owned())
    }

    fn length(&self) -> usize {
        self.len() + 1
    }

    fn put(&self, buffer: &mut [u8]) {
        buffer.fill(0);
        copy(buffer, self.as_bytes());
    }
}

/// A list of attributes inside one. The kernel's own lists lack the flag; requests carry it, as those of `ipvsadm` do.
impl<T: FromAttribute + Nla> Value for Vec<T> {
    const FLAGS: u16 = NLA_F_NESTED;

    fn get(bytes: &[u8]) -> Option<Self> {
        parse_all(bytes).ok()
    }

    fn length(&self) -> usize {
        length_of_all(self)
    }

    fn put(&self, buffer: &mut [u8]) {
        emit_all(self, buffer);
    }
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// `AF_*`.
pub(super) fn family_number(family: Family) -> u16 {
    match family {
        Family::Ipv4 => AF_INET,
        Family::Ipv6 => AF_INET6,
    }
}

/// The family with this `AF_*`.
pub(super) fn family_from(number: u16, attribute: &'static str) -> Result<Family, MessageError> {
    match number {
        AF_INET => Ok(Family::Ipv4),
        AF_INET6 => Ok(Family::Ipv6),
        _ => Err(MessageError::Impossible {
            attribute,
            value: number.to_string(),
        }),
    }
}

/// Refuses a text that cannot be a name of at most `longest` bytes in the kernel.
pub(super) fn check_name(
    name: &str,
    longest: usize,
    attribute: &'static str,
) -> Result<(), MessageError> {
    if name.is_empty() || name.len() > longest || name.contains('\0') {
        return Err(MessageError::Impossible {
            attribute,
            value: format!("{name:?}"),
        });
    }
    Ok(())
}
