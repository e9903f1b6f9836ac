//! The URLs of PostgreSQL and RabbitMQ. In: the text of a setting. Out: the URL for the driver, with host, port and TLS
//! spelt out.
//!
//! The drivers skip a parameter that they don't know, connect without TLS when nothing asks for it, and fill in from
//! elsewhere what is left out. So what they would not do as it is written is refused here.
//!
//! Promise: a refusal shows no part of the text except the name of a parameter, where that can't belong to a password.

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::parse;
use crate::domain::is_loopback;

/// Why a text is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum UrlFault {
    /// It breaks the rule above the setting.
    Rule,
    /// What it must do, in words.
    Must(String),
}

impl UrlFault {
    fn must<T>(what: impl Into<String>) -> Result<T, Self> {
        Err(Self::Must(what.into()))
    }
}

/// What a driver makes of a URL.
struct Driver {
    schemes: &'static [&'static str],
    default_port: fn(&str) -> u16,
    /// Each parameter as it may be spelt, and as it is spelt here.
    known: &'static [(&'static str, &'static str)],
    /// The parameters that rekey sets itself.
    ours: &'static [&'static str],
}

const POSTGRES: Driver = Driver {
    schemes: &["postgres", "postgresql"],
    default_port: |_| 5432,
    known: &[
        ("sslmode", SSL_MODE),
        ("ssl-mode", SSL_MODE),
        ("sslrootcert", "sslrootcert"),
        ("ssl-root-cert", "sslrootcert"),
        ("ssl-ca", "sslrootcert"),
        ("sslcert", "sslcert"),
        ("ssl-cert", "sslcert"),
        ("sslkey", "sslkey"),
        ("ssl-key", "sslkey"),
        ("statement-cache-capacity", "statement-cache-capacity"),
        ("host", HOST),
        ("hostaddr", HOST),
        ("port", PORT),
        ("dbname", "dbname"),
        ("user", "user"),
        ("password", "password"),
        (OPTIONS, OPTIONS),
    ],
    ours: &["application_name"],
};

/// The settings of a session that [`POSTGRES`] could be given by `options`, and that rekey sets itself.
const OUR_OPTIONS: [&str; 10] = [
    "default_transaction_isolation",
    "synchronous_commit",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_keepalives_count",
    "enable_seqscan",
    "jit",
];

const RABBITMQ: Driver = Driver {
    schemes: &["amqp", "amqps"],
    default_port: |scheme| if scheme == "amqps" { 5671 } else { 5672 },
    known: &[
        ("frame_max", "frame_max"),
        ("channel_max", "channel_max"),
        ("auth_mechanism", "auth_mechanism"),
        // rekey's own: the driver does not know it.
        (TLS, TLS),
    ],
    ours: &["heartbeat", "connection_timeout"],
};

const HOST: &str = "host";
const PORT: &str = "port";
const SSL_MODE: &str = "sslmode";
const OPTIONS: &str = "options";
const TLS: &str = "tls";

/// The values of `sslmode`, and what the connection is then.
const SSL_MODES: [(&str, &str); 6] = [
    ("disable", "off"),
    ("allow", "off"),
    ("prefer", "unverified, or off"),
    ("require", "unverified"),
    ("verify-ca", "on, for any host"),
    ("verify-full", "on"),
];
const AUTH_MECHANISMS: [&str; 5] = [
    "plain",
    "amqplain",
    "external",
    "anonymous",
    "rabbit-cr-demo",
];

/// PostgreSQL's URL with its parameters in their one spelling; `host`, `port` and `sslmode` are among them.
pub(super) fn postgres(text: &str) -> Result<SecretString, UrlFault> {
    let mut address = Address::read(text, &POSTGRES)?;
    for (name, in_front) in [
        ("user", !address.url.username().is_empty()),
        ("password", address.url.password().is_some()),
        ("dbname", address.url.path().len() > 1),
    ] {
        if in_front && address.get(name).is_some() {
            return UrlFault::must(format!("not say {name} twice"));
        }
    }
    let host = address.host()?;
    let socket = host.starts_with('/');
    let host = match host {
        _ if socket => host,
        host => is_host(&host)?,
    };
    let port = address.port(&POSTGRES)?;
    let mode = match address.get(SSL_MODE) {
        Some(mode) => {
            let mode = mode.to_ascii_lowercase();
            if !SSL_MODES.iter().any(|(name, _)| *name == mode) {
                let modes = SSL_MODES.map(|(name, _)| name).join(", ");
                return UrlFault::must(format!("have an sslmode of {modes}"));
            }
            mode
        }
        None if socket => "disable".to_owned(),
        None if is_loopback(&host) => "prefer".to_owned(),
        None => "verify-full".to_owned(),
    };
    address.set(HOST, host);
    address.set(PORT, port.to_string());
    address.set(SSL_MODE, mode);
    let Address {
        mut url,
        parameters,
    } = address;
    url.query_pairs_mut().clear().extend_pairs(parameters);
    Ok(SecretString::from(String::from(url)))
}

/// How a connection by PostgreSQL's URL is encrypted, as the start shows it; none for another URL.
pub(super) fn postgres_tls(url: &SecretString) -> Option<String> {
    let address = Address::read(url.expose_secret(), &POSTGRES).ok()?;
    let mode = address.get(SSL_MODE)?;
    let (_, tls) = SSL_MODES.iter().find(|(name, _)| *name == mode)?;
    Some(format!("{tls} ({SSL_MODE}={mode})"))
}

/// RabbitMQ's URL, as it was given; an empty text is none.
pub(super) fn rabbitmq(text: &str) -> Result<Option<SecretString>, UrlFault> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = Address::read(text, &RABBITMQ)?;
    let host = is_host(&address.host()?)?;
    address.port(&RABBITMQ)?;
    let number = |name, most: u32| match address.get(name).map(str::parse::<u32>) {
        None => Ok(()),
        Some(Ok(number)) if number <= most => Ok(()),
        Some(_) => UrlFault::must(format!("have a {name} from 0 to {most}")),
    };
    number("frame_max", u32::MAX)?;
    number("channel_max", u16::MAX.into())?;
    let mechanism = address.get("auth_mechanism").map(str::to_ascii_lowercase);
    if mechanism.is_some_and(|name| !AUTH_MECHANISMS.contains(&&*name)) {
        let all = AUTH_MECHANISMS.join(", ");
        return UrlFault::must(format!("have an auth_mechanism of {all}"));
    }
    match (address.url.scheme(), address.get(TLS)) {
        ("amqp", Some("off")) | ("amqps", None) => {}
        ("amqp", None) if is_loopback(&host) => {}
        ("amqp", None) => {
            return UrlFault::must(
                "be amqps://… where the host is another machine, \
                 or have the parameter tls=off where plain text is meant",
            );
        }
        ("amqps", Some("off")) => return UrlFault::must("not be amqps://… with tls=off"),
        _ => return UrlFault::must("have tls=off where it has the parameter tls"),
    }
    Ok(Some(SecretString::from(text)))
}

/// How a connection by RabbitMQ's URL is encrypted, as the start shows it.
pub(super) fn rabbitmq_tls(url: &SecretString) -> Option<String> {
    let address = Address::read(url.expose_secret(), &RABBITMQ).ok()?;
    Some(match (address.url.scheme(), address.get(TLS)) {
        ("amqps", _) => "on (amqps)".to_owned(),
        (_, Some(tls)) => format!("off ({TLS}={tls})"),
        (_, None) => "off (amqp, this machine)".to_owned(),
    })
}

/// A server's URL, taken apart.
struct Address {
    url: Url,
    /// In their one spelling, each once.
    parameters: Vec<(String, String)>,
}

impl Address {
    fn read(text: &str, driver: &Driver) -> Result<Self, UrlFault> {
        refuse_raw_characters(text)?;
        let url = parse::parse_url(text, driver.schemes).ok_or(UrlFault::Rule)?;
        let mut parameters: Vec<(String, String)> = Vec::new();
        for (name, value) in url.query_pairs() {
            let name = driver.parameter(&name)?;
            if name.starts_with(OPTIONS) {
                refuse_our_options(&name, &value)?;
            } else if parameters.iter().any(|(known, _)| *known == name) {
                return UrlFault::must(format!("not say {name} twice"));
            }
            parameters.push((name, value.into_owned()));
        }
        Ok(Self { url, parameters })
    }

    fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.parameters.iter();
        let (_, value) = all.find(|(known, _)| known == name)?;
        Some(value)
    }

    fn set(&mut self, name: &str, value: String) {
        self.parameters.retain(|(known, _)| known != name);
        self.parameters.push((name.to_owned(), value));
    }

    /// The one host that it names: a name, an address, or the folder of a socket.
    fn host(&self) -> Result<String, UrlFault> {
        let in_front = self.url.host_str().unwrap_or_default();
        let in_front = percent_decode_str(in_front).decode_utf8();
        let in_front = in_front.or(Err(UrlFault::Rule))?;
        match (&*in_front, self.get(HOST).unwrap_or_default()) {
            ("", "") => UrlFault::must("name a host"),
            ("", host) | (host, "") => Ok(host.to_owned()),
            _ => UrlFault::must(format!("not say {HOST} twice")),
        }
    }

    fn port(&self, driver: &Driver) -> Result<u16, UrlFault> {
        let port = match (self.url.port(), self.get(PORT).map(str::parse)) {
            (None, None) => (driver.default_port)(self.url.scheme()),
            (Some(port), None) | (None, Some(Ok(port))) => port,
            (Some(_), Some(_)) => return UrlFault::must(format!("not say {PORT} twice")),
            (None, Some(Err(_))) => 0,
        };
        if port == 0 {
            return UrlFault::must("have a port from 1 to 65535");
        }
        Ok(port)
    }
}

impl Driver {
    /// The one spelling of a parameter.
    fn parameter(&self, name: &str) -> Result<String, UrlFault> {
        if self.ours.contains(&name) {
            return UrlFault::must(format!("not set {name}: rekey sets it itself"));
        }
        if let Some((_, spelling)) = self.known.iter().find(|(known, _)| *known == name) {
            return Ok((*spelling).to_owned());
        }
        let knows_options = self.known.iter().any(|(known, _)| *known == OPTIONS);
        if knows_options && name.starts_with("options[") && name.ends_with(']') {
            return Ok(name.to_owned());
        }
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        let shown = if parse::is_made_of(name, 40, letter) {
            name
        } else {
            "(not shown)"
        };
        let names = || self.known.iter().map(|(known, _)| *known);
        let distance = |known: &&str| strsim::levenshtein(known, name);
        let hint = match names().min_by_key(distance) {
            Some(known) if distance(&known) <= 2 => format!("did you mean {known}?"),
            _ => format!("known are {}", names().collect::<Vec<_>>().join(", ")),
        };
        UrlFault::must(format!("not have the parameter {shown}; {hint}"))
    }
}

/// Refuses characters that end the password before its end.
fn refuse_raw_characters(text: &str) -> Result<(), UrlFault> {
    let (_, rest) = text.split_once("://").ok_or(UrlFault::Rule)?;
    let ends_early = |(before, after): (&str, &str)| {
        let divider = rest.get(before.len()..)?.chars().next()?;
        after.contains('@').then_some(divider)
    };
    let divider = rest.split_once(['/', '?', '#']).and_then(ends_early);
    // Also in what no password is meant with: each driver drops it.
    let raw = divider.or_else(|| rest.contains('#').then_some('#'));
    match raw {
        None => Ok(()),
        Some(raw) => UrlFault::must(format!(
            "have %{:02X} in place of a {raw} in the user name or password (and %40 in place of an @ after the host)",
            u32::from(raw)
        )),
    }
}

/// Refuses an option of a session that rekey sets itself: one of the two would lose without a word.
fn refuse_our_options(name: &str, value: &str) -> Result<(), UrlFault> {
    let in_brackets = name
        .strip_prefix("options[")
        .map(|rest| rest.trim_end_matches(']'));
    let words = in_brackets.unwrap_or(value).split([' ', '=', '\t', '\n']);
    let plain = |word: &str| {
        let word = word.strip_prefix("-c").unwrap_or(word);
        word.trim_start_matches('-')
            .replace('-', "_")
            .to_ascii_lowercase()
    };
    let ours = words.map(plain).find(|word| OUR_OPTIONS.contains(&&**word));
    match ours {
        None => Ok(()),
        Some(name) => UrlFault::must(format!("not set {name}: rekey sets it itself")),
    }
}

fn is_host(text: &str) -> Result<String, UrlFault> {
    parse::host(text).map_or_else(|| UrlFault::must("name one host, or an IP address"), Ok)
}
