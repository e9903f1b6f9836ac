//! What a text must be to be a setting. In: the text. Out: the typed value, or `None`; the rule
//! in words stands where the setting is read (`sections.rs`).

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use secrecy::SecretString;
use url::Url;
use zeroize::Zeroizing;

use super::{ActivityRecord, ClientVersion, LogFormat, ReservedName};

const KEY_BYTES: usize = 32;

fn is_made_of(text: &str, longest: usize, letter: impl Fn(u8) -> bool) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(letter)
}

/// An IP address, IPv6 with or without brackets, or a host name (RFC 1123).
pub(super) fn host(text: &str) -> Option<String> {
    let bracketed = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    if let Some(address) = bracketed {
        return Some(address.parse::<Ipv6Addr>().ok()?.to_string());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let label = |label: &str| {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        is_made_of(label, 63, letter) && !label.starts_with('-') && !label.ends_with('-')
    };
    // What ends in a number is a misspelt address.
    let named = text
        .rsplit('.')
        .next()?
        .bytes()
        .any(|byte| !byte.is_ascii_digit());
    (named && text.len() <= 253 && text.split('.').all(label)).then(|| text.to_owned())
}

/// `sqlite://path` or `PostgreSQL`'s address. Of `SQLite` only a plain path: sqlx would read the rest
/// as parameters (`mode=memory`), percent codes or further slashes to drop.
pub(super) fn database_url(text: &str) -> Option<SecretString> {
    let good = if let Some(path) = text.strip_prefix("sqlite://") {
        let plain = !path.is_empty() && !path.contains(['?', '%', '\0']);
        plain && !path.starts_with("//") && !path.ends_with('/') && path != ":memory:"
    } else {
        has_scheme(text, &["postgres", "postgresql"])
    };
    good.then(|| SecretString::from(text))
}

/// Empty where there is no broker.
pub(super) fn broker_url(text: &str) -> Option<SecretString> {
    let host = || Url::parse(text).is_ok_and(|url| url.has_host());
    let good = text.is_empty() || (has_scheme(text, &["amqp", "amqps"]) && host());
    good.then(|| SecretString::from(text))
}

/// Empty where it is not set. Without credentials: those would be printed.
pub(super) fn service_url(text: &str) -> Option<String> {
    let plain = || {
        Url::parse(text).is_ok_and(|url| {
            url.has_host() && url.username().is_empty() && url.password().is_none()
        })
    };
    let whole = !text.contains(['?', '#']);
    let good = text.is_empty() || (has_scheme(text, &["http", "https"]) && plain() && whole);
    good.then(|| text.trim_end_matches('/').to_owned())
}

/// What may stand in a header behind `Bearer`; empty where it is not set.
pub(super) fn token(text: &str) -> Option<SecretString> {
    let good = text.is_empty() || is_made_of(text, 4_096, |byte| byte.is_ascii_graphic());
    good.then(|| SecretString::from(text))
}

/// `ed25519:` and a key; empty where it is not set.
pub(super) fn public_key(text: &str) -> Option<String> {
    let key = || STANDARD.decode(text.strip_prefix("ed25519:")?).ok();
    let good = text.is_empty() || key().is_some_and(|key| key.len() == KEY_BYTES);
    good.then(|| text.to_owned())
}

fn has_scheme(text: &str, schemes: &[&str]) -> bool {
    // The parser forgives space around the address and one slash; the libraries do not.
    let begins = |scheme: &&str| {
        text.strip_prefix(*scheme)
            .is_some_and(|rest| rest.starts_with("://"))
    };
    !text.contains(char::is_whitespace) && schemes.iter().any(begins) && Url::parse(text).is_ok()
}

/// AMQP 0-9-1's exchange names; those of the broker itself are no place for events.
pub(super) fn exchange(text: &str) -> Option<String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (is_made_of(text, 127, letter) && !text.starts_with("amq.")).then(|| text.to_owned())
}

pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
}

/// `id:base64` as (id, the whole).
pub(super) fn key_entry(text: &str) -> Option<(String, SecretString)> {
    let (id, encoded) = text.split_once(':')?;
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let key = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let good = is_made_of(id, 32, letter) && key.len() == KEY_BYTES;
    good.then(|| (id.to_owned(), SecretString::from(text)))
}

fn is_name(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    is_made_of(text, 255, letter) && !text.starts_with(|first: char| first.is_ascii_digit())
}

/// A secret's name as it is stored: in upper case.
pub(super) fn secret_name(text: &str) -> Option<String> {
    is_name(text).then(|| text.to_ascii_uppercase())
}

pub(super) fn reserved_name(text: &str) -> Option<ReservedName> {
    match text.strip_suffix('*') {
        Some(prefix) => secret_name(prefix).map(ReservedName::Prefix),
        None => secret_name(text).map(ReservedName::Exact),
    }
}

pub(super) fn is_provider(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let letter = |byte: u8| word(byte) || b"_-".contains(&byte);
    is_made_of(text, 64, letter) && text.bytes().next().is_some_and(word)
}

/// `name/x.y.z`
pub(super) fn client_version(text: &str) -> Option<ClientVersion> {
    let (name, version) = text.split_once('/')?;
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let mut parts = version.split('.').map(|part| {
        let digits = is_made_of(part, 20, |byte| byte.is_ascii_digit());
        digits.then(|| part.parse().ok())?
    });
    let version = (parts.next()??, parts.next()??, parts.next()??);
    let good = parts.next().is_none() && is_made_of(name, 64, letter);
    good.then(|| ClientVersion {
        name: name.to_owned(),
        version,
    })
}

/// A network, or an address as the network of itself.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let network: Result<IpNet, _> = text.parse();
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    network.ok().or_else(address).map(|network| network.trunc())
}

/// An origin as browsers write it, so that a comparison of bytes is right.
pub(super) fn origin(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let web = ["http", "https"].contains(&url.scheme());
    (web && url.origin().ascii_serialization() == text).then(|| text.to_owned())
}

pub(super) fn activity_record(text: &str) -> Option<ActivityRecord> {
    match text {
        "commit" => Some(ActivityRecord::Commit),
        "async" => Some(ActivityRecord::Async),
        "off" => Some(ActivityRecord::Off),
        _ => None,
    }
}

/// A port, or nothing.
#[expect(
    clippy::option_option,
    reason = "at fault, none, and a port are three things"
)]
pub(super) fn optional_port(text: &str) -> Option<Option<u16>> {
    if text.is_empty() {
        return Some(None);
    }
    text.parse().ok().map(Some)
}

pub(super) fn log_format(text: &str) -> Option<LogFormat> {
    match text {
        "auto" => Some(LogFormat::Auto),
        "pretty" => Some(LogFormat::Pretty),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn hosts_are_addresses_or_names() {
        for (given, read) in [
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("localhost", "localhost"),
            ("rekey-1.internal", "rekey-1.internal"),
        ] {
            assert_eq!(host(given).as_deref(), Some(read));
        }
        for given in [
            "",
            "[127.0.0.1]",
            "256.0.0.1",
            "a b",
            "a..b",
            "-a",
            "http://a",
            "a:80",
        ] {
            assert_eq!(host(given), None, "{given:?}");
        }
    }

    #[test]
    fn database_addresses_are_a_plain_file_or_postgres() {
        for given in [
            "sqlite://data/rekey.db",
            "sqlite:///srv/rekey.db",
            "postgres://me:secret@db/rekey?sslmode=disable",
            "postgresql://db/rekey",
            "postgres:///rekey?host=/run/postgresql",
        ] {
            assert!(database_url(given).is_some(), "{given:?}");
        }
        for given in [
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
        ] {
            assert!(database_url(given).is_none(), "{given:?}");
        }
    }

    #[test]
    fn broker_addresses_are_empty_or_amqp() {
        for given in ["", "amqp://mq", "amqps://me:secret@mq/%2f"] {
            assert!(broker_url(given).is_some(), "{given:?}");
        }
        for given in ["amqp:mq", "amqp://", "http://mq", "amqp://m q"] {
            assert!(broker_url(given).is_none(), "{given:?}");
        }
    }

    #[test]
    fn exchanges_are_not_the_brokers_own() {
        assert!(exchange("secrets.events").is_some());
        for given in ["", "amq.topic", "a b", &"a".repeat(128)] {
            assert!(exchange(given).is_none(), "{given:?}");
        }
    }

    #[test]
    fn a_key_is_an_id_and_32_bytes() {
        let encoded = STANDARD.encode([7; 32]);
        let (id, whole) = key_entry(&format!("k-1:{encoded}")).unwrap();
        assert_eq!(id, "k-1");
        assert_eq!(whole.expose_secret(), format!("k-1:{encoded}"));
        let short = STANDARD.encode([7; 31]);
        let unpadded = encoded.trim_end_matches('=');
        for given in [
            encoded.clone(),
            format!(":{encoded}"),
            format!("K:{encoded}"),
            format!("{}:{encoded}", "k".repeat(33)),
            format!("k:{short}"),
            format!("k:{unpadded}"),
            format!("k: {encoded}"),
        ] {
            assert!(key_entry(&given).is_none(), "{given:?}");
        }
    }

    #[test]
    fn names_are_stored_in_upper_case() {
        assert_eq!(secret_name("openai_key"), Some("OPENAI_KEY".to_owned()));
        for given in ["", "1A", "A-B", "Ä", &"A".repeat(256)] {
            assert_eq!(secret_name(given), None, "{given:?}");
        }
        assert_eq!(reserved_name("*"), None);
        assert_eq!(reserved_name("A*B"), None);
        let reserved = reserved_name("ld_*").unwrap();
        assert!(reserved.covers("LD_PRELOAD") && !reserved.covers("OLD_LD_"));
        assert_eq!(reserved.to_string(), "LD_*");
        let path = reserved_name("PATH").unwrap();
        assert!(path.covers("PATH") && !path.covers("PATHS"));
    }

    #[test]
    fn providers_are_lower_case() {
        assert!(is_provider("openai") && is_provider("0-a_b"));
        for given in ["", "-a", "_a", "A", "a.b", &"a".repeat(65)] {
            assert!(!is_provider(given), "{given:?}");
        }
    }

    #[test]
    fn client_versions_have_three_numbers() {
        let read = client_version("rekey-cli/1.20.3").unwrap();
        assert_eq!(
            (read.name.as_str(), read.version),
            ("rekey-cli", (1, 20, 3))
        );
        for given in [
            "a",
            "a/1.2",
            "a/1.2.3.4",
            "a/1.2.+3",
            "a/1.2.x",
            "/1.2.3",
            "a b/1.2.3",
        ] {
            assert_eq!(client_version(given), None, "{given:?}");
        }
    }

    #[test]
    fn proxies_are_networks_or_addresses() {
        let read = |text| network(text).map(|network| network.to_string());
        assert_eq!(read("10.1.2.3/8").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(read("10.1.2.3").as_deref(), Some("10.1.2.3/32"));
        assert_eq!(read("::1").as_deref(), Some("::1/128"));
        assert_eq!(read("proxy"), None);
        assert_eq!(read("10.0.0.0/33"), None);
    }

    #[test]
    fn origins_are_as_browsers_write_them() {
        for given in ["https://app.example", "http://localhost:3000"] {
            assert!(origin(given).is_some(), "{given:?}");
        }
        for given in [
            "*",
            "null",
            "https://a/",
            "https://A",
            "https://a:443",
            "https://u@a",
            "ftp://a",
        ] {
            assert!(origin(given).is_none(), "{given:?}");
        }
    }
}
