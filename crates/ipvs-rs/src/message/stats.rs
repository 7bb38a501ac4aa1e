//! Counters from attributes.

use super::attribute::{Stats64Attribute, StatsAttribute};
use crate::Stats;

/// The 64-bit counters if the kernel tells them, else the 32-bit ones widened; a counter that is not told is 0.
pub(super) fn stats(wide: Option<&[Stats64Attribute]>, narrow: Option<&[StatsAttribute]>) -> Stats {
    match (wide, narrow) {
        (Some(attributes), _) => from_wide(attributes),
        (None, Some(attributes)) => from_narrow(attributes),
        (None, None) => Stats::default(),
    }
}

fn from_wide(attributes: &[Stats64Attribute]) -> Stats {
    let mut stats = Stats::default();
    for attribute in attributes {
        match *attribute {
            Stats64Attribute::Connections(value) => stats.connections = value,
            Stats64Attribute::IncomingPackets(value) => stats.incoming_packets = value,
            Stats64Attribute::OutgoingPackets(value) => stats.outgoing_packets = value,
            Stats64Attribute::IncomingBytes(value) => stats.incoming_bytes = value,
            Stats64Attribute::OutgoingBytes(value) => stats.outgoing_bytes = value,
            Stats64Attribute::ConnectionRate(value) => stats.rates.connections = value,
            Stats64Attribute::IncomingPacketRate(value) => stats.rates.incoming_packets = value,
            Stats64Attribute::OutgoingPacketRate(value) => stats.rates.outgoing_packets = value,
            Stats64Attribute::IncomingByteRate(value) => stats.rates.incoming_bytes = value,
            Stats64Attribute::OutgoingByteRate(value) => stats.rates.outgoing_bytes = value,
            Stats64Attribute::Other(_) => {}
        }
    }
    stats
}

fn from_narrow(attributes: &[StatsAttribute]) -> Stats {
    let mut stats = Stats::default();
    for attribute in attributes {
        match *attribute {
            StatsAttribute::Connections(value) => stats.connections = value.into(),
            StatsAttribute::IncomingPackets(value) => stats.incoming_packets = value.into(),
            StatsAttribute::OutgoingPackets(value) => stats.outgoing_packets = value.into(),
            StatsAttribute::IncomingBytes(value) => stats.incoming_bytes = value,
            StatsAttribute::OutgoingBytes(value) => stats.outgoing_bytes = value,
            StatsAttribute::ConnectionRate(value) => stats.rates.connections = value.into(),
            StatsAttribute::IncomingPacketRate(value) => {
                stats.rates.incoming_packets = value.into();
            }
            StatsAttribute::OutgoingPacketRate(value) => {
                stats.rates.outgoing_packets = value.into();
            }
            StatsAttribute::IncomingByteRate(value) => stats.rates.incoming_bytes = value.into(),
            StatsAttribute::OutgoingByteRate(value) => stats.rates.outgoing_bytes = value.into(),
            StatsAttribute::Other(_) => {}
        }
    }
    stats
}
