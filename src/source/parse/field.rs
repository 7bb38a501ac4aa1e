//! Reading fields of an object while keeping track of where they stand, and collecting what is wrong with them.
//!
//! A [`Field`] knows its path through its parent, so the path costs nothing until a finding needs it.

use std::fmt;

use serde_json::{Map, Value};

use crate::model::{Finding, Kind, Note, ObjectName, Parsed, Problems, Subject};

/// A finding about the field has been made; the caller only has to leave out what depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reported;

/// What reading one object brings to light.
#[derive(Debug)]
pub(super) struct Report {
    kind: Kind,
    name: ObjectName,
    problems: Problems,
}

impl Report {
    pub(super) fn new(kind: Kind, name: ObjectName) -> Self {
        Self {
            kind,
            name,
            problems: Problems::default(),
        }
    }

    pub(super) fn name(&self) -> &ObjectName {
        &self.name
    }

    fn subject(&self) -> Subject {
        Subject::Object(self.kind, self.name.clone())
    }

    /// Adds a finding about a field: what is wrong, and what is done instead.
    pub(super) fn finding(
        &mut self,
        field: &Field<'_>,
        problem: impl Into<String>,
        consequence: &str,
    ) -> Reported {
        self.problems.findings.push(Finding {
            subject: self.subject(),
            field: field.to_string(),
            problem: problem.into(),
            consequence: consequence.to_owned(),
        });
        Reported
    }

    /// Adds a note about the object.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.problems.notes.push(Note {
            subject: self.subject(),
            text: text.into(),
        });
    }

    /// The object, with what was found.
    pub(super) fn finish<T>(mut self, value: Option<T>) -> Parsed<T> {
        // Labels are read one by one and may say the same of the mapping around them.
        self.problems.findings.dedup();
        Parsed {
            name: self.name,
            value,
            problems: self.problems,
        }
    }
}

/// A field of an object, there or not. Prints as its path, such as `spec.ports[0].port`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    value: Option<&'a Value>,
    parent: Option<&'a Field<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

/// A field that is a mapping, or absent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mapping<'a> {
    field: &'a Field<'a>,
    entries: Option<&'a Map<String, Value>>,
}

impl<'a> Field<'a> {
    /// The object itself.
    pub(super) fn root(value: &'a Value) -> Self {
        Self {
            value: Some(value),
            parent: None,
            step: Step::Root,
        }
    }

    /// The value; `null` is absent.
    pub(super) fn value(&self) -> Option<&'a Value> {
        self.value.filter(|value| !value.is_null())
    }

    pub(super) fn mapping<'s>(
        &'s self,
        report: &mut Report,
        consequence: &str,
    ) -> Result<Mapping<'s>, Reported> {
        let entries = match self.value() {
            None => None,
            Some(Value::Object(entries)) => Some(entries),
            Some(other) => return Err(self.mistyped(other, "a mapping", report, consequence)),
        };
        Ok(Mapping {
            field: self,
            entries,
        })
    }

    /// The elements of a list; none if it is absent.
    pub(super) fn list<'s>(
        &'s self,
        report: &mut Report,
        consequence: &str,
    ) -> Result<impl Iterator<Item = Field<'s>> + use<'s>, Reported> {
        let elements: &[Value] = match self.value() {
            None => &[],
            Some(Value::Array(elements)) => elements,
            Some(other) => return Err(self.mistyped(other, "a list", report, consequence)),
        };
        Ok(elements.iter().enumerate().map(|(index, value)| Field {
            value: Some(value),
            parent: Some(self),
            step: Step::Index(index),
        }))
    }

    pub(super) fn text(
        &self,
        report: &mut Report,
        consequence: &str,
    ) -> Result<Option<&'a str>, Reported> {
        match self.value() {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.mistyped(other, "text", report, consequence)),
        }
    }

    pub(super) fn boolean(
        &self,
        report: &mut Report,
        consequence: &str,
    ) -> Result<Option<bool>, Reported> {
        match self.value() {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.mistyped(other, "true or false", report, consequence)),
        }
    }

    /// A whole number; `None` as a value is one that does not fit an `i64`.
    pub(super) fn number(
        &self,
        report: &mut Report,
        consequence: &str,
    ) -> Result<Option<i64>, Reported> {
        match self.value() {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.mistyped(value, "a whole number", report, consequence)),
            },
        }
    }

    fn mistyped(
        &self,
        value: &Value,
        wanted: &str,
        report: &mut Report,
        consequence: &str,
    ) -> Reported {
        report.finding(
            self,
            format!("{} is not {wanted}", show(value)),
            consequence,
        )
    }
}

impl<'a> Mapping<'a> {
    /// The field of that name.
    pub(super) fn get(&self, key: &'a str) -> Field<'a> {
        Field {
            value: self.entries.and_then(|entries| entries.get(key)),
            parent: Some(self.field),
            step: Step::Key(key),
        }
    }

    /// Whether it is absent or has no entries.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_none_or(Map::is_empty)
    }
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent else {
            return Ok(());
        };
        parent.fmt(f)?;
        match self.step {
            Step::Root => Ok(()),
            Step::Index(index) => write!(f, "[{index}]"),
            // Labels and annotations: their dots are not steps.
            Step::Key(key) if key.contains('.') => write!(f, "[{key:?}]"),
            Step::Key(key) if matches!(parent.step, Step::Root) => f.write_str(key),
            Step::Key(key) => write!(f, ".{key}"),
        }
    }
}

/// A value as a message shows it: as JSON, and not all of a long one.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => shorten(&number.to_string()),
        Value::String(text) => show_text(text),
    }
}

/// Text as a message shows it: quoted, with its control characters escaped, and not all of it if it is long.
pub(super) fn show_text(text: &str) -> String {
    format!("{:?}", shorten(text))
}

fn shorten(text: &str) -> String {
    const SHOWN: usize = 64;
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}
