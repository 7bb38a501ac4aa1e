//! A source that reads files: Kubernetes manifests as YAML or JSON, in files, directories or on standard input.
//!
//! A first read wants all of them whole ([`Manifests::load`]). Later ones keep what was last read well of a file that has become
//! unreadable, with a finding ([`Manifests::reload`]). What distinguishes a deletion from an accident: a file that has gone from a
//! directory which still has others is a deletion; a path that was asked for by name and is gone, a directory without any
//! manifest (a volume that is not mounted) and a blank file (one that is being written) are failed reads.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::mem;
use std::path::{Path, PathBuf};

use crate::model::{Finding, Kind, Note, ObjectName, Parsed, Problems, Subject};
use crate::source::parse::{Object, Placed};
use crate::source::{Change, Event};

mod error;
mod files;
mod text;

pub use error::{ManifestError, ManifestProblem, YamlError};
use files::{Fingerprint, Found};

/// The path that means standard input.
const STDIN: &str = "-";

/// Files to read, and what was last read well of each.
#[derive(Debug)]
pub struct Manifests {
    roots: Vec<Root>,
    /// What the files looked like before they were last read.
    seen: Option<Vec<Fingerprint>>,
    /// What they looked like when they were last looked at.
    last_look: Option<Vec<Fingerprint>>,
}

/// One of the paths that were asked for.
#[derive(Debug)]
struct Root {
    path: PathBuf,
    /// Objects by file, as last read well. A directory has several files; their order is that of their names.
    files: BTreeMap<PathBuf, Vec<Placed>>,
    /// Standard input, a pipe: it can be read once.
    read_once: bool,
}

impl Manifests {
    /// Will read these, in this order. `-` is standard input, which is read once and then kept.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let mut roots: Vec<Root> = Vec::new();
        for path in paths {
            let again = path == Path::new(STDIN) && roots.iter().any(|root| root.path == path);
            if !again {
                roots.push(Root {
                    path,
                    files: BTreeMap::new(),
                    read_once: false,
                });
            }
        }
        Self {
            roots,
            seen: None,
            last_look: None,
        }
    }

    /// Reads everything. The events replace all four kinds, then say what there is to say about the files.
    ///
    /// # Errors
    ///
    /// If anything cannot be read; then nothing has changed.
    pub fn load(&mut self) -> Result<Vec<Event>, ManifestError> {
        let seen = self.fingerprints();
        let mut fresh = Vec::with_capacity(self.roots.len());
        for root in &self.roots {
            fresh.push(root.read_whole()?);
        }
        for (root, (files, read_once)) in self.roots.iter_mut().zip(fresh) {
            root.files = files;
            root.read_once = read_once;
        }
        self.seen = Some(seen);
        Ok(self.events(Problems::default()))
    }

    /// Reads everything again, like [`Self::load`], but what cannot be read stays as it was last read well; a finding says so.
    pub fn reload(&mut self) -> Vec<Event> {
        let seen = self.fingerprints();
        let mut problems = Problems::default();
        let mut passing = false;
        for root in &mut self.roots {
            for error in root.reread(&mut problems) {
                passing |= error.problem.may_pass();
            }
        }
        // What may succeed next time although no file changes has to be tried again.
        self.seen = (!passing).then_some(seen);
        self.events(problems)
    }

    /// Whether any file or directory looks different from when it was last read, or could not be read for a reason that may
    /// pass. Costs a `stat` of each file.
    pub fn changed(&self) -> bool {
        self.seen.as_ref() != Some(&self.fingerprints())
    }

    /// Like [`Self::changed`], but only once the files look the same as at the last call: a file that is being written in place
    /// is cut off anywhere, and what stands before the cut is often a whole manifest of less.
    pub fn settled_change(&mut self) -> bool {
        let now = self.fingerprints();
        let settled = self.last_look.as_ref() == Some(&now);
        let changed = self.seen.as_ref() != Some(&now);
        self.last_look = Some(now);
        changed && settled
    }

    fn fingerprints(&self) -> Vec<Fingerprint> {
        self.roots
            .iter()
            .filter(|root| root.path != Path::new(STDIN))
            .flat_map(|root| files::fingerprints(&root.path))
            .collect()
    }

    fn events(&self, problems: Problems) -> Vec<Event> {
        let mut cluster = Cluster {
            problems,
            ..Cluster::default()
        };
        for placed in self
            .roots
            .iter()
            .flat_map(|root| root.files.values())
            .flatten()
        {
            cluster.add(placed);
        }
        cluster.into_events()
    }
}

impl Root {
    /// All of its files, and whether they can be read only once.
    fn read_whole(&self) -> Result<(BTreeMap<PathBuf, Vec<Placed>>, bool), ManifestError> {
        if self.read_once {
            return Ok((self.files.clone(), true));
        }
        if self.path == Path::new(STDIN) {
            let name = Path::new("standard input");
            let mut bytes = Vec::new();
            std::io::stdin()
                .lock()
                .read_to_end(&mut bytes)
                .map_err(|error| ManifestError::at(name, ManifestProblem::Read(error)))?;
            let objects = text::read(name, &bytes)?;
            return Ok((BTreeMap::from([(self.path.clone(), objects)]), true));
        }
        let found = files::find(&self.path)?;
        let read_once = matches!(found, Found::Stream(_));
        let mut files = BTreeMap::new();
        for path in found.into_paths() {
            let objects = read_file(&path)?;
            files.insert(path, objects);
        }
        Ok((files, read_once))
    }

    /// Replaces what can be read; what cannot be is kept and reported. Returns the causes.
    fn reread(&mut self, problems: &mut Problems) -> Vec<ManifestError> {
        if self.read_once || self.path == Path::new(STDIN) {
            return Vec::new();
        }
        let found = match files::find(&self.path) {
            Ok(found) => found,
            Err(error) => {
                let kept = Kept::if_any(self.files.first_key_value());
                problems.findings.push(unreadable(&error, kept));
                return vec![error];
            }
        };
        let mut before = mem::take(&mut self.files);
        let mut errors = Vec::new();
        for path in found.into_paths() {
            match read_file(&path) {
                Ok(objects) => {
                    self.files.insert(path, objects);
                }
                Err(error) => {
                    let kept = before.remove(&path);
                    problems
                        .findings
                        .push(unreadable(&error, Kept::if_any(kept.as_ref())));
                    self.files.extend(kept.map(|objects| (path, objects)));
                    errors.push(error);
                }
            }
        }
        errors
    }
}

fn read_file(path: &Path) -> Result<Vec<Placed>, ManifestError> {
    let bytes = std::fs::read(path)
        .map_err(|error| ManifestError::at(path, ManifestProblem::Read(error)))?;
    text::read(path, &bytes)
}

/// What is left of a file that cannot be read.
#[derive(Debug, Clone, Copy)]
enum Kept {
    LastRead,
    Nothing,
}

impl Kept {
    fn if_any<T>(last: Option<T>) -> Self {
        last.map_or(Self::Nothing, |_| Self::LastRead)
    }
}

fn unreadable(error: &ManifestError, kept: Kept) -> Finding {
    Finding {
        subject: Subject::File(error.place.clone()),
        field: String::new(),
        problem: error.problem.chain(),
        consequence: match kept {
            Kept::LastRead => "what was last read of the file stays in use".to_owned(),
            Kept::Nothing => "nothing of the file is used".to_owned(),
        },
    }
}

/// The objects of all files, each name once.
#[derive(Debug, Default)]
struct Cluster<'a> {
    events: Replacements,
    /// Where an object was first seen.
    places: BTreeMap<(Kind, ObjectName), &'a str>,
    /// Kinds that nobody reads: how many, and where first.
    others: BTreeMap<&'a str, (usize, &'a str)>,
    problems: Problems,
}

#[derive(Debug, Default)]
struct Replacements {
    services: Vec<Parsed<crate::model::Service>>,
    slices: Vec<Parsed<crate::model::EndpointSlice>>,
    endpoints: Vec<Parsed<crate::model::Endpoints>>,
    nodes: Vec<Parsed<crate::model::Node>>,
}

impl<'a> Cluster<'a> {
    fn add(&mut self, placed: &'a Placed) {
        let place = placed.place.as_str();
        match &placed.object {
            Object::Service(service) => {
                if self.is_first(Kind::Service, &service.name, place) {
                    self.events.services.push(service.clone());
                }
            }
            Object::EndpointSlice(slice) => {
                if self.is_first(Kind::EndpointSlice, &slice.name, place) {
                    self.events.slices.push(slice.clone());
                }
            }
            Object::Endpoints(endpoints) => {
                if self.is_first(Kind::Endpoints, &endpoints.name, place) {
                    self.events.endpoints.push(endpoints.clone());
                }
            }
            Object::Node(node) => {
                if self.is_first(Kind::Node, &node.name, place) {
                    self.events.nodes.push(node.clone());
                }
            }
            Object::Other(kind) => {
                let (count, _) = self.others.entry(kind).or_insert((0, place));
                *count = count.saturating_add(1);
            }
            Object::Unusable(finding) => self.problems.findings.push(finding.clone()),
        }
    }

    /// The first in path order serves; a later one of the same name is a finding.
    fn is_first(&mut self, kind: Kind, name: &ObjectName, place: &'a str) -> bool {
        if let Some(first) = self.places.get(&(kind, name.clone())) {
            self.problems.findings.push(Finding {
                subject: Subject::Object(kind, name.clone()),
                field: String::new(),
                problem: format!("stands in {first} and again in {place}"),
                consequence: "only the first is used".to_owned(),
            });
            return false;
        }
        self.places.insert((kind, name.clone()), place);
        true
    }

    fn into_events(mut self) -> Vec<Event> {
        for (kind, (count, first)) in self.others {
            let objects = if count == 1 {
                "1 object".to_owned()
            } else {
                format!("{count} objects, this is the first")
            };
            self.problems.notes.push(Note {
                subject: Subject::File(first.to_owned()),
                text: format!("kind {kind} is not read: skipped ({objects})"),
            });
        }
        vec![
            Event::Services(Change::Replaced(self.events.services)),
            Event::EndpointSlices(Change::Replaced(self.events.slices)),
            Event::Endpoints(Change::Replaced(self.events.endpoints)),
            Event::Nodes(Change::Replaced(self.events.nodes)),
            Event::Source(self.problems),
        ]
    }
}

#[cfg(test)]
mod tests;
