//! Reading what comes out of the guest: which test wrote what, how it ended, and what the kernel said meanwhile.

use std::collections::BTreeMap;

use super::super::results::{TestId, TestResult, Tier, Verdict};
use super::{BEGIN, CONSOLE, END, Planned};
use crate::vm::kernel::Kernel;
use crate::vm::run::{Ended, Outcome};

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
pub(super) struct Reader {
    tier: Tier,
    kernel: Kernel,
    partial: Vec<u8>,
    current: Option<String>,
    begun: BTreeMap<String, Begun>,
    /// What no test wrote.
    stray: String,
}

impl Reader {
    pub(super) fn new(tier: Tier, kernel: Kernel) -> Self {
        Self {
            tier,
            kernel,
            partial: Vec::new(),
            current: None,
            begun: BTreeMap::new(),
            stray: String::new(),
        }
    }

    pub(super) fn read(&mut self, chunk: &[u8]) {
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
    pub(super) fn finish(mut self, planned: &[Planned], outcome: &Outcome) -> Vec<TestResult> {
        let rest = String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned();
        self.line(&rest);
        let faults = by_test(&outcome.console.text, &outcome.console.fatal);
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

/// These lines of the console, by the test that was running.
pub(super) fn by_test(console: &str, chosen: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut tests: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in console.lines().map(str::trim_end) {
        if let Some((_, name)) = line.split_once(CONSOLE) {
            name.clone_into(&mut current);
        } else if chosen.iter().any(|own| own == line) {
            tests
                .entry(current.clone())
                .or_default()
                .push(line.to_owned());
        }
    }
    tests
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
