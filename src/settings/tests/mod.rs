//! The contract of the settings, through the door that `Settings::load` takes too.

mod server_urls;
mod values;

use std::{fs, path::PathBuf, time::Duration};

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::{layers::DEFAULT, *};

/// 32 bytes, unlike any other text here.
const KEY: &str = "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5LWNhbmE=";
const CANARY: &str = "canary";

fn file(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

/// The sources that give these lines: `NAME=value` as a variable, all others in one file.
fn given<T: AsRef<str>>(lines: &[T]) -> (TempDir, Sources) {
    let is_variable = |line: &&str| line.starts_with(char::is_uppercase);
    let lines = lines.iter().map(AsRef::as_ref);
    let (variables, file_lines): (Vec<&str>, Vec<&str>) = lines.partition(is_variable);
    let variables = variables.iter().map(|line| line.split_once('=').unwrap());
    let folder = TempDir::new().unwrap();
    let text = file_lines.join("\n");
    let sources = Sources {
        environment: variables.map(|(a, b)| (a.into(), b.into())).collect(),
        config_file: (!text.is_empty()).then(|| file(&folder, "rekey.toml", &text)),
        folder: PathBuf::new(),
    };
    (folder, sources)
}

fn read(lines: &[&str]) -> Settings {
    let (_folder, sources) = given(lines);
    Settings::read(&sources).unwrap()
}

fn faults(lines: &[&str]) -> String {
    let (folder, sources) = given(lines);
    let error = Settings::read(&sources).unwrap_err();
    let before = format!("{}/", folder.path().display());
    error.to_string().replace(&before, "")
}

/// Compares the faults of each `given → faults`.
fn check_faults(cases: &[&str]) {
    for case in cases {
        let (given, expected) = case.split_once(" → ").unwrap();
        let lines: Vec<&str> = given.lines().collect();
        assert_eq!(faults(&lines), expected, "{given}");
    }
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let settings = read(&[]);
    let database = settings.database.url.expose_secret();
    assert_eq!(database, "sqlite://data/rekey.db");
    let shown = format!("{settings:?}");
    for part in [
        r#"server: ServerSettings { host: "127.0.0.1", port: 8080, tls_cert: None, tls_key: None, "#,
        "drain_delay: 0ns, keep_alive: 75s }",
        "max_connections: 10, timeout: 3s, idle_in_transaction: 2s }",
        r#"broker: BrokerSettings { url: None, exchange: "secrets.events" }"#,
        r#"keyring: KeyringSettings { path: "data/keyring.json", keys: [], passphrase: None }"#,
        "limits: LimitSettings { secrets_per_owner: 100, versions: 10, body_bytes: 524288, bodies_bytes: 67108864, ",
        "rate_per_second: 200, burst: 400, failed_per_minute: 30, connections: 10000, ",
        "streams_per_caller: 100, connections_per_address: 1000, body_time: 10s, reserved_names: [",
        "max_batch: 256, queue: 4096, queue_bytes: 67108864, queue_share_percent: 25, timeout: 2s, ",
        "http: HttpSettings { timeout: 8s, write_timeout: 30s, require_tls: false, min_client_versions: [], ",
        "activity: ActivitySettings { record: Commit, refusals_per_minute: 60, retain: Some(7776000s) }, ",
        "events: EventSettings { retain: None }, metrics: MetricsSettings { port: None }, ",
        "log: LogSettings { format: Auto }",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn later_sources_win() {
    let folder = TempDir::new().unwrap();
    let staging = "server.port = 1\nlimits.versions = 1\ncommit.queue = 1";
    file(&folder, "config/staging.toml", staging);
    for (name, number) in [("argument.toml", 2), ("named.toml", 3)] {
        let text = format!("server.port = {number}\nlimits.versions = {number}");
        file(&folder, name, &text);
    }
    let named = format!("REKEY_CONFIG={}/named.toml", folder.path().display());
    let (_, mut sources) = given(&["REKEY_ENV=staging", &named, "REKEY__SERVER__PORT=4"]);
    sources.folder = folder.path().to_owned();
    let numbers = |sources: &Sources| {
        let settings = Settings::read(sources).unwrap();
        let commit = settings.commit;
        let (port, versions) = (settings.server.port, settings.limits.versions);
        (port, versions, commit.queue, commit.max_batch)
    };
    assert_eq!(numbers(&sources), (4, 3, 1, 256));
    sources.config_file = Some(folder.path().join("argument.toml"));
    assert_eq!(numbers(&sources), (4, 2, 1, 256));
    sources.environment.retain(|name, _| name != "REKEY_ENV");
    assert_eq!(numbers(&sources), (4, 2, 4096, 256));
    sources.environment.clear();
    assert_eq!(numbers(&sources), (2, 2, 4096, 256));
}

#[test]
fn variables_that_are_no_settings_are_ignored() {
    let empty = "REKEY_ENV= REKEY_CONFIG= REKEY_TOKEN= REKEY_URL= REKEY_= PATH=";
    read(&empty.split(' ').collect::<Vec<_>>());
    let others = "REKEY_TOKEN=x REKEY_URL=http://localhost REKEYED__A=x";
    read(&others.split(' ').collect::<Vec<_>>());
}

#[test]
fn a_wrong_value_names_its_setting_its_source_and_its_rule() {
    check_faults(&[
        "REKEY__SERVER__PORT=65536 → server.port (environment variable REKEY__SERVER__PORT): \
         must be a whole number from 0 to 65535",
        "[server]\nport = 65536 → server.port (file rekey.toml): \
         must be a whole number from 0 to 65535",
    ]);
}

#[test]
fn a_file_that_is_no_source_is_named() {
    check_faults(&[
        "REKEY_ENV=../secrets → REKEY_ENV (environment variable REKEY_ENV): \
         must be a name of letters, digits, _ and -",
        "REKEY_ENV=absent → file config/absent.toml: cannot be read: \
         No such file or directory (os error 2)",
        "\n\n[server → file rekey.toml, line 3: not valid TOML",
        "a = 1\na = 2 → file rekey.toml, line 2: not valid TOML",
        "server.port = 99999999999999999999 → file rekey.toml: \
         a number in it is larger than any setting allows",
    ]);
}

#[test]
fn types_are_not_converted() {
    let wrong = "server.port = '8080'; server.port = 80.0; server.port = -1; server.port = true; \
        server.port.x = 1; server.host = 1; http.require_tls = 'true'; http.require_tls = 1; \
        http.trusted_proxies = '10.0.0.1'; http.trusted_proxies = [1]; presets.openai = 1; \
        broker.url = []";
    for wrong in wrong.split("; ") {
        let faults = faults(&[wrong]);
        let is_wrong = faults.contains("(file rekey.toml): must be ");
        assert!(is_wrong && faults.lines().count() == 1, "{wrong}: {faults}");
    }
    assert!(read(&["REKEY__HTTP__REQUIRE_TLS=true"]).http.require_tls);
}

#[test]
fn unknown_settings_are_refused() {
    check_faults(&[
        "server.prot = 1 → server.prot (file rekey.toml): \
         unknown setting; did you mean server.port?",
        "colour = 1 → colour (file rekey.toml): unknown setting",
        "[colour] → colour (file rekey.toml): unknown setting",
        "server = 1\npresets = 1 → server (file rekey.toml): must be a table of settings\n\
         presets (file rekey.toml): must be a table of settings",
        "REKEY__SERVER_PORT=1\nREKEY__Server__Port=1 → \
         server_port (environment variable REKEY__SERVER_PORT): \
         unknown setting; did you mean server.port?\n\
         Server.Port (environment variable REKEY__Server__Port): \
         unknown setting; did you mean server.port?",
        // Line breaks in names do not make lines.
        "\"a\\nb\" = 1 → a\\nb (file rekey.toml): unknown setting",
        // Settings of later capabilities.
        "adoption.ttl_hours = 1 → adoption.ttl_hours (file rekey.toml): unknown setting",
    ]);
    // Only the first pair of underscores divides.
    let preset = read(&["REKEY__PRESETS__A__B=X"]).presets.pop().unwrap();
    assert_eq!(preset.provider.as_str(), "a__b");
}

#[test]
fn the_audit_consumer_has_settings_of_its_own() {
    let audit = read(&[]).audit;
    assert_eq!(audit.sqlite_path(), Some(Path::new("data/audit.db")));
    assert!(audit.url.is_none() && audit.token.is_none() && audit.public_key.is_none());
    assert_eq!(audit.compare, Duration::from_secs(30));
    let key = format!("ed25519:{KEY}");
    let settings = read(&[
        "REKEY__AUDIT__DATABASE_URL=postgres://db/audit",
        "REKEY__AUDIT__URL=https://rekey.example:8443/",
        "REKEY__AUDIT__TOKEN=canary",
        &format!("REKEY__AUDIT__PUBLIC_KEY={key}"),
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
    read(&["[server]", "[presets]"]);
}

#[test]
fn settings_may_not_contradict_each_other() {
    let least = "at least database.idle_in_transaction_ms";
    for (setting, value, rule) in [
        ("commit.timeout_ms", 4000, "less than commit.watchdog_ms"),
        ("http.timeout_ms", 4000, "more than commit.watchdog_ms"),
        ("database.timeout_ms", 1999, least),
        ("database.timeout_ms", 5000, "less than commit.watchdog_ms"),
    ] {
        let variable = format!("REKEY__{}", setting.replace('.', "__").to_uppercase());
        let fault =
            format!("{setting} (environment variable {variable}): must be {rule} (default)");
        assert_eq!(faults(&[&format!("{variable}={value}")]), fault);
    }
    read(&["REKEY__DATABASE__TIMEOUT_MS=2000"]);
}

#[test]
fn an_address_that_is_open_to_the_network_needs_tls_or_a_word() {
    for host in ["0.0.0.0", "::", "10.0.0.5", "rekey-1.internal"] {
        let variable = format!("REKEY__SERVER__HOST={host}");
        let fault = faults(&[&variable]);
        let begin = "server.host (environment variable REKEY__SERVER__HOST): must be a loopback address unless";
        assert!(fault.starts_with(begin), "{fault}");
        assert_eq!(fault.lines().count(), 1, "{fault}");
        let settings = read(&[&variable, "REKEY__SERVER__PLAINTEXT=true"]);
        assert_eq!(settings.server.scheme(), "http");
        let settings = read(&[&variable, "[server]\ntls_cert = 'a'\ntls_key = 'b'"]);
        assert_eq!(settings.server.scheme(), "https");
    }
    check_faults(&[
        "[server]\ntls_cert = 'a' → \
         server.tls_cert (file rekey.toml): must be empty unless server.tls_key is set too",
        "[server]\ntls_key = 'a' → \
         server.tls_key (file rekey.toml): must be empty unless server.tls_cert is set too",
        "[server]\ntls_client_ca = 'a' → \
         server.tls_client_ca (file rekey.toml): must be empty unless server.tls_cert and server.tls_key are set too",
    ]);
}

#[test]
fn a_passphrase_is_long_and_for_a_file() {
    let key = format!("REKEY__KEYRING__KEYS=main:{KEY}");
    let variable = |text: &str| format!("REKEY__KEYRING__PASSPHRASE={text}");
    assert!(read(&[&variable("")]).keyring.passphrase.is_none());
    let taken = read(&[&variable("correct horse")]).keyring.passphrase;
    assert_eq!(taken.unwrap().expose_secret(), "correct horse");
    for bad in ["elevenchars", "correct\thorse", &"x".repeat(1_025)] {
        let said = faults(&[&variable(bad)]);
        assert!(said.contains("must be 12 to 1024 characters"), "{said}");
        assert!(!said.contains(bad), "{said}");
    }
    let both = faults(&[&key, &variable("correct horse")]);
    assert!(
        both.contains("must be empty where keyring.keys is set"),
        "{both}"
    );
}

#[test]
fn the_keyring_has_one_source() {
    let key = format!("REKEY__KEYRING__KEYS=main:{KEY}");
    let path = "REKEY__KEYRING__PATH=ring.json";
    assert_eq!(
        faults(&[&key, path]),
        "keyring.keys (environment variable REKEY__KEYRING__KEYS): must be empty where \
         keyring.path is set (environment variable REKEY__KEYRING__PATH)"
    );
    let keyring = read(&["REKEY__KEYRING__KEYS=", path]).keyring;
    assert!(keyring.keys.is_empty());
    assert!(faults(&[&format!("{key},main:{KEY}")]).contains("each ID once"));
}

#[test]
fn all_faults_are_reported_together() {
    let (folder, mut sources) = given(&[
        "REKEY_ENV=broken",
        "REKEY_CONFIG=/nowhere/rekey.toml",
        "REKEY__COLOUR=red",
        "REKEY__COMMIT__TIMEOUT_MS=5000",
        "REKEY__DATABASE__URL__FILE=/nowhere/url",
        "REKEY__LIMITS__BURST=0",
        "REKEY__SERVER__PORT=1",
        "REKEY__SERVER__PORT__FILE=/dev/null",
    ]);
    let broken = file(&folder, "config/broken.toml", "[server]\nport = \n");
    sources.folder = folder.path().to_owned();
    let error = Settings::read(&sources).unwrap_err();
    assert_eq!(error.faults.len(), 8);
    let expected = format!(
        "file {}, line 2: not valid TOML\n\
         file /nowhere/rekey.toml: cannot be read: No such file or directory (os error 2)\n\
         database.url (environment variable REKEY__DATABASE__URL__FILE): \
         cannot read /nowhere/url: No such file or directory (os error 2)\n\
         server.port (environment variable REKEY__SERVER__PORT): \
         environment variable REKEY__SERVER__PORT__FILE is set too; set only one of them\n\
         server.port (environment variable REKEY__SERVER__PORT__FILE): \
         must be a whole number from 0 to 65535\n\
         limits.burst (environment variable REKEY__LIMITS__BURST): \
         must be a whole number from 1 to 1000000\n\
         commit.timeout_ms (environment variable REKEY__COMMIT__TIMEOUT_MS): \
         must be less than commit.watchdog_ms (default)\n\
         colour (environment variable REKEY__COLOUR): unknown setting",
        broken.display()
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_file_can_hold_a_value() {
    let folder = TempDir::new().unwrap();
    let read_value = |setting: &str, text: &str| {
        let path = file(&folder, "value", text);
        let variable = format!("REKEY__{setting}__FILE={}", path.display());
        Settings::read(&given(&[&variable]).1)
    };
    let url = "postgres://db/a";
    for line_break in ["", "\n", "\r\n"] {
        let settings = read_value("DATABASE__URL", &format!("{url}{line_break}")).unwrap();
        let read = settings.database.url.expose_secret();
        assert!(read.starts_with("postgres://db/a?"), "{read}");
        assert!(settings.database.sqlite_path().is_none() && !settings.embedded);
    }
    for (setting, text) in [
        ("DATABASE__URL", format!("{url}\n\n")),
        ("DATABASE__URL", format!("{url}\r")),
        ("DATABASE__URL", format!("\n{url}\n")),
        ("AUDIT__TOKEN", "canary\r\n\r\n".to_owned()),
        ("KEYRING__KEYS", format!("a:{KEY},\nb:{KEY}\n")),
    ] {
        let said = read_value(setting, &text).unwrap_err().to_string();
        let (section, name) = setting.split_once("__").unwrap();
        let key = format!("{section}.{name}").to_lowercase();
        let expected = format!(
            "{key} (environment variable REKEY__{setting}__FILE): \
             must be one line, with at most one line break at its end"
        );
        assert_eq!(said, expected);
    }
    let settings = read_value("SERVER__PORT", "99\n").unwrap();
    assert_eq!(settings.server.port, 99);
}

#[test]
fn presets_keep_the_order_of_their_declaration() {
    let presets = read(&[
        "[presets]\nzebra = 'zebra_key'\ngithub = ''\nanthropic = 'CLAUDE_KEY'\nalpha = 'A'",
        "REKEY__PRESETS__MIS__TRAL=MISTRAL_API_KEY",
        "REKEY__PRESETS__ACME=ACME_KEY",
    ])
    .presets;
    let shown = |one: &Preset| format!("{}={}", one.provider.as_str(), one.name.as_str());
    let presets: Vec<String> = presets.iter().map(shown).collect();
    let expected = "openai=OPENAI_API_KEY anthropic=CLAUDE_KEY tinker=TINKER_API_KEY \
        zebra=ZEBRA_KEY alpha=A acme=ACME_KEY mis__tral=MISTRAL_API_KEY";
    assert_eq!(presets.join(" "), expected);
}

#[test]
fn presets_are_providers_with_names_that_are_free() {
    let faults = faults(&["[presets]\nBad = 'A'\ngood = '1'\nother = 'ld_preload'"]);
    let lines: Vec<&str> = faults.lines().collect();
    assert!(lines[0].starts_with("presets.Bad (file rekey.toml): must be a provider of 1 to 64"));
    assert!(lines[1].starts_with("presets.good (file rekey.toml): must be empty, or 1 to 255"));
    assert!(lines[2].starts_with("presets.other (file rekey.toml): must be empty, or 1 to 255"));
    assert_eq!(lines.len(), 3);
}

#[test]
fn names_that_steer_a_program_are_reserved_and_those_of_keys_are_not() {
    let reserved = names_reserved_by_default();
    let default = read(&[]).limits.reserved_names;
    assert_eq!(reserved, default);
    let covers = |name: &str| reserved.iter().any(|one| one.covers(name));
    let steering = "PATH HOME SHELL USER LOGNAME PWD OLDPWD IFS ENV BASH_ENV LD_PRELOAD DYLD_INSERT_LIBRARIES \
        NODE_OPTIONS PYTHONPATH PYTHONSTARTUP PERL5LIB PERL5OPT RUBYOPT RUBYLIB JAVA_TOOL_OPTIONS JDK_JAVA_OPTIONS \
        _JAVA_OPTIONS GIT_SSH_COMMAND SSH_ASKPASS SSL_CERT_FILE SSL_CERT_DIR HTTP_PROXY ALL_PROXY PROMPT_COMMAND PS4 \
        CDPATH GLIBC_TUNABLES GCONV_PATH LOCPATH NLSPATH TERMINFO TERMINFO_DIRS HOSTALIASES RES_OPTIONS REKEY_TOKEN \
        SHELLOPTS LUA_INIT PHPRC DOTNET_STARTUP_HOOKS CORECLR_PROFILER_PATH ERL_AFLAGS MAVEN_OPTS OPENSSL_CONF \
        NODE_EXTRA_CA_CERTS REQUESTS_CA_BUNDLE SSLKEYLOGFILE LESSOPEN EDITOR ASAN_OPTIONS";
    for name in steering.split_whitespace() {
        assert!(covers(name), "{name}");
    }
    let keys = "OPENAI_API_KEY GITHUB_TOKEN GITLAB_TOKEN NPM_TOKEN NODE_AUTH_TOKEN CARGO_REGISTRY_TOKEN PGPASSWORD \
        GEM_HOST_API_KEY DOCKER_PASSWORD AWS_SECRET_ACCESS_KEY DATABASE_URL SESSION_SECRET TWINE_PASSWORD PATHS_KEY";
    for name in keys.split_whitespace() {
        assert!(!covers(name), "{name}");
    }
}

#[test]
fn the_embedded_default_is_on_while_nothing_says_where() {
    assert!(read(&[]).embedded);
    assert!(read(&["REKEY__SERVER__PORT=0"]).embedded);
    for variable in [
        "REKEY__DATABASE__URL=sqlite://data/rekey.db",
        "REKEY__KEYRING__PATH=data/keyring.json",
        &format!("REKEY__KEYRING__KEYS=main:{KEY}"),
        "REKEY__KEYRING__KEYS=",
    ] {
        assert!(!read(&[variable]).embedded, "{variable}");
    }
    let database = read(&[]).database;
    assert_eq!(database.sqlite_path(), Some(Path::new("data/rekey.db")));
}
