//! No value in a fault or a `Debug`, and a default file that documents every rule.

use super::*;

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
    let error = Settings::read(&of_variables(variables)).unwrap_err();
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
fn a_file_that_is_not_toml_is_named_with_the_line() {
    for (text, fault) in [
        ("\n\n[server", ", line 3: not valid TOML"),
        ("a = 1\na = 2", ", line 2: not valid TOML"),
        (
            "server.port = 99999999999999999999",
            ": a number in it is larger than any setting allows",
        ),
    ] {
        assert_eq!(faults_of_file(text), format!("file rekey.toml{fault}"));
    }
}

#[test]
fn rekey_env_is_a_name_and_its_file_must_exist() {
    assert_eq!(
        faults([("REKEY_ENV", "../secrets")]),
        "REKEY_ENV (environment variable REKEY_ENV): must be a name of letters, digits, _ and -"
    );
    let faults = faults([("REKEY_ENV", "absent")]);
    assert!(
        faults.starts_with("file config/absent.toml: cannot be read: "),
        "{faults}"
    );
}

#[test]
fn values_are_utf_8() {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

    let value = OsString::from_vec(b"canary\xff".to_vec());
    let sources = Sources {
        environment: vec![("REKEY__SERVER__HOST".into(), value)],
        ..Sources::default()
    };
    assert_eq!(
        Settings::read(&sources).unwrap_err().to_string(),
        "server.host (environment variable REKEY__SERVER__HOST): must be text in UTF-8"
    );
}

/// The variable of each key in `default.toml`.
fn documented_variables() -> Vec<String> {
    let keys = layers::collect(&Sources::default()).defaults;
    let variable = |key: &String| format!("REKEY__{}", key.to_uppercase().replacen('.', "__", 1));
    keys.keys().map(variable).collect()
}

/// Each setting of `default.toml` is read, by the rule in the comment above its key, word for word. (One that
/// is read and not there could not start the service at all.)
#[test]
fn the_default_file_documents_what_must_hold() {
    let variables = documented_variables();
    assert_eq!(variables.len(), 40 + 4);
    let variables = variables.iter().map(|name| (name.as_str(), "1:\0"));
    let error = Settings::read(&of_variables(variables)).unwrap_err();
    assert_eq!(error.faults.len(), 40 + 4);
    for fault in &error.faults {
        let (key, rule) = fault.split_once(" (environment variable ").unwrap();
        let (_, rule) = rule.split_once("): must be ").unwrap();
        let (section, name) = key.split_once('.').unwrap();
        let (before, after) = DEFAULT.split_once(&format!("\n[{section}]\n")).unwrap();
        let comment = match section {
            "presets" => before,
            _ => after.split_once(&format!("\n{name} = ")).unwrap().0,
        };
        let last = comment.lines().last().unwrap();
        assert_eq!(
            last,
            format!("# Must be {}.", rule.trim_end_matches('.')),
            "{key}"
        );
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
