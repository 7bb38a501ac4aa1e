//! Which files belong to a path, and whether they look as before.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{ManifestError, ManifestProblem};

/// What a path leads to.
#[derive(Debug)]
pub(super) enum Found {
    /// A file, which can be read again.
    File(PathBuf),
    /// A pipe or a device, which may be empty when it is read a second time.
    Stream(PathBuf),
    /// The manifests of a directory, by name; at least one.
    Directory(Vec<PathBuf>),
}

impl Found {
    pub(super) fn into_paths(self) -> Vec<PathBuf> {
        match self {
            Self::File(path) | Self::Stream(path) => vec![path],
            Self::Directory(paths) => paths,
        }
    }
}

/// Follows symbolic links: a mounted `ConfigMap` is a directory of links through a link to a directory.
pub(super) fn find(path: &Path) -> Result<Found, ManifestError> {
    let metadata = fs::metadata(path)
        .map_err(|error| ManifestError::at(path, ManifestProblem::Read(error)))?;
    if metadata.is_file() {
        return Ok(Found::File(path.to_owned()));
    }
    if !metadata.is_dir() {
        return Ok(Found::Stream(path.to_owned()));
    }
    let paths =
        list(path).map_err(|error| ManifestError::at(path, ManifestProblem::List(error)))?;
    if paths.is_empty() {
        return Err(ManifestError::at(path, ManifestProblem::NoManifests));
    }
    Ok(Found::Directory(paths))
}

/// The manifests in a directory: by their ending, not hidden, regular files. A pipe there would hold up everything for as long as
/// nobody writes to it.
fn list(directory: &Path) -> Result<Vec<PathBuf>, std::io::Error> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        // One that cannot be examined is kept, so that reading it says why.
        let is_special = fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file());
        if is_manifest(&path) && !is_special {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn is_manifest(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let ending = path.extension().and_then(|ending| ending.to_str());
    !hidden && matches!(ending, Some("yaml" | "yml" | "json"))
}

/// A file or directory and what `stat` says of it; `None` if it says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint {
    path: PathBuf,
    stat: Option<Stat>,
}

/// What changes when a file is written, replaced or given other permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stat {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Stat {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The path and, if it is a directory, the manifests in it.
pub(super) fn fingerprints(path: &Path) -> Vec<Fingerprint> {
    let of = |path: PathBuf| {
        // A stream is read once and looks the same for ever.
        let stat = fs::metadata(&path)
            .ok()
            .filter(|metadata| metadata.is_file() || metadata.is_dir());
        Fingerprint {
            stat: stat.as_ref().map(Stat::from),
            path,
        }
    };
    let files = if path.is_dir() {
        list(path).unwrap_or_default()
    } else {
        Vec::new()
    };
    std::iter::once(path.to_owned())
        .chain(files)
        .map(of)
        .collect()
}
