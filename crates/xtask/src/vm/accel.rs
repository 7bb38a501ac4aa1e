//! Whether QEMU can use KVM here. That `/dev/kvm` opens says little (nested hosts let QEMU start and then abort), so a guest is
//! really run with it; the answer is kept until the host boots again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::image::Image;
use super::payload::Payload;
use super::run::{Ended, Machine, Qemu};

/// How QEMU runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(Default))]
pub(crate) enum Accelerator {
    Kvm,
    /// In software, ten times slower.
    #[cfg_attr(test, default)]
    Tcg,
}

impl Accelerator {
    pub(crate) fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// What was found since the host booted, else what a probe finds now.
    pub(crate) fn detect(directory: &Path, image: &Image) -> Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .context("cannot read the boot id; is /proc mounted?")?;
        let marker = directory.join(format!("accelerator.{}", boot.trim()));
        let known = fs::read_to_string(&marker).unwrap_or_default();
        if let Some(known) = [Self::Kvm, Self::Tcg]
            .into_iter()
            .find(|one| one.name() == known)
        {
            return Ok(known);
        }
        let found = if Path::new("/dev/kvm").exists() && Self::works(directory, image)? {
            Self::Kvm
        } else {
            Self::Tcg
        };
        eprintln!("vm: this host runs guests with {}", found.name());
        let new = directory.join(format!("accelerator.new.{}", std::process::id()));
        fs::write(&new, found.name())?;
        fs::rename(&new, &marker)?;
        Ok(found)
    }

    fn works(directory: &Path, image: &Image) -> Result<bool> {
        let mut payload = Payload::new();
        payload.bytes("run", 0o755, b"#!/bin/sh\nexit 0\n");
        let machine = Machine {
            limit: Duration::from_secs(10),
            boot_limit: Duration::from_secs(5),
            modules: Vec::new(),
            ..Machine::default()
        };
        let outcome = Qemu {
            directory,
            image,
            accelerator: Self::Kvm,
        }
        .run(&machine, &payload, &mut |_| {})?;
        Ok(matches!(outcome.ended, Ended::Exited(0)))
    }
}
