//! The file that is imported, read by the rules of the API.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    path::Path,
};

use zeroize::Zeroizing;

use super::dotenv::{self, Assignment, DotenvFile};
use crate::{
    domain::{ParseError, SecretName, SecretValue},
    settings::Settings,
};

/// A secret as the file has it.
pub(super) struct FileSecret {
    /// Its name.
    pub(super) name: SecretName,
    /// Its value.
    pub(super) value: SecretValue,
}

/// What a file asks for.
pub(super) struct FileContent {
    /// The secrets to create or to update, in the order of the lines.
    pub(super) secrets: Vec<FileSecret>,
    /// How many lines without a value were skipped.
    pub(super) skipped: usize,
}

/// Why a file is not imported.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// It cannot be read.
    #[error("cannot read {0}")]
    Unreadable(String, #[source] io::Error),
    /// Some of its lines are wrong.
    #[error("{0}: nothing was imported\n{1}")]
    Faulty(String, String),
    /// There is nothing in it.
    #[error("{0}: nothing to import")]
    Empty(String),
}

/// Reads a file; `-` stands for the standard input.
///
/// # Errors
/// [`FileError`] names every line at fault, and shows nothing of any.
pub(super) fn read(
    path: &Path,
    settings: &Settings,
    skip_empty: bool,
) -> Result<FileContent, FileError> {
    let standard_input = path.as_os_str() == "-";
    let shown = if standard_input {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    let bytes = if standard_input {
        all(io::stdin().lock())
    } else {
        File::open(path).and_then(all)
    };
    let bytes = bytes.map_err(|error| FileError::Unreadable(shown.clone(), error))?;
    match parse(&bytes, settings, skip_empty) {
        Ok(content) if content.secrets.is_empty() => Err(FileError::Empty(shown)),
        Ok(content) => Ok(content),
        Err(faults) => Err(FileError::Faulty(shown, faults.join("\n"))),
    }
}

fn all(mut from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    from.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The secrets of a file, or a message for each line at fault.
fn parse(bytes: &[u8], settings: &Settings, skip_empty: bool) -> Result<FileContent, Vec<String>> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.iter().take(error.valid_up_to());
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        vec![format!("line {line}: must be UTF-8")]
    })?;
    let DotenvFile {
        assignments,
        faults,
    } = dotenv::parse(text);
    let faults = faults.into_iter();
    let mut faults: Vec<_> = faults
        .map(|(line, fault)| (line, fault.to_string()))
        .collect();
    let mut lines = HashMap::new();
    let mut content = FileContent {
        secrets: Vec::new(),
        skipped: 0,
    };
    for Assignment { line, name, value } in assignments {
        match allowed(&name, line, settings, &mut lines) {
            Err(fault) => faults.push((line, fault)),
            Ok(_) if skip_empty && value.is_empty() => content.skipped += 1,
            Ok(name) => match SecretValue::parse(value) {
                Ok(value) => content.secrets.push(FileSecret { name, value }),
                Err(ParseError::TooShort) => faults.push((
                    line,
                    "the value is too short (--skip-empty leaves such lines out)".to_owned(),
                )),
                Err(error) => faults.push((line, format!("the value {error}"))),
            },
        }
    }
    if faults.is_empty() {
        return Ok(content);
    }
    faults.sort();
    let faults = faults.into_iter();
    Err(faults
        .map(|(line, fault)| format!("line {line}: {fault}"))
        .collect())
}

/// A name that a secret may have, and no line before this one.
fn allowed(
    name: &str,
    line: usize,
    settings: &Settings,
    lines: &mut HashMap<SecretName, usize>,
) -> Result<SecretName, String> {
    let name = SecretName::parse(name).map_err(|error| format!("the name {error}"))?;
    let mut reserved = settings.limits.reserved_names.iter();
    if reserved.any(|entry| entry.covers(name.as_str())) {
        return Err("the name is reserved".to_owned());
    }
    match lines.insert(name.clone(), line) {
        Some(first) => Err(format!("the name is already in line {first}")),
        None => Ok(name),
    }
}
