//! What holds for any cluster, any kernel and any failures, tried on random ones:
//!
//! 1. *Convergence.* Once failures stop, what we own equals what is desired, and the next plan is empty.
//! 2. *Ownership.* What is foreign is never touched.
//! 3. *Continuity.* What was wanted and present before a pass is present after it, failures or not.
//! 4. *Minimality.* No step asks for what already is.
//! 5. *Never dark.* A virtual server that could serve before and should after never lacks a live real server in between.
//!
//! And *incremental equals from scratch*: after each event the desired state and the problems are those a fresh start would find.
//!
//! What is foreign, live or present is told here anew, not asked of the code under test. For each property there are mutants,
//! made by altering what stands between `diff` and `apply`; each must be caught by its property. The seed of a history that failed
//! goes into `seeds.txt`, which is tried first.

use std::collections::BTreeSet;

#[expect(dead_code, reason = "each test binary uses a part of it")]
mod support;

#[path = "properties/cluster.rs"]
mod cluster;
#[path = "properties/history.rs"]
mod history;
#[path = "properties/judge.rs"]
mod judge;

use history::{Mutant, run};
use judge::Property;

/// How many histories are tried.
const HISTORIES: u64 = 2_000;
/// How many histories a mutant may survive.
const HISTORIES_OF_A_MUTANT: u64 = 300;
/// Seeds of histories that failed once, a line each; `#` and what follows it is a comment.
const SEEDS: &str = include_str!("seeds.txt");

fn committed_seeds() -> Vec<u64> {
    SEEDS
        .lines()
        .filter_map(|line| line.split('#').next()?.trim().parse().ok())
        .collect()
}

#[test]
fn the_properties_hold_for_any_cluster_kernel_and_failures() {
    let seeds = committed_seeds().into_iter().chain(0..HISTORIES);
    for seed in seeds {
        let violations = run(seed, Mutant::None).unwrap();
        assert!(
            violations.is_empty(),
            "seed {seed} (add it to tests/seeds.txt):\n{}",
            violations.join("\n")
        );
    }
}

#[test]
fn the_committed_seeds_are_numbers() {
    let lines = SEEDS
        .lines()
        .filter(|line| !line.split('#').next().unwrap_or_default().trim().is_empty());
    assert_eq!(lines.count(), committed_seeds().len());
}

/// Each mutant with the properties that must catch it.
const MUTANTS: [(Mutant, &[Property]); 11] = [
    (Mutant::EqualityIgnoresWeight, &[Property::Convergence]),
    (Mutant::StopsBeforeUnbinding, &[Property::Convergence]),
    (Mutant::NoOwnershipCheck, &[Property::Ownership]),
    (
        Mutant::DeletesWhatDidNotSucceed,
        &[Property::Continuity, Property::NeverDark],
    ),
    (
        Mutant::FailedClusterReadIsEmpty,
        &[Property::Continuity, Property::NeverDark],
    ),
    (
        Mutant::UpdatesByDeletingAndCreating,
        &[Property::Continuity, Property::NeverDark],
    ),
    (Mutant::SendsUpdatesAgain, &[Property::Minimality]),
    (Mutant::FailedKernelReadIsEmpty, &[Property::Minimality]),
    (Mutant::DeletesBeforeItCreates, &[Property::NeverDark]),
    (Mutant::ForgetsNodes, &[Property::Incremental]),
    (Mutant::ForgetsRemovals, &[Property::Incremental]),
];

#[test]
fn each_property_catches_its_mutants() {
    for (mutant, properties) in MUTANTS {
        let mut missing: BTreeSet<Property> = properties.iter().copied().collect();
        for seed in 0..HISTORIES_OF_A_MUTANT {
            for caught in run(seed, mutant).unwrap().properties() {
                missing.remove(&caught);
            }
            if missing.is_empty() {
                break;
            }
        }
        assert!(missing.is_empty(), "{mutant:?} survived {missing:?}");
    }
}

#[test]
fn every_property_has_a_mutant() {
    for property in Property::ALL {
        assert!(
            MUTANTS
                .iter()
                .any(|(_, properties)| properties.contains(&property)),
            "{property:?}"
        );
    }
}
