//! What can be said about the code without running it: formatting, lints, documentation, dependencies.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::project::{self, Project};
use crate::test::build::every_target;
use crate::test::results::Results;

/// The version that `deny.toml` was written for.
const CARGO_DENY: &str = "0.20.2";

/// Each of them is a step that counts as one.
pub(crate) fn run(project: &Project, results: &mut Results) {
    results.step("format (cargo fmt)", || {
        project::succeed(project.cargo().args(["fmt", "--all", "--check"]))
            .context("run `cargo fmt`")
    });
    results.step("lints (cargo clippy)", || {
        let mut command = project.cargo();
        command
            .args(["clippy", "--quiet", "--benches"])
            .args(every_target(project));
        project::succeed(command.args(["--", "-D", "warnings"]))
    });
    results.step("documentation (cargo doc)", || {
        let mut command = project.cargo();
        command
            .args(["doc", "--quiet", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings");
        project::succeed(&mut command)
    });
    results.step("dependencies (cargo deny)", || deny(project));
}

/// Licences, bans and sources; advisories need a database from the network and change without us, so they are not a check.
fn deny(project: &Project) -> Result<()> {
    let program = project.tools_directory().join("bin/cargo-deny");
    if !is_our_cargo_deny(&program) {
        println!(
            "   installing cargo-deny {CARGO_DENY} into {} (some minutes)",
            project.tools_directory().display()
        );
        let mut install = project.cargo();
        // Without optimization it builds in half the time and still runs in a second.
        install.args(["install", "cargo-deny", "--version", CARGO_DENY]);
        install
            .args(["--locked", "--force", "--quiet", "--debug"])
            .env("CARGO_PROFILE_DEV_DEBUG", "0");
        install.arg("--root").arg(project.tools_directory());
        install
            .arg("--target-dir")
            .arg(project.tools_directory().join("build"));
        project::succeed(&mut install)
            .context("cargo-deny cannot be installed; is crates.io reachable?")?;
        std::fs::remove_dir_all(project.tools_directory().join("build"))?;
    }
    let mut command = Command::new(program);
    command.args([
        "--log-level",
        "warn",
        "check",
        "licenses",
        "bans",
        "sources",
    ]);
    project::succeed(command.current_dir(&project.root).stdin(Stdio::null()))
        .context("a dependency breaks a rule of deny.toml; choose another, or add an exception with its reason")
}

fn is_our_cargo_deny(program: &std::path::Path) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout).trim() == format!("cargo-deny {CARGO_DENY}")
    })
}
