//! `cargo xtask check` and `cargo xtask test`: everything that can fail, tier by tier, and at the end a list of what ran. Nothing
//! is skipped: what cannot run has failed.

pub(crate) mod build;
mod guest;
mod host;
mod libtest;
mod list;
pub(crate) mod results;
mod summary;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::check;
use crate::project::Project;
use crate::vm::kernel::Kernel;
use build::{Built, TestBinary};
use results::{Results, TestResult, Tier, TierRun};

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct TestArguments {
    /// Only this tier; may be given several times
    #[arg(long)]
    tier: Vec<Tier>,
    /// Only this kernel, for the tiers that run in a VM; may be given several times
    #[arg(long)]
    kernel: Vec<Kernel>,
    /// Let tests run their longer variants (they see `WEIR_TEST_FULL=1`)
    #[arg(long)]
    full: bool,
    /// Write what ran into tests/expected-tests.txt instead of comparing
    #[arg(long)]
    update_list: bool,
}

impl TestArguments {
    /// What `cargo xtask check` runs.
    pub(crate) fn for_check() -> Self {
        let mut tier = vec![Tier::Check];
        tier.extend(Tier::HOST);
        Self {
            tier,
            kernel: Vec::new(),
            full: false,
            update_list: false,
        }
    }

    pub(crate) fn run(self) -> Result<ExitCode> {
        let project = Project::load()?;
        let mut results = Results::default();
        let run = Run {
            project: &project,
            tiers: self.tiers(),
            kernels: if self.kernel.is_empty() {
                Kernel::ALL.to_vec()
            } else {
                self.kernel.clone()
            },
            full: self.full,
        };
        run.all(&mut results);
        let scope = list::Scope {
            tiers: &run.tiers,
            kernels: &run.kernels,
        };
        if self.update_list {
            list::update(&project, &results, &scope)?;
        } else {
            // Taken out for the comparison, since a step changes the results.
            let ran = Results {
                tests: results.tests.clone(),
                ..Results::default()
            };
            results.step("the list of tests", || list::check(&project, &ran, &scope));
        }
        summary::print(&results);
        Ok(if results.failed() == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn tiers(&self) -> BTreeSet<Tier> {
        if self.tier.is_empty() {
            [Tier::Check]
                .into_iter()
                .chain(Tier::HOST)
                .chain(Tier::GUEST)
                .collect()
        } else {
            self.tier.iter().copied().collect()
        }
    }
}

/// What was asked for.
#[derive(Debug)]
struct Run<'a> {
    project: &'a Project,
    tiers: BTreeSet<Tier>,
    kernels: Vec<Kernel>,
    full: bool,
}

impl Run<'_> {
    fn all(&self, results: &mut Results) {
        if self.tiers.contains(&Tier::Check) {
            check::run(self.project, results);
        }
        if self.tiers.iter().all(|tier| *tier == Tier::Check) {
            return;
        }
        let Some(built) = results.step("build of the tests", || build::build(self.project)) else {
            for tier in self.tiers.iter().filter(|tier| **tier != Tier::Check) {
                results.not_run(
                    format!("tier {tier}"),
                    "not run: the build failed".to_owned(),
                );
            }
            return;
        };
        for tier in Tier::HOST
            .into_iter()
            .filter(|tier| self.tiers.contains(tier))
        {
            self.host_tier(tier, &built, results);
        }
        for tier in Tier::GUEST
            .into_iter()
            .filter(|tier| self.tiers.contains(tier))
        {
            for kernel in &self.kernels {
                self.guest_tier(tier, *kernel, &built, results);
            }
        }
    }

    fn host_tier(&self, tier: Tier, built: &Built, results: &mut Results) {
        println!("== tier {tier}");
        let started = Instant::now();
        if tier == Tier::Doc {
            for package in &self.project.packages {
                if package.targets.iter().any(|target| target.is("lib")) {
                    let ran = host::run_documentation(self.project, package);
                    take(results, tier, &format!("{}::doc", package.name), ran);
                }
            }
        } else {
            for binary in built.tests.iter().filter(|binary| tier_of(binary) == tier) {
                let package = self.project.package_named(&binary.package);
                let ran = package
                    .context("cargo built a package it does not know")
                    .and_then(|package| host::run_binary(package, binary, tier, self.full));
                take(results, tier, &binary.name(), ran);
            }
        }
        results.runs.push(TierRun {
            tier,
            kernel: None,
            elapsed: started.elapsed(),
            notes: Vec::new(),
        });
    }

    fn guest_tier(&self, tier: Tier, kernel: Kernel, built: &Built, results: &mut Results) {
        println!("== tier {tier} on Linux {kernel}");
        let started = Instant::now();
        let (elapsed, notes) = match guest::run(self.project, built, tier, kernel, self.full) {
            Ok(outcome) => {
                results.tests.extend(outcome.tests);
                (started.elapsed(), outcome.notes)
            }
            Err(error) => {
                results.not_run(
                    format!("tier {tier} on {kernel}"),
                    format!("not run: {error:#}"),
                );
                (Duration::ZERO, Vec::new())
            }
        };
        results.runs.push(TierRun {
            tier,
            kernel: Some(kernel),
            elapsed,
            notes,
        });
    }
}

/// Adds the results of one binary and tells about them in a line.
fn take(results: &mut Results, tier: Tier, name: &str, ran: Result<Vec<TestResult>>) {
    match ran {
        Ok(tests) => {
            let passed = tests.iter().filter(|test| test.passed()).count();
            println!(
                "   {name}: {passed} passed, {} failed",
                tests.len() - passed
            );
            results.tests.extend(tests);
        }
        Err(error) => results.not_run(
            format!("tier {tier}: {name}"),
            format!("not run: {error:#}"),
        ),
    }
}

fn tier_of(binary: &TestBinary) -> Tier {
    match guest::suite_of(binary) {
        Some(suite) => suite.tier,
        None if binary.target.is("test") => Tier::of_test(&binary.target.name),
        None => Tier::Unit,
    }
}
