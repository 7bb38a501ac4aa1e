//! The tiers that need nothing: their binaries are run here, one after the other, from the directory of their package as cargo does.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use super::build::TestBinary;
use super::libtest::{self, Reported, Said};
use super::results::{TestId, TestResult, Tier, Verdict};
use crate::project::{self, Package, Project};

/// For one binary.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs the tests of one binary.
pub(crate) fn run_binary(
    package: &Package,
    binary: &TestBinary,
    tier: Tier,
    full: bool,
) -> Result<Vec<TestResult>> {
    let names = list(package, binary)?;
    let mut command = isolated(&binary.path);
    set_environment(&mut command, package, full);
    let ran = run_limited(command.arg("--show-output"), LIMIT)?;
    let reported = libtest::read(&ran.stdout);
    let mut results: Vec<TestResult> = names
        .iter()
        .map(|name| {
            let id = TestId {
                tier,
                kernel: None,
                name: format!("{}::{name}", binary.name()),
            };
            judge(id, reported.get(name), &ran)
        })
        .collect();
    if ran.status.is_some_and(|status| !status.success()) && results.iter().all(TestResult::passed)
    {
        // Every test was well and yet the binary was not.
        let id = TestId {
            tier,
            kernel: None,
            name: format!("{}::(the binary itself)", binary.name()),
        };
        results.push(TestResult {
            id,
            verdict: Verdict::Failed(ran.everything()),
            covers: Vec::new(),
        });
    }
    Ok(results)
}

/// The tests in a binary, in its own order; works for those meant for a VM as well.
pub(crate) fn list(package: &Package, binary: &TestBinary) -> Result<Vec<String>> {
    let mut command = Command::new(&binary.path);
    command
        .args(["--list", "--format", "terse"])
        .current_dir(package.directory());
    let output = project::output(&mut command)?;
    Ok(libtest::listed(&String::from_utf8_lossy(&output.stdout)))
}

/// Runs the examples in the documentation of one package.
pub(crate) fn run_documentation(project: &Project, package: &Package) -> Result<Vec<TestResult>> {
    let mut command = isolated(Path::new(&project.cargo().get_program()));
    command.current_dir(&project.root);
    command.args([
        "test",
        "--quiet",
        "--package",
        &package.name,
        "--doc",
        "--",
        "--show-output",
        "--format=pretty",
    ]);
    let ran = run_limited(&mut command, LIMIT)?;
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut results = Vec::new();
    for (name, reported) in &libtest::read(&ran.stdout) {
        let mut short = libtest::without_line(name);
        let count = seen.entry(short.clone()).or_default();
        *count += 1;
        if *count > 1 {
            short = format!("{short} #{count}");
        }
        let id = TestId {
            tier: Tier::Doc,
            kernel: None,
            name: format!("{}::doc::{short}", package.name),
        };
        results.push(judge(id, Some(reported), &ran));
    }
    let well = ran.status.is_some_and(|status| status.success());
    if !well && results.iter().all(TestResult::passed) {
        bail!(
            "the examples of {} cannot be run:\n{}",
            package.name,
            ran.everything()
        );
    }
    Ok(results)
}

fn judge(id: TestId, reported: Option<&Reported>, ran: &Ran) -> TestResult {
    let Some(reported) = reported else {
        let why = format!(
            "no result; the binary {}:\n{}",
            ran.ending(),
            ran.everything()
        );
        return TestResult {
            id,
            verdict: Verdict::Failed(why),
            covers: Vec::new(),
        };
    };
    let verdict = match reported.said {
        Said::Ok => Verdict::Passed,
        Said::Failed => Verdict::Failed(reported.output.clone()),
        Said::Ignored => {
            Verdict::Failed("ignored; no test skips itself, remove it or give it a tier".to_owned())
        }
    };
    TestResult::new(id, verdict, &reported.output)
}

fn set_environment(command: &mut Command, package: &Package, full: bool) {
    command.current_dir(package.directory());
    command.env("CARGO_MANIFEST_DIR", package.directory());
    command
        .env("CARGO_PKG_NAME", &package.name)
        .env("CARGO_PKG_VERSION", &package.version);
    if full {
        command.env("WEIR_TEST_FULL", "1");
    }
}

/// A command in a process group of its own, that ends when we do.
fn isolated(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .arg(program)
        .process_group(0);
    command
}

/// What is left of a process.
#[derive(Debug)]
struct Ran {
    /// None if it took too long.
    status: Option<ExitStatus>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn ending(&self) -> String {
        match self.status {
            Some(status) => format!("ended with {status}"),
            None => format!("was killed after {} s", LIMIT.as_secs()),
        }
    }

    /// The end of what it wrote.
    fn everything(&self) -> String {
        let text = format!("{}\n{}", self.stdout.trim_end(), self.stderr.trim_end());
        let lines: Vec<&str> = text.lines().collect();
        lines
            .get(lines.len().saturating_sub(100)..)
            .unwrap_or_default()
            .join("\n")
    }
}

fn run_limited(command: &mut Command, limit: Duration) -> Result<Ran> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .context("cannot start setpriv; install util-linux")?;
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let deadline = Instant::now() + limit;
    let stdout = stdout.recv_timeout(limit);
    let stderr = stderr.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    if let (Ok(stdout), Ok(stderr)) = (stdout, stderr) {
        return Ok(Ran {
            status: Some(child.wait()?),
            stdout,
            stderr,
        });
    }
    kill_group(&mut child)?;
    Ok(Ran {
        status: None,
        stdout: String::new(),
        stderr: String::new(),
    })
}

fn kill_group(child: &mut Child) -> Result<()> {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process_group(group.context("a process without a number")?, Signal::KILL)?;
    child.wait()?;
    Ok(())
}

/// Reads to the end in the background.
fn collect(from: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth reporting.
        let read = from.map(|mut from| from.read_to_end(&mut bytes));
        drop(read);
        sender.send(String::from_utf8_lossy(&bytes).into_owned())
    });
    receiver
}
