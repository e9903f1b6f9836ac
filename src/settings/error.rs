//! What can be wrong with settings. No fault holds a value that was given.

use std::{fmt, path::PathBuf};

/// The service does not start: all faults of all sources, one on each line.
#[derive(Debug, thiserror::Error)]
#[error("{}", faults.join("\n"))]
pub(crate) struct SettingsError {
    /// Each names the setting, its source and what must hold; at least one.
    pub(super) faults: Vec<String>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// The binary's own `config/default.toml`.
    Default,
    /// A settings file, by its path as given.
    File(PathBuf),
    /// An environment variable, by its name.
    Variable(String),
}

/// Names from outside are escaped, so that none breaks the line.
impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File(path) => write!(formatter, "file {}", path.to_string_lossy().escape_debug()),
            Self::Variable(name) => {
                write!(formatter, "environment variable {}", name.escape_debug())
            }
        }
    }
}

/// One thing to put right about a setting: `key (source): what`.
pub(super) fn fault(key: &str, source: &Source, what: impl fmt::Display) -> String {
    format!("{} ({source}): {what}", key.escape_debug())
}
