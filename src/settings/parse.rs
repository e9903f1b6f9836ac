//! What a text must be to be a setting. In: the text. Out: the typed value, or none; the rule in words is in
//! `sections.rs`, where the setting is read.

use std::{
    net::{IpAddr, Ipv6Addr},
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use zeroize::Zeroizing;

use super::{ActivityRecord, ClientVersion, LogFormat, ReservedName};
use crate::domain::{KeyId, SecretName};

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
    // A name that ends in a number is a misspelt address.
    let named = text
        .rsplit('.')
        .next()?
        .bytes()
        .any(|byte| !byte.is_ascii_digit());
    (named && text.len() <= 253 && text.split('.').all(label)).then(|| text.to_owned())
}

const SQLITE: &str = "sqlite://";

/// The file of a SQLite address; none for a server.
pub(super) fn sqlite_path(url: &str) -> Option<&Path> {
    url.strip_prefix(SQLITE).map(Path::new)
}

/// `sqlite://path` or PostgreSQL's address. Of SQLite only a plain path: sqlx would read the rest as
/// parameters (`mode=memory`), percent codes or further slashes to drop.
pub(super) fn database_url(text: &str) -> Option<SecretString> {
    let good = if let Some(path) = text.strip_prefix(SQLITE) {
        let plain = !path.is_empty() && !path.contains(['?', '%', '\0']);
        plain && !path.starts_with("//") && !path.ends_with('/') && path != ":memory:"
    } else {
        has_scheme(text, &["postgres", "postgresql"])
    };
    good.then(|| SecretString::from(text))
}

pub(super) fn broker_url(text: &str) -> Option<SecretString> {
    let host = || Url::parse(text).is_ok_and(|url| url.has_host());
    let good = has_scheme(text, &["amqp", "amqps"]) && host();
    good.then(|| SecretString::from(text))
}

/// Without credentials: those would be printed.
pub(super) fn service_url(text: &str) -> Option<String> {
    let plain = || {
        Url::parse(text).is_ok_and(|url| {
            url.has_host() && url.username().is_empty() && url.password().is_none()
        })
    };
    let whole = !text.contains(['?', '#']);
    let good = has_scheme(text, &["http", "https"]) && plain() && whole;
    good.then(|| text.trim_end_matches('/').to_owned())
}

/// What a header can hold after `Bearer`.
pub(super) fn token(text: &str) -> Option<SecretString> {
    let good = is_made_of(text, 4_096, |byte| byte.is_ascii_graphic());
    good.then(|| SecretString::from(text))
}

/// `ed25519:` and a key.
pub(super) fn public_key(text: &str) -> Option<String> {
    let key = STANDARD.decode(text.strip_prefix("ed25519:")?).ok()?;
    (key.len() == KEY_BYTES).then(|| text.to_owned())
}

fn has_scheme(text: &str, schemes: &[&str]) -> bool {
    // The parser accepts space around the address and a single slash; the libraries do not.
    let begins = |scheme: &&str| {
        text.strip_prefix(*scheme)
            .is_some_and(|rest| rest.starts_with("://"))
    };
    !text.contains(char::is_whitespace) && schemes.iter().any(begins) && Url::parse(text).is_ok()
}

/// AMQP 0-9-1's exchange names; the broker's own are not for events.
pub(super) fn exchange(text: &str) -> Option<String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (is_made_of(text, 127, letter) && !text.starts_with("amq.")).then(|| text.to_owned())
}

/// `id:base64` of 32 bytes, whole.
pub(super) fn key_entry(text: &str) -> Option<SecretString> {
    let (id, encoded) = text.split_once(':')?;
    let key = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let good = KeyId::parse(id).is_ok() && key.len() == KEY_BYTES;
    good.then(|| SecretString::from(text))
}

/// The ID of such an entry.
pub(super) fn id_of_entry(entry: &SecretString) -> String {
    let id = entry.expose_secret().split(':').next();
    id.map_or_else(String::new, str::to_owned)
}

pub(super) fn reserved_name(text: &str) -> Option<ReservedName> {
    let name = |text| Some(SecretName::parse(text).ok()?.as_str().to_owned());
    match text.strip_suffix('*') {
        Some(prefix) => name(prefix).map(ReservedName::Prefix),
        None => name(text).map(ReservedName::Exact),
    }
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

/// An origin as browsers write it, so that comparing bytes is correct.
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

pub(super) fn log_format(text: &str) -> Option<LogFormat> {
    match text {
        "auto" => Some(LogFormat::Auto),
        "pretty" => Some(LogFormat::Pretty),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}
