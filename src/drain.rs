//! Real servers that leave while they still have connections. Pure: `now` is an argument.
//!
//! A TCP or SCTP server that leaves is quiesced (weight 0), so that nobody new comes; then it is deleted as soon as it has no
//! connection left, or at its deadline. The connections are read *after* the quiescing, or one that came in between would be cut.
//! A UDP server is deleted at once: IPVS keeps sending a flow to its server whatever the weight, for as long as packets come, so
//! a quiesced one would never be free of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipvs::{Protocol, RealServerKey, VirtualServerKey, Weight};

use crate::dataplane::ObservedRealServer;

/// How long a real server may drain unless `--drain-timeout` says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// Time since the machine booted, suspended time included (`CLOCK_BOOTTIME`): nobody sets it. Deadlines are not written down yet: a weir that restarts gives
/// what it finds quiesced its full time again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(pub Duration);

/// A real server of a virtual server.
pub type Server = (VirtualServerKey, RealServerKey);

/// Undesired real servers that may still have connections, and when they are deleted at the latest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Draining {
    deadlines: BTreeMap<Server, BootTime>,
}

/// What a plan changes about who drains.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DrainChanges {
    /// Starts, with its deadline.
    pub start: BTreeMap<Server, BootTime>,
    /// Ends: deleted, or wanted again.
    pub end: BTreeSet<Server>,
}

/// What to do with a real server that is not desired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Set its weight to 0 and wait.
    Quiesce,
    /// It is quiesced and may have connections: wait.
    Wait,
    /// Nothing holds it.
    Delete,
}

/// The time that decides, and how long a server may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Now.
    pub now: BootTime,
    /// How long a server may drain.
    pub timeout: Duration,
}

impl Clock {
    /// The deadline of a server that starts to drain now.
    pub fn deadline(&self) -> BootTime {
        BootTime(self.now.0.saturating_add(self.timeout))
    }
}

impl Draining {
    /// When this server is deleted at the latest; `None` if it does not drain.
    pub fn deadline(&self, server: &Server) -> Option<BootTime> {
        self.deadlines.get(server).copied()
    }

    /// The virtual servers with real servers that drain.
    pub fn virtual_servers(&self) -> BTreeSet<VirtualServerKey> {
        self.deadlines.keys().map(|(key, _)| *key).collect()
    }

    /// All real servers that drain.
    pub fn servers(&self) -> BTreeSet<Server> {
        self.deadlines.keys().copied().collect()
    }

    /// Takes over what a plan has changed.
    pub fn apply(&mut self, changes: &DrainChanges) {
        for server in &changes.end {
            self.deadlines.remove(server);
        }
        for (server, deadline) in &changes.start {
            self.deadlines.insert(*server, *deadline);
        }
    }

    /// Forgets servers that are no longer there.
    pub fn retain(&mut self, exists: impl Fn(&Server) -> bool) {
        self.deadlines.retain(|server, _| exists(server));
    }

    /// What to do with a real server that is not desired.
    pub fn leave(&self, server: &Server, observed: &ObservedRealServer, clock: Clock) -> Leave {
        if !waits_for_connections(&server.0) {
            return Leave::Delete;
        }
        if observed.config.weight != Weight::QUIESCED {
            return Leave::Quiesce;
        }
        let is_idle = observed
            .connections
            .is_some_and(|connections| connections.active == 0 && connections.inactive == 0);
        let is_due = self
            .deadline(server)
            .is_some_and(|deadline| deadline <= clock.now);
        if is_idle || is_due {
            Leave::Delete
        } else {
            Leave::Wait
        }
    }
}

fn waits_for_connections(key: &VirtualServerKey) -> bool {
    match key {
        VirtualServerKey::Address { protocol, .. } => match protocol {
            Protocol::Tcp | Protocol::Sctp => true,
            Protocol::Udp => false,
        },
        VirtualServerKey::Mark { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use ipvs::{Connections, RealServerConfig};

    use super::*;

    const NOW: Clock = Clock {
        now: BootTime(Duration::from_secs(1_000)),
        timeout: Duration::from_secs(60),
    };

    fn server(protocol: Protocol) -> Server {
        let key = VirtualServerKey::Address {
            address: "192.0.2.10".parse().unwrap(),
            port: 80,
            protocol,
        };
        let real = RealServerKey {
            address: "198.51.100.1".parse().unwrap(),
            port: 8080,
        };
        (key, real)
    }

    fn observed(weight: u32, connections: Option<(u32, u32)>) -> ObservedRealServer {
        ObservedRealServer {
            config: RealServerConfig::masquerade(Weight(weight)),
            connections: connections.map(|(active, inactive)| Connections {
                active,
                inactive,
                persistent: 0,
            }),
        }
    }

    #[test]
    fn a_server_leaves_in_order() {
        let mut draining = Draining::default();
        let tcp = server(Protocol::Tcp);
        for (weight, connections, expected) in [
            (1, None, Leave::Quiesce),
            (1, Some((0, 0)), Leave::Quiesce),
            (0, None, Leave::Wait),
            (0, Some((1, 0)), Leave::Wait),
            (0, Some((0, 1)), Leave::Wait),
            (0, Some((0, 0)), Leave::Delete),
        ] {
            let found = draining.leave(&tcp, &observed(weight, connections), NOW);
            assert_eq!(found, expected, "weight {weight}, {connections:?}");
        }
        let mut changes = DrainChanges::default();
        changes.start.insert(tcp, NOW.deadline());
        draining.apply(&changes);
        let busy = observed(0, Some((3, 0)));
        assert_eq!(draining.leave(&tcp, &busy, NOW), Leave::Wait);
        let later = Clock {
            now: BootTime(Duration::from_secs(1_060)),
            ..NOW
        };
        assert_eq!(draining.leave(&tcp, &busy, later), Leave::Delete);
    }

    #[test]
    fn udp_goes_at_once_and_sctp_drains() {
        let draining = Draining::default();
        let busy = observed(1, Some((0, 7)));
        assert_eq!(
            draining.leave(&server(Protocol::Udp), &busy, NOW),
            Leave::Delete
        );
        assert_eq!(
            draining.leave(&server(Protocol::Sctp), &busy, NOW),
            Leave::Quiesce
        );
    }
}
