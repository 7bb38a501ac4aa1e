//! Schedulers by name.

use std::fmt;
use std::str::FromStr;

/// The scheduler of a virtual server (`IPVS_SVC_ATTR_SCHED_NAME`; `ipvsadm -s`).
///
/// The kernel knows schedulers by name and loads the module `ip_vs_NAME` when one is asked for, so a name this crate has not
/// heard of is data and not an error.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Scheduler {
    /// `rr`
    RoundRobin,
    /// `wrr`
    WeightedRoundRobin,
    /// `lc`
    LeastConnection,
    /// `wlc`
    WeightedLeastConnection,
    /// `lblc`
    LocalityBasedLeastConnection,
    /// `lblcr`
    LocalityBasedLeastConnectionWithReplication,
    /// `dh`
    DestinationHashing,
    /// `sh`
    SourceHashing,
    /// `sed`
    ShortestExpectedDelay,
    /// `nq`
    NeverQueue,
    /// `fo`
    WeightedFailover,
    /// `ovf`
    WeightedOverflow,
    /// `mh`
    Maglev,
    /// `twos`, since Linux 5.14
    TwoRandomChoices,
    /// Any other name.
    Other(SchedulerName),
}

/// The name of a scheduler that this crate has no variant for: 1 to 15 bytes of printable ASCII without spaces
/// (`IP_VS_SCHEDNAME_MAXLEN` is 16 with the closing NUL).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchedulerName(String);

impl SchedulerName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that cannot be the name of a scheduler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be the name of an IPVS scheduler: 1 to 15 printable ASCII characters without spaces"
)]
pub struct InvalidScheduler(String);

impl Scheduler {
    const KNOWN: [(Self, &'static str); 14] = [
        (Self::RoundRobin, "rr"),
        (Self::WeightedRoundRobin, "wrr"),
        (Self::LeastConnection, "lc"),
        (Self::WeightedLeastConnection, "wlc"),
        (Self::LocalityBasedLeastConnection, "lblc"),
        (Self::LocalityBasedLeastConnectionWithReplication, "lblcr"),
        (Self::DestinationHashing, "dh"),
        (Self::SourceHashing, "sh"),
        (Self::ShortestExpectedDelay, "sed"),
        (Self::NeverQueue, "nq"),
        (Self::WeightedFailover, "fo"),
        (Self::WeightedOverflow, "ovf"),
        (Self::Maglev, "mh"),
        (Self::TwoRandomChoices, "twos"),
    ];

    /// Every scheduler of the mainline kernel.
    pub fn known() -> impl Iterator<Item = Self> {
        Self::KNOWN.into_iter().map(|(scheduler, _)| scheduler)
    }

    /// The kernel's name, as in `ipvsadm -s NAME`.
    pub fn name(&self) -> &str {
        match self {
            Self::RoundRobin => "rr",
            Self::WeightedRoundRobin => "wrr",
            Self::LeastConnection => "lc",
            Self::WeightedLeastConnection => "wlc",
            Self::LocalityBasedLeastConnection => "lblc",
            Self::LocalityBasedLeastConnectionWithReplication => "lblcr",
            Self::DestinationHashing => "dh",
            Self::SourceHashing => "sh",
            Self::ShortestExpectedDelay => "sed",
            Self::NeverQueue => "nq",
            Self::WeightedFailover => "fo",
            Self::WeightedOverflow => "ovf",
            Self::Maglev => "mh",
            Self::TwoRandomChoices => "twos",
            Self::Other(name) => name.as_str(),
        }
    }
}

impl FromStr for Scheduler {
    type Err = InvalidScheduler;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if let Some((known, _)) = Self::KNOWN.into_iter().find(|(_, text)| *text == name) {
            return Ok(known);
        }
        if name.is_empty() || name.len() > 15 || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidScheduler(name.to_owned()));
        }
        Ok(Self::Other(SchedulerName(name.to_owned())))
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_read_back() {
        for scheduler in Scheduler::known() {
            assert_eq!(scheduler.name().parse::<Scheduler>().unwrap(), scheduler);
        }
    }

    #[test]
    fn a_foreign_name_is_kept_and_an_impossible_one_refused() {
        assert_eq!("bpfish".parse::<Scheduler>().unwrap().name(), "bpfish");
        for bad in ["", "a b", "0123456789abcdef", "é"] {
            assert!(bad.parse::<Scheduler>().is_err(), "{bad:?}");
        }
    }
}
