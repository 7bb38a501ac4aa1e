//! Why manifests could not be read.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why manifests could not be read.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The directory cannot be listed.
    #[error("cannot list the directory {}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The directory has no manifests in it.
    #[error(
        "the directory {} holds no *.yaml, *.yml or *.json; put manifests there (subdirectories are not read) or name a file",
        path.display()
    )]
    NoManifests {
        /// The directory.
        path: PathBuf,
    },
    /// The file has nothing in it, as if it was just being written.
    #[error(
        "{} is empty; if there are to be no objects, write `apiVersion: v1`, `kind: List`, `items: []`",
        path.display()
    )]
    Blank {
        /// The file.
        path: PathBuf,
    },
    /// The file is not text.
    #[error("{} is not text in UTF-8: line {line}", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// The line of the first byte that is wrong, from 1.
        line: usize,
        /// The cause.
        source: std::str::Utf8Error,
    },
    /// The file is not YAML.
    #[error("{} is not YAML", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// The cause, with line and column.
        source: YamlError,
    },
    /// The file is not JSON.
    #[error("{} is not JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The cause, with line and column.
        source: serde_json::Error,
    },
    /// A document is something else than a mapping, so the file is no manifest.
    #[error("{place} is {found}, not an object with apiVersion and kind; is this a manifest?")]
    NoObject {
        /// File and document.
        place: String,
        /// What stands there.
        found: String,
    },
}

impl ManifestError {
    /// The error with its causes, on one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }

    /// Whether another attempt may succeed without any file looking different: the system had no memory or descriptors left, the
    /// disk failed. An absent file, a lack of permission and bad content show in `stat` when they change.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Read { source, .. } | Self::List { source, .. } => !matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::IsADirectory
                    | io::ErrorKind::NotADirectory
            ),
            Self::NoManifests { .. }
            | Self::Blank { .. }
            | Self::Encoding { .. }
            | Self::Yaml { .. }
            | Self::Json { .. }
            | Self::NoObject { .. } => false,
        }
    }
}

/// What is wrong with YAML, with line and column.
#[derive(Debug)]
pub struct YamlError(Box<serde_saphyr::Error>);

impl YamlError {
    pub(super) fn new(error: serde_saphyr::Error) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The library's other wording speaks to programmers, about its options.
        let text = self
            .0
            .render_with_formatter(&serde_saphyr::UserMessageFormatter);
        f.write_str(&text)
    }
}

impl Error for YamlError {}
