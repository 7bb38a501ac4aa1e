//! Why manifests could not be read.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

use thiserror::Error;

/// Manifests could not be read. Prints as `place: problem`; the cause, with line and column where there are any, is its source.
#[derive(Debug)]
pub struct ManifestError {
    /// The file or directory and, where only a part of it is meant, the document.
    pub place: String,
    /// What went wrong there.
    pub problem: ManifestProblem,
}

/// What went wrong with a file or directory.
#[derive(Debug, Error)]
pub enum ManifestProblem {
    /// The file cannot be read.
    #[error("cannot be read")]
    Read(#[source] io::Error),
    /// The directory cannot be listed.
    #[error("the directory cannot be listed")]
    List(#[source] io::Error),
    /// The directory has no manifests in it.
    #[error(
        "the directory holds no *.yaml, *.yml or *.json; put manifests there (subdirectories are not read) or name a file"
    )]
    NoManifests,
    /// The file has nothing in it, as if it was just being written.
    #[error(
        "the file is empty; if there are to be no objects, write `apiVersion: v1`, `kind: List`, `items: []`"
    )]
    Blank,
    /// The file is not text.
    #[error("not UTF-8 in line {line}")]
    Encoding {
        /// The line of the first byte that is wrong, from 1.
        line: usize,
        /// The cause.
        source: std::str::Utf8Error,
    },
    /// The file is not YAML.
    #[error("not YAML")]
    Yaml(#[source] YamlError),
    /// The file is not JSON.
    #[error("not JSON")]
    Json(#[source] serde_json::Error),
    /// A document is something else than a mapping, so the file is no manifest.
    #[error("{found}, not an object with apiVersion and kind; is this a manifest?")]
    NoObject {
        /// What stands there.
        found: &'static str,
    },
}

impl ManifestError {
    pub(super) fn at(path: &Path, problem: ManifestProblem) -> Self {
        Self {
            place: path.display().to_string(),
            problem,
        }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

impl Error for ManifestError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.problem.source()
    }
}

impl ManifestProblem {
    /// The problem with its causes, on one line.
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
            Self::Read(source) | Self::List(source) => !matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::IsADirectory
                    | io::ErrorKind::NotADirectory
            ),
            Self::NoManifests
            | Self::Blank
            | Self::Encoding { .. }
            | Self::Yaml(_)
            | Self::Json(_)
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
