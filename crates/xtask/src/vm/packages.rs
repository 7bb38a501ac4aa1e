//! Debian packages: the few that the host must have, and those that are only downloaded and unpacked, because the guest
//! needs their files and nobody wants them installed here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::project;

/// What must be installed here: a program and the package it comes in.
const HOST: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("lz4", "lz4"),
];

/// Makes sure of the programs in [`HOST`]: installs as root, and tells anybody else what to type.
pub(crate) fn require_host_programs() -> Result<()> {
    let missing: Vec<&str> = HOST
        .iter()
        .filter(|(program, _)| project::find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let install = [&["install", "-y", "--no-install-recommends"], &missing[..]].concat();
    if !rustix::process::geteuid().is_root() {
        bail!(
            "the test VM needs programs that are not here; run `apt-get {}` as root",
            install.join(" ")
        );
    }
    eprintln!("vm: installing {}", missing.join(" "));
    update_unless_known(&missing)?;
    project::succeed(
        Command::new("apt-get")
            .args(&install)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
    .with_context(|| {
        format!(
            "cannot install; run `apt-get {}` by hand",
            install.join(" ")
        )
    })
}

/// Reads the lists of packages anew if one of these is not in them.
pub(crate) fn update_unless_known(packages: &[&str]) -> Result<()> {
    let known = |name: &&&str| {
        let shown = Command::new("apt-cache").args(["policy", name]).output();
        shown.is_ok_and(|output| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.contains("Candidate:") && !text.contains("Candidate: (none)")
        })
    };
    if packages.iter().filter(|name| !known(name)).count() == 0 {
        return Ok(());
    }
    eprintln!("vm: apt-get update");
    // A repository of somebody else may be broken; what counts is that our packages are known afterwards.
    let status = Command::new("apt-get")
        .args(["-q", "update"])
        .status()
        .context(
            "cannot start apt-get; the images are made from Debian's packages, use a Debian host",
        )?;
    match packages.iter().find(|name| !known(name)) {
        Some(name) => bail!(
            "there is no package {name} (apt-get update ended with {status}); the security archive of Debian 12 must be in \
             /etc/apt/sources.list, and the lists can only be updated by root"
        ),
        None => Ok(()),
    }
}

/// What a metapackage stands for: the first package it depends on whose name starts so, else itself.
pub(crate) fn real_package(metapackage: &str, prefix: &str) -> Result<String> {
    let output = project::output(Command::new("apt-cache").args(["depends", metapackage]))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let real = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(prefix));
    Ok(real.unwrap_or(metapackage).to_owned())
}

/// These packages and the libraries they depend on. The C library stays out: the guest gets the host's, since test
/// binaries are linked with that.
pub(crate) fn with_libraries(packages: &[&str]) -> Result<Vec<String>> {
    let mut command = Command::new("apt-cache");
    command.args(["depends", "--recurse", "--no-recommends", "--no-suggests"]);
    command.args(["--no-conflicts", "--no-breaks", "--no-replaces"]);
    let output = project::output(command.arg("--no-enhances").args(packages))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let wanted = |name: &&str| {
        packages.contains(name)
            || (name.starts_with("lib")
                && !name.contains("perl")
                && !name.contains("systemd")
                && !name.contains(':')
                && !["libc6", "libgcc-s1"].contains(name))
    };
    let names: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with([' ', '<']))
        .filter(wanted)
        .collect();
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// Downloads packages and unpacks them into one tree; returns the names of the downloaded files, which hold the versions.
pub(crate) fn unpack(packages: &[String], downloads: &Path, tree: &Path) -> Result<Vec<String>> {
    fs::create_dir_all(downloads)?;
    fs::create_dir_all(tree)?;
    project::output(
        Command::new("apt-get")
            .args(["-q", "-o", "APT::Sandbox::User=root", "download"])
            .args(packages)
            .current_dir(downloads),
    )
    .context(
        "cannot download; check the network, or run `apt-get update` as root if versions have gone",
    )?;
    let mut files = Vec::new();
    for entry in fs::read_dir(downloads)? {
        let path = entry?.path();
        project::output(Command::new("dpkg-deb").arg("-x").args([&path, tree]))
            .with_context(|| format!("cannot unpack {}; is the disk full?", path.display()))?;
        files.extend(
            path.file_name()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    files.sort();
    Ok(files)
}
