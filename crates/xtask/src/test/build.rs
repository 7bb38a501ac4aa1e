//! Building the test binaries, and finding them in what cargo says.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::project::{self, Project, Target};

/// A binary made by Rust's test harness.
#[derive(Debug, Clone)]
pub(crate) struct TestBinary {
    pub(crate) package: String,
    pub(crate) target: Target,
    pub(crate) path: PathBuf,
}

impl TestBinary {
    /// `package::binary`, where a library's own tests are `lib`.
    pub(crate) fn name(&self) -> String {
        format!("{}::{}", self.package, self.binary())
    }

    fn binary(&self) -> &str {
        if self.target.is("lib") {
            "lib"
        } else {
            &self.target.name
        }
    }
}

/// Everything that was built.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) tests: Vec<TestBinary>,
    /// The program itself, for the tests that run it.
    pub(crate) weir: PathBuf,
}

/// The arguments that choose every target. Each test is named: `--tests` leaves out those that the manifest keeps away from
/// `cargo test`, also when they are named beside it.
pub(crate) fn every_target(project: &Project) -> Vec<String> {
    let mut arguments = ["--workspace", "--lib", "--bins", "--examples"]
        .map(str::to_owned)
        .to_vec();
    let targets = project.packages.iter().flat_map(|package| &package.targets);
    let names: BTreeSet<&String> = targets
        .filter(|target| target.is("test"))
        .map(|target| &target.name)
        .collect();
    for name in names {
        arguments.extend(["--test".to_owned(), name.clone()]);
    }
    arguments
}

/// Builds all tests, those for VMs as well, and with them the program: cargo builds that for the tests in `tests/`.
pub(crate) fn build(project: &Project) -> Result<Built> {
    let mut command = project.cargo();
    command.args([
        "test",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    command.args(every_target(project));
    let (mut tests, mut weir) = (Vec::new(), None);
    for artifact in artifacts(command)? {
        let package = project.package(&artifact.package_id);
        let (Some(package), Some(path)) = (package, artifact.executable) else {
            continue;
        };
        let (target, package) = (artifact.target, package.name.clone());
        if artifact.profile.test {
            tests.push(TestBinary {
                package,
                target,
                path,
            });
        } else if target.is("bin") && target.name == "weir" {
            weir = Some(path);
        }
    }
    tests.sort_by_key(TestBinary::name);
    let weir = weir
        .context("cargo built no program `weir`; package weir needs one, and a file in tests/")?;
    Ok(Built { tests, weir })
}

/// A message of cargo about something that it built; others leave out most fields.
#[derive(Debug, Deserialize)]
struct Artifact {
    package_id: String,
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
}

fn artifacts(mut command: std::process::Command) -> Result<Vec<Artifact>> {
    let output = command
        .stderr(Stdio::inherit())
        .stdin(Stdio::null())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!(
            "the build failed; see above, or run `{}`",
            project::line(&command)
        );
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut artifacts = Vec::new();
    for line in text.lines() {
        let message: Message =
            serde_json::from_str(line).context("cannot read a message of cargo")?;
        if message.reason == "compiler-artifact" {
            artifacts.push(serde_json::from_str(line).context("cannot read what cargo built")?);
        }
    }
    Ok(artifacts)
}
