//! What each setting accepts and refuses, and in which form values are read.

use super::*;

#[test]
#[expect(clippy::too_many_lines, reason = "one table of settings and values")]
fn each_setting_has_its_values() {
    let long = |letter: &str, count| letter.repeat(count);
    let (exchange, provider, name) = (long("a", 128), long("a", 65), long("A", 256));
    let key = format!("k-1:{KEY}");
    let keys = [
        KEY.to_owned(),
        format!(":{KEY}"),
        format!("K:{KEY}"),
        format!("{}:{KEY}", long("k", 33)),
        format!("k:{}", KEY.trim_end_matches('=')),
        format!("k: {KEY}"),
        "k:Y2FuYXJ5".to_owned(),
        format!("{key},{key}"),
    ];
    let keys = keys.each_ref().map(String::as_str);
    let (preset, bad_preset) = (
        "PRESETS__0-A_B",
        format!("PRESETS__{}", provider.to_uppercase()),
    );
    let rows: &[(&str, &[&str], &[&str])] = &[
        (
            "SERVER__PORT",
            &["0", "65535"],
            &["", "+1", " 1", "1 ", "1_000", "0x10", "1.0", "-1"],
        ),
        (
            "HTTP__REQUIRE_TLS",
            &["true", "false"],
            &["", "1", "True", "on"],
        ),
        (
            "SERVER__HOST",
            &["127.0.0.1", "::1", "[::1]", "localhost", "rekey-1.internal"],
            &[
                "",
                "[127.0.0.1]",
                "256.0.0.1",
                "a b",
                "a..b",
                "-a",
                "http://a",
                "a:80",
            ],
        ),
        (
            "DATABASE__URL",
            &[
                "sqlite://data/rekey.db",
                "sqlite:///srv/rekey.db",
                "postgres://me:secret@db/rekey?sslmode=disable",
                "postgresql://db/rekey",
                "postgres:///rekey?host=/run/postgresql",
            ],
            &[
                "",
                "data/rekey.db",
                "sqlite://",
                "sqlite::memory:",
                "sqlite://:memory:",
                "sqlite://a?mode=memory",
                "sqlite:////a",
                "sqlite://data/",
                "mysql://db/rekey",
                "postgres:db",
                " postgres://db",
            ],
        ),
        (
            "BROKER__URL",
            &["", "amqp://mq", "amqps://me:secret@mq/%2f"],
            &["amqp:mq", "amqp://", "http://mq", "amqp://m q"],
        ),
        (
            "BROKER__EXCHANGE",
            &["secrets.events"],
            &["", "amq.topic", "a b", &exchange],
        ),
        ("KEYRING__KEYS", &["", &key], &keys),
        (
            "LIMITS__RESERVED_NAMES",
            &["", "PATH", "ld_*,path"],
            &["1A", "A-B", "Ä", &name, "*", "A*B"],
        ),
        (
            preset,
            &["openai_key", ""],
            &["1A", "A-B", "Ä", &name, "ld_preload", "Path"],
        ),
        (&bad_preset, &[], &["A"]),
        ("PRESETS__-A", &[], &["A"]),
        ("PRESETS___A", &[], &["A"]),
        ("PRESETS__A.B", &[], &["A"]),
        (
            "HTTP__MIN_CLIENT_VERSIONS",
            &["", "rekey-cli/1.20.3", "a/1.2.3,b/0.0.1"],
            &[
                "a",
                "a/1.2",
                "a/1.2.3.4",
                "a/1.2.+3",
                "a/1.2.x",
                "/1.2.3",
                "a b/1.2.3",
                "a/1.2.3,a/1.2.4",
            ],
        ),
        (
            "HTTP__TRUSTED_PROXIES",
            &["", "10.1.2.3/8", "10.1.2.3", "::1", "10.0.0.0/8, ::1"],
            &["proxy", "10.0.0.0/33", "10.0.0.0/8,"],
        ),
        (
            "HTTP__CORS_ORIGINS",
            &["", "https://app.example", "http://localhost:3000"],
            &[
                "*",
                "null",
                "https://a/",
                "https://A",
                "https://a:443",
                "https://u@a",
                "ftp://a",
            ],
        ),
        (
            "AUDIT__URL",
            &["", "http://host"],
            &[
                "ftp://host",
                "http://user:canary@host",
                "http://host?canary",
            ],
        ),
        (
            "AUDIT__TOKEN",
            &["", "canary"],
            &["two canaries", "canary\n"],
        ),
        ("AUDIT__PUBLIC_KEY", &[""], &["canary", KEY]),
        ("AUDIT__DATABASE_URL", &["sqlite://a"], &["mysql://canary"]),
        ("AUDIT__COMPARE_SECONDS", &["1", "3600"], &["0", "3601"]),
    ];
    for (name, good, bad) in rows {
        let variable = format!("REKEY__{name}");
        for value in *good {
            read([(variable.as_str(), *value)]);
        }
        let setting = name.replacen("__", ".", 1).to_lowercase();
        let begin = format!("{setting} (environment variable {variable}): must be ");
        for value in *bad {
            let faults = faults([(variable.as_str(), *value)]);
            assert!(faults.starts_with(&begin), "{value}: {faults}");
            assert_eq!(faults.lines().count(), 1, "{faults}");
            assert!(!faults.contains(CANARY), "{faults}");
        }
    }
}

#[test]
fn values_are_read_in_one_form() {
    let hosts = [("[::1]", "::1"), ("::1", "::1"), ("localhost", "localhost")];
    for (given, host) in hosts {
        assert_eq!(read([("REKEY__SERVER__HOST", given)]).server.host, host);
    }
    let key = format!("k-1:{KEY}");
    let keys = read([("REKEY__KEYRING__KEYS", key.as_str())]).keyring.keys;
    assert_eq!(keys.first().unwrap().expose_secret(), key);
    let reserved = read([("REKEY__LIMITS__RESERVED_NAMES", "ld_*,PATH")])
        .limits
        .reserved_names;
    let covers = |name| reserved.iter().any(|one| one.covers(name));
    assert!(covers("LD_PRELOAD") && covers("PATH"));
    assert!(!covers("OLD_LD_") && !covers("PATHS"));
    let proxies = |text| {
        let proxies = read([("REKEY__HTTP__TRUSTED_PROXIES", text)])
            .http
            .trusted_proxies;
        proxies.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(proxies(""), [""; 0]);
    assert_eq!(
        proxies("10.1.2.3/8, 10.1.2.3,::1"),
        ["10.0.0.0/8", "10.1.2.3/32", "::1/128"]
    );
    let clients = read([(
        "REKEY__HTTP__MIN_CLIENT_VERSIONS",
        "rekey-cli/1.20.3,b/0.0.1",
    )]);
    let clients = clients.http.min_client_versions;
    let clients: Vec<_> = clients
        .iter()
        .map(|one| (one.name.as_str(), one.version))
        .collect();
    assert_eq!(clients, [("rekey-cli", (1, 20, 3)), ("b", (0, 0, 1))]);
    let http = read([("REKEY__HTTP__TRUSTED_PROXIES", "10.0.0.0/8")]).http;
    assert!(http.trusts("10.1.1.1".parse().unwrap()));
    assert!(http.trusts("::ffff:10.1.1.1".parse().unwrap()));
    assert!(!http.trusts("11.1.1.1".parse().unwrap()));
}
