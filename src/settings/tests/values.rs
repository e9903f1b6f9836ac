//! What each setting accepts and refuses; no value in a fault or a `Debug`; a default file that documents all rules.

use super::*;

#[test]
fn debug_shows_no_secret() {
    let settings = read(&[
        "REKEY__DATABASE__URL=postgres://me:canary@db/rekey",
        "REKEY__BROKER__URL=amqps://me:canary@mq",
        "REKEY__AUDIT__DATABASE_URL=postgres://me:canary@db/audit",
        "REKEY__AUDIT__TOKEN=canary",
        &format!("REKEY__KEYRING__KEYS=main:{KEY}"),
    ]);
    let sealed = read(&["REKEY__KEYRING__PASSPHRASE=canary canary"]);
    assert!(!format!("{sealed:?}").contains(CANARY));
    let shown = format!("{settings:?} {settings:#?}");
    assert!(!shown.contains(CANARY) && !shown.contains(KEY), "{shown}");
    assert_eq!(shown.matches("[REDACTED]").count(), 10, "{shown}");
}

#[test]
fn faults_show_no_value() {
    let mut variables = documented_variables("1canary:\0");
    let more = "REKEY__DATABASE__URL__FILE=postgres://me:canary@db REKEY__BROKER__URL=canary \
        REKEY__KEYRING__KEYS=main:canary REKEY__PRESETS__OPENAI=1canary REKEY__NOTHING=canary";
    variables.extend(more.split(' ').map(str::to_owned));
    let error = Settings::read(&given(&variables).1).unwrap_err();
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
        let shown = faults(&[broken]).replace("canary (file", "");
        assert!(!shown.contains(CANARY), "{shown}");
    }
}

#[test]
fn values_are_utf_8() {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

    let value = OsString::from_vec(b"canary\xff".to_vec());
    let mut sources = Sources::default();
    sources
        .environment
        .insert("REKEY__SERVER__HOST".into(), value);
    assert_eq!(
        Settings::read(&sources).unwrap_err().to_string(),
        "server.host (environment variable REKEY__SERVER__HOST): must be text in UTF-8"
    );
}

/// The variable of each key in `default.toml`, with this value.
fn documented_variables(value: &str) -> Vec<String> {
    let defaults = layers::collect(&Sources::default()).defaults;
    let name = |key: &String| key.to_uppercase().replacen('.', "__", 1);
    let variable = |key| format!("REKEY__{}={value}", name(key));
    defaults.keys().map(variable).collect()
}

/// Each setting of `default.toml` is read, by the rule in the comment above its key, word for word. (One that
/// is read and not there could not start the service at all.)
#[test]
fn the_default_file_documents_what_must_hold() {
    let variables = documented_variables("1:\0");
    assert_eq!(variables.len(), 59 + 4);
    let error = Settings::read(&given(&variables).1).unwrap_err();
    assert_eq!(error.faults.len(), 59 + 4);
    for fault in &error.faults {
        let (key, rule) = fault.split_once(" (environment variable ").unwrap();
        let (_, rule) = rule.split_once("): must be ").unwrap();
        let (section, name) = key.split_once('.').unwrap();
        let (before, after) = DEFAULT.split_once(&format!("\n[{section}]\n")).unwrap();
        let comment = match section {
            "presets" => before,
            _ => after.split_once(&format!("\n{name} = ")).unwrap().0,
        };
        let rule = format!("# Must be {}.", rule.trim_end_matches('.'));
        assert_eq!(comment.lines().last().unwrap(), rule, "{key}");
    }
}

#[test]
fn sources_have_no_debug() {
    // `Sources` holds values in the clear: deriving `Debug` would show them.
    trait Silent {
        const SILENT: bool = true;
    }
    impl<T> Silent for T {}
    struct Asked<T>(std::marker::PhantomData<T>);
    impl<T: std::fmt::Debug> Asked<T> {
        #[expect(dead_code, reason = "chosen only where the type can be printed")]
        const SILENT: bool = false;
    }
    const { assert!(Asked::<Sources>::SILENT && Asked::<layers::SettingReader>::SILENT) };
}

/// What each setting accepts (✓) and refuses (✗), divided by `|`.
#[test]
fn each_setting_has_its_values() {
    let words = [
        ("{key}", format!("k-1:{KEY}")),
        ("{base64}", KEY.to_owned()),
        ("{unpadded}", KEY.trim_end_matches('=').to_owned()),
        ("{33}", "k".repeat(33)),
        ("{65}", "A".repeat(65)),
        ("{128}", "a".repeat(128)),
        ("{256}", "A".repeat(256)),
    ];
    for row in [
        "SERVER__PORT ✓ 0|65535 ✗ |+1| 1|1 |1_000|0x10|1.0|-1",
        "HTTP__REQUIRE_TLS ✓ true|false ✗ |1|True|on",
        "SERVER__HOST ✓ 127.0.0.1|::1|[::1]|localhost \
         ✗ |[127.0.0.1]|256.0.0.1|a b|a..b|-a|http://a|a:80",
        "DATABASE__URL ✓ sqlite://data/rekey.db|sqlite:///srv/rekey.db|\
         postgres://me:secret@db/rekey?sslmode=disable|postgresql://db/rekey|\
         postgres:///rekey?host=/run/postgresql \
         ✗ |data/rekey.db|sqlite://|sqlite::memory:|sqlite://:memory:|sqlite://a?mode=memory|\
         sqlite:////a|sqlite://data/|mysql://db/rekey|postgres:db| postgres://db",
        "BROKER__URL ✓ |amqp://127.0.0.1|amqps://me:secret@mq/%2f \
         ✗ amqp:mq|http://mq|amqp://m q",
        "BROKER__EXCHANGE ✓ secrets.events ✗ |amq.topic|a b|{128}",
        "KEYRING__KEYS ✓ |{key} ✗ {base64}|:{base64}|K:{base64}|{33}:{base64}|k:{unpadded}|\
         k: {base64}|k:Y2FuYXJ5|{key},{key}",
        "LIMITS__RESERVED_NAMES ✓ |PATH|ld_*,path|*_proxy ✗ 1A|A-B|Ä|{256}|*|**|A*B|*A*|*-A",
        "PRESETS__0-A_B ✓ openai_key| ✗ 1A|A-B|Ä|{256}|ld_preload|Path",
        "PRESETS__{65} ✗ A",
        "PRESETS__-A ✗ A",
        "PRESETS___A ✗ A",
        "PRESETS__A.B ✗ A",
        "HTTP__MIN_CLIENT_VERSIONS ✓ |rekey-cli/1.20.3|a/1.2.3,b/0.0.1 \
         ✗ a|a/1.2|a/1.2.3.4|a/1.2.+3|a/1.2.x|/1.2.3|a b/1.2.3|a/1.2.3,a/1.2.4",
        "HTTP__TRUSTED_PROXIES ✓ |10.1.2.3/8|10.1.2.3|::1|10.0.0.0/8, ::1 \
         ✗ proxy|10.0.0.0/33|10.0.0.0/8,",
        "HTTP__CORS_ORIGINS ✓ |https://app.example|http://localhost:3000 \
         ✗ *|null|https://a/|https://A|https://a:443|https://u@a|ftp://a",
        "AUDIT__URL ✓ |http://host ✗ ftp://host|http://user:canary@host|http://host?canary",
        "AUDIT__TOKEN ✓ |canary ✗ two canaries|canary\n",
        "AUDIT__PUBLIC_KEY ✓  ✗ canary|{base64}",
        "AUDIT__DATABASE_URL ✓ sqlite://a ✗ mysql://canary",
        "AUDIT__COMPARE_SECONDS ✓ 1|3600 ✗ 0|3601",
    ] {
        let fill = |row: String, (word, text): &(&str, String)| row.replace(word, text);
        let row = words.iter().fold(row.to_owned(), fill);
        let (rest, bad) = row.split_once(" ✗ ").unwrap();
        let (name, good) = rest
            .split_once(" ✓ ")
            .map_or((rest, None), |(name, good)| (name, Some(good)));
        for value in good.into_iter().flat_map(|good| good.split('|')) {
            read(&[&format!("REKEY__{name}={value}")]);
        }
        let setting = name.replacen("__", ".", 1).to_lowercase();
        let begin = format!("{setting} (environment variable REKEY__{name}): must be ");
        for value in bad.split('|') {
            let faults = faults(&[&format!("REKEY__{name}={value}")]);
            assert!(faults.starts_with(&begin), "{value}: {faults}");
            assert_eq!(faults.lines().count(), 1, "{faults}");
            assert!(!faults.contains(CANARY), "{faults}");
        }
    }
}

#[test]
fn values_are_read_in_one_form() {
    for (given, host) in [("[::1]", "::1"), ("::1", "::1"), ("localhost", "localhost")] {
        let settings = read(&[&format!("REKEY__SERVER__HOST={given}")]);
        assert_eq!(settings.server.host, host);
    }
    let keyring = read(&[&format!("REKEY__KEYRING__KEYS=k-1:{KEY}")]).keyring;
    assert_eq!(keyring.keys[0].expose_secret(), format!("k-1:{KEY}"));
    let limits = read(&["REKEY__LIMITS__RESERVED_NAMES=ld_*,PATH,*_proxy"]).limits;
    let covers = |name| limits.reserved_names.iter().any(|one| one.covers(name));
    assert!(covers("LD_PRELOAD") && covers("PATH") && covers("HTTP_PROXY"));
    assert!(!covers("OLD_LD_") && !covers("PATHS") && !covers("PROXY_") && !covers("NOPROXY"));
    let networks = |given: &str| {
        let http = read(&[&format!("REKEY__HTTP__TRUSTED_PROXIES={given}")]).http;
        format!("{:?}", http.trusted_proxies)
    };
    assert_eq!(networks(""), "[]");
    let several = networks("10.1.2.3/8, 10.1.2.3,::1");
    assert_eq!(several, "[10.0.0.0/8, 10.1.2.3/32, ::1/128]");
    let http = read(&["REKEY__HTTP__MIN_CLIENT_VERSIONS=rekey-cli/1.20.3,b/0.0.1"]).http;
    let version_of = |one: &ClientVersion| (one.name.clone(), one.version);
    let clients: Vec<_> = http.min_client_versions.iter().map(version_of).collect();
    let expected = [("rekey-cli".into(), (1, 20, 3)), ("b".into(), (0, 0, 1))];
    assert_eq!(clients, expected);
    let http = read(&["REKEY__HTTP__TRUSTED_PROXIES=10.0.0.0/8"]).http;
    assert!(http.trusts("10.1.1.1".parse().unwrap()));
    assert!(http.trusts("::ffff:10.1.1.1".parse().unwrap()));
    assert!(!http.trusts("11.1.1.1".parse().unwrap()));
}

#[test]
fn an_idle_connection_is_kept_for_a_second_to_an_hour() {
    let variable = |seconds: &str| format!("REKEY__SERVER__KEEP_ALIVE_SECONDS={seconds}");
    for (seconds, good) in [("1", true), ("3600", true), ("0", false), ("3601", false)] {
        let taken = Settings::read(&given(&[&variable(seconds)]).1);
        assert_eq!(taken.is_ok(), good, "{seconds}");
    }
    assert_eq!(read(&[]).server.keep_alive.as_secs(), 75);
}

#[test]
fn json_web_tokens_need_keys_over_tls_an_issuer_and_an_audience() {
    let of = |lines: &[&str]| {
        let lines: Vec<_> = lines
            .iter()
            .map(|line| format!("REKEY__AUTH__{line}"))
            .collect();
        faults(&lines.iter().map(String::as_str).collect::<Vec<_>>())
    };
    for url in [
        "issuer.example",
        "http://issuer.example/canary",
        "https://canary:a@issuer.example",
        "ftp://localhost/a",
    ] {
        let faults = of(&[&format!("JWKS_URL={url}")]);
        assert!(
            faults.starts_with("auth.jwks_url ") && !faults.contains(CANARY),
            "{faults}"
        );
    }
    for claims in [
        "sub=canary",
        "sub=canary -> ",
        "canary -> a secrets:read",
        "sub= -> a secrets:read",
        "sub=* -> a secrets:read",
        "sub=a -> canary",
        "sub=a -> a all",
        "sub=a -> _ secrets:read",
    ] {
        let faults = of(&[&format!("CLAIMS={claims}")]);
        assert!(
            faults.starts_with("auth.claims ") && !faults.contains(CANARY),
            "{faults}"
        );
    }
    let all = [
        "JWKS_URL=http://[::1]/keys",
        "ISSUER=i",
        "AUDIENCE=a",
        "CLAIMS=sub=a=b -> c -> alice secrets:read",
    ];
    let lines = all.map(|line| format!("REKEY__AUTH__{line}"));
    let auth = read(&lines.each_ref().map(String::as_str)).auth;
    let [claim] = &auth.claims[..] else {
        panic!("{auth:?}");
    };
    assert_eq!(
        (claim.claim.as_str(), claim.value.as_str()),
        ("sub", "a=b -> c")
    );
    assert!(of(&all[..1]).contains("auth.issuer ") && of(&all[..1]).contains("auth.audience "));
    assert!(of(&all[1..2]).starts_with("auth.issuer "));
    assert!(of(&all[3..]).starts_with("auth.claims "));
    assert!(of(&["JWKS_PATH=a", all[0], all[1], all[2]]).starts_with("auth.jwks_url "));
}
