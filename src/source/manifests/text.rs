//! The objects in a text: YAML or JSON, one document or several.

use std::path::Path;

use serde_json::Value;
use serde_saphyr::Spanned;
use serde_saphyr::options::NonFiniteFloatPolicy;

use super::{ManifestError, ManifestProblem, YamlError};
use crate::source::parse::{self, Placed};

/// What the end of a file's name says about its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Yaml,
    Unsaid,
}

/// A document and its place in the file.
#[derive(Debug)]
struct Document {
    place: String,
    value: Value,
}

/// Reads a file's content.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Vec<Placed>, ManifestError> {
    let text = std::str::from_utf8(bytes).map_err(|source| {
        let line = line_of(bytes, source.valid_up_to());
        ManifestError::at(path, ManifestProblem::Encoding { line, source })
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(ManifestError::at(path, ManifestProblem::Blank));
    }
    let mut objects = Vec::new();
    for document in documents(path, text)? {
        if document.value.is_object() {
            objects.extend(parse::objects(&document.value, &document.place));
        } else {
            let found = describe(&document.value);
            return Err(ManifestError {
                place: document.place,
                problem: ManifestProblem::NoObject { found },
            });
        }
    }
    Ok(objects)
}

fn documents(path: &Path, text: &str) -> Result<Vec<Document>, ManifestError> {
    let format = format(path);
    let looks_like_json = text.trim_start().starts_with(['{', '[']);
    if format != Format::Json && !looks_like_json {
        return yaml(path, text);
    }
    let json_error = match json(path, text) {
        Ok(documents) => return Ok(documents),
        Err(error) => error,
    };
    if format == Format::Json {
        return Err(json_error);
    }
    // YAML in braces looks like JSON.
    match yaml(path, text) {
        Err(_) if format == Format::Unsaid => Err(json_error),
        other => other,
    }
}

fn format(path: &Path) -> Format {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("json") => Format::Json,
        Some("yaml" | "yml") => Format::Yaml,
        _ => Format::Unsaid,
    }
}

fn json(path: &Path, text: &str) -> Result<Vec<Document>, ManifestError> {
    let mut documents = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let value = value.map_err(|error| ManifestError::at(path, ManifestProblem::Json(error)))?;
        if !value.is_null() {
            let number = documents.len().saturating_add(1);
            documents.push(Document {
                place: format!("{}: document {number}", path.display()),
                value,
            });
        }
    }
    Ok(documents)
}

/// Documents without content are not counted; the line says which one is meant.
fn yaml(path: &Path, text: &str) -> Result<Vec<Document>, ManifestError> {
    let documents: Vec<Spanned<Value>> =
        serde_saphyr::from_multiple_with_options(text, yaml_options()).map_err(|error| {
            ManifestError::at(path, ManifestProblem::Yaml(YamlError::new(error)))
        })?;
    Ok(documents
        .into_iter()
        .enumerate()
        .map(|(index, document)| Document {
            place: format!(
                "{}: document {} (line {})",
                path.display(),
                index.saturating_add(1),
                document.defined.line()
            ),
            value: document.value,
        })
        .collect())
}

/// Reads YAML as kubectl does: `yes` and `on` are booleans. A cluster's dump may be of any size, so nothing that grows with it is
/// limited; nesting, and what aliases may multiply, stay limited as the library does by default.
fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_documents: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
            max_total_comment_bytes: usize::MAX,
            max_buffered_comment_events: usize::MAX,
            enforce_alias_anchor_ratio: false,
        },
        with_snippet: false,
        emit_comments: false,
        // One such number costs its field, not the file.
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    }
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn line_of(bytes: &[u8], offset: usize) -> usize {
    bytes
        .iter()
        .take(offset)
        .filter(|&&byte| byte == b'\n')
        .count()
        .saturating_add(1)
}
