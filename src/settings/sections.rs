//! The settings one by one: each section's type, with the parser of every setting, and the rules between them.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{
    Settings,
    auth::ClaimSetting,
    layers::{PRESETS, SettingReader},
    parse, server_url,
};
use crate::domain::{MOST_VERSIONS, Provider, SecretName, is_loopback};

/// The range of all deadlines: none can be switched off, and none is longer than ten minutes.
const DEADLINE_MS: RangeInclusive<u64> = 10..=600_000;
const MILLION: RangeInclusive<u64> = 1..=1_000_000;
/// A value of 65,536 bytes, each written as `\u00XX`, and 4 KiB for what is around it.
const BODY_BYTES: RangeInclusive<u64> = 397_312..=4_194_304;
/// The least holds a change set: 50 values of 65,536 bytes with their keys and tags.
const QUEUE_BYTES: RangeInclusive<u64> = 4_194_304..=4_294_967_296;
/// The list of names that steer a program.
pub(super) const RESERVED_NAMES: &str = "limits.reserved_names";
/// Any of these set: not the embedded default.
const EMBEDDED: [&str; 3] = ["database.url", "keyring.path", "keyring.keys"];

impl Settings {
    pub(super) fn take(reader: &mut SettingReader) -> Self {
        let settings = Self {
            server: ServerSettings::take(reader),
            database: DatabaseSettings::take(reader),
            broker: BrokerSettings::take(reader),
            keyring: KeyringSettings::take(reader),
            limits: LimitSettings::take(reader),
            presets: presets(reader),
            commit: CommitSettings::take(reader),
            http: HttpSettings::take(reader),
            activity: ActivitySettings::take(reader),
            expiry: ExpirySettings::take(reader),
            events: EventSettings::take(reader),
            metrics: MetricsSettings::take(reader),
            audit: AuditSettings::take(reader),
            auth: AuthSettings::take(reader),
            log: LogSettings::take(reader),
            embedded: !EMBEDDED.iter().any(|key| reader.is_set(key)),
        };
        if !reader.items("keyring.keys").is_empty() && reader.is_set("keyring.path") {
            let other = reader.source("keyring.path");
            let rule = format!("empty where keyring.path is set ({other})");
            reader.refuse("keyring.keys", &rule);
        }
        if !reader.items("keyring.keys").is_empty() && reader.is_set("keyring.passphrase") {
            let rule = "empty where keyring.keys is set: a passphrase seals a file";
            reader.refuse("keyring.passphrase", rule);
        }
        settings.server.check(reader);
        settings.auth.check(reader);
        // Each deadline ends what the next one waits for (docs/architecture.md).
        let idle = "database.idle_in_transaction_ms";
        reader.compare(idle, "database.timeout_ms", true);
        reader.compare("database.timeout_ms", "commit.watchdog_ms", false);
        reader.compare("commit.timeout_ms", "commit.watchdog_ms", false);
        reader.compare("commit.watchdog_ms", "http.timeout_ms", false);
        settings
    }
}

/// Defines sections: each type, and how each field of it is read: `field: Type = "key" by method(arguments)`.
macro_rules! sections {
    ($(
        $(#[$doc:meta])*
        $name:ident {
            $($(#[$field_doc:meta])* $field:ident: $type:ty = $key:literal $how:ident($($rule:expr),*);)*
        }
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub(crate) struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            fn take(reader: &mut SettingReader) -> Self {
                Self { $($field: reader.$how($key $(, $rule)*),)* }
            }
        }
    )*};
}

sections! {
    /// `server.*`
    ServerSettings {
        /// IP address (IPv6 without brackets) or host name.
        host: String = "server.host" text(parse::host);
        /// 0 takes a free one.
        port: u16 = "server.port" number(0..=65_535);
        /// The certificate of TLS with its chain; set together with `tls_key`.
        tls_cert: Option<PathBuf> = "server.tls_cert" optional(parse::path);
        /// Its private key.
        tls_key: Option<PathBuf> = "server.tls_key" optional(parse::path);
        /// The authorities that a client's certificate must come from.
        tls_client_ca: Option<PathBuf> = "server.tls_client_ca" optional(parse::path);
        /// Another address than a loopback one may be served without TLS.
        plaintext: bool = "server.plaintext" switch();
        /// How long `/ready` says 503 before the listener closes.
        drain_delay: Duration = "server.drain_delay_ms" millis(0..=60_000);
        /// How long an idle connection of an authenticated caller is kept.
        keep_alive: Duration = "server.keep_alive_seconds" seconds(1..=3600);
    }

    /// `database.*`
    DatabaseSettings {
        /// May hold a password.
        url: SecretString = "database.url" address(parse::database_url);
        /// Of the readers; the writer has one of its own.
        max_connections: u32 = "database.max_connections" number(1..=1_000);
        /// Statement and lock timeout, SQLite's busy timeout.
        timeout: Duration = "database.timeout_ms" millis(DEADLINE_MS);
        /// At most `timeout`.
        idle_in_transaction: Duration = "database.idle_in_transaction_ms" millis(DEADLINE_MS);
    }

    /// `broker.*`
    BrokerSettings {
        /// None: no relay. May hold a password.
        url: Option<SecretString> = "broker.url" address(server_url::rabbitmq);
        /// The topic exchange.
        exchange: String = "broker.exchange" text(parse::exchange);
    }

    /// `keyring.*`
    KeyringSettings {
        /// The file; not read where there are `keys`.
        path: PathBuf = "keyring.path" text(parse::path);
        /// `id:base64` entries, checked for their form, each ID once; none: the file.
        keys: Vec<SecretString> = "keyring.keys" distinct(':', parse::key_entry);
        /// What the file is sealed with, if it is.
        passphrase: Option<SecretString> = "keyring.passphrase" optional(parse::passphrase);
    }

    /// `limits.*`
    LimitSettings {
        /// Secrets of one owner.
        secrets_per_owner: u32 = "limits.secrets_per_owner" number(1..=100_000);
        /// Versions kept of a secret, the current one included.
        versions: u32 = "limits.versions" number(1..=MOST_VERSIONS);
        /// The largest request body, in bytes.
        body_bytes: usize = "limits.body_bytes" number(BODY_BYTES);
        /// The bytes of all request bodies that are held.
        bodies_bytes: usize = "limits.bodies_bytes" number(QUEUE_BYTES);
        /// The refill of a caller's token bucket.
        rate_per_second: NonZeroU32 = "limits.rate_per_second" positive(MILLION);
        /// The size of a caller's token bucket.
        burst: NonZeroU32 = "limits.burst" positive(MILLION);
        /// Failed credentials per address.
        failed_per_minute: NonZeroU32 = "limits.failed_per_minute" positive(MILLION);
        /// Open connections.
        connections: usize = "limits.connections" number(MILLION);
        /// Open streams of events of one caller.
        streams_per_caller: usize = "limits.streams_per_caller" number(MILLION);
        /// Open connections of one address.
        connections_per_address: usize = "limits.connections_per_address" number(MILLION);
        /// How long a body may take to arrive.
        body_time: Duration = "limits.body_seconds" seconds(1..=600);
        /// Names that no secret may have.
        reserved_names: Vec<ReservedName> = "limits.reserved_names" list(parse::reserved_name);
    }

    /// `commit.*`
    CommitSettings {
        /// Changes in one transaction.
        max_batch: usize = "commit.max_batch" number(1..=1_000);
        /// Changes that may wait.
        queue: usize = "commit.queue" number(MILLION);
        /// Bytes of the changes that may wait.
        queue_bytes: usize = "commit.queue_bytes" number(QUEUE_BYTES);
        /// How much of both is one caller's at most, in percent.
        queue_share_percent: usize = "commit.queue_share_percent" number(1..=100);
        /// The longest wait in the queue; less than `watchdog`.
        timeout: Duration = "commit.timeout_ms" millis(DEADLINE_MS);
        /// A batch's longest life; less than `http.timeout`.
        watchdog: Duration = "commit.watchdog_ms" millis(DEADLINE_MS);
    }

    /// `http.*`
    HttpSettings {
        /// When a request without an answer gets one.
        timeout: Duration = "http.timeout_ms" millis(DEADLINE_MS);
        /// How long a client may take for an answer that waits for it.
        write_timeout: Duration = "http.write_timeout_ms" millis(DEADLINE_MS);
        /// Plain HTTP under `/api/` gets 426.
        require_tls: bool = "http.require_tls" switch();
        /// The oldest version of each client that is served; each name once.
        min_client_versions: Vec<ClientVersion> = "http.min_client_versions" distinct('/', parse::client_version);
        /// The peers whose forwarding headers are believed.
        trusted_proxies: Vec<IpNet> = "http.trusted_proxies" list(parse::network);
        /// Serialized origins, as a browser sends them in `Origin`.
        cors_origins: Vec<String> = "http.cors_origins" list(parse::origin);
    }

    /// `activity.*`
    ActivitySettings {
        /// How it is recorded that a value was handed out.
        record: ActivityRecord = "activity.record" text(parse::word);
        /// How many refused requests of an owner or an address are recorded in a minute.
        refusals_per_minute: u32 = "activity.refusals_per_minute" number(0..=1_000);
        /// How long the log `activity` is kept; none means for ever.
        retain: Option<Duration> = "activity.retain_days" days();
    }

    /// `events.*`
    EventSettings {
        /// How long the log `changes` is kept; none means for ever.
        retain: Option<Duration> = "events.retain_days" days();
    }

    /// `expiry.*`
    ExpirySettings {
        /// How long before a secret expires `secret.expiring` comes.
        lead: Duration = "expiry.lead_seconds" seconds(0..=31_536_000);
    }

    /// `metrics.*`
    MetricsSettings {
        /// The port of a listener of their own, on the same host; 0 takes a free one.
        port: Option<u16> = "metrics.port" optional(|text| text.parse().ok());
    }

    /// `audit.*`
    AuditSettings {
        /// May hold a password.
        database_url: SecretString = "audit.database_url" address(parse::database_url);
        /// The service's address, without a slash at its end.
        url: Option<String> = "audit.url" optional(parse::service_url);
        /// The token may be sent over `http://` to another machine.
        plaintext: bool = "audit.plaintext" switch();
        /// The token for the service's log.
        token: Option<SecretString> = "audit.token" optional(parse::token);
        /// `ed25519:<base64>`, checked for its form.
        public_key: Option<String> = "audit.public_key" optional(parse::public_key);
        /// How often the heads are compared.
        compare: Duration = "audit.compare_seconds" seconds(1..=3_600);
    }

    /// `auth.*`
    AuthSettings {
        /// The file of the keys of JSON Web Tokens.
        jwks_path: Option<PathBuf> = "auth.jwks_path" optional(parse::path);
        /// Their address.
        jwks_url: Option<String> = "auth.jwks_url" optional(parse::jwks_url);
        /// Who issues them.
        issuer: Option<String> = "auth.issuer" optional(parse::line);
        /// For whom they are issued.
        audience: Option<String> = "auth.audience" optional(parse::line);
        /// Who they are, by one of their claims.
        claims: Vec<ClaimSetting> = "auth.claims" list(parse::claim);
    }

    /// `log.*`
    LogSettings {
        /// How lines look.
        format: LogFormat = "log.format" text(parse::word);
    }
}

/// One entry of `presets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Preset {
    /// The provider.
    pub provider: Provider,
    /// The name of its secret, not reserved.
    pub name: SecretName,
}

fn presets(reader: &mut SettingReader) -> Vec<Preset> {
    // Without a good list of reserved names only the form of presets is checked.
    let reserved = reader.items(RESERVED_NAMES).into_iter();
    let reserved: Vec<ReservedName> = reserved.filter_map(parse::reserved_name).collect();
    let free = |name: &SecretName| !reserved.iter().any(|one| one.covers(name.as_str()));
    let mut presets = Vec::new();
    for provider in reader.presets() {
        let setting = format!("{PRESETS}{provider}");
        let Ok(provider) = Provider::parse(&provider) else {
            let rule = "a provider of 1 to 64 of a-z 0-9 _ -, beginning with a letter or a digit";
            reader.refuse(&setting, rule);
            continue;
        };
        let rule = "empty, or 1 to 255 letters, digits and _ (not beginning with a digit) \
                    that limits.reserved_names does not cover";
        let name = reader.given(&setting, rule, |value| match value.as_str()? {
            // Emptied, which removes it.
            "" => Some(None),
            text => SecretName::parse(text).ok().filter(free).map(Some),
        });
        presets.extend(name.flatten().map(|name| Preset { provider, name }));
    }
    presets
}

impl ServerSettings {
    /// Whether TLS is served.
    #[must_use]
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls_cert.is_some() {
            "https"
        } else {
            "http"
        }
    }

    /// Refuses half of TLS, and plain text to a network by accident.
    fn check(&self, reader: &mut SettingReader) {
        let (cert, key) = ("server.tls_cert", "server.tls_key");
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => reader.refuse(cert, "empty unless server.tls_key is set too"),
            (None, Some(_)) => reader.refuse(key, "empty unless server.tls_cert is set too"),
            (None, None) if self.tls_client_ca.is_some() => {
                let rule = "empty unless server.tls_cert and server.tls_key are set too";
                reader.refuse("server.tls_client_ca", rule);
            }
            (None, None) if !(self.plaintext || is_loopback(&self.host)) => {
                let rule = "a loopback address unless server.tls_cert and server.tls_key are set, or \
                            server.plaintext = true says that a proxy or a private network protects the connection";
                reader.refuse("server.host", rule);
            }
            _ => {}
        }
    }
}

impl DatabaseSettings {
    /// The file, relative or absolute as it was given; none for a server.
    #[must_use]
    pub(crate) fn sqlite_path(&self) -> Option<&Path> {
        parse::sqlite_path(self.url.expose_secret())
    }

    /// How the connection to a server is encrypted; none for a file.
    #[must_use]
    pub(crate) fn tls(&self) -> Option<String> {
        server_url::postgres_tls(&self.url)
    }
}

impl AuditSettings {
    /// The file, relative or absolute as it was given; none for a server.
    #[must_use]
    pub(crate) fn sqlite_path(&self) -> Option<&Path> {
        parse::sqlite_path(self.database_url.expose_secret())
    }

    /// How the connection to a server is encrypted; none for a file.
    #[must_use]
    pub(crate) fn tls(&self) -> Option<String> {
        server_url::postgres_tls(&self.database_url)
    }
}

impl BrokerSettings {
    /// How the connection is encrypted; none without a broker.
    #[must_use]
    pub(crate) fn tls(&self) -> Option<String> {
        server_url::rabbitmq_tls(self.url.as_ref()?)
    }
}

impl HttpSettings {
    /// Whether the forwarding headers of this peer are believed; an IPv4 address that arrives
    /// in IPv6 form (a listener on `::`) counts as the IPv4 address that it is.
    #[must_use]
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(&peer))
    }
}

/// One entry of `limits.reserved_names`, in upper case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReservedName {
    /// This name alone.
    Exact(String),
    /// Every name that begins with this (it was given with a `*` at its end).
    Prefix(String),
    /// Every name that ends with this (it was given with a `*` at its beginning).
    Suffix(String),
}

impl ReservedName {
    /// Whether this entry reserves `name`, an upper-case name as secrets have it.
    #[must_use]
    pub(crate) fn covers(&self, name: &str) -> bool {
        match self {
            Self::Exact(reserved) => name == reserved,
            Self::Prefix(prefix) => name.starts_with(prefix),
            Self::Suffix(suffix) => name.ends_with(suffix),
        }
    }
}

/// One entry of `http.min_client_versions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientVersion {
    /// The product name in `User-Agent`.
    pub name: String,
    /// Major, minor, patch: compares in that order.
    pub version: (u64, u64, u64),
}

/// `activity.record`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ActivityRecord {
    /// Committed before the value leaves.
    Commit,
    /// Soon after; under load and at a crash a record may be lost.
    Async,
    /// Not at all.
    Off,
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// `Pretty` on a terminal, else `Json`.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}
