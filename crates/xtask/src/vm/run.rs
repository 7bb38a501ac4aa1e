//! One boot: QEMU is started with an image and a payload, watched, and always ended.
//!
//! The guest talks through virtio ports: `out` is what the program writes, `status` its exit status, `files` an archive of what
//! it left in `/out`. The kernel's console goes to a file. `out` is a pipe and not QEMU's `stdio`, since QEMU closes that
//! port when stdin ends, and writes in the guest then block for good.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::accel::Accelerator;
use super::console::Console;
use super::image::Image;
use super::payload::Payload;
use crate::project;

/// The kernel's parameters that make a boot short and an oops final.
const PARAMETERS: &str = "panic=-1 oops=panic console=ttyS0 quiet no_timer_check nokaslr mitigations=off cryptomgr.notests \
    initcall_blacklist=jent_mod_init,load_system_certificate_list audit=0 apparmor=0";

/// The machine and how long it may run.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// At least; more is given when the archive needs it.
    pub(crate) memory_mib: u64,
    pub(crate) processors: u32,
    /// For the program in the guest.
    pub(crate) limit: Duration,
    /// On top of `limit`, for booting and powering off, before QEMU is killed.
    pub(crate) boot_limit: Duration,
    /// How long the program may write nothing before the guest is taken for dead; None for any time.
    pub(crate) silence: Option<Duration>,
    /// Loaded before the program starts; others load on demand.
    pub(crate) modules: Vec<String>,
    /// Where to put what the program left in `/out`.
    pub(crate) out: Option<PathBuf>,
    pub(crate) terminal: Terminal,
}

/// What the program in the guest has as its stdin and stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Terminal {
    /// A pipe, and no input.
    None,
    /// A terminal that is connected to ours; `limit` does not count.
    Ours { rows: u16, columns: u16 },
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            memory_mib: 512,
            processors: 1,
            limit: Duration::from_secs(120),
            boot_limit: Duration::from_secs(60),
            silence: None,
            modules: ["dummy", "veth", "nf_tables", "ip_vs"]
                .map(str::to_owned)
                .to_vec(),
            out: None,
            terminal: Terminal::None,
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Default))]
pub(crate) enum Ended {
    Exited(i32),
    /// The guest ended the program at its limit.
    #[cfg_attr(test, default)]
    TimedOut,
    /// The guest never said: it panicked, powered off, hung, or QEMU failed. The text says what is known.
    NoStatus(String),
}

/// What is known after a run.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(Default))]
pub(crate) struct Outcome {
    pub(crate) ended: Ended,
    pub(crate) console: Console,
    /// The version of the kernel's package.
    pub(crate) version: String,
    pub(crate) accelerator: Accelerator,
}

impl Outcome {
    /// The status for our own exit: the program's, 124 for a timeout, 125 when there is none or the kernel was at fault.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.ended {
            Ended::TimedOut => 124,
            Ended::NoStatus(_) => 125,
            Ended::Exited(_) if !self.console.fatal.is_empty() => 125,
            Ended::Exited(status) => u8::try_from(status).unwrap_or(u8::MAX),
        }
    }

    /// What to tell besides the program's own output; empty if all went well.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Ended::NoStatus(reason) = &self.ended {
            lines.push(format!(
                "vm: no status from the guest: {reason}; the last lines of its console:"
            ));
            lines.extend(self.console.last.iter().cloned());
        }
        if self.ended == Ended::TimedOut {
            lines.push("vm: the program was ended at its time limit".to_owned());
        }
        for (lines_of, text) in [
            (&self.console.fatal, "fault"),
            (&self.console.warnings, "warning"),
        ] {
            lines.extend(
                lines_of
                    .iter()
                    .map(|line| format!("vm: kernel {text}: {line}")),
            );
        }
        lines
    }
}

/// Everything about QEMU that is the same for each run on this host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Qemu<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) image: &'a Image,
    pub(crate) accelerator: Accelerator,
}

impl Qemu<'_> {
    /// Boots, runs the payload, hands its output to `sink` as it comes, and returns when QEMU is gone.
    pub(crate) fn run(
        self,
        machine: &Machine,
        payload: &Payload,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<Outcome> {
        let started = Instant::now();
        let work = Work::create(&self.directory.join("runs"))?;
        let memory = self.write_archive(machine, payload, &work)?;
        let mut running = Running(self.start(machine, memory, &work)?);
        let (deadline, silence) = match machine.terminal {
            Terminal::None => {
                let whole = machine.limit + machine.boot_limit;
                (
                    Some(started + whole),
                    machine.silence.map(|silence| silence + machine.boot_limit),
                )
            }
            Terminal::Ours { .. } => (None, None),
        };
        let (status, overdue) = running.watch(deadline, silence, sink)?;
        let console = String::from_utf8_lossy(&fs::read(work.file("console")).unwrap_or_default())
            .into_owned();
        fs::write(self.directory.join("console.log"), &console)?;
        if let Some(out) = &machine.out {
            unpack_files(&work.file("files"), out)?;
        }
        let reported = fs::read_to_string(work.file("status")).unwrap_or_default();
        let ended = match reported
            .trim()
            .strip_prefix("exit ")
            .and_then(|code| code.parse().ok())
        {
            Some(124) => Ended::TimedOut,
            Some(code) => Ended::Exited(code),
            None => Ended::NoStatus(self.why(status, overdue, &work)),
        };
        Ok(Outcome {
            ended,
            console: Console::read(&console),
            version: self.image.version.clone(),
            accelerator: self.accelerator,
        })
    }

    fn why(self, status: ExitStatus, overdue: bool, work: &Work) -> String {
        let messages = fs::read_to_string(work.file("qemu.log")).unwrap_or_default();
        let ending = if overdue {
            "was killed, since its time was over or nothing came for too long".to_owned()
        } else {
            format!("ended with {status}")
        };
        format!(
            "QEMU ({}) {ending} {}",
            self.accelerator.name(),
            messages.trim()
        )
    }

    /// Puts the archives behind each other; returns the memory (MiB) that the guest needs, since archive and unpacked files
    /// are both in it for a moment, and an archive that does not fit is dropped by the kernel without a word.
    fn write_archive(self, machine: &Machine, payload: &Payload, work: &Work) -> Result<u64> {
        let mut out = BufWriter::new(File::create(work.file("initrd"))?);
        for archive in &self.image.archives {
            let mut file = File::open(archive).with_context(|| {
                format!(
                    "cannot read {}; run `cargo xtask vm prepare --refresh`",
                    archive.display()
                )
            })?;
            io::copy(&mut file, &mut out)?;
        }
        payload.write(&mut out)?;
        out.flush()?;
        let size = out.get_ref().metadata()?.len();
        Ok(machine.memory_mib.max(320 + 3 * size.div_ceil(1 << 20)))
    }

    fn start(self, machine: &Machine, memory: u64, work: &Work) -> Result<Child> {
        for name in ["status", "files", "console"] {
            File::create(work.file(name))?;
        }
        // The kernel ends QEMU when we die, however we die.
        let mut command = Command::new("setpriv");
        command.args([
            "--pdeathsig",
            "KILL",
            "qemu-system-x86_64",
            "-nodefaults",
            "-no-user-config",
        ]);
        command.args(self.accelerator.arguments());
        command.args([
            "-smp",
            &machine.processors.to_string(),
            "-m",
            &memory.to_string(),
        ]);
        command
            .arg("-kernel")
            .arg(&self.image.vmlinux)
            .arg("-initrd")
            .arg(work.file("initrd"));
        command.args(["-append", &parameters(machine)]);
        command.args(["-display", "none", "-monitor", "none", "-no-reboot"]);
        command.args(["-serial", &format!("file:{}", work.option("console"))]);
        command.args([
            "-object",
            "rng-builtin,id=rng",
            "-device",
            "virtio-rng-pci,rng=rng",
        ]);
        command.args(["-device", "virtio-serial-pci"]);
        for name in ["status", "files"] {
            command.args([
                "-chardev",
                &format!("file,id={name},path={}", work.option(name)),
            ]);
            command.args([
                "-device",
                &format!("virtserialport,chardev={name},name={name}"),
            ]);
        }
        match machine.terminal {
            Terminal::None => {
                command.args(["-chardev", "file,id=out,path=/dev/stdout"]);
                command.args(["-device", "virtserialport,chardev=out,name=out"]);
                command.stdin(Stdio::null()).stdout(Stdio::piped());
            }
            Terminal::Ours { .. } => {
                command.args([
                    "-chardev",
                    "stdio,id=out,signal=off",
                    "-device",
                    "virtconsole,chardev=out",
                ]);
            }
        }
        command.stderr(File::create(work.file("qemu.log"))?);
        command
            .spawn()
            .context("cannot start QEMU; install qemu-system-x86 and util-linux (setpriv)")
    }
}

fn parameters(machine: &Machine) -> String {
    let mut text = format!(
        "{PARAMETERS} vm.mods={} vm.limit={}",
        machine.modules.join(","),
        machine.limit.as_secs()
    );
    if let Terminal::Ours { rows, columns } = machine.terminal {
        let parts = [
            " vm.shell=1".to_owned(),
            format!(" vm.rows={rows}"),
            format!(" vm.cols={columns}"),
        ];
        text.extend(parts);
    }
    text
}

fn unpack_files(archive: &Path, out: &Path) -> Result<()> {
    fs::create_dir_all(out)?;
    if fs::metadata(archive)?.len() == 0 {
        return Ok(());
    }
    project::output(
        Command::new("tar")
            .arg("-C")
            .arg(out)
            .arg("-xf")
            .arg(archive),
    )?;
    Ok(())
}

/// A QEMU that does not outlive this value.
#[derive(Debug)]
struct Running(Child);

impl Running {
    /// Hands on the output until QEMU is gone; kills it at the deadline, or when it was silent for too long. Says whether
    /// it had to.
    fn watch(
        &mut self,
        deadline: Option<Instant>,
        silence: Option<Duration>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<(ExitStatus, bool)> {
        let Some(output) = self.0.stdout.take() else {
            return Ok((self.0.wait()?, false));
        };
        let receiver = read_in_background(output);
        let mut heard = Instant::now();
        let mut killed = None;
        loop {
            let ends = match killed {
                // what it wrote before is still in the pipe
                Some(killed) => Some(killed + Duration::from_secs(10)),
                None => [deadline, silence.map(|silence| heard + silence)]
                    .into_iter()
                    .flatten()
                    .min(),
            };
            let left = ends.map_or(Duration::from_secs(3600), |ends| {
                ends.saturating_duration_since(Instant::now())
            });
            match receiver.recv_timeout(left) {
                Ok(chunk) => {
                    heard = Instant::now();
                    sink(&chunk);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Ok((self.0.wait()?, killed.is_some()));
                }
                Err(RecvTimeoutError::Timeout) if ends.is_none() => {}
                Err(RecvTimeoutError::Timeout) if killed.is_none() => {
                    self.0.kill()?;
                    killed = Some(Instant::now());
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "QEMU (process {}) cannot be killed; look at it with `ps`",
                        self.0.id()
                    );
                }
            }
        }
    }
}

/// The receiver is disconnected at the end of `from`.
fn read_in_background(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::sync_channel(64);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let chunk = buffer.get(..length).unwrap_or_default().to_vec();
            if sender.send(chunk).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already if all went well; then both calls do nothing.
        if self.0.try_wait().is_ok_and(|status| status.is_none()) && self.0.kill().is_ok() {
            drop(self.0.wait());
        }
    }
}

/// The files of one run, removed afterwards. Those of a process that was killed are removed by the next one.
#[derive(Debug)]
pub(crate) struct Work(PathBuf);

impl Work {
    pub(crate) fn create(parent: &Path) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot make {}; is it yours?", parent.display()))?;
        for entry in fs::read_dir(parent)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            let process = name.split('-').next().unwrap_or_default();
            if !Path::new("/proc").join(process).exists() {
                // another run may be clearing it away as well
                drop(fs::remove_dir_all(&path));
            }
        }
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let directory = parent.join(format!("{}-{number}", std::process::id()));
        fs::create_dir_all(&directory)?;
        Ok(Self(directory))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The file as a value in an option of QEMU, where a comma is written twice.
    fn option(&self, name: &str) -> String {
        self.file(name).to_string_lossy().replace(',', ",,")
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // If this fails the next run tries again.
        drop(fs::remove_dir_all(&self.0));
    }
}
