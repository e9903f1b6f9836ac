//! The contract of the settings, through the door that `Settings::load` takes too.

use std::fs;
use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::sources::{Given, collect, default_text};
use super::*;

/// 32 bytes, unlike any other text here.
const KEY: &str = "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5LWNhbmE=";
const CANARY: &str = "canary";

fn read<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Settings {
    Settings::read(&Sources::variables(variables)).unwrap()
}

fn faults<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    Settings::read(&Sources::variables(variables))
        .unwrap_err()
        .to_string()
}

fn file(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

fn faults_of_file(text: &str) -> String {
    let folder = TempDir::new().unwrap();
    let path = file(&folder, "rekey.toml", text);
    let sources = Sources {
        config_file: Some(path.clone()),
        ..Sources::default()
    };
    let error = Settings::read(&sources).unwrap_err().to_string();
    error.replace(path.to_str().unwrap(), "rekey.toml")
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let settings = read([]);
    assert_eq!(
        (settings.server.host.as_str(), settings.server.port),
        ("127.0.0.1", 8080)
    );
    assert_eq!(
        settings.database.url.expose_secret(),
        "sqlite://data/rekey.db"
    );
    assert_eq!(settings.database.timeout, Duration::from_secs(3));
    assert!(settings.broker.url.is_none());
    assert_eq!(settings.broker.exchange, "secrets.events");
    assert_eq!(settings.keyring.path, Path::new("data/keyring.json"));
    assert!(settings.keyring.keys.is_none());
    let limits = &settings.limits;
    assert_eq!(
        (limits.secrets_per_owner, limits.versions, limits.body_bytes),
        (100, 10, 524_288)
    );
    assert_eq!(
        (limits.rate_per_second.get(), limits.burst.get()),
        (200, 400)
    );
    assert_eq!(
        (limits.failed_per_minute.get(), limits.connections),
        (30, 10_000)
    );
    assert_eq!(limits.body_time, Duration::from_secs(10));
    assert_eq!(limits.reserved_names.len(), 12);
    assert_eq!(
        (settings.commit.max_batch, settings.commit.queue),
        (256, 4096)
    );
    assert_eq!(settings.commit.queue_bytes, 64 * 1024 * 1024);
    assert_eq!(settings.http.timeout, Duration::from_secs(8));
    assert!(!settings.http.require_tls && settings.http.min_client_versions.is_empty());
    assert_eq!(settings.activity.record, ActivityRecord::Commit);
    assert_eq!(
        settings.activity.retain,
        Some(Duration::from_hours(90 * 24))
    );
    assert_eq!(
        (settings.events.retain, settings.metrics.port),
        (None, None)
    );
    assert_eq!(settings.log.format, LogFormat::Auto);
}

#[test]
fn later_sources_win() {
    let folder = TempDir::new().unwrap();
    file(
        &folder,
        "config/staging.toml",
        "server.port = 1\nlimits.versions = 1\ncommit.queue = 1",
    );
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
    let mut sources = Sources::variables([
        ("REKEY_ENV", "staging"),
        ("REKEY_CONFIG", named.to_str().unwrap()),
        ("REKEY__SERVER__PORT", "4"),
    ]);
    sources.folder = folder.path().to_owned();
    let numbers = |sources: &Sources| {
        let settings = Settings::read(sources).unwrap();
        let commit = settings.commit;
        (
            settings.server.port,
            settings.limits.versions,
            commit.queue,
            commit.max_batch,
        )
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
fn variables_that_are_no_settings_are_passed_over() {
    let variables = [
        "REKEY_ENV",
        "REKEY_CONFIG",
        "REKEY_TOKEN",
        "REKEY_URL",
        "REKEY_",
        "PATH",
    ];
    read(variables.map(|name| (name, "")));
    read([
        ("REKEY_TOKEN", "x"),
        ("REKEY_URL", "http://localhost"),
        ("REKEYED__A", "x"),
    ]);
}

#[test]
fn a_wrong_value_names_its_setting_its_source_and_what_is_allowed() {
    assert_eq!(
        faults([("REKEY__SERVER__PORT", "65536")]),
        "server.port (environment variable REKEY__SERVER__PORT): \
         allowed is a whole number from 0 to 65535"
    );
    assert_eq!(
        faults_of_file("[server]\nport = 65536"),
        "server.port (file rekey.toml): allowed is a whole number from 0 to 65535"
    );
}

#[test]
fn types_are_not_bent() {
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
            faults.contains("(file rekey.toml): allowed is "),
            "{wrong}: {faults}"
        );
        assert_eq!(faults.lines().count(), 1, "{faults}");
    }
    for number in ["", "+1", " 1", "1 ", "1_000", "0x10", "1.0", "-1"] {
        faults([("REKEY__SERVER__PORT", number)]);
    }
    for switch in ["", "1", "True", "on"] {
        faults([("REKEY__HTTP__REQUIRE_TLS", switch)]);
    }
    assert!(
        read([("REKEY__HTTP__REQUIRE_TLS", "true")])
            .http
            .require_tls
    );
}

#[test]
fn unknown_settings_are_refused() {
    let faults_of = |text| faults_of_file(text);
    assert_eq!(
        faults_of("server.prot = 1"),
        "server.prot (file rekey.toml): unknown setting; did you mean server.port?"
    );
    assert_eq!(
        faults_of("colour = 1"),
        "colour (file rekey.toml): unknown setting"
    );
    assert_eq!(
        faults_of("[colour]"),
        "colour (file rekey.toml): unknown setting"
    );
    assert_eq!(
        faults_of("server = 1\npresets = 1"),
        "server (file rekey.toml): allowed is a table of settings\n\
         presets (file rekey.toml): allowed is a table of settings"
    );
    assert_eq!(
        faults([("REKEY__SERVER_PORT", "1"), ("REKEY__Server__Port", "1")]),
        "server_port (environment variable REKEY__SERVER_PORT): unknown setting; \
         did you mean server.port?\n\
         Server.Port (environment variable REKEY__Server__Port): unknown setting; \
         did you mean server.port?"
    );
    // Line breaks in names do not make lines.
    assert_eq!(
        faults_of("\"a\\nb\" = 1"),
        "a\\nb (file rekey.toml): unknown setting"
    );
}

#[test]
fn settings_of_later_capabilities_are_unknown() {
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
    // The service is none the wiser: its own database is still the embedded one.
    assert!(settings.embedded);
    let audit = settings.audit;
    assert!(audit.sqlite_path().is_none());
    assert_eq!(audit.url.as_deref(), Some("https://rekey.example:8443"));
    assert_eq!(audit.public_key, Some(key));
    assert!(!format!("{audit:?}").contains(CANARY));
    for (name, bad) in [
        ("URL", "ftp://host"),
        ("URL", "http://user:canary@host"),
        ("URL", "http://host?canary"),
        ("TOKEN", "two canaries"),
        ("TOKEN", "canary\n"),
        ("PUBLIC_KEY", "canary"),
        ("PUBLIC_KEY", KEY),
        ("DATABASE_URL", "mysql://canary"),
        ("COMPARE_SECONDS", "0"),
    ] {
        let variable = format!("REKEY__AUDIT__{name}");
        let faults = faults([(variable.as_str(), bad)]);
        let setting = format!("audit.{}", name.to_lowercase());
        let begin = format!("{setting} (environment variable {variable}): allowed is ");
        assert!(faults.starts_with(&begin), "{faults}");
        assert!(!faults.contains(CANARY), "{faults}");
    }
}

#[test]
fn a_known_section_may_be_empty() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder, "rekey.toml", "[server]\n[presets]\n");
    Settings::read(&Sources {
        config_file: Some(path),
        ..Sources::default()
    })
    .unwrap();
}

#[test]
fn settings_may_not_contradict_each_other() {
    assert_eq!(
        faults([("REKEY__COMMIT__TIMEOUT_MS", "4000")]),
        "commit.timeout_ms (environment variable REKEY__COMMIT__TIMEOUT_MS): \
         allowed is less than commit.watchdog_ms (default)"
    );
    assert_eq!(
        faults([("REKEY__HTTP__TIMEOUT_MS", "4000")]),
        "http.timeout_ms (environment variable REKEY__HTTP__TIMEOUT_MS): \
         allowed is more than commit.watchdog_ms (default)"
    );
    assert_eq!(
        faults([("REKEY__DATABASE__TIMEOUT_MS", "1999")]),
        "database.timeout_ms (environment variable REKEY__DATABASE__TIMEOUT_MS): \
         allowed is at least database.idle_in_transaction_ms (default)"
    );
    assert_eq!(
        faults([("REKEY__DATABASE__TIMEOUT_MS", "5000")]),
        "database.timeout_ms (environment variable REKEY__DATABASE__TIMEOUT_MS): \
         allowed is less than commit.watchdog_ms (default)"
    );
    read([("REKEY__DATABASE__TIMEOUT_MS", "2000")]);
}

#[test]
fn the_key_ring_has_one_source() {
    let key = format!("main:{KEY}");
    assert_eq!(
        faults([
            ("REKEY__KEYRING__KEYS", key.as_str()),
            ("REKEY__KEYRING__PATH", "ring.json")
        ]),
        "keyring.keys (environment variable REKEY__KEYRING__KEYS): allowed is only one of \
         keyring.keys and keyring.path (environment variable REKEY__KEYRING__PATH)"
    );
    let keys = read([("REKEY__KEYRING__KEYS", key.as_str())])
        .keyring
        .keys
        .unwrap();
    assert_eq!(keys.first().unwrap().expose_secret(), key);
    let empty = [
        ("REKEY__KEYRING__KEYS", ""),
        ("REKEY__KEYRING__PATH", "ring.json"),
    ];
    assert!(read(empty).keyring.keys.is_none());
    let twice = format!("{key},{key}");
    assert!(faults([("REKEY__KEYRING__KEYS", twice.as_str())]).contains("each ID once"));
}

#[test]
fn all_faults_are_reported_together() {
    let folder = TempDir::new().unwrap();
    let broken = file(&folder, "config/broken.toml", "[server]\nport = \n");
    let secret = folder.path().join("absent");
    let mut sources = Sources::variables([
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
    assert_eq!(error.faults().len(), 8);
    let expected = format!(
        "file {}, line 2: not valid TOML\n\
         file /nowhere/rekey.toml: cannot be read: No such file or directory (os error 2)\n\
         database.url (environment variable REKEY__DATABASE__URL__FILE): \
         cannot read {}: No such file or directory (os error 2)\n\
         server.port (environment variable REKEY__SERVER__PORT): \
         environment variable REKEY__SERVER__PORT__FILE is set too; allowed is one of them\n\
         server.port (environment variable REKEY__SERVER__PORT__FILE): \
         allowed is a whole number from 0 to 65535\n\
         limits.burst (environment variable REKEY__LIMITS__BURST): \
         allowed is a whole number from 1 to 1000000\n\
         commit.timeout_ms (environment variable REKEY__COMMIT__TIMEOUT_MS): \
         allowed is less than commit.watchdog_ms (default)\n\
         colour (environment variable REKEY__COLOUR): unknown setting",
        broken.display(),
        secret.display()
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_file_can_hold_a_value() {
    let folder = TempDir::new().unwrap();
    for (text, url) in [
        ("postgres://db/a", "postgres://db/a"),
        ("postgres://db/a\n", "postgres://db/a"),
        ("postgres://db/a\r\n", "postgres://db/a"),
    ] {
        let path = file(&folder, "url", text);
        let variable = ("REKEY__DATABASE__URL__FILE", path.to_str().unwrap());
        let settings = read([variable]);
        assert_eq!(settings.database.url.expose_secret(), url);
        assert_eq!(settings.database.kind(), DatabaseKind::Postgres);
        assert!(settings.database.sqlite_path().is_none());
        assert!(!settings.embedded);
    }
    let path = file(&folder, "url", "postgres://db/a\n\n");
    faults([("REKEY__DATABASE__URL__FILE", path.to_str().unwrap())]);
    let port = file(&folder, "port", "99\n");
    assert_eq!(
        read([("REKEY__SERVER__PORT__FILE", port.to_str().unwrap())])
            .server
            .port,
        99
    );
}

#[test]
fn lists_are_comma_separated_in_the_environment() {
    let proxies = |text| {
        let proxies = read([("REKEY__HTTP__TRUSTED_PROXIES", text)])
            .http
            .trusted_proxies;
        proxies.iter().map(IpNet::to_string).collect::<Vec<_>>()
    };
    assert_eq!(proxies(""), [""; 0]);
    assert_eq!(proxies("10.0.0.0/8, ::1"), ["10.0.0.0/8", "::1/128"]);
    faults([("REKEY__HTTP__TRUSTED_PROXIES", "10.0.0.0/8,")]);
    let clients = read([("REKEY__HTTP__MIN_CLIENT_VERSIONS", "a/1.2.3,b/0.0.1")]);
    let versions: Vec<_> = clients
        .http
        .min_client_versions
        .iter()
        .map(|one| one.version)
        .collect();
    assert_eq!(versions, [(1, 2, 3), (0, 0, 1)]);
    faults([("REKEY__HTTP__MIN_CLIENT_VERSIONS", "a/1.2.3,a/1.2.4")]);
}

#[test]
fn a_trusted_proxy_is_known_in_ipv6_form_too() {
    let http = read([("REKEY__HTTP__TRUSTED_PROXIES", "10.0.0.0/8")]).http;
    assert!(http.trusts("10.1.1.1".parse().unwrap()));
    assert!(http.trusts("::ffff:10.1.1.1".parse().unwrap()));
    assert!(!http.trusts("11.1.1.1".parse().unwrap()));
}

#[test]
fn presets_keep_the_order_of_their_declaration() {
    let folder = TempDir::new().unwrap();
    let text = "[presets]\nzebra = 'zebra_key'\ngithub = ''\nanthropic = 'CLAUDE_KEY'\nalpha = 'A'";
    let sources = Sources {
        config_file: Some(file(&folder, "rekey.toml", text)),
        ..Sources::variables([
            ("REKEY__PRESETS__MIS__TRAL", "MISTRAL_API_KEY"),
            ("REKEY__PRESETS__ACME", "ACME_KEY"),
        ])
    };
    let presets = Settings::read(&sources).unwrap().presets;
    let presets: Vec<_> = presets
        .iter()
        .map(|one| (one.provider.as_str(), one.name.as_str()))
        .collect();
    let expected = [
        ("openai", "OPENAI_API_KEY"),
        ("anthropic", "CLAUDE_KEY"),
        ("tinker", "TINKER_API_KEY"),
        ("zebra", "ZEBRA_KEY"),
        ("alpha", "A"),
        ("acme", "ACME_KEY"),
        ("mis__tral", "MISTRAL_API_KEY"),
    ];
    assert_eq!(presets, expected);
}

#[test]
fn presets_are_providers_with_names_that_are_free() {
    let faults = faults_of_file("[presets]\nBad = 'A'\ngood = '1'\nother = 'ld_preload'");
    let lines: Vec<&str> = faults.lines().collect();
    assert!(
        lines[0].starts_with("presets.Bad (file rekey.toml): allowed is a provider of 1 to 64")
    );
    assert!(lines[1].starts_with("presets.good (file rekey.toml): allowed is empty, or 1 to 255"));
    assert!(lines[2].starts_with("presets.other (file rekey.toml): allowed is empty, or 1 to 255"));
    assert_eq!(lines.len(), 3);
}

#[test]
fn the_embedded_default_is_on_while_nobody_says_where() {
    assert!(read([]).embedded);
    assert!(read([("REKEY__SERVER__PORT", "0")]).embedded);
    let key = format!("main:{KEY}");
    for variable in [
        ("REKEY__DATABASE__URL", "sqlite://data/rekey.db"),
        ("REKEY__KEYRING__PATH", "data/keyring.json"),
        ("REKEY__KEYRING__KEYS", key.as_str()),
        ("REKEY__KEYRING__KEYS", ""),
    ] {
        assert!(!read([variable]).embedded, "{}", variable.0);
    }
    let settings = read([]);
    assert_eq!(settings.database.kind(), DatabaseKind::Sqlite);
    assert_eq!(
        settings.database.sqlite_path(),
        Some(Path::new("data/rekey.db"))
    );
}

#[test]
fn debug_shows_no_secret() {
    let key = format!("main:{KEY}");
    let settings = read([
        ("REKEY__DATABASE__URL", "postgres://me:canary@db/rekey"),
        ("REKEY__BROKER__URL", "amqp://me:canary@mq"),
        (
            "REKEY__AUDIT__DATABASE_URL",
            "postgres://me:canary@db/audit",
        ),
        ("REKEY__AUDIT__TOKEN", "canary"),
        ("REKEY__KEYRING__KEYS", key.as_str()),
    ]);
    let shown = format!("{settings:?} {settings:#?}");
    assert!(!shown.contains(CANARY) && !shown.contains(KEY), "{shown}");
    assert_eq!(shown.matches("[REDACTED]").count(), 10, "{shown}");
}

#[test]
fn faults_show_no_value() {
    let mut variables = vec![
        ("REKEY__DATABASE__URL__FILE", "postgres://me:canary@db"),
        ("REKEY__BROKER__URL", "canary"),
        ("REKEY__KEYRING__KEYS", "main:canary"),
        ("REKEY__PRESETS__OPENAI", "1canary"),
        ("REKEY__NOTHING", "canary"),
    ];
    let keys = documented_variables();
    variables.extend(keys.iter().map(|name| (name.as_str(), "1canary:\0")));
    let error = Settings::read(&Sources::variables(variables)).unwrap_err();
    let shown = format!("{error} {error:?} {error:#?}");
    assert!(!shown.contains(CANARY), "{shown}");
    for broken in [
        "canary",
        "[broker]\nurl = \"canary",
        "[broker]\nurl = canary",
        "canary = 99999999999999999999",
        "canary = 1\ncanary = 2",
        "canary = 1e999999",
        "[server]\nhost = 'canary canary'\nport = 'canary'",
    ] {
        let shown = faults_of_file(broken).replace("canary (file", "");
        assert!(!shown.contains(CANARY), "{shown}");
    }
}

#[test]
fn what_is_no_toml_is_named_by_file_and_line() {
    assert_eq!(
        faults_of_file("\n\n[server"),
        "file rekey.toml, line 3: not valid TOML"
    );
    assert_eq!(
        faults_of_file("a = 1\na = 2"),
        "file rekey.toml, line 2: not valid TOML"
    );
    assert_eq!(
        faults_of_file("server.port = 99999999999999999999"),
        "file rekey.toml: a number in it is larger than any setting allows"
    );
}

#[test]
fn rekey_env_is_a_name_and_its_file_must_be_there() {
    assert_eq!(
        faults([("REKEY_ENV", "../secrets")]),
        "REKEY_ENV (environment variable REKEY_ENV): allowed is a name of letters, digits, _ and -"
    );
    let faults = faults([("REKEY_ENV", "absent")]);
    assert!(
        faults.starts_with("file config/absent.toml: cannot be read: "),
        "{faults}"
    );
}

#[cfg(unix)]
#[test]
fn values_are_utf_8() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    let mut sources = Sources::default();
    let value = OsString::from_vec(b"canary\xff".to_vec());
    sources
        .environment
        .push(("REKEY__SERVER__HOST".into(), value));
    assert_eq!(
        Settings::read(&sources).unwrap_err().to_string(),
        "server.host (environment variable REKEY__SERVER__HOST): allowed is text in UTF-8"
    );
}

fn default_keys() -> Vec<String> {
    let leaves = collect(&Sources::default()).leaves;
    leaves.into_iter().map(|leaf| leaf.key).collect()
}

/// The variable of each key in `default.toml`.
fn documented_variables() -> Vec<String> {
    let variable = |key: &String| format!("REKEY__{}", key.to_uppercase().replacen('.', "__", 1));
    default_keys().iter().map(variable).collect()
}

/// A key that is not read is an unknown one, one that is not there a refused one.
#[test]
fn the_default_file_has_exactly_the_keys_that_are_read() {
    read([]);
    let keys = default_keys();
    assert_eq!(keys.len(), 40 + 4);
    for key in &keys {
        let mut collected = collect(&Sources::default());
        collected.leaves.retain(|leaf| leaf.key != *key);
        let mut reader = reader::Reader::new(collected);
        let complete = sections::read(&mut reader).is_some();
        assert_eq!(complete, key.starts_with("presets."), "{key}");
    }
}

/// The rule in a fault stands in the comment above its key, word for word.
#[test]
fn the_default_file_documents_what_is_allowed() {
    let variables = documented_variables();
    let variables = variables.iter().map(|name| (name.as_str(), "1:\0"));
    let error = Settings::read(&Sources::variables(variables)).unwrap_err();
    assert_eq!(error.faults().len(), default_keys().len());
    for fault in error.faults() {
        let Fault::Refused { key, allowed, .. } = fault else {
            panic!("{fault}")
        };
        let (section, name) = key.split_once('.').unwrap();
        let text = default_text().split_once(&format!("\n[{section}]\n"));
        let (before, after) = text.unwrap();
        let comment = if section == "presets" {
            before
        } else {
            after.split_once(&format!("\n{name} = ")).unwrap().0
        };
        let last = comment.lines().last().unwrap();
        assert_eq!(
            last,
            format!("# Allowed: {}.", allowed.trim_end_matches('.')),
            "{key}"
        );
    }
}

#[test]
fn values_given_have_no_debug() {
    // `Given` and `Sources` hold values in the clear: deriving `Debug` would show them.
    trait Silent {
        const SILENT: bool = true;
    }
    impl<T> Silent for T {}
    struct Asked<T>(std::marker::PhantomData<T>);
    impl<T: fmt::Debug> Asked<T> {
        #[expect(dead_code, reason = "chosen only where the type can be printed")]
        const SILENT: bool = false;
    }
    const { assert!(Asked::<Given>::SILENT && Asked::<Sources>::SILENT) };
}
