//! What a VM boots from, kept under `target/vm`: one archive of tools, and for each kernel `vmlinux` and an archive of
//! modules. An image is made in a directory of another name and renamed when whole, with a marker that says what it was
//! made from; an image whose marker is not what we would write now is made again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;

use super::cpio::Archive;
use super::kernel::{self, Kernel, Modules};
use super::packages;
use crate::project;

/// Counts changes of this file that alter an image but none of the lists below.
const RECIPE: u32 = 2;

/// The packages with the guest's tools.
const PACKAGES: &[&str] = &[
    "bash",
    "busybox-static",
    "conntrack",
    "ethtool",
    "iproute2",
    "ipset",
    "iptables",
    "iputils-ping",
    "ipvsadm",
    "netbase",
    "nftables",
    "procps",
    "strace",
    "tcpdump",
    "util-linux",
];

/// The programs taken from them; busybox gives the rest.
const PROGRAMS: &[&str] = &[
    "bash",
    "bridge",
    "conntrack",
    "ethtool",
    "ip",
    "ip6tables-nft",
    "ip6tables-nft-save",
    "ipset",
    "iptables-nft",
    "iptables-nft-save",
    "ipvsadm",
    "nft",
    "nsenter",
    "nstat",
    "ping",
    "ps",
    "ss",
    "strace",
    "sysctl",
    "tc",
    "tcpdump",
    "unshare",
];

/// Data that those programs read.
const DATA: &[&str] = &[
    "etc/iproute2",
    "etc/protocols",
    "etc/services",
    "usr/lib/x86_64-linux-gnu/xtables",
];

/// The host's libraries that a test binary may be linked with, whatever the tools need.
const LIBRARIES: &[&str] = &[
    "libc.so.6",
    "libm.so.6",
    "libgcc_s.so.1",
    "libdl.so.2",
    "librt.so.1",
    "libpthread.so.0",
    "libresolv.so.2",
    "libnss_files.so.2",
    "libnss_dns.so.2",
];

const LIBRARY_DIRECTORY: &str = "lib/x86_64-linux-gnu";

/// A kernel and its archives. While this value lives nobody else replaces them.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) vmlinux: PathBuf,
    /// To be given to the kernel one behind the other.
    pub(crate) archives: [PathBuf; 2],
    /// The version of the kernel's package.
    pub(crate) version: String,
    _lock: File,
}

impl Image {
    /// The image for this kernel below `directory`, made now if it is not there.
    pub(crate) fn open(directory: &Path, kernel: Kernel) -> Result<Self> {
        let lock = lock_file(directory)?;
        rustix::fs::flock(&lock, FlockOperation::LockShared)?;
        let parts = [Part::tools(directory), Part::kernel(directory, kernel)];
        if !parts.iter().all(Part::is_whole) {
            rustix::fs::flock(&lock, FlockOperation::Unlock)?;
            rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
            packages::require_host_programs()?;
            for part in &parts {
                if !part.is_whole() {
                    part.build()?;
                }
            }
            rustix::fs::flock(&lock, FlockOperation::LockShared)?;
        }
        let [tools, kernel] = parts;
        Ok(Self {
            vmlinux: kernel.directory.join("vmlinux"),
            version: fs::read_to_string(kernel.directory.join("version"))
                .context("the image has no version; run `cargo xtask vm prepare --refresh`")?,
            archives: [
                tools.directory.join("tools.cpio"),
                kernel.directory.join("modules.cpio"),
            ],
            _lock: lock,
        })
    }
}

/// Makes the next [`Image::open`] build the tools and these kernels again, with the newest packages.
pub(crate) fn forget(directory: &Path, kernels: &[Kernel]) -> Result<()> {
    let lock = lock_file(directory)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    let parts = kernels
        .iter()
        .map(|kernel| Part::kernel(directory, *kernel));
    for part in parts.chain([Part::tools(directory)]) {
        if part.directory.exists() {
            fs::remove_dir_all(&part.directory)?;
        }
    }
    Ok(())
}

fn lock_file(directory: &Path) -> Result<File> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}; is it yours?", directory.display()))?;
    File::create(directory.join("lock"))
        .context("cannot make the lock file; is the directory yours?")
}

/// A directory that is made as a whole.
#[derive(Debug)]
struct Part {
    directory: PathBuf,
    kernel: Option<Kernel>,
    /// What it is made from, as text.
    recipe: String,
}

impl Part {
    fn tools(directory: &Path) -> Self {
        Self {
            directory: directory.join("tools"),
            kernel: None,
            recipe: format!("{RECIPE} {PACKAGES:?} {PROGRAMS:?} {DATA:?} {LIBRARIES:?}"),
        }
    }

    fn kernel(directory: &Path, kernel: Kernel) -> Self {
        Self {
            directory: directory.join(kernel.name()),
            kernel: Some(kernel),
            recipe: format!("{RECIPE} {} {:?}", kernel.metapackage(), kernel::MODULES),
        }
    }

    fn is_whole(&self) -> bool {
        fs::read_to_string(self.directory.join("recipe")).is_ok_and(|recipe| recipe == self.recipe)
    }

    /// Call only with the lock held: there is one temporary directory.
    fn build(&self) -> Result<()> {
        let started = std::time::Instant::now();
        let new = self.directory.with_extension("new");
        if new.exists() {
            fs::remove_dir_all(&new)?;
        }
        fs::create_dir_all(&new)?;
        match self.kernel {
            None => build_tools(&new)?,
            Some(kernel) => {
                // depmod comes with the tools, which are made first
                let busybox = self.directory.with_file_name("tools").join("busybox");
                build_kernel(&new, kernel, &busybox)?;
            }
        }
        fs::write(new.join("recipe"), &self.recipe)?;
        if self.directory.exists() {
            fs::remove_dir_all(&self.directory)?;
        }
        fs::rename(&new, &self.directory)?;
        eprintln!(
            "vm: made {} in {:.1} s",
            self.directory.display(),
            started.elapsed().as_secs_f64()
        );
        Ok(())
    }
}

fn build_tools(new: &Path) -> Result<()> {
    eprintln!("vm: making the guest's tools from Debian packages");
    packages::update_unless_known(PACKAGES)?;
    let (downloads, tree) = (new.join("downloads"), new.join("tree"));
    let versions = packages::unpack(&packages::with_libraries(PACKAGES)?, &downloads, &tree)?;
    fs::write(new.join("version"), versions.join("\n"))?;

    let busybox = find_in(&tree, "busybox")?;
    let mut archive = Archive::new(BufWriter::new(File::create(new.join("tools.cpio"))?));
    for directory in [
        "proc", "sys", "dev", "tmp", "run", "t", "etc", "root", "var/lib", "lib", "lib64", "usr",
        "bin",
    ] {
        archive.directory(directory)?;
    }
    for (link, target) in [
        ("sbin", "bin"),
        ("usr/bin", "../bin"),
        ("usr/sbin", "../bin"),
    ] {
        archive.symlink(link, target)?;
    }
    archive.file("bin/busybox", 0o755, &busybox)?;
    let applets = project::output(Command::new(&busybox).arg("--list"))?;
    for applet in String::from_utf8_lossy(&applets.stdout).lines() {
        if applet != "busybox" && !PROGRAMS.contains(&applet) {
            archive.symlink(&format!("bin/{applet}"), "busybox")?;
        }
    }
    let mut libraries = host_libraries()?;
    for program in PROGRAMS {
        let file = find_in(&tree, program)?;
        libraries_of(&file, &tree, &mut libraries)?;
        archive.file(&format!("bin/{program}"), 0o755, &file)?;
    }
    for data in DATA {
        let from = tree.join(data);
        if from.is_dir() {
            archive.tree(data, &from)?;
        } else {
            archive.file(data, 0o644, &from)?;
        }
    }
    for (path, from) in &libraries {
        archive.file(path, 0o755, from)?;
    }
    archive.bytes(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/bash\ntcpdump:x:100:65534::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n",
    )?;
    archive.bytes("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    archive.bytes("etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n")?;
    archive.bytes(
        "etc/nsswitch.conf",
        0o644,
        b"passwd: files\ngroup: files\nhosts: files dns\n",
    )?;
    archive.finish()?;

    fs::copy(&busybox, new.join("busybox"))?;
    fs::remove_dir_all(&downloads)?;
    fs::remove_dir_all(&tree).context("cannot remove the unpacked packages")
}

/// A program in an unpacked tree, links followed.
fn find_in(tree: &Path, program: &str) -> Result<PathBuf> {
    ["usr/sbin", "usr/bin", "sbin", "bin"]
        .iter()
        .find_map(|directory| fs::canonicalize(tree.join(directory).join(program)).ok())
        .with_context(|| {
            format!(
                "no package in the list PACKAGES has the program {program}; add the one that has"
            )
        })
}

/// Path in the guest to file here, for the libraries that a test binary may want.
fn host_libraries() -> Result<BTreeMap<String, PathBuf>> {
    let found: BTreeMap<String, PathBuf> = LIBRARIES
        .iter()
        .map(|name| {
            (
                format!("{LIBRARY_DIRECTORY}/{name}"),
                Path::new("/").join(LIBRARY_DIRECTORY).join(name),
            )
        })
        .filter(|(_, file)| file.exists())
        .collect();
    for name in ["libc.so.6", "libgcc_s.so.1"] {
        if !found.contains_key(&format!("{LIBRARY_DIRECTORY}/{name}")) {
            bail!(
                "/{LIBRARY_DIRECTORY}/{name} is missing; the test VM works on Debian for amd64 only"
            );
        }
    }
    Ok(found)
}

/// Adds what the dynamic linker would load for `program`, from `tree` before the host.
fn libraries_of(
    program: &Path,
    tree: &Path,
    libraries: &mut BTreeMap<String, PathBuf>,
) -> Result<()> {
    let path =
        ["usr/lib/x86_64-linux-gnu", LIBRARY_DIRECTORY].map(|directory| tree.join(directory));
    let path = std::env::join_paths(path)
        .context("the target directory must have no colon in its name")?;
    let output = project::output(
        Command::new("ldd")
            .arg(program)
            .env("LD_LIBRARY_PATH", path),
    )?;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(name), Some("=>"), Some(file)) if file.starts_with('/') => {
                libraries
                    .entry(format!("{LIBRARY_DIRECTORY}/{name}"))
                    .or_insert_with(|| file.into());
            }
            (Some(name), Some("=>"), _) => {
                bail!(
                    "{} needs {name}; add its package to the list PACKAGES",
                    program.display()
                )
            }
            (Some(linker), ..) if linker.starts_with('/') => {
                libraries.insert(linker.trim_start_matches('/').to_owned(), linker.into());
            }
            _ => {} // the kernel's own vdso
        }
    }
    Ok(())
}

fn build_kernel(new: &Path, kernel: Kernel, busybox: &Path) -> Result<()> {
    eprintln!(
        "vm: making the image of Linux {kernel} from {}",
        kernel.metapackage()
    );
    packages::update_unless_known(&[kernel.metapackage()])?;
    let package = packages::real_package(kernel.metapackage(), "linux-image-")?;
    let (downloads, tree) = (new.join("downloads"), new.join("tree"));
    let files = packages::unpack(std::slice::from_ref(&package), &downloads, &tree)?;
    fs::write(
        new.join("version"),
        files.join(" ").trim_end_matches(".deb"),
    )?;

    let release = package.trim_start_matches("linux-image-");
    let vmlinuz = tree.join("boot").join(format!("vmlinuz-{release}"));
    let content =
        fs::read(&vmlinuz).with_context(|| format!("{package} has no {}", vmlinuz.display()))?;
    fs::write(new.join("vmlinux"), kernel::extract_vmlinux(&content)?)?;

    let from = tree.join("lib/modules").join(release);
    let modules = Modules::unpack(&from.join("kernel"))?;
    let staged = new.join("stage/lib/modules").join(release);
    let chosen = modules.closure(kernel::MODULES)?;
    let builtin = fs::read_to_string(from.join("modules.builtin"))?;
    for name in kernel::REQUIRED_MODULES {
        let file = format!("/{name}.ko");
        if !chosen.contains_key(*name) && !builtin.replace('-', "_").contains(&file) {
            bail!("{package} has no module {name}; look where it went and add that to MODULES");
        }
    }
    for path in chosen.values() {
        let to = staged.join("kernel").join(path);
        fs::create_dir_all(to.parent().unwrap_or(&staged))?;
        fs::rename(from.join("kernel").join(path), to)?;
    }
    for list in [
        "modules.builtin",
        "modules.builtin.modinfo",
        "modules.order",
    ] {
        fs::copy(from.join(list), staged.join(list))
            .with_context(|| format!("{package} has no {list}"))?;
    }
    project::output(
        Command::new(busybox)
            .arg("depmod")
            .arg("-b")
            .arg(new.join("stage"))
            .arg(release),
    )?;
    let mut archive = Archive::new(BufWriter::new(File::create(new.join("modules.cpio"))?));
    archive.tree("lib/modules", &new.join("stage/lib/modules"))?;
    archive.finish()?;
    for directory in [downloads, tree, new.join("stage")] {
        fs::remove_dir_all(directory)?;
    }
    Ok(())
}
