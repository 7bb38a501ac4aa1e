//! The record of what is ours: keys of virtual servers, written down before they are made and struck off after they are gone.
//!
//! It is a file in the run directory, valid for one boot and one network namespace: on another boot the kernel holds nothing of
//! ours, and in another namespace the same keys are somebody else's. The file is a log, a JSON object a line: first what it is
//! valid for, then `add` and `remove`. So a change costs what changed; the log is written anew when most of it is history.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use ipvs::{Family, Protocol, VirtualServerKey};
use serde::{Deserialize, Serialize};

use crate::ownership::Ownership;

/// What the file's `version` must be for this weir to read it.
const VERSION: u32 = 1;
const FILE: &str = "owned.log";
/// The log is written anew when it has this many lines more than twice the keys it stands for.
const SLACK: usize = 256;

/// The record, in memory and on disk.
#[derive(Debug)]
pub struct Record {
    ownership: Ownership,
    log: Option<Log>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    scope: Scope,
    /// Where lines are appended; `None` until the log is first written, and after a write that failed, which may have left half
    /// a line: then the next write makes the whole log anew.
    file: Option<File>,
    lines: usize,
}

/// Where a record is valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scope {
    /// `/proc/sys/kernel/random/boot_id`
    pub boot_id: String,
    /// The device and inode of the network namespace (`/proc/thread-self/ns/net`).
    pub network_namespace: String,
}

/// Why the record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What was found where the record should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No file: a first start.
    Nothing,
    /// A record of this boot and network namespace.
    Valid,
    /// A record that does not concern this boot or network namespace, or that this weir cannot read; it is ignored, for this reason.
    Ignored(String),
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    #[serde(flatten)]
    scope: Scope,
}

/// The part of the first line that every version has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// Any other line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Add(KeyDocument),
    Remove(KeyDocument),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum KeyDocument {
    Address {
        protocol: String,
        address: IpAddr,
        port: u16,
    },
    Mark {
        mark: NonZeroU32,
        family: String,
    },
}

impl Record {
    /// A record that is kept in memory only.
    pub fn in_memory() -> Self {
        Self {
            ownership: Ownership::default(),
            log: None,
        }
    }

    /// Opens the record in a run directory. Nothing is written before there is something to write.
    ///
    /// # Errors
    /// When there is a file that cannot be read: then it is unknown what is ours.
    pub fn open(directory: &Path, scope: Scope) -> Result<(Self, Found), RecordError> {
        let path = directory.join(FILE);
        let (recorded, found) = match std::fs::read(&path) {
            Ok(bytes) => decode(&bytes, &scope),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (BTreeSet::new(), Found::Nothing)
            }
            Err(source) => return Err(RecordError::Read { path, source }),
        };
        let record = Self {
            ownership: Ownership { recorded },
            log: Some(Log {
                path,
                scope,
                file: None,
                lines: 0,
            }),
        };
        Ok((record, found))
    }

    /// What tells owned from foreign.
    pub fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// Writes keys down.
    ///
    /// # Errors
    /// When the file cannot be written; the record is then as before.
    pub fn add(&mut self, keys: &BTreeSet<VirtualServerKey>) -> Result<(), RecordError> {
        let new: Vec<_> = keys.difference(&self.ownership.recorded).copied().collect();
        self.write(
            new.iter().map(|key| Line::Add(encode_key(key))).collect(),
            |recorded| {
                recorded.extend(new.iter().copied());
            },
        )
    }

    /// Strikes keys off.
    ///
    /// # Errors
    /// When the file cannot be written; the record is then as before.
    pub fn remove(&mut self, keys: &BTreeSet<VirtualServerKey>) -> Result<(), RecordError> {
        let old: Vec<_> = keys
            .intersection(&self.ownership.recorded)
            .copied()
            .collect();
        self.write(
            old.iter()
                .map(|key| Line::Remove(encode_key(key)))
                .collect(),
            |recorded| {
                for key in &old {
                    recorded.remove(key);
                }
            },
        )
    }

    fn write(
        &mut self,
        lines: Vec<Line>,
        change: impl FnOnce(&mut BTreeSet<VirtualServerKey>),
    ) -> Result<(), RecordError> {
        if lines.is_empty() {
            return Ok(());
        }
        if let Some(log) = &mut self.log {
            log.write(lines, &self.ownership.recorded)?;
        }
        change(&mut self.ownership.recorded);
        Ok(())
    }
}

impl Log {
    fn write(
        &mut self,
        lines: Vec<Line>,
        recorded: &BTreeSet<VirtualServerKey>,
    ) -> Result<(), RecordError> {
        if self.lines + lines.len() > 2 * recorded.len() + SLACK {
            self.file = None;
        }
        let result = match &mut self.file {
            Some(file) => encode(&lines)
                .and_then(|bytes| file.write_all(&bytes))
                .map(|()| self.lines + lines.len()),
            None => self.write_anew(lines, recorded),
        };
        match result {
            Ok(lines) => {
                self.lines = lines;
                Ok(())
            }
            Err(source) => {
                self.file = None;
                let path = self.path.clone();
                Err(RecordError::Write { path, source })
            }
        }
    }

    /// Writes beside the log and renames, so that a crash leaves the old log or the new one and never half of one.
    fn write_anew(
        &mut self,
        lines: Vec<Line>,
        recorded: &BTreeSet<VirtualServerKey>,
    ) -> io::Result<usize> {
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let temporary = self.path.with_extension("new");
        let header = Header {
            version: VERSION,
            scope: self.scope.clone(),
        };
        let mut bytes = serde_json::to_vec(&header)?;
        bytes.push(b'\n');
        let all: Vec<Line> = recorded
            .iter()
            .map(|key| Line::Add(encode_key(key)))
            .chain(lines)
            .collect();
        bytes.extend(encode(&all)?);
        std::fs::write(&temporary, bytes)?;
        std::fs::rename(&temporary, &self.path)?;
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        Ok(all.len())
    }
}

fn encode(lines: &[Line]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, line)?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

fn decode(bytes: &[u8], scope: &Scope) -> (BTreeSet<VirtualServerKey>, Found) {
    let ignored = |reason: String| (BTreeSet::new(), Found::Ignored(reason));
    // A last line without its end was being written when weir was killed; what it was to announce was then never made.
    let mut lines = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_suffix(b"\n"));
    let first = lines.next().unwrap_or_default();
    match serde_json::from_slice::<Version>(first) {
        Ok(Version { version }) if version == VERSION => {}
        Ok(Version { version }) => {
            return ignored(format!(
                "it has version {version}, this weir reads version {VERSION}"
            ));
        }
        Err(error) => return ignored(format!("it cannot be understood: {error}")),
    }
    match serde_json::from_slice::<Header>(first) {
        Ok(header) if header.scope == *scope => {}
        // Not worth a word: another boot or namespace, where nothing of ours can be in this kernel.
        Ok(_) => return (BTreeSet::new(), Found::Nothing),
        Err(error) => return ignored(format!("it cannot be understood: {error}")),
    }
    let mut recorded = BTreeSet::new();
    for line in lines {
        let key = match serde_json::from_slice(line) {
            Ok(Line::Add(key)) => decode_key(&key).map(|key| recorded.insert(key)),
            Ok(Line::Remove(key)) => decode_key(&key).map(|key| recorded.remove(&key)),
            Err(error) => return ignored(format!("it cannot be understood: {error}")),
        };
        if key.is_none() {
            return ignored(
                "it names a protocol or family that this weir does not know".to_owned(),
            );
        }
    }
    (recorded, Found::Valid)
}

fn encode_key(key: &VirtualServerKey) -> KeyDocument {
    match *key {
        VirtualServerKey::Address {
            address,
            port,
            protocol,
        } => KeyDocument::Address {
            protocol: protocol.to_string(),
            address,
            port,
        },
        VirtualServerKey::Mark { mark, family } => KeyDocument::Mark {
            mark,
            family: family.to_string(),
        },
    }
}

fn decode_key(key: &KeyDocument) -> Option<VirtualServerKey> {
    match key {
        KeyDocument::Address {
            protocol,
            address,
            port,
        } => Some(VirtualServerKey::Address {
            address: *address,
            port: *port,
            protocol: [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
                .into_iter()
                .find(|known| known.to_string() == *protocol)?,
        }),
        KeyDocument::Mark { mark, family } => Some(VirtualServerKey::Mark {
            mark: *mark,
            family: [Family::Ipv4, Family::Ipv6]
                .into_iter()
                .find(|known| known.to_string() == *family)?,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(boot: &str) -> Scope {
        Scope {
            boot_id: boot.to_owned(),
            network_namespace: "4:1".to_owned(),
        }
    }

    fn key(address: &str) -> VirtualServerKey {
        VirtualServerKey::Address {
            address: address.parse().unwrap(),
            port: 53,
            protocol: Protocol::Udp,
        }
    }

    #[test]
    fn what_was_added_is_found_again_on_the_same_boot_only() {
        let directory = tempfile::tempdir().unwrap();
        let keys: BTreeSet<_> = [
            key("192.0.2.7"),
            key("2001:db8::7"),
            VirtualServerKey::Mark {
                mark: NonZeroU32::MIN,
                family: Family::Ipv6,
            },
        ]
        .into();
        let (mut record, found) = Record::open(directory.path(), scope("a")).unwrap();
        assert_eq!(found, Found::Nothing);
        record.add(&keys).unwrap();
        record.remove(&[key("192.0.2.7")].into()).unwrap();

        let (again, found) = Record::open(directory.path(), scope("a")).unwrap();
        assert_eq!(found, Found::Valid);
        assert_eq!(again.ownership().recorded.len(), 2);
        assert!(!again.ownership().recorded.contains(&key("192.0.2.7")));

        let (other, found) = Record::open(directory.path(), scope("b")).unwrap();
        assert_eq!(found, Found::Nothing);
        assert!(other.ownership().recorded.is_empty());
    }

    #[test]
    fn an_unknown_version_and_a_torn_file_are_ignored_and_said() {
        let directory = tempfile::tempdir().unwrap();
        for (text, said) in [
            ("{\"version\":9}\n", "version 9"),
            ("{\"version\":1,", "cannot be understood"),
        ] {
            std::fs::write(directory.path().join(FILE), text).unwrap();
            let (record, found) = Record::open(directory.path(), scope("a")).unwrap();
            assert!(record.ownership().recorded.is_empty());
            assert!(matches!(found, Found::Ignored(reason) if reason.contains(said)));
        }
    }

    #[test]
    fn half_a_last_line_is_what_was_never_made() {
        let directory = tempfile::tempdir().unwrap();
        let (mut record, _) = Record::open(directory.path(), scope("a")).unwrap();
        record.add(&[key("192.0.2.7")].into()).unwrap();
        record.add(&[key("192.0.2.8")].into()).unwrap();
        let path = directory.path().join(FILE);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        let (mut record, found) = Record::open(directory.path(), scope("a")).unwrap();
        assert_eq!(found, Found::Valid);
        assert_eq!(record.ownership().recorded, [key("192.0.2.7")].into());
        record.add(&[key("192.0.2.9")].into()).unwrap();
        let (record, found) = Record::open(directory.path(), scope("a")).unwrap();
        assert_eq!(found, Found::Valid);
        assert_eq!(
            record.ownership().recorded,
            [key("192.0.2.7"), key("192.0.2.9")].into()
        );
    }

    #[test]
    fn the_log_does_not_grow_without_end() {
        let directory = tempfile::tempdir().unwrap();
        let (mut record, _) = Record::open(directory.path(), scope("a")).unwrap();
        record.add(&[key("192.0.2.1")].into()).unwrap();
        for _ in 0..2_000 {
            record.add(&[key("192.0.2.7")].into()).unwrap();
            record.remove(&[key("192.0.2.7")].into()).unwrap();
        }
        let lines = std::fs::read_to_string(directory.path().join(FILE))
            .unwrap()
            .lines()
            .count();
        assert!(lines < SLACK + 10, "{lines}");
        let (record, _) = Record::open(directory.path(), scope("a")).unwrap();
        assert_eq!(record.ownership().recorded, [key("192.0.2.1")].into());
    }

    #[test]
    fn a_record_that_cannot_be_written_stays_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let (mut record, _) = Record::open(&directory.path().join("absent"), scope("a")).unwrap();
        std::fs::write(directory.path().join("absent"), "a file is in the way").unwrap();
        assert!(record.add(&[key("192.0.2.7")].into()).is_err());
        assert!(record.ownership().recorded.is_empty());
    }
}
