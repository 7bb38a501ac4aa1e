//! The tiers that need a kernel of their own. All binaries of a tier go into one VM; there each test gets a process of its
//! own, with a time limit, so that one that hangs, aborts or leaves processes behind does not take others with it.
//!
//! The script in the guest writes a line before and after each test. What comes between them is the test's. Before each test
//! it also writes to the kernel's log, so that what the kernel complains about on the console has a test to it.

mod reader;

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::build::{Built, TestBinary};
use super::host;
use super::results::{TestId, TestResult, Tier, Verdict};
use crate::project::{self, Project};
use crate::vm;
use crate::vm::kernel::Kernel;
use crate::vm::payload::{Payload, quoted};
use crate::vm::run::{Machine, Work};
use reader::Reader;

/// A file in `tests/` that runs in a VM.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) package: &'static str,
    pub(crate) test: &'static str,
    pub(crate) tier: Tier,
}

/// Their manifests say `test = false`, so that `cargo test` leaves them alone.
pub(crate) const SUITES: &[Suite] = &[
    Suite {
        package: "ipvs-rs",
        test: "kernel",
        tier: Tier::Kernel,
    },
    Suite {
        package: "weir",
        test: "kernel",
        tier: Tier::Kernel,
    },
    Suite {
        package: "weir",
        test: "nft_kernel",
        tier: Tier::Kernel,
    },
    Suite {
        package: "weir",
        test: "vm",
        tier: Tier::Vm,
    },
];

impl Suite {
    /// A suite that has no tests is a failure, and does not keep the others from running.
    fn missing(&self, kernel: Kernel) -> TestResult {
        let Self {
            package,
            test,
            tier,
        } = self;
        let name = format!("{package}::{test}::(all of it)");
        let why =
            format!("not run: package {package} has no tests/{test}.rs with tests in it; write it");
        TestResult {
            id: TestId {
                tier: *tier,
                kernel: Some(kernel),
                name,
            },
            verdict: Verdict::Failed(why),
            covers: Vec::new(),
        }
    }
}

pub(crate) fn suite_of(binary: &TestBinary) -> Option<&'static Suite> {
    SUITES.iter().find(|suite| {
        binary.target.is("test")
            && suite.package == binary.package
            && suite.test == binary.target.name
    })
}

/// What one tier's VM is like.
#[derive(Debug, Clone, Copy)]
struct Resources {
    /// For one test.
    limit: Duration,
    memory_mib: u64,
    processors: u32,
}

fn resources(tier: Tier, full: bool) -> Resources {
    let (seconds, memory_mib) = if tier == Tier::Vm {
        (300, 2048)
    } else {
        (120, 1024)
    };
    Resources {
        limit: Duration::from_secs(if full { 5 * seconds } else { seconds }),
        memory_mib,
        processors: 2,
    }
}

/// What came of a boot.
#[derive(Debug)]
pub(crate) struct TierOutcome {
    pub(crate) tests: Vec<TestResult>,
    pub(crate) notes: Vec<String>,
}

/// Runs all suites of a tier on one kernel.
pub(crate) fn run(
    project: &Project,
    built: &Built,
    tier: Tier,
    kernel: Kernel,
    full: bool,
) -> Result<TierOutcome> {
    let resources = resources(tier, full);
    let work = Work::create(&project.vm_directory().join("runs"))?;
    let mut payload = Payload::new();
    payload.file("weir", 0o755, &stripped(&built.weir, "weir", &work)?);
    let (mut planned, mut missing) = (Vec::new(), Vec::new());
    for suite in SUITES.iter().filter(|suite| suite.tier == tier) {
        let own =
            |binary: &&TestBinary| suite_of(binary).is_some_and(|own| std::ptr::eq(own, suite));
        let package = project.package_named(suite.package);
        let (Some(binary), Some(package)) = (built.tests.iter().find(own), package) else {
            missing.push(suite);
            continue;
        };
        let file = format!("{}-{}", suite.package, suite.test);
        payload.file(
            &format!("tests/{file}"),
            0o755,
            &stripped(&binary.path, &file, &work)?,
        );
        let names = host::list(package, binary)?;
        if names.is_empty() {
            missing.push(suite);
        }
        for name in names {
            planned.push(Planned {
                file: file.clone(),
                binary: binary.name(),
                name,
            });
        }
    }
    let missing = missing.into_iter().map(|suite| suite.missing(kernel));
    if planned.is_empty() {
        return Ok(TierOutcome {
            tests: missing.collect(),
            notes: vec!["no tests, so no VM".to_owned()],
        });
    }
    let limit = resources.limit + Duration::from_secs(30);
    payload.bytes(
        "run",
        0o755,
        script(&planned, resources.limit, full)?.as_bytes(),
    );
    let machine = Machine {
        memory_mib: resources.memory_mib,
        processors: resources.processors,
        limit: limit * u32::try_from(planned.len() + 1)?,
        silence: Some(limit),
        ..Machine::default()
    };
    let mut reader = Reader::new(tier, kernel);
    let outcome = vm::run(project, kernel, &machine, &payload, &mut |chunk| {
        reader.read(chunk);
    })?;
    let mut notes = vec![format!(
        "{}, {}",
        outcome.version,
        outcome.accelerator.name()
    )];
    for (test, lines) in reader::by_test(&outcome.console.text, &outcome.console.warnings) {
        let during = if test.is_empty() {
            "while booting"
        } else {
            &test
        };
        notes.extend(
            lines
                .iter()
                .map(|line| format!("kernel warning, {during}: {line}")),
        );
    }
    let tests = reader
        .finish(&planned, &outcome)
        .into_iter()
        .chain(missing)
        .collect();
    Ok(TierOutcome { tests, notes })
}

/// Debug information is most of a binary, and the guest holds it in memory twice.
fn stripped(binary: &Path, name: &str, work: &Work) -> Result<std::path::PathBuf> {
    let to = work.file(name);
    if project::find_program("strip").is_none() {
        return Ok(binary.to_owned());
    }
    project::output(
        Command::new("strip")
            .arg("--strip-debug")
            .arg("-o")
            .args([&to, binary]),
    )?;
    Ok(to)
}

/// A test that is to run.
#[derive(Debug)]
struct Planned {
    /// In `/t/tests`.
    file: String,
    /// `package::binary`
    binary: String,
    name: String,
}

impl Planned {
    fn id(&self, tier: Tier, kernel: Kernel) -> TestId {
        TestId {
            tier,
            kernel: Some(kernel),
            name: format!("{}::{}", self.binary, self.name),
        }
    }
}

const BEGIN: &str = "::weir begin ";
const END: &str = "::weir end ";
const CONSOLE: &str = "weir-test: ";

/// The guest's `/t/run`. busybox' `timeout` gives 143 or 137 for a program that it ended.
fn script(planned: &[Planned], limit: Duration, full: bool) -> Result<String> {
    let mut script = format!(
        r#"#!/bin/sh
export WEIR_BIN=/t/weir RUST_BACKTRACE=1 TMPDIR=/tmp {full}
one() {{
    echo "{BEGIN}$2::$3"
    echo "<4>{CONSOLE}$2::$3" >/dev/kmsg
    read -r from _ </proc/uptime
    timeout -k 2 {limit} ./tests/$1 --exact "$3" --nocapture --test-threads=1
    status=$?
    read -r to _ </proc/uptime
    echo
    echo "{END}$status $from $to"
    # whatever the test left behind; neither this shell nor init is meant by -1
    kill -9 -1 2>/dev/null
}}
cd /t
"#,
        full = if full { "WEIR_TEST_FULL=1" } else { "" },
        limit = limit.as_secs(),
    );
    for test in planned {
        writeln!(
            script,
            "one {} {} {}",
            quoted(&test.file),
            quoted(&test.binary),
            quoted(&test.name)
        )?;
    }
    script.push_str("exit 0\n");
    Ok(script)
}
