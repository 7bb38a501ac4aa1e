//! The tiers that need a kernel of their own. All binaries of a tier go into one VM; there each test gets a process of its
//! own, with a time limit, so that one that hangs, aborts or leaves processes behind does not take others with it.
//!
//! The script in the guest writes a line before and after each test. What comes between them is the test's. Before each test
//! it also writes to the kernel's log, so that what the kernel complains about on the console has a test to it.

use std::collections::BTreeMap;
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
use crate::vm::run::{Ended, Machine, Outcome, Work};

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
    notes.extend(
        outcome
            .console
            .warnings
            .iter()
            .map(|line| format!("kernel warning: {line}")),
    );
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

/// A test that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Begun {
    output: String,
    /// None while it runs.
    ended: Option<End>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    status: i32,
    seconds: String,
}

/// Splits the guest's output into tests.
#[derive(Debug)]
struct Reader {
    tier: Tier,
    kernel: Kernel,
    partial: Vec<u8>,
    current: Option<String>,
    begun: BTreeMap<String, Begun>,
    /// What no test wrote.
    stray: String,
}

impl Reader {
    fn new(tier: Tier, kernel: Kernel) -> Self {
        Self {
            tier,
            kernel,
            partial: Vec::new(),
            current: None,
            begun: BTreeMap::new(),
            stray: String::new(),
        }
    }

    fn read(&mut self, chunk: &[u8]) {
        self.partial.extend_from_slice(chunk);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let rest = self.partial.split_off(end + 1);
            let line = std::mem::replace(&mut self.partial, rest);
            self.line(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
        }
    }

    fn line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix(BEGIN) {
            self.current = Some(name.to_owned());
            self.begun.insert(
                name.to_owned(),
                Begun {
                    output: String::new(),
                    ended: None,
                },
            );
            return;
        }
        let Some(name) = &self.current else {
            self.stray.push_str(line);
            self.stray.push('\n');
            return;
        };
        let Some(begun) = self.begun.get_mut(name) else {
            return;
        };
        if let Some(end) = line.strip_prefix(END).and_then(End::parse) {
            let (tier, kernel, word) = (
                self.tier,
                self.kernel,
                if end.status == 0 { "ok" } else { "FAILED" },
            );
            println!("   {tier} {kernel} {name} ... {word} ({} s)", end.seconds);
            begun.ended = Some(end);
            self.current = None;
        } else {
            begun.output.push_str(line);
            begun.output.push('\n');
        }
    }

    /// The results of all that were planned.
    fn finish(mut self, planned: &[Planned], outcome: &Outcome) -> Vec<TestResult> {
        let rest = String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned();
        self.line(&rest);
        let faults = faults(&outcome.console.text, &outcome.console.fatal);
        let mut results: Vec<TestResult> = planned
            .iter()
            .map(|test| {
                let id = test.id(self.tier, self.kernel);
                let fault = faults.get(&id.name).map(|lines| lines.join("\n"));
                let begun = self.begun.get(&id.name);
                let output = begun.map(|begun| begun.output.clone()).unwrap_or_default();
                let verdict = match (fault, begun) {
                    (Some(fault), _) => {
                        Verdict::Failed(format!("the kernel complained:\n{fault}\n{output}"))
                    }
                    (None, Some(begun)) => self.judge(begun, outcome),
                    (None, None) => Verdict::Failed(format!("not run: {}", self.why(outcome))),
                };
                TestResult::new(id, verdict, &output)
            })
            .collect();
        let at_fault = outcome.ended != Ended::Exited(0) || !outcome.console.fatal.is_empty();
        if at_fault && results.iter().all(TestResult::passed) {
            let name = "(the guest itself)".to_owned();
            let id = TestId {
                tier: self.tier,
                kernel: Some(self.kernel),
                name,
            };
            let verdict = Verdict::Failed(self.why(outcome));
            results.push(TestResult {
                id,
                verdict,
                covers: Vec::new(),
            });
        }
        results
    }

    fn judge(&self, begun: &Begun, outcome: &Outcome) -> Verdict {
        let output = &begun.output;
        match &begun.ended {
            // Zero is also what the harness says when the name was not found or the test is ignored.
            Some(End { status: 0, .. }) if output.contains("test result: ok. 1 passed;") => {
                Verdict::Passed
            }
            Some(End { status: 0, .. }) => {
                Verdict::Failed(format!("ignored, or not found by its name\n{output}"))
            }
            Some(End {
                status: 143 | 137,
                seconds,
            }) => Verdict::Failed(format!(
                "killed after {seconds} s: its time limit, or too little memory\n{output}"
            )),
            Some(End { status, .. }) => Verdict::Failed(format!("status {status}\n{output}")),
            None => Verdict::Failed(format!(
                "in progress when the guest ended: {}\n{output}",
                self.why(outcome)
            )),
        }
    }

    fn why(&self, outcome: &Outcome) -> String {
        let mut lines = outcome.complaints();
        if !self.stray.trim().is_empty() {
            lines.push(self.stray.clone());
        }
        if lines.is_empty() {
            format!("{:?}", outcome.ended)
        } else {
            lines.join("\n")
        }
    }
}

impl End {
    /// `STATUS FROM TO`, the times in seconds since the guest booted.
    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let [status, from, to] = words[..] else {
            return None;
        };
        let (from, to): (f64, f64) = (from.parse().ok()?, to.parse().ok()?);
        Some(Self {
            status: status.parse().ok()?,
            seconds: format!("{:.1}", to - from),
        })
    }
}

/// The lines that condemn the kernel, by the test that was running.
fn faults(console: &str, fatal: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut faults: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in console.lines().map(str::trim_end) {
        if let Some((_, name)) = line.split_once(CONSOLE) {
            name.clone_into(&mut current);
        } else if fatal.iter().any(|own| own == line) {
            faults
                .entry(current.clone())
                .or_default()
                .push(line.to_owned());
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::console::Console;

    fn planned(names: &[&str]) -> Vec<Planned> {
        let plan = |name: &&str| Planned {
            file: "weir-kernel".to_owned(),
            binary: "weir::kernel".to_owned(),
            name: (*name).to_owned(),
        };
        names.iter().map(plan).collect()
    }

    fn results(output: &str, console: &str, ended: Ended, names: &[&str]) -> Vec<TestResult> {
        let mut reader = Reader::new(Tier::Kernel, Kernel::Linux6_1);
        // in small pieces, as a pipe may give it
        output
            .as_bytes()
            .chunks(7)
            .for_each(|chunk| reader.read(chunk));
        let outcome = Outcome {
            ended,
            console: Console::read(console),
            ..Outcome::default()
        };
        reader.finish(&planned(names), &outcome)
    }

    const PASSED: &str = "test result: ok. 1 passed; 0 failed;";

    #[test]
    fn output_and_covers_belong_to_the_test_between_its_lines() {
        let output = format!(
            "{BEGIN}weir::kernel::a\ntest a ... ::covers ipv4 tcp\nok\n{PASSED}\n\n{END}0 1.00 1.25\n\
             {BEGIN}weir::kernel::b\n::covers ipv6 sctp\nthread panicked\n\n{END}101 2.00 2.50\n"
        );
        let results = results(&output, "", Ended::Exited(0), &["a", "b"]);
        assert!(results[0].passed());
        assert_eq!(results[0].covers[0].protocol, "tcp");
        assert!(
            matches!(&results[1].verdict, Verdict::Failed(text) if text.contains("thread panicked"))
        );
    }

    #[test]
    fn after_a_panic_the_test_in_progress_and_the_rest_have_failed() {
        let output = format!(
            "{BEGIN}weir::kernel::a\n{PASSED}\n\n{END}0 1.00 1.25\n{BEGIN}weir::kernel::b\nlast wor"
        );
        let console = "[1.0] weir-test: weir::kernel::a\r\n[2.0] weir-test: weir::kernel::b\r\n[2.1] Kernel panic - x\r\n";
        let ended = Ended::NoStatus("QEMU ended".to_owned());
        let results = results(&output, console, ended, &["a", "b", "c"]);
        assert!(results[0].passed());
        assert!(
            matches!(&results[1].verdict, Verdict::Failed(text) if text.contains("[2.1] Kernel panic - x"))
        );
        assert!(
            matches!(&results[2].verdict, Verdict::Failed(text) if text.starts_with("not run"))
        );
    }

    #[test]
    fn a_test_that_did_not_run_has_not_passed() {
        let output = format!(
            "{BEGIN}weir::kernel::a\ntest result: ok. 0 passed; 0 failed; 1 ignored\n\n{END}0 1.00 1.25\n"
        );
        let results = results(&output, "", Ended::Exited(0), &["a"]);
        assert!(
            matches!(&results[0].verdict, Verdict::Failed(text) if text.starts_with("ignored"))
        );
    }
}
