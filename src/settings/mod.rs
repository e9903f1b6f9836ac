//! Typed settings. In: the embedded `config/default.toml`, files, environment variables.
//! Out: [`Settings`], every value of it checked, or [`SettingsError`] with all faults at once.
//!
//! Promise: no fault, no `Debug` and no error of a parser shows a value that was given (of a URL, at most the name of an
//! unknown parameter). That is why the values
//! are read key by key: deserialising a struct stops at the first fault, and its message quotes the value.
//!
//! What it does not do: check whether a path, a host or a database exists.

mod auth;
mod layers;
mod parse;
mod reader;
mod sections;
mod server_url;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub(crate) use auth::ClaimSetting;
use layers::Sources;
use sections::RESERVED_NAMES;
pub(crate) use sections::{
    ActivityRecord, ActivitySettings, AuditSettings, AuthSettings, BrokerSettings, ClientVersion,
    CommitSettings, DatabaseSettings, EventSettings, ExpirySettings, HttpSettings, KeyringSettings,
    LimitSettings, LogFormat, LogSettings, MetricsSettings, Preset, ReservedName, ServerSettings,
};

/// Everything that can be set, checked: later code trusts it.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The listener.
    pub server: ServerSettings,
    /// The database.
    pub database: DatabaseSettings,
    /// RabbitMQ.
    pub broker: BrokerSettings,
    /// Where the key-encryption keys come from.
    pub keyring: KeyringSettings,
    /// What callers may do.
    pub limits: LimitSettings,
    /// Provider → name, in the order of their declaration.
    pub presets: Vec<Preset>,
    /// The committer.
    pub commit: CommitSettings,
    /// The HTTP edge.
    pub http: HttpSettings,
    /// The log `activity`.
    pub activity: ActivitySettings,
    /// Who is told that secrets expire, and when.
    pub expiry: ExpirySettings,
    /// The log `changes`.
    pub events: EventSettings,
    /// `/metrics`.
    pub metrics: MetricsSettings,
    /// The audit consumer.
    pub audit: AuditSettings,
    /// Who may call beside API tokens.
    pub auth: AuthSettings,
    /// The log on stderr.
    pub log: LogSettings,
    /// Neither `database.url` nor `keyring.path` nor `keyring.keys` is set: the service creates its own key,
    /// database and token. An empty `keyring.keys` counts as set.
    pub embedded: bool,
}

/// The names that steer a program, as the default settings list them: for commands that read no settings.
#[must_use]
pub(crate) fn names_reserved_by_default() -> Vec<ReservedName> {
    let mut defaults = layers::collect(&Sources::default());
    defaults.list(RESERVED_NAMES, parse::reserved_name)
}

/// The service does not start: all faults of all sources, one on each line.
#[derive(Debug, thiserror::Error)]
#[error("{}", faults.join("\n"))]
pub(crate) struct SettingsError {
    /// Each names the setting, its source and what must hold, and none the value; at least one.
    faults: Vec<String>,
}

impl Settings {
    /// Reads the settings of this process; `config_file` is the argument `--config`.
    ///
    /// # Errors
    /// All faults of all sources together.
    pub(crate) fn load(config_file: Option<&Path>) -> Result<Self, SettingsError> {
        Self::read(&Sources {
            environment: std::env::vars_os().collect(),
            config_file: config_file.map(Path::to_owned),
            folder: PathBuf::new(),
        })
    }

    /// Reads the settings from the sources given, and from nothing else.
    fn read(sources: &Sources) -> Result<Self, SettingsError> {
        let mut reader = layers::collect(sources);
        let settings = Self::take(&mut reader);
        let faults = [reader.faults, reader.unknown].concat();
        if faults.is_empty() {
            Ok(settings)
        } else {
            Err(SettingsError { faults })
        }
    }
}
