//! What a text must be to be a setting. In: the text. Out: the typed value, or none; the rule in words is in
//! `config/default.toml`, above the setting.

use std::{
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ipnet::IpNet;
use secrecy::SecretString;
use serde::de::{self, DeserializeOwned, IntoDeserializer as _, value::StrDeserializer};
use url::Url;
use zeroize::Zeroizing;

use super::{
    ClaimSetting, ClientVersion, ReservedName,
    server_url::{self, UrlFault},
};
use crate::domain::{KeyId, Owner, Scope, SecretName, is_loopback};

pub(super) fn is_made_of(text: &str, longest: usize, letter: impl Fn(u8) -> bool) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(letter)
}

/// An IP address, IPv6 with or without brackets, or a host name (RFC 1123, and the `_` that containers' names may have).
pub(super) fn host(text: &str) -> Option<String> {
    if let Some(rest) = text.strip_prefix('[') {
        let address: Ipv6Addr = rest.strip_suffix(']')?.parse().ok()?;
        return Some(address.to_string());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let label = |label: &str| {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        is_made_of(label, 63, letter) && !label.starts_with('-') && !label.ends_with('-')
    };
    // A name that ends in a number is a misspelt address.
    let last = text.rsplit('.').next()?;
    let named = last.bytes().any(|byte| !byte.is_ascii_digit());
    (named && text.len() <= 253 && text.split('.').all(label)).then(|| text.to_owned())
}

pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| text.into())
}

const SQLITE: &str = "sqlite://";

/// The file of a SQLite address; none for a server.
pub(super) fn sqlite_path(url: &str) -> Option<&Path> {
    url.strip_prefix(SQLITE).map(Path::new)
}

/// `sqlite://path` or PostgreSQL's address. Of SQLite only a plain path: sqlx would read the rest as
/// parameters (`mode=memory`), percent codes or further slashes to drop.
pub(super) fn database_url(text: &str) -> Result<SecretString, UrlFault> {
    let Some(path) = text.strip_prefix(SQLITE) else {
        return server_url::postgres(text);
    };
    let plain = !path.is_empty() && !path.contains(['?', '%', '\0']);
    let good = plain && !path.starts_with("//") && !path.ends_with('/') && path != ":memory:";
    good.then(|| SecretString::from(text)).ok_or(UrlFault::Rule)
}

/// Without credentials: those would be printed.
pub(super) fn service_url(text: &str) -> Option<String> {
    let url = parse_url(text, &["http", "https"])?;
    let plain = url.has_host() && url.username().is_empty() && url.password().is_none();
    let good = plain && !text.contains(['?', '#']);
    good.then(|| text.trim_end_matches('/').to_owned())
}

/// An address of keys: of another machine only over TLS.
pub(super) fn jwks_url(text: &str) -> Option<String> {
    let url = parse_url(text, &["http", "https"])?;
    let plain = url.has_host() && url.username().is_empty() && url.password().is_none();
    let host = url.host_str().unwrap_or_default();
    let safe = url.scheme() == "https" || is_loopback(host.trim_matches(['[', ']']));
    (plain && safe && !text.contains('#')).then(|| text.to_owned())
}

/// A text without control characters.
pub(super) fn line(text: &str) -> Option<String> {
    let good = text.len() <= 512 && !text.chars().any(char::is_control);
    good.then(|| text.to_owned())
}

/// `CLAIM=VALUE -> OWNER SCOPE…`
pub(super) fn claim(text: &str) -> Option<ClaimSetting> {
    let (what, who) = line(text)?
        .rsplit_once(" -> ")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))?;
    let (claim, value) = what.split_once('=')?;
    let mut words = who.split(' ');
    let owner = Owner::parse(words.next()?).ok()?;
    let scopes: Vec<Scope> = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let good = !claim.is_empty() && !value.is_empty() && value != "*" && !scopes.is_empty();
    good.then(|| ClaimSetting {
        claim: claim.to_owned(),
        value: value.to_owned(),
        owner,
        scopes,
    })
}

/// What a header can hold after `Bearer`.
pub(super) fn token(text: &str) -> Option<SecretString> {
    let good = is_made_of(text, 4_096, |byte| byte.is_ascii_graphic());
    good.then(|| SecretString::from(text))
}

/// Of a length that is worth something.
pub(super) fn passphrase(text: &str) -> Option<SecretString> {
    let good = (12..=1_024).contains(&text.chars().count()) && !text.contains(char::is_control);
    good.then(|| SecretString::from(text))
}

/// `ed25519:` and a key.
pub(super) fn public_key(text: &str) -> Option<String> {
    is_key(text.strip_prefix("ed25519:")?).then(|| text.to_owned())
}

pub(super) fn parse_url(text: &str, schemes: &[&str]) -> Option<Url> {
    // The parser accepts space around the address and a single slash; the libraries do not.
    let (scheme, _) = text.split_once("://")?;
    let good = !text.contains(char::is_whitespace) && schemes.contains(&scheme);
    good.then(|| Url::parse(text).ok())?
}

/// AMQP 0-9-1's exchange names; the broker's own are not for events.
pub(super) fn exchange(text: &str) -> Option<String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (is_made_of(text, 127, letter) && !text.starts_with("amq.")).then(|| text.to_owned())
}

/// `id:base64` of 32 bytes, whole.
pub(super) fn key_entry(text: &str) -> Option<SecretString> {
    let (id, key) = text.split_once(':')?;
    let good = KeyId::parse(id).is_ok() && is_key(key);
    good.then(|| SecretString::from(text))
}

/// Whether it is 32 bytes in padded standard base64.
fn is_key(encoded: &str) -> bool {
    let key = STANDARD.decode(encoded).map(Zeroizing::new);
    key.is_ok_and(|key| key.len() == 32)
}

pub(super) fn reserved_name(text: &str) -> Option<ReservedName> {
    let name = |text| Some(SecretName::parse(text).ok()?.as_str().to_owned());
    match (text.strip_prefix('*'), text.strip_suffix('*')) {
        (None, None) => name(text).map(ReservedName::Exact),
        (None, Some(prefix)) => name(prefix).map(ReservedName::Prefix),
        (Some(suffix), None) => name(suffix).map(ReservedName::Suffix),
        (Some(_), Some(_)) => None,
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
    let network = text.parse::<IpNet>().ok();
    let network = network.or_else(|| Some(text.parse::<IpAddr>().ok()?.into()))?;
    Some(network.trunc())
}

/// An origin as browsers write it, so that comparing bytes is correct.
pub(super) fn origin(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let web = ["http", "https"].contains(&url.scheme());
    (web && url.origin().ascii_serialization() == text).then(|| text.to_owned())
}

/// One of an enum's names.
pub(super) fn word<T: DeserializeOwned>(text: &str) -> Option<T> {
    let text: StrDeserializer<'_, de::value::Error> = text.into_deserializer();
    T::deserialize(text).ok()
}
