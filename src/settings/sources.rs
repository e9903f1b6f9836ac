//! From the sources to leaves: every value given, with its name and origin, not yet typed.
//! In: the embedded default, at most two files, the environment. Out: [`Collected`], the leaves
//! in ascending order of precedence, and what could not be read.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use config::{ConfigError, File, FileFormat, Source, Value, ValueKind};

use super::error::{Fault, Origin};

const DEFAULT: &str = include_str!("../../config/default.toml");
const PREFIX: &str = "REKEY__";
const FILE_SUFFIX: &str = "__FILE";

/// What settings are read from, besides the embedded default.
#[derive(Clone, Default)]
pub struct Sources {
    /// Environment variables; those that mean nothing to the settings are passed over.
    pub environment: Vec<(OsString, OsString)>,
    /// The argument `--config`; it stands in for `REKEY_CONFIG`.
    pub config_file: Option<PathBuf>,
    /// Where `config/<REKEY_ENV>.toml` begins; empty is the working directory.
    pub folder: PathBuf,
}

impl Sources {
    /// The sources of this process.
    #[must_use]
    pub fn of_process(config_file: Option<&Path>) -> Self {
        Self {
            environment: std::env::vars_os().collect(),
            config_file: config_file.map(Path::to_owned),
            folder: PathBuf::new(),
        }
    }

    /// No file, and these environment variables.
    pub fn variables<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let environment = variables.into_iter();
        let environment = environment.map(|(name, value)| (name.into(), value.into()));
        Self {
            environment: environment.collect(),
            ..Self::default()
        }
    }

    /// The variable's value, unless it is empty.
    fn variable(&self, wanted: &str) -> Option<&OsStr> {
        let mut variables = self.environment.iter();
        let (_, value) = variables.find(|(name, _)| name == wanted)?;
        Some(value.as_os_str()).filter(|value| !value.is_empty())
    }
}

/// A value as its source gave it.
pub(super) enum Given {
    /// From a file, with TOML's type.
    Typed(ValueKind),
    /// From the environment.
    Text(String),
    /// It could not be had, and the fault is already noted.
    Unreadable,
}

pub(super) struct Leaf {
    pub(super) key: String,
    pub(super) origin: Origin,
    pub(super) given: Given,
}

#[derive(Default)]
pub(super) struct Collected {
    pub(super) leaves: Vec<Leaf>,
    pub(super) faults: Vec<Fault>,
}

pub(super) fn collect(sources: &Sources) -> Collected {
    let mut collected = Collected::default();
    collected.text(DEFAULT, &Origin::Default);
    if let Some(name) = sources.variable("REKEY_ENV") {
        match name.to_str().filter(|name| is_plain(name)) {
            Some(name) => {
                let path = Path::new("config").join(format!("{name}.toml"));
                collected.file(&sources.folder.join(path));
            }
            None => collected.faults.push(Fault::Refused {
                key: "REKEY_ENV".to_owned(),
                origin: Origin::Variable("REKEY_ENV".to_owned()),
                allowed: "a name of letters, digits, _ and -".to_owned(),
            }),
        }
    }
    let named = sources.variable("REKEY_CONFIG").map(Path::new);
    if let Some(path) = sources.config_file.as_deref().or(named) {
        collected.file(path);
    }
    collected.environment(sources);
    collected
}

fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    name.bytes().all(plain)
}

impl Collected {
    fn file(&mut self, path: &Path) {
        let origin = Origin::File(path.to_owned());
        match fs::read_to_string(path) {
            Ok(text) => self.text(&text, &origin),
            Err(cause) => self.faults.push(Fault::File { origin, cause }),
        }
    }

    fn text(&mut self, text: &str, origin: &Origin) {
        match File::from_str(text, FileFormat::Toml).collect() {
            Ok(sections) => {
                for (section, value) in sections {
                    self.section(section, value, origin);
                }
            }
            Err(error) => self.faults.push(syntax_fault(&error, origin.clone())),
        }
    }

    /// Settings lie two levels deep. A section without any becomes a leaf of its own, so that it
    /// is reported unless it is a known one.
    fn section(&mut self, section: String, value: Value, origin: &Origin) {
        let leaf = |key: String, kind: ValueKind| Leaf {
            key,
            origin: origin.clone(),
            given: Given::Typed(kind),
        };
        if let ValueKind::Table(table) = &value.kind
            && !table.is_empty()
        {
            for (key, value) in table {
                let key = format!("{section}.{key}");
                self.leaves.push(leaf(key, value.kind.clone()));
            }
        } else {
            self.leaves.push(leaf(section, value.kind));
        }
    }

    fn environment(&mut self, sources: &Sources) {
        let mut variables: Vec<(String, &OsStr)> = Vec::new();
        for (name, value) in &sources.environment {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with(PREFIX) {
                variables.push((name, value));
            }
        }
        // The environment has no order that would mean anything.
        variables.sort();
        for (variable, value) in &variables {
            let in_file = variable.strip_suffix(FILE_SUFFIX);
            let key = key_of(in_file.unwrap_or(variable));
            let origin = Origin::Variable(variable.clone());
            let given = match in_file {
                Some(_) => self.value_file(&key, &origin, value),
                None => self.value(&key, &origin, value),
            };
            let twin = format!("{variable}{FILE_SUFFIX}");
            if variables.iter().any(|(name, _)| *name == twin) {
                let (key, origin) = (key.clone(), origin.clone());
                self.faults.push(Fault::Twice { key, origin });
            }
            self.leaves.push(Leaf { key, origin, given });
        }
    }

    fn value(&mut self, key: &str, origin: &Origin, value: &OsStr) -> Given {
        if let Some(text) = value.to_str() {
            return Given::Text(text.to_owned());
        }
        self.faults.push(Fault::Refused {
            key: key.to_owned(),
            origin: origin.clone(),
            allowed: "text in UTF-8".to_owned(),
        });
        Given::Unreadable
    }

    fn value_file(&mut self, key: &str, origin: &Origin, path: &OsStr) -> Given {
        match fs::read_to_string(path) {
            Ok(mut text) => {
                if text.ends_with('\n') {
                    text.pop();
                }
                if text.ends_with('\r') {
                    text.pop();
                }
                Given::Text(text)
            }
            Err(cause) => {
                self.faults.push(Fault::ValueFile {
                    key: key.to_owned(),
                    origin: origin.clone(),
                    path: shown_path(path),
                    cause,
                });
                Given::Unreadable
            }
        }
    }
}

/// `REKEY__SERVER__PORT` → `server.port`. Only the first pair of underscores divides, so that a
/// provider may hold one. Variables are upper case: another one keeps its letters, and so is
/// no setting.
fn key_of(variable: &str) -> String {
    let name = variable.strip_prefix(PREFIX).unwrap_or(variable);
    let key = name.replacen("__", ".", 1);
    if key.bytes().any(|byte| byte.is_ascii_lowercase()) {
        key
    } else {
        key.to_ascii_lowercase()
    }
}

/// Addresses and keys hold a colon, the paths of secrets hardly ever: whoever gave the value
/// itself where its path belongs does not find it in the log.
fn shown_path(path: &OsStr) -> String {
    let path = path.to_string_lossy();
    if path.contains(':') {
        "what it names (not shown, it does not look like a path)".to_owned()
    } else {
        path.into_owned()
    }
}

/// The parser's message quotes the file; only its line number is taken over.
fn syntax_fault(error: &ConfigError, origin: Origin) -> Fault {
    let message = error.to_string();
    let line = message
        .strip_prefix("TOML parse error at line ")
        .and_then(|rest| rest.split(',').next()?.parse().ok());
    match line {
        Some(line) => Fault::Syntax { origin, line },
        None => Fault::Number { origin },
    }
}

/// The keys of `config/default.toml`, for tests.
#[cfg(test)]
pub(super) fn default_text() -> &'static str {
    DEFAULT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_pair_of_underscores_divides() {
        assert_eq!(key_of("REKEY__SERVER__PORT"), "server.port");
        assert_eq!(key_of("REKEY__PRESETS__A__B"), "presets.a__b");
        assert_eq!(key_of("REKEY__SERVER_PORT"), "server_port");
        assert_eq!(key_of("REKEY__Server__Port"), "Server.Port");
    }
}
