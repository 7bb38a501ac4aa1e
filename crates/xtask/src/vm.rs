//! The test VM: one of Debian's kernels in QEMU, with a small root made of Debian's tools, running a program as root. Nothing
//! of it is installed on the host or outlives the run.

pub(crate) mod accel;
pub(crate) mod console;
mod cpio;
pub(crate) mod image;
pub(crate) mod kernel;
mod packages;
pub(crate) mod payload;
pub(crate) mod run;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::demo;
use crate::project::Project;
use accel::Accelerator;
use image::Image;
use kernel::Kernel;
use payload::Payload;
use run::{Machine, Outcome, Qemu, Terminal};

/// Arguments of `cargo xtask vm`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum VmCommand {
    /// Run a program in a VM; exits with its status, 124 if it took too long, 125 if the VM gave none
    Run(RunArguments),
    /// A shell on a node of the demo's cluster, in a VM; without a terminal, commands come from standard input
    Shell(ShellArguments),
    /// Fetch and build what VMs boot from
    Prepare {
        /// Only this kernel
        #[arg(long)]
        kernel: Option<Kernel>,
        /// Build again, with the newest packages
        #[arg(long)]
        refresh: bool,
    },
}

/// Arguments of `cargo xtask vm run`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArguments {
    #[arg(long, default_value = "6.12")]
    kernel: Kernel,
    /// Seconds that the program may take
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// MiB of memory, at least
    #[arg(long, default_value_t = 512)]
    memory: u64,
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Where to put what the program leaves in /out
    #[arg(long)]
    out: Option<PathBuf>,
    /// A directory with a program `run`, or a program or script; becomes /t in the guest
    path: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Arguments of `cargo xtask vm shell`.
#[derive(Debug, clap::Args)]
pub(crate) struct ShellArguments {
    #[arg(long, default_value = "6.12")]
    kernel: Kernel,
    /// MiB of memory, at least
    #[arg(long, default_value_t = 1024)]
    memory: u64,
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// A directory to copy to /t in the guest
    #[arg(long)]
    payload: Option<PathBuf>,
    /// An empty VM, without weir and the cluster
    #[arg(long)]
    plain: bool,
    /// What to run instead of bash
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl VmCommand {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let project = Project::load()?;
        match self {
            Self::Run(arguments) => arguments.run(&project),
            Self::Shell(arguments) => arguments.run(&project),
            Self::Prepare { kernel, refresh } => prepare(&project, kernel, refresh),
        }
    }
}

impl RunArguments {
    fn run(self, project: &Project) -> Result<ExitCode> {
        let machine = Machine {
            memory_mib: self.memory,
            processors: self.cpus,
            limit: Duration::from_secs(self.timeout),
            out: self.out,
            ..Machine::default()
        };
        let payload = Payload::for_program(&self.path, &self.arguments)?;
        let mut stdout = io::stdout().lock();
        let mut lost = None;
        let outcome = run(project, self.kernel, &machine, &payload, &mut |chunk| {
            let written = stdout.write_all(chunk).and_then(|()| stdout.flush());
            lost = lost.take().or(written.err());
        })?;
        for line in outcome.complaints() {
            eprintln!("{line}");
        }
        match lost {
            // A closed pipe is success: whoever read has seen enough.
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(ExitCode::from(outcome.exit_code())),
        }
    }
}

impl ShellArguments {
    fn run(self, project: &Project) -> Result<ExitCode> {
        let machine = Machine {
            memory_mib: self.memory,
            processors: self.cpus,
            ..Machine::default()
        };
        if !self.plain {
            let payload = self.payload.as_deref();
            return demo::shell(project, self.kernel, machine, &self.command, payload);
        }
        let mut payload = Payload::new();
        if let Some(directory) = &self.payload {
            payload.directory(directory);
        }
        let command = if self.command.is_empty() {
            vec!["bash".to_owned()]
        } else {
            self.command
        };
        payload.command(command.into_iter());
        let outcome = run_interactively(project, self.kernel, machine, &payload)?;
        Ok(ExitCode::from(outcome.exit_code()))
    }
}

/// Boots this kernel, runs `/t/run` of the payload, hands its output to `sink` as it comes.
pub(crate) fn run(
    project: &Project,
    kernel: Kernel,
    machine: &Machine,
    payload: &Payload,
    sink: &mut dyn FnMut(&[u8]),
) -> Result<Outcome> {
    let directory = project.vm_directory();
    let image = Image::open(&directory, kernel)?;
    let accelerator = Accelerator::detect(&directory, &image)?;
    Qemu {
        directory: &directory,
        image: &image,
        accelerator,
    }
    .run(machine, payload, sink)
}

/// As [`run()`], with our terminal as the terminal of `/t/run`; no time limit.
pub(crate) fn run_interactively(
    project: &Project,
    kernel: Kernel,
    mut machine: Machine,
    payload: &Payload,
) -> Result<Outcome> {
    let stdin = io::stdin();
    if !stdin.is_terminal() || !io::stdout().is_terminal() {
        bail!("this needs a terminal; use `cargo xtask vm run` for a program without input");
    }
    let size = rustix::termios::tcgetwinsize(&stdin)?;
    // A terminal without a window says zero.
    let or = |size, usual| if size == 0 { usual } else { size };
    machine.terminal = Terminal::Ours {
        rows: or(size.ws_row, 24),
        columns: or(size.ws_col, 80),
    };
    let outcome = run(project, kernel, &machine, payload, &mut |_| {})?;
    for line in outcome.complaints() {
        eprintln!("{line}");
    }
    Ok(outcome)
}

fn prepare(project: &Project, kernel: Option<Kernel>, refresh: bool) -> Result<ExitCode> {
    let directory = project.vm_directory();
    let kernels = kernel.map_or(Kernel::ALL.to_vec(), |one| vec![one]);
    if refresh {
        image::forget(&directory, &kernels)?;
    }
    for kernel in kernels {
        let image = Image::open(&directory, kernel)?;
        let accelerator = Accelerator::detect(&directory, &image)?;
        println!(
            "{kernel}: {}, runs with {}",
            image.version,
            accelerator.name()
        );
    }
    Ok(ExitCode::SUCCESS)
}
