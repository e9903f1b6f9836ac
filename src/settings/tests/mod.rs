//! The contract of the settings, through the door that `Settings::load` takes too.

mod secrecy_and_documents;
mod values;

use std::{fs, path::PathBuf, time::Duration};

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::{layers::DEFAULT, *};

/// 32 bytes, unlike any other text here.
const KEY: &str = "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5LWNhbmE=";
const CANARY: &str = "canary";

fn of_variables<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Sources {
    let variables = variables.into_iter();
    Sources {
        environment: variables
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        ..Sources::default()
    }
}

fn read<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Settings {
    Settings::read(&of_variables(variables)).unwrap()
}

fn faults<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let error = Settings::read(&of_variables(variables)).unwrap_err();
    error.to_string()
}

fn file(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

fn of_file(folder: &TempDir, text: &str) -> Sources {
    Sources {
        config_file: Some(file(folder, "rekey.toml", text)),
        ..Sources::default()
    }
}

fn faults_of_file(text: &str) -> String {
    let folder = TempDir::new().unwrap();
    let error = Settings::read(&of_file(&folder, text)).unwrap_err();
    let path = folder.path().join("rekey.toml");
    error
        .to_string()
        .replace(path.to_str().unwrap(), "rekey.toml")
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let Settings {
        server,
        database,
        broker,
        keyring,
        limits,
        commit,
        http,
        ..
    } = read([]);
    assert_eq!((server.host.as_str(), server.port), ("127.0.0.1", 8080));
    assert_eq!(database.url.expose_secret(), "sqlite://data/rekey.db");
    assert_eq!(database.timeout, Duration::from_secs(3));
    assert!(broker.url.is_none() && keyring.keys.is_empty());
    assert_eq!(broker.exchange, "secrets.events");
    assert_eq!(keyring.path, Path::new("data/keyring.json"));
    let sizes = (limits.secrets_per_owner, limits.versions, limits.body_bytes);
    assert_eq!(sizes, (100, 10, 524_288));
    let rates = (
        limits.rate_per_second.get(),
        limits.burst.get(),
        limits.failed_per_minute.get(),
    );
    assert_eq!(rates, (200, 400, 30));
    assert_eq!(
        (limits.connections, limits.body_time.as_secs()),
        (10_000, 10)
    );
    assert_eq!(limits.reserved_names.len(), 12);
    assert_eq!(
        (commit.max_batch, commit.queue, commit.queue_bytes),
        (256, 4096, 64 << 20)
    );
    assert_eq!(http.timeout, Duration::from_secs(8));
    assert!(!http.require_tls && http.min_client_versions.is_empty());
    let Settings {
        activity,
        events,
        metrics,
        log,
        ..
    } = read([]);
    assert_eq!(activity.record, ActivityRecord::Commit);
    assert_eq!(activity.retain, Some(Duration::from_hours(90 * 24)));
    assert_eq!((events.retain, metrics.port), (None, None));
    assert_eq!(log.format, LogFormat::Auto);
}

#[test]
fn later_sources_win() {
    let folder = TempDir::new().unwrap();
    let staging = "server.port = 1\nlimits.versions = 1\ncommit.queue = 1";
    file(&folder, "config/staging.toml", staging);
    let argument = file(
        &folder,
        "argument.toml",
        "server.port = 2\nlimits.versions = 2",
    );
    let named = file(
        &folder,
        "named.toml",
        "server.port = 3\nlimits.versions = 3",
    );
    let mut sources = of_variables([
        ("REKEY_ENV", "staging"),
        ("REKEY_CONFIG", named.to_str().unwrap()),
        ("REKEY__SERVER__PORT", "4"),
    ]);
    sources.folder = folder.path().to_owned();
    let numbers = |sources: &Sources| {
        let Settings {
            server,
            limits,
            commit,
            ..
        } = Settings::read(sources).unwrap();
        (server.port, limits.versions, commit.queue, commit.max_batch)
    };
    assert_eq!(numbers(&sources), (4, 3, 1, 256));
    sources.config_file = Some(argument);
    assert_eq!(numbers(&sources), (4, 2, 1, 256));
    sources.environment.retain(|(name, _)| name != "REKEY_ENV");
    assert_eq!(numbers(&sources), (4, 2, 4096, 256));
    sources.environment.clear();
    assert_eq!(numbers(&sources), (2, 2, 4096, 256));
}

#[test]
fn variables_that_are_no_settings_are_ignored() {
    let empty = [
        "REKEY_ENV",
        "REKEY_CONFIG",
        "REKEY_TOKEN",
        "REKEY_URL",
        "REKEY_",
        "PATH",
    ];
    read(empty.map(|name| (name, "")));
    read([
        ("REKEY_TOKEN", "x"),
        ("REKEY_URL", "http://localhost"),
        ("REKEYED__A", "x"),
    ]);
}

#[test]
fn a_wrong_value_names_its_setting_its_source_and_its_rule() {
    assert_eq!(
        faults([("REKEY__SERVER__PORT", "65536")]),
        "server.port (environment variable REKEY__SERVER__PORT): \
         must be a whole number from 0 to 65535"
    );
    assert_eq!(
        faults_of_file("[server]\nport = 65536"),
        "server.port (file rekey.toml): must be a whole number from 0 to 65535"
    );
}

#[test]
fn types_are_not_converted() {
    for wrong in [
        "server.port = '8080'",
        "server.port = 80.0",
        "server.port = -1",
        "server.port = true",
        "server.port.x = 1",
        "server.host = 1",
        "http.require_tls = 'true'",
        "http.require_tls = 1",
        "http.trusted_proxies = '10.0.0.1'",
        "http.trusted_proxies = [1]",
        "presets.openai = 1",
        "broker.url = []",
    ] {
        let faults = faults_of_file(wrong);
        assert!(
            faults.contains("(file rekey.toml): must be "),
            "{wrong}: {faults}"
        );
        assert_eq!(faults.lines().count(), 1, "{faults}");
    }
    assert!(
        read([("REKEY__HTTP__REQUIRE_TLS", "true")])
            .http
            .require_tls
    );
}

#[test]
fn unknown_settings_are_refused() {
    let port = "unknown setting; did you mean server.port?";
    let of_port = faults_of_file("server.prot = 1");
    assert_eq!(of_port, format!("server.prot (file rekey.toml): {port}"));
    for text in ["colour = 1", "[colour]"] {
        assert_eq!(
            faults_of_file(text),
            "colour (file rekey.toml): unknown setting"
        );
    }
    assert_eq!(
        faults_of_file("server = 1\npresets = 1"),
        "server (file rekey.toml): must be a table of settings\n\
         presets (file rekey.toml): must be a table of settings"
    );
    assert_eq!(
        faults([("REKEY__SERVER_PORT", "1"), ("REKEY__Server__Port", "1")]),
        format!(
            "server_port (environment variable REKEY__SERVER_PORT): {port}\n\
             Server.Port (environment variable REKEY__Server__Port): {port}"
        )
    );
    // Line breaks in names do not make lines.
    assert_eq!(
        faults_of_file("\"a\\nb\" = 1"),
        "a\\nb (file rekey.toml): unknown setting"
    );
    // Settings of later capabilities.
    for (key, value) in [
        ("auth.issuer", "''"),
        ("server.tls_cert", "''"),
        ("expiry.lead_seconds", "1"),
    ] {
        let faults = faults_of_file(&format!("{key} = {value}"));
        assert!(
            faults.starts_with(&format!("{key} (file rekey.toml): unknown")),
            "{faults}"
        );
    }
    // Only the first pair of underscores divides.
    let preset = read([("REKEY__PRESETS__A__B", "X")]).presets.pop().unwrap();
    assert_eq!(preset.provider.as_str(), "a__b");
}

#[test]
fn the_audit_consumer_has_settings_of_its_own() {
    let audit = read([]).audit;
    assert_eq!(audit.sqlite_path(), Some(Path::new("data/audit.db")));
    assert!(audit.url.is_none() && audit.token.is_none() && audit.public_key.is_none());
    assert_eq!(audit.compare, Duration::from_secs(30));
    let key = format!("ed25519:{KEY}");
    let settings = read([
        ("REKEY__AUDIT__DATABASE_URL", "postgres://db/audit"),
        ("REKEY__AUDIT__URL", "https://rekey.example:8443/"),
        ("REKEY__AUDIT__TOKEN", "canary"),
        ("REKEY__AUDIT__PUBLIC_KEY", &key),
    ]);
    // They say nothing of the service: its own database is still the embedded one.
    assert!(settings.embedded);
    let audit = settings.audit;
    assert!(audit.sqlite_path().is_none());
    assert_eq!(audit.url.as_deref(), Some("https://rekey.example:8443"));
    assert_eq!(audit.public_key, Some(key));
    assert!(!format!("{audit:?}").contains(CANARY));
}

#[test]
fn a_known_section_may_be_empty() {
    let folder = TempDir::new().unwrap();
    Settings::read(&of_file(&folder, "[server]\n[presets]\n")).unwrap();
}

#[test]
fn settings_may_not_contradict_each_other() {
    for (setting, value, rule) in [
        (
            "commit.timeout_ms",
            "4000",
            "less than commit.watchdog_ms (default)",
        ),
        (
            "http.timeout_ms",
            "4000",
            "more than commit.watchdog_ms (default)",
        ),
        (
            "database.timeout_ms",
            "1999",
            "at least database.idle_in_transaction_ms (default)",
        ),
        (
            "database.timeout_ms",
            "5000",
            "less than commit.watchdog_ms (default)",
        ),
    ] {
        let variable = format!("REKEY__{}", setting.replace('.', "__").to_uppercase());
        let fault = format!("{setting} (environment variable {variable}): must be {rule}");
        assert_eq!(faults([(variable.as_str(), value)]), fault);
    }
    read([("REKEY__DATABASE__TIMEOUT_MS", "2000")]);
}

#[test]
fn the_keyring_has_one_source() {
    let (key, path) = (format!("main:{KEY}"), ("REKEY__KEYRING__PATH", "ring.json"));
    assert_eq!(
        faults([("REKEY__KEYRING__KEYS", key.as_str()), path]),
        "keyring.keys (environment variable REKEY__KEYRING__KEYS): must be empty where \
         keyring.path is set (environment variable REKEY__KEYRING__PATH)"
    );
    assert!(
        read([("REKEY__KEYRING__KEYS", ""), path])
            .keyring
            .keys
            .is_empty()
    );
    let twice = format!("{key},{key}");
    assert!(faults([("REKEY__KEYRING__KEYS", twice.as_str())]).contains("each ID once"));
}

#[test]
fn all_faults_are_reported_together() {
    let folder = TempDir::new().unwrap();
    let broken = file(&folder, "config/broken.toml", "[server]\nport = \n");
    let secret = folder.path().join("absent");
    let mut sources = of_variables([
        ("REKEY_ENV", "broken"),
        ("REKEY_CONFIG", "/nowhere/rekey.toml"),
        ("REKEY__COLOUR", "red"),
        ("REKEY__COMMIT__TIMEOUT_MS", "5000"),
        ("REKEY__DATABASE__URL__FILE", secret.to_str().unwrap()),
        ("REKEY__LIMITS__BURST", "0"),
        ("REKEY__SERVER__PORT", "1"),
        ("REKEY__SERVER__PORT__FILE", "/dev/null"),
    ]);
    sources.folder = folder.path().to_owned();
    let error = Settings::read(&sources).unwrap_err();
    assert_eq!(error.faults.len(), 8);
    let expected = format!(
        "file {}, line 2: not valid TOML\n\
         file /nowhere/rekey.toml: cannot be read: No such file or directory (os error 2)\n\
         database.url (environment variable REKEY__DATABASE__URL__FILE): \
         cannot read {}: No such file or directory (os error 2)\n\
         server.port (environment variable REKEY__SERVER__PORT): \
         environment variable REKEY__SERVER__PORT__FILE is set too; set only one of them\n\
         server.port (environment variable REKEY__SERVER__PORT__FILE): \
         must be a whole number from 0 to 65535\n\
         limits.burst (environment variable REKEY__LIMITS__BURST): \
         must be a whole number from 1 to 1000000\n\
         commit.timeout_ms (environment variable REKEY__COMMIT__TIMEOUT_MS): \
         must be less than commit.watchdog_ms (default)\n\
         colour (environment variable REKEY__COLOUR): unknown setting",
        broken.display(),
        secret.display()
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_file_can_hold_a_value() {
    let folder = TempDir::new().unwrap();
    for text in [
        "postgres://db/a",
        "postgres://db/a\n",
        "postgres://db/a\r\n",
    ] {
        let path = file(&folder, "url", text);
        let settings = read([("REKEY__DATABASE__URL__FILE", path.to_str().unwrap())]);
        assert_eq!(settings.database.url.expose_secret(), "postgres://db/a");
        assert!(settings.database.sqlite_path().is_none() && !settings.embedded);
    }
    let path = file(&folder, "url", "postgres://db/a\n\n");
    faults([("REKEY__DATABASE__URL__FILE", path.to_str().unwrap())]);
    let port = file(&folder, "port", "99\n");
    let settings = read([("REKEY__SERVER__PORT__FILE", port.to_str().unwrap())]);
    assert_eq!(settings.server.port, 99);
}

#[test]
fn presets_keep_the_order_of_their_declaration() {
    let folder = TempDir::new().unwrap();
    let text = "[presets]\nzebra = 'zebra_key'\ngithub = ''\nanthropic = 'CLAUDE_KEY'\nalpha = 'A'";
    let sources = Sources {
        environment: of_variables([
            ("REKEY__PRESETS__MIS__TRAL", "MISTRAL_API_KEY"),
            ("REKEY__PRESETS__ACME", "ACME_KEY"),
        ])
        .environment,
        ..of_file(&folder, text)
    };
    let presets = Settings::read(&sources).unwrap().presets;
    let presets = presets
        .iter()
        .map(|one| (one.provider.as_str(), one.name.as_str()));
    let expected = [
        ("openai", "OPENAI_API_KEY"),
        ("anthropic", "CLAUDE_KEY"),
        ("tinker", "TINKER_API_KEY"),
        ("zebra", "ZEBRA_KEY"),
        ("alpha", "A"),
        ("acme", "ACME_KEY"),
        ("mis__tral", "MISTRAL_API_KEY"),
    ];
    assert_eq!(presets.collect::<Vec<_>>(), expected);
}

#[test]
fn presets_are_providers_with_names_that_are_free() {
    let faults = faults_of_file("[presets]\nBad = 'A'\ngood = '1'\nother = 'ld_preload'");
    let lines: Vec<&str> = faults.lines().collect();
    assert!(lines[0].starts_with("presets.Bad (file rekey.toml): must be a provider of 1 to 64"));
    assert!(lines[1].starts_with("presets.good (file rekey.toml): must be empty, or 1 to 255"));
    assert!(lines[2].starts_with("presets.other (file rekey.toml): must be empty, or 1 to 255"));
    assert_eq!(lines.len(), 3);
}

#[test]
fn the_embedded_default_is_on_while_nothing_says_where() {
    assert!(read([]).embedded);
    assert!(read([("REKEY__SERVER__PORT", "0")]).embedded);
    let key = format!("main:{KEY}");
    for (name, value) in [
        ("REKEY__DATABASE__URL", "sqlite://data/rekey.db"),
        ("REKEY__KEYRING__PATH", "data/keyring.json"),
        ("REKEY__KEYRING__KEYS", key.as_str()),
        ("REKEY__KEYRING__KEYS", ""),
    ] {
        assert!(!read([(name, value)]).embedded, "{name}");
    }
    let database = read([]).database;
    assert_eq!(database.sqlite_path(), Some(Path::new("data/rekey.db")));
}
