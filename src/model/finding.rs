//! Objects by name, and what weir has to say about them.
//!
//! A *finding* is an object we could not honour in full; a *note* is what an operator may wonder about but is right.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The kinds of objects that weir reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Endpoints, from manifests only: a cluster's mirroring controller turns them into slices.
    Endpoints,
    /// `v1` Node.
    Node,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Endpoints => "Endpoints",
            Self::Node => "Node",
        })
    }
}

/// The namespace and name of an object; a Node has an empty namespace. Prints as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    /// `metadata.namespace`; empty for objects that have none.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl ObjectName {
    /// The name of an object in a namespace; an empty namespace for a Node.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// What a finding or a note is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An object, by kind and name.
    Object(Kind, ObjectName),
    /// A place in a file: its path and, where it helps, the document in it.
    File(String),
    /// The node's kernel, or weir itself.
    Weir,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(kind, name) => write!(f, "{kind} {name}"),
            Self::File(place) => f.write_str(place),
            Self::Weir => f.write_str("weir"),
        }
    }
}

/// An object that could not be honoured in full: what is wrong with it, and what was done instead.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The object.
    pub subject: Subject,
    /// The field as Kubernetes writes it, such as `spec.ports[0].port`; empty when the object as a whole is meant.
    pub field: String,
    /// What is wrong, with the value.
    pub problem: String,
    /// What weir did instead.
    pub consequence: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.subject)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.problem, self.consequence)
    }
}

/// Something an operator may wonder about that is right as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// The object.
    pub subject: Subject,
    /// What there is to know.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.text)
    }
}

/// Findings and notes together, in the order in which they were made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems {
    /// What could not be honoured.
    pub findings: Vec<Finding>,
    /// What is right but may surprise.
    pub notes: Vec<Note>,
}

impl Problems {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty() && self.notes.is_empty()
    }

    /// Adds all of another's.
    pub fn extend(&mut self, other: &Self) {
        self.findings.extend(other.findings.iter().cloned());
        self.notes.extend(other.notes.iter().cloned());
    }

    /// Sorts by subject, drops repetitions.
    pub fn normalise(&mut self) {
        self.findings.sort();
        self.findings.dedup();
        self.notes.sort();
        self.notes.dedup();
    }
}

/// An object as read: its value, if anything of it can be used, and what there is to say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<T> {
    /// The object's name.
    pub name: ObjectName,
    /// What can be used; `None` if weir must act as if the object were not there.
    pub value: Option<T>,
    /// What there is to say.
    pub problems: Problems,
}

/// A finding as it stands in JSON output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingDocument {
    /// `Kind namespace/name`, or the file.
    pub object: String,
    /// The field; empty when the object as a whole is meant.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What was done instead.
    pub consequence: String,
}

impl From<&Finding> for FindingDocument {
    fn from(finding: &Finding) -> Self {
        Self {
            object: finding.subject.to_string(),
            field: finding.field.clone(),
            problem: finding.problem.clone(),
            consequence: finding.consequence.clone(),
        }
    }
}

/// A note as it stands in JSON output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteDocument {
    /// `Kind namespace/name`, or the file.
    pub object: String,
    /// What there is to know.
    pub text: String,
}

impl From<&Note> for NoteDocument {
    fn from(note: &Note) -> Self {
        Self {
            object: note.subject.to_string(),
            text: note.text.clone(),
        }
    }
}
