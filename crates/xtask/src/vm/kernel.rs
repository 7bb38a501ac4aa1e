//! Debian's kernels: which ones, how `vmlinux` comes out of `vmlinuz`, and which modules the guest gets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::project;

/// A kernel that we test with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kernel {
    /// Long-term 6.12, from Debian 12's security archive
    #[value(name = "6.12")]
    Linux6_12,
    /// Long-term 6.1, what Debian 12 boots
    #[value(name = "6.1")]
    Linux6_1,
}

impl Kernel {
    pub(crate) const ALL: [Self; 2] = [Self::Linux6_12, Self::Linux6_1];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Linux6_12 => "6.12",
            Self::Linux6_1 => "6.1",
        }
    }

    /// Stands for the newest build; exact versions vanish from the mirrors.
    pub(crate) fn metapackage(self) -> &'static str {
        match self {
            Self::Linux6_12 => "linux-image-6.12-cloud-amd64",
            Self::Linux6_1 => "linux-image-cloud-amd64",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Every module below these is in the image, and whatever they depend on.
pub(crate) const MODULES: &[&str] = &[
    "net/netfilter/",
    "net/ipv4/",
    "net/ipv6/",
    "net/bridge/",
    "net/sctp/",
    "net/8021q/",
    "net/packet/",
    "net/core/",
    "net/sched/sch_netem",
    "net/sched/sch_tbf",
    "net/sched/cls_",
    "net/sched/act_",
    "drivers/net/dummy",
    "drivers/net/veth",
    "drivers/net/tun",
    "drivers/net/macvlan",
    "drivers/net/ipvlan/",
    "drivers/net/vxlan",
    "drivers/net/virtio_net",
    "drivers/net/nlmon",
    "drivers/net/vrf",
    "drivers/virtio/",
    "drivers/char/virtio_console",
    "drivers/char/hw_random/virtio",
    "drivers/block/virtio_blk",
    "crypto/crc32c",
    "lib/libcrc32c",
];

/// Without these in the image weir cannot be tested; some kernels have one built in.
pub(crate) const REQUIRED_MODULES: &[&str] = &[
    "dummy",
    "veth",
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_mh",
    "nf_tables",
    "nft_ct",
    "nft_masq",
    "nf_conntrack",
    "br_netfilter",
    "vxlan",
    "sctp",
    "virtio_console",
];

/// How a compressed kernel begins, and what unpacks it.
const COMPRESSIONS: &[(&[u8], &[&str])] = &[
    (b"\x28\xb5\x2f\xfd", &["zstd", "-dcq"]),
    (b"\xfd7zXZ\0", &["xz", "-dcq", "--single-stream"]),
    (b"\x02\x21\x4c\x18", &["lz4", "-dcq"]),
    (b"\x1f\x8b\x08", &["gzip", "-dcq"]),
];

/// The ELF image inside a `vmlinuz`. QEMU boots that without firmware, and the guest need not decompress it.
pub(crate) fn extract_vmlinux(vmlinuz: &[u8]) -> Result<Vec<u8>> {
    for (magic, unpacker) in COMPRESSIONS {
        for start in positions(vmlinuz, magic) {
            let packed = vmlinuz.get(start..).unwrap_or_default();
            let unpacked = unpack(unpacker, packed)?;
            if unpacked.starts_with(b"\x7fELF") {
                return Ok(unpacked);
            }
        }
    }
    bail!(
        "this vmlinuz holds no kernel that zstd, xz, lz4 or gzip can unpack; add its compression to COMPRESSIONS"
    )
}

/// Runs a decompressor. It complains about what follows the kernel in the file, so only its output counts.
fn unpack(command: &[&str], packed: &[u8]) -> Result<Vec<u8>> {
    let Some((program, arguments)) = command.split_first() else {
        bail!("no decompressor given");
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {program}; install the package of that name"))?;
    let input = child.stdin.take();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            // It closes the pipe as soon as it has seen enough.
            input.map(|mut input| input.write_all(packed))
        });
        child.wait_with_output()
    })?;
    Ok(output.stdout)
}

fn positions<'a>(bytes: &'a [u8], magic: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    bytes
        .windows(magic.len())
        .enumerate()
        .filter(move |(_, window)| *window == magic)
        .map(|(position, _)| position)
}

/// The modules of one kernel package: name to path below the directory `kernel`, all of them decompressed.
#[derive(Debug)]
pub(crate) struct Modules {
    directory: PathBuf,
    paths: BTreeMap<String, PathBuf>,
}

impl Modules {
    /// Decompresses in place whatever is compressed below `directory` (`lib/modules/VERSION/kernel`).
    pub(crate) fn unpack(directory: &Path) -> Result<Self> {
        let mut files = Vec::new();
        list(directory, &mut files)?;
        for (suffix, command) in [
            ("xz", &["xz", "-dq"][..]),
            ("zst", &["zstd", "-dq", "--rm"]),
            ("gz", &["gzip", "-dq"]),
        ] {
            let packed: Vec<&PathBuf> = files
                .iter()
                .filter(|file| file.extension().is_some_and(|own| own == suffix))
                .collect();
            let Some((program, arguments)) = command.split_first() else {
                continue;
            };
            for some in packed.chunks(500) {
                project::output(Command::new(program).args(arguments).args(some))?;
            }
        }
        files.clear();
        list(directory, &mut files)?;
        let paths = files
            .iter()
            .filter(|file| file.extension().is_some_and(|suffix| suffix == "ko"))
            .filter_map(|file| {
                let name = file.file_stem()?.to_str()?.replace('-', "_");
                Some((name, file.strip_prefix(directory).ok()?.to_owned()))
            })
            .collect();
        Ok(Self {
            directory: directory.to_owned(),
            paths,
        })
    }

    /// The paths of the modules below one of `prefixes` and of all that they need.
    pub(crate) fn closure(&self, prefixes: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
        let start = self.paths.iter().filter(|(_, path)| {
            let path = path.to_string_lossy();
            prefixes.iter().any(|prefix| path.starts_with(prefix))
        });
        let names = close(start.map(|(name, _)| name.clone()), |name| {
            match self.paths.get(name) {
                Some(path) => {
                    let file = self.directory.join(path);
                    let content = fs::read(&file)
                        .with_context(|| format!("cannot read {}", file.display()))?;
                    Ok(dependencies(&content))
                }
                None => Ok(BTreeSet::new()), // built into this kernel
            }
        })?;
        Ok(names
            .into_iter()
            .filter_map(|name| Some((name.clone(), self.paths.get(&name)?.clone())))
            .collect())
    }
}

/// `start` and everything reachable from it.
fn close(
    start: impl Iterator<Item = String>,
    needs: impl Fn(&str) -> Result<BTreeSet<String>>,
) -> Result<BTreeSet<String>> {
    let mut waiting: Vec<String> = start.collect();
    let mut seen = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        if !seen.contains(&name) {
            waiting.extend(needs(&name)?);
            seen.insert(name);
        }
    }
    Ok(seen)
}

/// What a module asks for in its `.modinfo` section: `depends=a,b` and `softdep=pre: c post: d`, each ended by a zero.
fn dependencies(module: &[u8]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (key, separators) in [(&b"\0depends="[..], &[','][..]), (b"\0softdep=", &[' '])] {
        for position in positions(module, key) {
            let value = module.get(position + key.len()..).unwrap_or_default();
            let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
            let value = String::from_utf8_lossy(value);
            names.extend(
                value
                    .split(separators)
                    .filter(|name| !name.is_empty() && !name.ends_with(':'))
                    .map(|name| name.replace('-', "_")),
            );
        }
    }
    names
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn vmlinux_is_found_behind_the_boot_code() {
        let kernel = b"\x7fELF the kernel".repeat(100);
        let packed = unpack(&["gzip", "-c"], &kernel).unwrap();
        // boot code, a false start, the kernel, and what the decompressor must not mind
        let file = [
            b"MZ boot code \x1f\x8b\x08 no kernel",
            &packed[..],
            b"signature",
        ]
        .concat();
        assert_eq!(extract_vmlinux(&file).unwrap(), kernel);
    }

    #[test]
    fn a_file_without_a_kernel_is_an_error_that_names_the_remedy() {
        let error = extract_vmlinux(b"MZ nothing here").unwrap_err();
        assert!(error.to_string().contains("COMPRESSIONS"), "{error}");
    }

    #[test]
    fn dependencies_come_from_modinfo() {
        let module = b"ELF\0license=GPL\0depends=nf_conntrack,libcrc32c\0softdep=pre: crc32c post: nf-log\0intree=Y\0";
        assert_eq!(
            dependencies(module),
            set(&["crc32c", "libcrc32c", "nf_conntrack", "nf_log"])
        );
        assert_eq!(dependencies(b"ELF\0depends=\0name=veth\0"), set(&[]));
    }

    #[test]
    fn the_closure_follows_dependencies_and_survives_cycles() {
        let needs = |name: &str| {
            Ok(match name {
                "ip_vs" => set(&["nf_conntrack", "libcrc32c"]),
                "nf_conntrack" => set(&["nf_defrag_ipv4"]),
                "nf_defrag_ipv4" => set(&["ip_vs"]),
                _ => set(&[]),
            })
        };
        let closed = close(["ip_vs".to_owned()].into_iter(), needs).unwrap();
        assert_eq!(
            closed,
            set(&["ip_vs", "libcrc32c", "nf_conntrack", "nf_defrag_ipv4"])
        );
    }
}
