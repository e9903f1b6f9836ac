//! What can be wrong with settings. No type here has a field that could hold a value given.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// The start stops: every fault of every source, one a line.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(faults))]
pub struct SettingsError {
    faults: Vec<Fault>,
}

impl SettingsError {
    pub(super) fn new(faults: Vec<Fault>) -> Self {
        Self { faults }
    }

    /// The faults, in the order in which the settings are read; at least one.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

fn lines(faults: &[Fault]) -> String {
    let lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
    lines.join("\n")
}

/// One thing to put right. Names from outside are shown escaped, so that none breaks the line.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Wrong type, out of range, or at odds with another setting.
    #[error("{} ({origin}): allowed is {allowed}", key.escape_debug())]
    Refused {
        /// The setting's name.
        key: String,
        /// Where the value came from.
        origin: Origin,
        /// What would be right.
        allowed: String,
    },
    /// No setting has this name.
    #[error("{} ({origin}): unknown setting{}", key.escape_debug(), suggestion(*nearest))]
    Unknown {
        /// The name as given.
        key: String,
        /// Where it came from.
        origin: Origin,
        /// What was probably meant.
        nearest: Option<&'static str>,
    },
    /// A variable and its `__FILE` form are both set.
    #[error("{} ({origin}): {origin}__FILE is set too; allowed is one of them", key.escape_debug())]
    Twice {
        /// The setting's name.
        key: String,
        /// The variable without `__FILE`.
        origin: Origin,
    },
    /// The file that a `__FILE` variable names cannot be read.
    #[error("{} ({origin}): cannot read {}: {cause}", key.escape_debug(), path.escape_debug())]
    ValueFile {
        /// The setting's name.
        key: String,
        /// The variable.
        origin: Origin,
        /// The file, as far as what was given can be a path.
        path: String,
        /// Why.
        cause: io::Error,
    },
    /// A settings file cannot be read.
    #[error("{origin}: cannot be read: {cause}")]
    File {
        /// The file.
        origin: Origin,
        /// Why.
        cause: io::Error,
    },
    /// A settings file is not TOML.
    #[error("{origin}, line {line}: not valid TOML")]
    Syntax {
        /// The file.
        origin: Origin,
        /// Counted from 1.
        line: usize,
    },
    /// A number in a settings file cannot be represented; the parser does not say where.
    #[error("{origin}: a number in it is larger than any setting allows")]
    Number {
        /// The file.
        origin: Origin,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The binary's own `config/default.toml`.
    Default,
    /// A settings file, by its path as given.
    File(PathBuf),
    /// An environment variable, by its name.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(formatter, "default"),
            Self::File(path) => {
                let path = path.to_string_lossy();
                write!(formatter, "file {}", path.escape_debug())
            }
            Self::Variable(name) => {
                write!(formatter, "environment variable {}", name.escape_debug())
            }
        }
    }
}
