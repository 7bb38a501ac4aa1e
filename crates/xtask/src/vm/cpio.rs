//! The `newc` archive that Linux unpacks as its first root. Written here so that an image needs no `cpio` on the host,
//! and so that the same input gives the same bytes: entries come in the order they were added, owned by root, dated 1970.
//! Format: Documentation/driver-api/early-userspace/buffer-format.rst in the kernel.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// Writes entries to `out`; parents of an entry are made when missing. Call [`Archive::finish`], or it has no end.
#[derive(Debug)]
pub(crate) struct Archive<W> {
    out: W,
    inode: u32,
    written: u64,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            inode: 0,
            written: 0,
            directories: BTreeSet::new(),
        }
    }

    /// A directory, with its parents; does nothing if this archive has it already. `path` has no leading slash.
    pub(crate) fn directory(&mut self, path: &str) -> Result<()> {
        let mut end = 0;
        while end < path.len() {
            end = path
                .get(end + 1..)
                .and_then(|rest| rest.find('/'))
                .map_or(path.len(), |slash| end + 1 + slash);
            let Some(prefix) = path.get(..end) else {
                bail!("{path:?} is no path for an archive");
            };
            if self.directories.insert(prefix.to_owned()) {
                self.entry(prefix, DIRECTORY | 0o755, 0)?;
            }
        }
        Ok(())
    }

    /// A regular file with these bytes; `mode` is the permission bits.
    pub(crate) fn bytes(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.parent(path)?;
        self.entry(path, REGULAR | mode, u64::try_from(content.len())?)?;
        self.out.write_all(content)?;
        self.padding(u64::try_from(content.len())?)
    }

    /// A regular file with the content of `from`, symbolic links followed.
    pub(crate) fn file(&mut self, path: &str, mode: u32, from: &Path) -> Result<()> {
        let file = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
        let length = file.metadata()?.len();
        self.parent(path)?;
        self.entry(path, REGULAR | mode, length)?;
        let copied = io::copy(&mut file.take(length), &mut self.out)
            .with_context(|| format!("cannot copy {}", from.display()))?;
        if copied != length {
            bail!(
                "{} became shorter while it was archived; try again",
                from.display()
            );
        }
        self.padding(length)
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.parent(path)?;
        self.entry(path, SYMLINK | 0o777, u64::try_from(target.len())?)?;
        self.out.write_all(target.as_bytes())?;
        self.padding(u64::try_from(target.len())?)
    }

    /// Everything below `from`, in the order of names. Links are followed, permission bits kept.
    pub(crate) fn tree(&mut self, path: &str, from: &Path) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        self.directory(path)?;
        let mut entries = fs::read_dir(from)
            .with_context(|| format!("cannot list {}", from.display()))?
            .collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                bail!(
                    "{} has a name that is not UTF-8; rename it",
                    entry.path().display()
                );
            };
            let inside = format!("{path}/{name}");
            let metadata = fs::metadata(entry.path())
                .with_context(|| format!("cannot read {}", entry.path().display()))?;
            if metadata.is_dir() {
                self.tree(&inside, &entry.path())?;
            } else {
                let mode = metadata.permissions().mode() & 0o7777;
                self.file(&inside, mode, &entry.path())?;
            }
        }
        Ok(())
    }

    /// Writes the trailer and returns what was written to.
    pub(crate) fn finish(mut self) -> Result<W> {
        self.inode = 0;
        self.header("TRAILER!!!", 0, 0, 0)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parent(&mut self, path: &str) -> Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, size: u64) -> Result<()> {
        self.inode += 1;
        self.header(path, self.inode, mode, size)
    }

    fn header(&mut self, path: &str, inode: u32, mode: u32, size: u64) -> Result<()> {
        let size = u32::try_from(size)
            .with_context(|| format!("{path} is too big for an archive: strip it"))?;
        let name = u32::try_from(path.len() + 1)?;
        let links = 1;
        // magic, inode, mode, uid, gid, links, mtime, size, device, device of a device file, name size, checksum
        write!(
            self.out,
            "070701{inode:08x}{mode:08x}{:08x}{:08x}{links:08x}{:08x}{size:08x}{:08x}{:08x}{:08x}{:08x}{name:08x}{:08x}",
            0, 0, 0, 0, 0, 0, 0, 0
        )?;
        self.out.write_all(path.as_bytes())?;
        self.out.write_all(b"\0")?;
        self.written += 110;
        self.padding(u64::from(name))
    }

    /// Counts `length` bytes just written and fills up to a multiple of four.
    fn padding(&mut self, length: u64) -> Result<()> {
        self.written += length;
        while !self.written.is_multiple_of(4) {
            self.out.write_all(b"\0")?;
            self.written += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_bytes_cpio_writes() {
        let mut archive = Archive::new(Vec::new());
        archive.bytes("a", 0o644, b"hello").unwrap();
        let written = archive.finish().unwrap();
        // printf hello >a; echo a | cpio -o -H newc -R 0:0 --reproducible, with the inode and the time made ours
        let expected = "07070100000001000081a4000000000000000000000001000000000000000500000000000000000000000000000000\
             0000000200000000a\0hello\0\0\0\
             07070100000000000000000000000000000000000000010000000000000000000000000000000000000000000000000000\
             000b00000000TRAILER!!!\0\0\0\0";
        let expected: String = expected.split(' ').collect();
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }

    #[test]
    fn parents_come_once_and_before_their_children() {
        let mut archive = Archive::new(Vec::new());
        archive.bytes("t/x/one", 0o755, b"1").unwrap();
        archive.bytes("t/x/two", 0o755, b"22").unwrap();
        archive.symlink("t/three", "x/one").unwrap();
        archive.directory("t/x").unwrap();
        assert_eq!(
            names(&archive.finish().unwrap()),
            ["t", "t/x", "t/x/one", "t/x/two", "t/three", "TRAILER!!!"]
        );
    }

    #[test]
    fn every_entry_starts_on_a_multiple_of_four() {
        for length in 0..9 {
            let mut archive = Archive::new(Vec::new());
            archive.bytes("name", 0o644, &vec![b'x'; length]).unwrap();
            archive.bytes("next", 0o644, b"").unwrap();
            let written = archive.finish().unwrap();
            assert_eq!(written.len() % 4, 0);
            assert_eq!(names(&written), ["name", "next", "TRAILER!!!"]);
        }
    }

    /// Reads the names back as the kernel does: fixed header, name, padding, content, padding.
    fn names(archive: &[u8]) -> Vec<String> {
        let number = |at: usize| {
            let text = std::str::from_utf8(&archive[at..at + 8]).unwrap();
            usize::from_str_radix(text, 16).unwrap()
        };
        let mut names = Vec::new();
        let mut at = 0;
        while at < archive.len() {
            assert_eq!(&archive[at..at + 6], b"070701");
            let (size, name) = (number(at + 54), number(at + 94));
            let text = &archive[at + 110..at + 110 + name - 1];
            names.push(String::from_utf8(text.to_vec()).unwrap());
            at = (at + 110 + name).next_multiple_of(4);
            at = (at + size).next_multiple_of(4);
        }
        names
    }
}
