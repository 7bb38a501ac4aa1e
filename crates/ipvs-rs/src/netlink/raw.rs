//! A message as its type and its bytes.

use std::convert::Infallible;

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};

/// A message of any protocol, not looked into: what follows the netlink header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawMessage {
    /// The type in the netlink header.
    pub message_type: u16,
    /// Everything behind the netlink header.
    pub payload: Vec<u8>,
}

impl NetlinkSerializable for RawMessage {
    fn message_type(&self) -> u16 {
        self.message_type
    }

    fn buffer_len(&self) -> usize {
        self.payload.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.payload);
    }
}

impl NetlinkDeserializable for RawMessage {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self {
            message_type: header.message_type,
            payload: payload.to_owned(),
        })
    }
}
