//! The record of what is ours: keys of virtual servers, written down before they are made and struck off after they are gone.
//!
//! It is a file in the run directory, valid for one boot and one network namespace: on another boot the kernel holds nothing of
//! ours, and in another namespace the same keys are somebody else's.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use ipvs::{Family, Protocol, VirtualServerKey};
use serde::{Deserialize, Serialize};

use crate::ownership::Ownership;

/// What the file's `version` must be for this weir to read it.
const VERSION: u32 = 1;
const FILE: &str = "owned.json";

/// The record, in memory and on disk.
#[derive(Debug)]
pub struct Record {
    ownership: Ownership,
    file: Option<RecordFile>,
}

#[derive(Debug)]
struct RecordFile {
    directory: PathBuf,
    scope: Scope,
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

/// The part of the document that every version has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    #[serde(flatten)]
    scope: Scope,
    owned: Vec<KeyDocument>,
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
            file: None,
        }
    }

    /// Opens the record in a run directory.
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
            file: Some(RecordFile {
                directory: directory.to_owned(),
                scope,
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
        let recorded: BTreeSet<_> = self.ownership.recorded.union(keys).copied().collect();
        self.replace(recorded)
    }

    /// Strikes keys off.
    ///
    /// # Errors
    /// When the file cannot be written; the record is then as before.
    pub fn remove(&mut self, keys: &BTreeSet<VirtualServerKey>) -> Result<(), RecordError> {
        let recorded: BTreeSet<_> = self.ownership.recorded.difference(keys).copied().collect();
        self.replace(recorded)
    }

    fn replace(&mut self, recorded: BTreeSet<VirtualServerKey>) -> Result<(), RecordError> {
        if recorded == self.ownership.recorded {
            return Ok(());
        }
        if let Some(file) = &self.file {
            file.write(&recorded)?;
        }
        self.ownership.recorded = recorded;
        Ok(())
    }
}

impl RecordFile {
    /// Writes beside the file and renames, so that a crash leaves the old record or the new one and never half of one.
    fn write(&self, recorded: &BTreeSet<VirtualServerKey>) -> Result<(), RecordError> {
        let path = self.directory.join(FILE);
        let temporary = self.directory.join(format!("{FILE}.new"));
        let document = Document {
            version: VERSION,
            scope: self.scope.clone(),
            owned: recorded.iter().map(encode_key).collect(),
        };
        serde_json::to_vec(&document)
            .map_err(io::Error::other)
            .and_then(|bytes| std::fs::write(&temporary, bytes))
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|source| RecordError::Write { path, source })
    }
}

fn decode(bytes: &[u8], scope: &Scope) -> (BTreeSet<VirtualServerKey>, Found) {
    let ignored = |reason: String| (BTreeSet::new(), Found::Ignored(reason));
    match serde_json::from_slice::<Version>(bytes) {
        Ok(Version { version }) if version == VERSION => {}
        Ok(Version { version }) => {
            return ignored(format!(
                "it has version {version}, this weir reads version {VERSION}"
            ));
        }
        Err(error) => return ignored(format!("it cannot be understood: {error}")),
    }
    let document: Document = match serde_json::from_slice(bytes) {
        Ok(document) => document,
        Err(error) => return ignored(format!("it cannot be understood: {error}")),
    };
    if document.scope != *scope {
        // Not worth a word: another boot or namespace, where nothing of ours can be in this kernel.
        return (BTreeSet::new(), Found::Nothing);
    }
    let keys: Option<BTreeSet<_>> = document.owned.iter().map(decode_key).collect();
    match keys {
        Some(keys) => (keys, Found::Valid),
        None => ignored("it names a protocol or family that this weir does not know".to_owned()),
    }
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
            ("{\"version\":9}", "version 9"),
            ("{\"version\":1,", "cannot be understood"),
        ] {
            std::fs::write(directory.path().join(FILE), text).unwrap();
            let (record, found) = Record::open(directory.path(), scope("a")).unwrap();
            assert!(record.ownership().recorded.is_empty());
            assert!(matches!(found, Found::Ignored(reason) if reason.contains(said)));
        }
    }

    #[test]
    fn a_record_that_cannot_be_written_stays_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let (mut record, _) = Record::open(&directory.path().join("absent"), scope("a")).unwrap();
        assert!(record.add(&[key("192.0.2.7")].into()).is_err());
        assert!(record.ownership().recorded.is_empty());
    }
}
