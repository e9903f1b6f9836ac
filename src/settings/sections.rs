//! The settings one by one, each with its rule in words, and the rules between them. All of a
//! section is read before any of it is missed, so that no fault hides another.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::reader::{Order, Reader};
use super::{
    Activity, Audit, Broker, Commit, Database, Events, Http, Keyring, Limits, Log, Metrics, Preset,
    ReservedName, Server, Settings, parse,
};
use crate::domain::MOST_VERSIONS;

/// Deadlines of the database, the committer and the edge: none is off, none outlives patience.
const DEADLINE_MS: RangeInclusive<u64> = 10..=600_000;
const DATABASE_URL: &str =
    "sqlite://PATH (a plain path, without parameters), postgres://… or postgresql://…";
const MILLION: RangeInclusive<u64> = 1..=1_000_000;
/// A value of 65,536 bytes, each written as `\u00XX`, and 4 KiB for what stands around it.
const BODY_BYTES: RangeInclusive<u64> = 397_312..=4_194_304;
/// The least holds a change set: 50 values of 65,536 bytes with their keys and tags.
const QUEUE_BYTES: RangeInclusive<u64> = 4_194_304..=4_294_967_296;
/// Any of these set: not the embedded default.
const EMBEDDED: [&str; 3] = ["database.url", "keyring.path", "keyring.keys"];

pub(super) fn read(reader: &mut Reader) -> Option<Settings> {
    let server = server(reader);
    let database = database(reader);
    let broker = broker(reader);
    let keyring = keyring(reader);
    let limits = limits(reader);
    let presets = presets(
        reader,
        limits
            .as_ref()
            .map(|limits| limits.reserved_names.as_slice()),
    );
    let commit = commit(reader);
    let http = http(reader);
    let activity = activity(reader);
    let retain = retain(reader, "events.retain_days");
    let allowed = "empty, or a whole number from 0 to 65535";
    let metrics_port = reader.text("metrics.port", allowed, parse::optional_port);
    let audit = audit(reader);
    let format = reader.text("log.format", "auto, pretty or json", parse::log_format);
    compare(reader);
    Some(Settings {
        server: server?,
        database: database?,
        broker: broker?,
        keyring: keyring?,
        limits: limits?,
        presets: presets?,
        commit: commit?,
        http: http?,
        activity: activity?,
        events: Events { retain: retain? },
        metrics: Metrics {
            port: metrics_port?,
        },
        audit: audit?,
        log: Log { format: format? },
        embedded: !EMBEDDED.iter().any(|key| reader.is_set(key)),
    })
}

/// Each deadline ends what the next one waits for (`docs/architecture.md`).
fn compare(reader: &mut Reader) {
    for (smaller, order, larger) in [
        (
            "database.idle_in_transaction_ms",
            Order::AtMost,
            "database.timeout_ms",
        ),
        ("database.timeout_ms", Order::Below, "commit.watchdog_ms"),
        ("commit.timeout_ms", Order::Below, "commit.watchdog_ms"),
        ("commit.watchdog_ms", Order::Below, "http.timeout_ms"),
    ] {
        reader.compare(smaller, order, larger);
    }
}

fn server(reader: &mut Reader) -> Option<Server> {
    let host = reader.text("server.host", "an IP address or a host name", parse::host);
    let port = reader.number("server.port", 0..=65_535);
    let drain_delay = reader.millis("server.drain_delay_ms", 0..=60_000);
    Some(Server {
        host: host?,
        port: port?,
        drain_delay: drain_delay?,
    })
}

fn database(reader: &mut Reader) -> Option<Database> {
    let url = reader.text("database.url", DATABASE_URL, parse::database_url);
    let max_connections = reader.number("database.max_connections", 1..=1_000);
    let timeout = reader.millis("database.timeout_ms", DEADLINE_MS);
    let idle_in_transaction = reader.millis("database.idle_in_transaction_ms", DEADLINE_MS);
    Some(Database {
        url: url?,
        max_connections: max_connections?,
        timeout: timeout?,
        idle_in_transaction: idle_in_transaction?,
    })
}

fn broker(reader: &mut Reader) -> Option<Broker> {
    let allowed = "empty, amqp://HOST… or amqps://HOST…";
    let url = reader.text("broker.url", allowed, parse::broker_url);
    let allowed = "1 to 127 of A-Z a-z 0-9 . _ : -, not beginning with \"amq.\"";
    let exchange = reader.text("broker.exchange", allowed, parse::exchange);
    Some(Broker {
        url: Some(url?).filter(|url| !url.expose_secret().is_empty()),
        exchange: exchange?,
    })
}

fn keyring(reader: &mut Reader) -> Option<Keyring> {
    let path = reader.text("keyring.path", "a path", parse::path);
    let allowed = "ID:KEY, each ID once (1 to 32 of a-z 0-9 -), \
                   KEY 32 bytes in padded standard base64";
    let entries = reader.distinct("keyring.keys", allowed, parse::key_entry, |(id, _)| {
        id.clone()
    });
    let keys: Vec<_> = entries?.into_iter().map(|(_, whole)| whole).collect();
    if !keys.is_empty() && reader.is_set("keyring.path") {
        let other = reader.origin_of("keyring.path");
        let allowed = format!("only one of keyring.keys and keyring.path ({other})");
        reader.refuse("keyring.keys", &allowed);
    }
    Some(Keyring {
        path: path?,
        keys: (!keys.is_empty()).then_some(keys),
    })
}

fn limits(reader: &mut Reader) -> Option<Limits> {
    let secrets_per_owner = reader.number("limits.secrets_per_owner", 1..=100_000);
    let versions = reader.number("limits.versions", 1..=MOST_VERSIONS);
    let body_bytes = reader.number("limits.body_bytes", BODY_BYTES);
    let rate_per_second = reader.number("limits.rate_per_second", MILLION);
    let burst = reader.number("limits.burst", MILLION);
    let failed_per_minute = reader.number("limits.failed_per_minute", MILLION);
    let connections = reader.number("limits.connections", MILLION);
    let body_time = reader.number("limits.body_seconds", 1..=600);
    let allowed = "names of letters, digits and _ (not beginning with a digit), \
                   each with or without a * at its end";
    let reserved_names = reader.list("limits.reserved_names", allowed, parse::reserved_name);
    Some(Limits {
        secrets_per_owner: secrets_per_owner?,
        versions: versions?,
        body_bytes: body_bytes?,
        rate_per_second: NonZeroU32::new(rate_per_second?)?,
        burst: NonZeroU32::new(burst?)?,
        failed_per_minute: NonZeroU32::new(failed_per_minute?)?,
        connections: connections?,
        body_time: Duration::from_secs(body_time?),
        reserved_names: reserved_names?,
    })
}

fn presets(reader: &mut Reader, reserved: Option<&[ReservedName]>) -> Option<Vec<Preset>> {
    let mut presets = Vec::new();
    let mut complete = true;
    for (provider, text) in reader.table("presets") {
        if !parse::is_provider(&provider) {
            let allowed = "1 to 64 of a-z 0-9 _ -, beginning with a letter or a digit";
            reader.refuse(
                &format!("presets.{provider}"),
                &format!("a provider of {allowed}"),
            );
            complete = false;
        } else if text.as_deref() == Some("") {
            // Removed.
        } else if let Some(name) = text.and_then(|text| preset_name(&text, reserved)) {
            presets.push(Preset { provider, name });
        } else {
            let allowed = "empty, or 1 to 255 letters, digits and _ (not beginning with a digit) \
                           that limits.reserved_names does not cover";
            reader.refuse(&format!("presets.{provider}"), allowed);
            complete = false;
        }
    }
    complete.then_some(presets)
}

/// Without a good list of reserved names only the form is checked.
fn preset_name(text: &str, reserved: Option<&[ReservedName]>) -> Option<String> {
    let name = parse::secret_name(text)?;
    let mut reserved = reserved.unwrap_or_default().iter();
    (!reserved.any(|reserved| reserved.covers(&name))).then_some(name)
}

fn commit(reader: &mut Reader) -> Option<Commit> {
    let max_batch = reader.number("commit.max_batch", 1..=1_000);
    let queue = reader.number("commit.queue", MILLION);
    let queue_bytes = reader.number("commit.queue_bytes", QUEUE_BYTES);
    let timeout = reader.millis("commit.timeout_ms", DEADLINE_MS);
    let watchdog = reader.millis("commit.watchdog_ms", DEADLINE_MS);
    Some(Commit {
        max_batch: max_batch?,
        queue: queue?,
        queue_bytes: queue_bytes?,
        timeout: timeout?,
        watchdog: watchdog?,
    })
}

fn activity(reader: &mut Reader) -> Option<Activity> {
    let allowed = "commit, async or off";
    let record = reader.text("activity.record", allowed, parse::activity_record);
    let retain = retain(reader, "activity.retain_days");
    Some(Activity {
        record: record?,
        retain: retain?,
    })
}

/// How long a log's events are kept; 0 days stand for ever.
#[expect(
    clippy::option_option,
    reason = "at fault, for ever, and so long are three things"
)]
fn retain(reader: &mut Reader, key: &'static str) -> Option<Option<Duration>> {
    let days: u64 = reader.number(key, 0..=36_500)?;
    Some((days > 0).then(|| Duration::from_secs(days * 86_400)))
}

fn http(reader: &mut Reader) -> Option<Http> {
    let timeout = reader.millis("http.timeout_ms", DEADLINE_MS);
    let require_tls = reader.switch("http.require_tls");
    let allowed = "NAME/X.Y.Z, each NAME once (1 to 64 of A-Z a-z 0-9 . _ -)";
    let key = "http.min_client_versions";
    let versions = reader.distinct(key, allowed, parse::client_version, |one| one.name.clone());
    let allowed = "IP addresses and networks (10.0.0.0/8)";
    let trusted_proxies = reader.list("http.trusted_proxies", allowed, parse::network);
    let allowed = "origins: http:// or https://, a host, \
                   a port where it is not the usual one, and no more";
    let cors_origins = reader.list("http.cors_origins", allowed, parse::origin);
    Some(Http {
        timeout: timeout?,
        require_tls: require_tls?,
        min_client_versions: versions?,
        trusted_proxies: trusted_proxies?,
        cors_origins: cors_origins?,
    })
}

fn audit(reader: &mut Reader) -> Option<Audit> {
    let database_url = reader.text("audit.database_url", DATABASE_URL, parse::database_url);
    let allowed = "empty, http://HOST… or https://HOST…";
    let url = reader.text("audit.url", allowed, parse::service_url);
    let allowed = "empty, or at most 4096 visible ASCII characters";
    let token = reader.text("audit.token", allowed, parse::token);
    let allowed = "empty, or ed25519:KEY, KEY 32 bytes in padded standard base64";
    let public_key = reader.text("audit.public_key", allowed, parse::public_key);
    let compare = reader.number("audit.compare_seconds", 1..=3_600);
    Some(Audit {
        database_url: database_url?,
        url: Some(url?).filter(|url| !url.is_empty()),
        token: Some(token?).filter(|token| !token.expose_secret().is_empty()),
        public_key: Some(public_key?).filter(|key| !key.is_empty()),
        compare: Duration::from_secs(compare?),
    })
}
