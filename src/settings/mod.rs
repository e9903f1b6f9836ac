//! Typed settings. In: the embedded `config/default.toml`, files, environment variables.
//! Out: [`Settings`], every value of it checked, or [`SettingsError`] with all faults at once.
//!
//! Promise: no fault, no `Debug` and no error of a parser shows a value that was given.
//! That is why `config` only reads the sources here and the values are read key by key:
//! deserialising a struct stops at the first fault, and its message quotes the value.
//!
//! What it does not do: look whether a path, a host or a database is there.

mod error;
mod parse;
mod reader;
mod sections;
mod sources;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

pub use error::{Fault, Origin, SettingsError};
pub use sources::Sources;

/// Everything that can be set, checked: later code trusts it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The listener.
    pub server: Server,
    /// The database.
    pub database: Database,
    /// `RabbitMQ`.
    pub broker: Broker,
    /// Where the key-encryption keys come from.
    pub keyring: Keyring,
    /// What callers may do.
    pub limits: Limits,
    /// Provider → name, in the order of their declaration.
    pub presets: Vec<Preset>,
    /// The committer.
    pub commit: Commit,
    /// The HTTP edge.
    pub http: Http,
    /// The log `activity`.
    pub activity: Activity,
    /// The log `changes`.
    pub events: Events,
    /// `/metrics`.
    pub metrics: Metrics,
    /// The audit consumer.
    pub audit: Audit,
    /// The log on stderr.
    pub log: Log,
    /// Nobody set `database.url`, `keyring.path` or `keyring.keys`: the service makes its own
    /// key, database and token. An empty `keyring.keys` counts as set.
    pub embedded: bool,
}

impl Settings {
    /// Reads the settings of this process; `config_file` is the argument `--config`.
    ///
    /// # Errors
    /// All faults of all sources together.
    pub fn load(config_file: Option<&Path>) -> Result<Self, SettingsError> {
        Self::read(&Sources::of_process(config_file))
    }

    /// Reads the settings from the sources given, and from nothing else.
    ///
    /// # Errors
    /// All faults of all sources together.
    pub fn read(sources: &Sources) -> Result<Self, SettingsError> {
        let mut reader = reader::Reader::new(sources::collect(sources));
        let settings = sections::read(&mut reader);
        let faults = reader.finish();
        match settings {
            Some(settings) if faults.is_empty() => Ok(settings),
            Some(_) | None => Err(SettingsError::new(faults)),
        }
    }
}

/// `server.*`
#[derive(Debug, Clone)]
pub struct Server {
    /// IP address (IPv6 without brackets) or host name.
    pub host: String,
    /// 0 takes a free one.
    pub port: u16,
    /// How long `/ready` says 503 before the listener closes.
    pub drain_delay: Duration,
}

/// Which engine `database.url` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseKind {
    /// One file, one replica.
    Sqlite,
    /// A server, any number of replicas.
    Postgres,
}

/// `database.*`
#[derive(Debug, Clone)]
pub struct Database {
    /// May hold a password.
    pub url: SecretString,
    /// Of the readers; the writer has one of its own.
    pub max_connections: u32,
    /// Statement and lock timeout, `SQLite`'s busy timeout.
    pub timeout: Duration,
    /// At most `timeout`.
    pub idle_in_transaction: Duration,
}

impl Database {
    const SQLITE: &str = "sqlite://";

    /// The engine that the address names.
    #[must_use]
    pub fn kind(&self) -> DatabaseKind {
        if self.url.expose_secret().starts_with(Self::SQLITE) {
            DatabaseKind::Sqlite
        } else {
            DatabaseKind::Postgres
        }
    }

    /// The file, relative or absolute as it was given; `None` for a server.
    #[must_use]
    pub fn sqlite_path(&self) -> Option<&Path> {
        let path = self.url.expose_secret().strip_prefix(Self::SQLITE)?;
        Some(Path::new(path))
    }
}

/// `broker.*`
#[derive(Debug, Clone)]
pub struct Broker {
    /// `None`: no relay. May hold a password.
    pub url: Option<SecretString>,
    /// The topic exchange.
    pub exchange: String,
}

/// `keyring.*`
#[derive(Debug, Clone)]
pub struct Keyring {
    /// The file; of no account where `keys` is there.
    pub path: PathBuf,
    /// `id:base64` entries, checked for their shape, each ID once, at least one.
    pub keys: Option<Vec<SecretString>>,
}

/// `limits.*`
#[derive(Debug, Clone)]
pub struct Limits {
    /// Secrets of one owner.
    pub secrets_per_owner: u32,
    /// Versions kept of a secret, the current one included.
    pub versions: u32,
    /// The largest request body.
    pub body_bytes: usize,
    /// The refill of a caller's token bucket.
    pub rate_per_second: NonZeroU32,
    /// The size of a caller's token bucket.
    pub burst: NonZeroU32,
    /// Failed credentials per address.
    pub failed_per_minute: NonZeroU32,
    /// Open connections.
    pub connections: usize,
    /// How long a body may take to arrive (`limits.body_seconds`).
    pub body_time: Duration,
    /// Names that no secret may have.
    pub reserved_names: Vec<ReservedName>,
}

/// One entry of `limits.reserved_names`, in upper case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReservedName {
    /// This name alone.
    Exact(String),
    /// Every name that begins so (it was given with a `*` at its end).
    Prefix(String),
}

impl ReservedName {
    /// Whether `name`, an upper-case name as secrets have it, is reserved by this entry.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        match self {
            Self::Exact(reserved) => name == reserved,
            Self::Prefix(prefix) => name.starts_with(prefix),
        }
    }
}

impl fmt::Display for ReservedName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(formatter, "{name}"),
            Self::Prefix(prefix) => write!(formatter, "{prefix}*"),
        }
    }
}

/// One entry of `presets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preset {
    /// `^[a-z0-9][a-z0-9_-]*$`, at most 64 bytes.
    pub provider: String,
    /// `^[A-Z_][A-Z0-9_]*$`, at most 255 bytes, not reserved.
    pub name: String,
}

/// `commit.*`
#[derive(Debug, Clone)]
pub struct Commit {
    /// Changes in one transaction.
    pub max_batch: usize,
    /// Changes that may wait, in number.
    pub queue: usize,
    /// Changes that may wait, in bytes.
    pub queue_bytes: usize,
    /// The longest wait in the queue; less than `watchdog`.
    pub timeout: Duration,
    /// A batch's longest life; less than `http.timeout`.
    pub watchdog: Duration,
}

/// `http.*`
#[derive(Debug, Clone)]
pub struct Http {
    /// When a request without an answer gets one.
    pub timeout: Duration,
    /// Plain HTTP under `/api/` gets 426.
    pub require_tls: bool,
    /// The oldest version of each client that is served; each name once.
    pub min_client_versions: Vec<ClientVersion>,
    /// Whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Serialized origins, as a browser sends them in `Origin`.
    pub cors_origins: Vec<String>,
}

impl Http {
    /// Whether the forwarding headers of this peer are believed; an IPv4 address that arrives
    /// in IPv6 form (a listener on `::`) counts as the IPv4 address that it is.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(&peer))
    }
}

/// One entry of `http.min_client_versions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientVersion {
    /// The product name in `User-Agent`.
    pub name: String,
    /// Major, minor, patch: compares in that order.
    pub version: (u64, u64, u64),
}

/// `audit.*`
#[derive(Debug, Clone)]
pub struct Audit {
    /// May hold a password.
    pub database_url: SecretString,
    /// The service's address.
    pub url: Option<String>,
    /// The token for the service's log.
    pub token: Option<SecretString>,
    /// `ed25519:<base64>`, checked for its shape.
    pub public_key: Option<String>,
    /// How often the heads are compared (`audit.compare_seconds`).
    pub compare: Duration,
}

impl Audit {
    /// The file, relative or absolute as it was given; `None` for a server.
    #[must_use]
    pub fn sqlite_path(&self) -> Option<&Path> {
        let path = self
            .database_url
            .expose_secret()
            .strip_prefix(Database::SQLITE)?;
        Some(Path::new(path))
    }
}

/// `log.*`
#[derive(Debug, Clone)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
}

/// `activity.*`
#[derive(Debug, Clone)]
pub struct Activity {
    /// How it is recorded that a value was handed out.
    pub record: ActivityRecord,
    /// How long the log `activity` is kept; nothing stands for ever.
    pub retain: Option<Duration>,
}

/// `activity.record`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivityRecord {
    /// Committed before the value leaves.
    Commit,
    /// Soon after; under load and at a crash a record may be lost.
    Async,
    /// Not at all.
    Off,
}

/// `events.*`
#[derive(Debug, Clone)]
pub struct Events {
    /// How long the log `changes` is kept; nothing stands for ever.
    pub retain: Option<Duration>,
}

/// `metrics.*`
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The port of a listener of their own, on the same host; 0 takes a free one.
    pub port: Option<u16>,
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `Pretty` on a terminal, else `Json`.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}
