//! `cargo xtask demo`: the tutorial's cluster out of namespaces, in the test VM or on this host, weir on its nodes, and a script that
//! shows what it does and checks each statement. `cargo xtask vm shell` is a shell in the same cluster.
//!
//! The scripts in `demo/` are copied beside weir and the manifests. They do everything in namespaces of their own, so that
//! nothing is left of it, whatever happens.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::project::{self, Project};
use crate::vm;
use crate::vm::kernel::Kernel;
use crate::vm::payload::Payload;
use crate::vm::run::{Machine, Work};

const SCRIPTS: &[(&str, &str)] = &[
    ("enter.sh", include_str!("demo/enter.sh")),
    ("cluster.sh", include_str!("demo/cluster.sh")),
    ("on.sh", include_str!("demo/on.sh")),
    ("demo.sh", include_str!("demo/demo.sh")),
    ("shell.sh", include_str!("demo/shell.sh")),
    ("load.sh", include_str!("demo/load.sh")),
    ("watch.sh", include_str!("demo/watch.sh")),
];

/// What the scripts need of a host, and Debian's package of each.
const HOST_PROGRAMS: &[(&str, &str)] = &[
    ("bash", "bash"),
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("ipvsadm", "ipvsadm"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("sysctl", "procps"),
    ("unshare", "util-linux"),
];

/// The demo takes well under a minute; the guest is given up after this.
const LIMIT: Duration = Duration::from_secs(300);

/// For commands from standard input.
const SHELL_LIMIT: Duration = Duration::from_secs(3600);

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArguments {
    /// Use this host and no VM: needs root and IPVS, works in namespaces of its own, leaves nothing
    #[arg(long)]
    host: bool,
    /// The kernel of the VM
    #[arg(long, default_value = "6.12", conflicts_with = "host")]
    kernel: Kernel,
    /// Build weir with optimisation: takes longer, and then weir is quicker
    #[arg(long)]
    release: bool,
}

/// Cargo's, for weir.
#[derive(Debug, Clone, Copy)]
enum Profile {
    Dev,
    Release,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
        }
    }

    /// Below the target directory.
    fn directory(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

impl DemoArguments {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let project = Project::load()?;
        if self.host {
            require_host()?;
        }
        let profile = if self.release {
            Profile::Release
        } else {
            Profile::Dev
        };
        let files = Files::build(&project, profile)?;
        let started = Instant::now();
        let code = if self.host {
            on_host(&project, &files)?
        } else {
            in_vm(&project, &files, self.kernel)?
        };
        println!(
            "The demo took {:.0} s after the build.",
            started.elapsed().as_secs_f64()
        );
        Ok(ExitCode::from(code))
    }
}

/// The scripts, weir and the manifests.
#[derive(Debug)]
struct Files {
    weir: PathBuf,
    profile: Profile,
    manifests: Vec<(String, PathBuf)>,
}

impl Files {
    /// Builds weir.
    fn build(project: &Project, profile: Profile) -> Result<Self> {
        let mut command = project.cargo();
        command.args(["build", "--bin", "weir", "--profile", profile.name()]);
        eprintln!("demo: building weir ({})", project::line(&command));
        project::succeed(&mut command)?;
        let directory = project.root.join("examples/tutorial");
        let mut manifests = Vec::new();
        for entry in fs::read_dir(&directory)
            .with_context(|| format!("cannot read {}", directory.display()))?
        {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            manifests.push((format!("tutorial/{name}"), path));
        }
        Ok(Self {
            weir: project.target.join(profile.directory()).join("weir"),
            profile,
            manifests,
        })
    }

    /// For a VM that is to run `enter.sh` with these arguments.
    fn payload(&self, arguments: &[String]) -> Payload {
        let mut payload = Payload::new();
        for (name, text) in SCRIPTS {
            payload.bytes(name, 0o755, text.as_bytes());
        }
        payload.file("weir", 0o755, &self.weir);
        for (name, path) in &self.manifests {
            payload.file(name, 0o644, path);
        }
        let words = ["bash", "enter.sh"].map(str::to_owned);
        payload.command(words.into_iter().chain(arguments.iter().cloned()));
        payload
    }

    fn write_to(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory.join("tutorial"))?;
        for (name, text) in SCRIPTS {
            fs::write(directory.join(name), text)?;
        }
        symlink(&self.weir, directory.join("weir"))?;
        for (name, path) in &self.manifests {
            fs::copy(path, directory.join(name))?;
        }
        Ok(())
    }
}

fn in_vm(project: &Project, files: &Files, kernel: Kernel) -> Result<u8> {
    let payload = files.payload(&["demo".to_owned(), files.profile.name().to_owned()]);
    eprintln!("demo: booting Linux {kernel} in QEMU");
    let outcome = vm::run(
        project,
        kernel,
        &machine(LIMIT),
        &payload,
        &mut copy_to_stdout(),
    )?;
    for line in outcome.complaints() {
        eprintln!("{line}");
    }
    println!(
        "Kernel {}, {}.",
        outcome.version,
        outcome.accelerator.name()
    );
    Ok(outcome.exit_code())
}

fn machine(limit: Duration) -> Machine {
    Machine {
        memory_mib: 1024,
        processors: 2,
        limit,
        ..Machine::default()
    }
}

fn copy_to_stdout() -> impl FnMut(&[u8]) {
    let mut stdout = io::stdout();
    // If nobody reads any more the run still ends as it should.
    move |chunk| drop(stdout.write_all(chunk).and_then(|()| stdout.flush()))
}

fn on_host(project: &Project, files: &Files) -> Result<u8> {
    let work = Work::create(&project.vm_directory().join("runs"))?;
    let directory = work.file("demo");
    files.write_to(&directory)?;
    // The kernel ends all of it when we die, however we die.
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "bash"])
        .arg(directory.join("enter.sh"))
        .args(["demo", files.profile.name()])
        .stdin(Stdio::null())
        .status()
        .context("cannot start setpriv; install util-linux")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.unwrap_or(u8::MAX))
}

/// Says what is missing; installs and loads nothing, since this host is not ours.
fn require_host() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("--host needs root; without --host the demo runs in a VM");
    }
    if !Path::new("/proc/net/ip_vs").exists() {
        bail!(
            "this host has no IPVS (no /proc/net/ip_vs); try `modprobe ip_vs`, or leave out --host"
        );
    }
    let missing: BTreeSet<&str> = HOST_PROGRAMS
        .iter()
        .filter(|(program, _)| project::find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        let applets = project::output(Command::new("busybox").arg("--list"))?;
        let applets = String::from_utf8_lossy(&applets.stdout).into_owned();
        if !applets.lines().any(|applet| applet == "httpd") {
            bail!(
                "busybox has no httpd here; run `apt-get install busybox-static`, or leave out --host"
            );
        }
    } else {
        let missing: Vec<&str> = missing.into_iter().collect();
        bail!(
            "the demo needs programs that are not here; run `apt-get install {}`, or leave out --host",
            missing.join(" ")
        );
    }
    Ok(())
}

/// `cargo xtask vm shell`: the cluster, and in it, on ubuntu0, a shell or this command. Without a terminal our standard input
/// is that of the command.
pub(crate) fn shell(
    project: &Project,
    kernel: Kernel,
    machine: Machine,
    command: &[String],
    extra: Option<&Path>,
) -> Result<ExitCode> {
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let mut input = Vec::new();
    if !terminal {
        io::stdin().read_to_end(&mut input)?;
        if input.is_empty() && command.is_empty() {
            bail!("this needs a terminal, or commands on standard input");
        }
    }
    let files = Files::build(project, Profile::Dev)?;
    let words: Vec<String> = std::iter::once("shell".to_owned())
        .chain(command.iter().cloned())
        .collect();
    let mut payload = files.payload(&words);
    if let Some(directory) = extra {
        payload.directory(directory);
    }
    eprintln!("vm: booting Linux {kernel} in QEMU");
    if terminal {
        let outcome = vm::run_interactively(project, kernel, machine, &payload)?;
        return Ok(ExitCode::from(outcome.exit_code()));
    }
    payload.bytes("stdin", 0o600, &input);
    let machine = Machine {
        limit: SHELL_LIMIT,
        ..machine
    };
    let outcome = vm::run(project, kernel, &machine, &payload, &mut copy_to_stdout())?;
    for line in outcome.complaints() {
        eprintln!("{line}");
    }
    Ok(ExitCode::from(outcome.exit_code()))
}
