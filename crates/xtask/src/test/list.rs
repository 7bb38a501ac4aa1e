//! The committed list of tests. A test that no longer runs is a failure, or nobody would notice; a new one is as well, so that the
//! list is right. A line: `tier kernel family protocol package::binary::test`, with `-` where there is none.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::results::{Cover, Results, TestResult, Tier};
use crate::project::Project;
use crate::vm::kernel::Kernel;

const HEADER: &str = "# tier kernel family protocol package::binary::test\n# Written by `cargo xtask test --update-list`.\n";

/// The part of the list that this run is about.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) tiers: &'a BTreeSet<Tier>,
    pub(crate) kernels: &'a [Kernel],
}

impl Scope<'_> {
    /// Whether a line is about something that was to run.
    fn has(&self, line: &str) -> bool {
        let mut words = line.split(' ');
        let (tier, kernel) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        self.tiers.iter().any(|own| own.name() == tier)
            && (kernel == "-" || self.kernels.iter().any(|own| own.name() == kernel))
    }
}

/// The lines that these tests make.
fn lines(tests: &[TestResult]) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for test in tests.iter().filter(|test| test.passed()) {
        let none = [Cover::none()];
        for cover in if test.covers.is_empty() {
            &none[..]
        } else {
            &test.covers
        } {
            let (tier, kernel) = (test.id.tier, test.id.kernel_name());
            lines.insert(format!(
                "{tier} {kernel} {} {} {}",
                cover.family, cover.protocol, test.id.name
            ));
        }
    }
    lines
}

/// A failed test may not have come to say what it covers: its lines are neither missing nor removed.
fn is_of_failed_test(line: &str, tests: &[TestResult]) -> bool {
    let words: Vec<&str> = line.splitn(5, ' ').collect();
    let [tier, kernel, _, _, name] = words[..] else {
        return false;
    };
    tests.iter().any(|test| {
        !test.passed()
            && test.id.tier.name() == tier
            && test.id.kernel_name() == kernel
            && test.id.name == name
    })
}

/// How a run differs from the list.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    missing: Vec<String>,
    new: Vec<String>,
}

fn compare(expected: &BTreeSet<String>, tests: &[TestResult], scope: &Scope<'_>) -> Difference {
    let ran = lines(tests);
    Difference {
        missing: expected
            .difference(&ran)
            .filter(|line| scope.has(line) && !is_of_failed_test(line, tests))
            .cloned()
            .collect(),
        new: ran.difference(expected).cloned().collect(),
    }
}

/// Fails if the tests that ran are not those of the list.
pub(crate) fn check(project: &Project, results: &Results, scope: &Scope<'_>) -> Result<()> {
    let difference = compare(&read(&path(project))?, &results.tests, scope);
    if difference == Difference::default() {
        return Ok(());
    }
    for line in &difference.missing {
        println!("   missing: {line}");
    }
    for line in &difference.new {
        println!("   new: {line}");
    }
    bail!(
        "{} missing, {} new against tests/expected-tests.txt; if that is right, run `cargo xtask test --update-list` and commit it",
        difference.missing.len(),
        difference.new.len()
    )
}

/// Writes what ran into the list; what was not to run stays.
pub(crate) fn update(project: &Project, results: &Results, scope: &Scope<'_>) -> Result<()> {
    let path = path(project);
    let mut text = HEADER.to_owned();
    for line in updated(&read(&path)?, &results.tests, scope) {
        text.push_str(&line);
        text.push('\n');
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn updated(old: &BTreeSet<String>, tests: &[TestResult], scope: &Scope<'_>) -> BTreeSet<String> {
    let kept = old
        .iter()
        .filter(|line| !scope.has(line) || is_of_failed_test(line, tests))
        .cloned();
    lines(tests).into_iter().chain(kept).collect()
}

fn path(project: &Project) -> PathBuf {
    project.root.join("tests/expected-tests.txt")
}

fn read(path: &Path) -> Result<BTreeSet<String>> {
    if !path.exists() {
        return Ok(BTreeSet::new());
    }
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::super::results::{TestId, Verdict};
    use super::*;

    fn test(kernel: Option<Kernel>, name: &str, verdict: Verdict, output: &str) -> TestResult {
        let tier = if kernel.is_some() {
            Tier::Kernel
        } else {
            Tier::Unit
        };
        TestResult::new(
            TestId {
                tier,
                kernel,
                name: name.to_owned(),
            },
            verdict,
            output,
        )
    }

    fn set(lines: &[&str]) -> BTreeSet<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_test_has_a_line_for_each_cover_or_one_without() {
        let both = "::covers ipv4 tcp\n::covers ipv6 udp\n";
        let tests = [
            test(
                Some(Kernel::Linux6_1),
                "p::kernel::t",
                Verdict::Passed,
                both,
            ),
            test(None, "p::lib::u", Verdict::Passed, ""),
        ];
        let expected = [
            "kernel 6.1 ipv4 tcp p::kernel::t",
            "kernel 6.1 ipv6 udp p::kernel::t",
            "unit - - - p::lib::u",
        ];
        assert_eq!(lines(&tests), set(&expected));
    }

    #[test]
    fn missing_and_new_are_told_apart_within_the_scope() {
        let expected = set(&[
            "kernel 6.1 - - p::kernel::not_asked_for",
            "kernel 6.12 - - p::kernel::gone",
            "unit - - - p::lib::failing",
            "unit - - - p::lib::same",
            "vm 6.12 - - p::vm::not_asked_for",
        ]);
        let tests = [
            test(None, "p::lib::same", Verdict::Passed, ""),
            test(None, "p::lib::failing", Verdict::Failed(String::new()), ""),
            test(
                Some(Kernel::Linux6_12),
                "p::kernel::added",
                Verdict::Passed,
                "",
            ),
        ];
        let tiers = BTreeSet::from([Tier::Unit, Tier::Kernel]);
        let scope = Scope {
            tiers: &tiers,
            kernels: &[Kernel::Linux6_12],
        };
        let difference = compare(&expected, &tests, &scope);
        assert_eq!(difference.missing, ["kernel 6.12 - - p::kernel::gone"]);
        assert_eq!(difference.new, ["kernel 6.12 - - p::kernel::added"]);
        let kept = [
            "kernel 6.1 - - p::kernel::not_asked_for",
            "kernel 6.12 - - p::kernel::added",
            "unit - - - p::lib::failing",
            "unit - - - p::lib::same",
            "vm 6.12 - - p::vm::not_asked_for",
        ];
        assert_eq!(updated(&expected, &tests, &scope), set(&kept));
    }

    #[test]
    fn an_example_may_have_spaces_in_its_name() {
        let tests = [test(
            None,
            "p::doc::src/lib.rs - Client",
            Verdict::Failed(String::new()),
            "",
        )];
        assert!(is_of_failed_test(
            "unit - - - p::doc::src/lib.rs - Client",
            &tests
        ));
    }
}
