//! What ran and how it went.

use std::fmt;
use std::time::Duration;

use crate::vm::kernel::Kernel;

/// A kind of tests, by what it needs. The order is the one in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Tier {
    /// Formatting, lints, documentation, dependencies
    Check,
    /// Beside the code
    Unit,
    /// Examples in the documentation
    Doc,
    /// A cluster and a kernel give this plan
    Scenario,
    /// A packet reaches these real servers
    Packet,
    /// True for any cluster, kernel and failure
    Property,
    /// What every dataplane must do, on the fake
    Contract,
    /// Other tests that need nothing
    Integration,
    /// Real sockets, in a VM
    Kernel,
    /// End to end, in a VM
    Vm,
}

impl Tier {
    pub(crate) const HOST: [Self; 7] = [
        Self::Unit,
        Self::Doc,
        Self::Scenario,
        Self::Packet,
        Self::Property,
        Self::Contract,
        Self::Integration,
    ];
    pub(crate) const GUEST: [Self; 2] = [Self::Kernel, Self::Vm];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Unit => "unit",
            Self::Doc => "doc",
            Self::Scenario => "scenario",
            Self::Packet => "packet",
            Self::Property => "property",
            Self::Contract => "contract",
            Self::Integration => "integration",
            Self::Kernel => "kernel",
            Self::Vm => "vm",
        }
    }

    /// The tier of a file in `tests/` that runs on the host.
    pub(crate) fn of_test(name: &str) -> Self {
        match name {
            "scenarios" => Self::Scenario,
            "packets" => Self::Packet,
            "properties" => Self::Property,
            "contract" => Self::Contract,
            _ => Self::Integration,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// One test on one kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TestId {
    pub(crate) tier: Tier,
    /// None on the host.
    pub(crate) kernel: Option<Kernel>,
    /// `package::binary::test`
    pub(crate) name: String,
}

impl TestId {
    pub(crate) fn kernel_name(&self) -> &'static str {
        self.kernel.map_or("-", Kernel::name)
    }
}

/// An address family and a protocol that a test says it covers, by a line `::covers ipv4 tcp`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cover {
    pub(crate) family: String,
    pub(crate) protocol: String,
}

impl Cover {
    /// For a test that says nothing.
    pub(crate) fn none() -> Self {
        Self {
            family: "-".to_owned(),
            protocol: "-".to_owned(),
        }
    }

    /// All that this output says; the error is a line that says it wrongly.
    pub(crate) fn read(output: &str) -> Result<Vec<Self>, String> {
        let mut covers = Vec::new();
        for line in output.lines() {
            // A line of the test may begin behind libtest's own words.
            let Some((_, words)) = line.split_once("::covers ") else {
                continue;
            };
            let words: Vec<&str> = words.split_whitespace().collect();
            match words[..] {
                [
                    family @ ("ipv4" | "ipv6"),
                    protocol @ ("tcp" | "udp" | "sctp"),
                ] => {
                    covers.push(Self {
                        family: family.to_owned(),
                        protocol: protocol.to_owned(),
                    });
                }
                _ => return Err(line.to_owned()),
            }
        }
        covers.sort();
        covers.dedup();
        Ok(covers)
    }
}

/// How a test went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// With everything it wrote, or why it did not run.
    Failed(String),
}

/// A test and how it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestResult {
    pub(crate) id: TestId,
    pub(crate) verdict: Verdict,
    pub(crate) covers: Vec<Cover>,
}

impl TestResult {
    /// From its output: a line `::covers` that cannot be read fails the test.
    pub(crate) fn new(id: TestId, verdict: Verdict, output: &str) -> Self {
        match Cover::read(output) {
            Ok(covers) => Self {
                id,
                verdict,
                covers,
            },
            Err(line) => Self {
                id,
                verdict: Verdict::Failed(format!(
                    "{line:?} is not `::covers <ipv4|ipv6> <tcp|udp|sctp>`"
                )),
                covers: Vec::new(),
            },
        }
    }

    pub(crate) fn passed(&self) -> bool {
        self.verdict == Verdict::Passed
    }
}

/// Something that is done once and counts as one.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) elapsed: Duration,
    /// None if it went well.
    pub(crate) failure: Option<String>,
}

/// How long a tier took, and on which kernel (package) it ran.
#[derive(Debug)]
pub(crate) struct TierRun {
    pub(crate) tier: Tier,
    pub(crate) kernel: Option<Kernel>,
    pub(crate) elapsed: Duration,
    /// Version of the kernel's package, accelerator, kernel warnings.
    pub(crate) notes: Vec<String>,
}

/// Everything that ran.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) steps: Vec<Step>,
    pub(crate) runs: Vec<TierRun>,
    pub(crate) tests: Vec<TestResult>,
}

impl Results {
    /// Does a step, tells about it, and keeps how it went.
    pub(crate) fn step<T>(
        &mut self,
        name: &str,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> Option<T> {
        println!("== {name}");
        let started = std::time::Instant::now();
        let done = work();
        let elapsed = started.elapsed();
        let failure = done.as_ref().err().map(|error| format!("{error:#}"));
        match &failure {
            None => println!("   ok ({:.1} s)", elapsed.as_secs_f64()),
            Some(failure) => println!("   FAILED ({:.1} s): {failure}", elapsed.as_secs_f64()),
        }
        self.steps.push(Step {
            name: name.to_owned(),
            elapsed,
            failure,
        });
        done.ok()
    }

    /// A part that could not even start is a failure of its own.
    pub(crate) fn not_run(&mut self, name: String, reason: String) {
        println!("== {name}\n   FAILED: {reason}");
        self.steps.push(Step {
            name,
            elapsed: Duration::ZERO,
            failure: Some(reason),
        });
    }

    pub(crate) fn passed(&self) -> usize {
        self.tests.iter().filter(|test| test.passed()).count()
            + self
                .steps
                .iter()
                .filter(|step| step.failure.is_none())
                .count()
    }

    pub(crate) fn failed(&self) -> usize {
        self.tests.len() + self.steps.len() - self.passed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_are_sorted_and_counted_once() {
        let output = "noise\n::covers ipv6 udp\ntest a ... ::covers ipv4 tcp\n::covers ipv6 udp\n";
        let pairs: Vec<String> = Cover::read(output)
            .unwrap()
            .into_iter()
            .map(|cover| format!("{} {}", cover.family, cover.protocol))
            .collect();
        assert_eq!(pairs, ["ipv4 tcp", "ipv6 udp"]);
    }

    #[test]
    fn a_test_that_covers_something_unknown_fails() {
        let id = TestId {
            tier: Tier::Kernel,
            kernel: None,
            name: "a::b::c".to_owned(),
        };
        let result = TestResult::new(id, Verdict::Passed, "::covers ipv5 tcp\n");
        assert!(!result.passed());
    }
}
