//! Who is at the other end: the address behind trusted proxies, whether TLS was used, which client
//! program it is.

use std::net::{IpAddr, Ipv6Addr};

use actix_web::http::header::{HeaderMap, USER_AGENT};

use crate::settings::{ClientVersion, HttpSettings};

/// What one party holds of the address space: an IPv4 address, or the /64 of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Network(IpAddr);

impl Network {
    /// The network of an address.
    pub(super) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            v4 @ IpAddr::V4(_) => v4,
            IpAddr::V6(v6) => {
                let prefix = v6.to_bits() & (u128::MAX << 64);
                IpAddr::V6(Ipv6Addr::from_bits(prefix))
            }
        })
    }
}

/// The address of the caller: the peer's, or, when that is a trusted proxy, the last one in
/// `X-Forwarded-For` that is not.
pub(super) fn caller(http: &HttpSettings, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let mut caller = peer.to_canonical();
    // Most callers come without a proxy: nothing is read then.
    if !http.trusts(caller) {
        return caller;
    }
    for hop in list(headers, "x-forwarded-for").rev() {
        if !http.trusts(caller) {
            break;
        }
        match hop.and_then(address) {
            Some(address) => caller = address.to_canonical(),
            None => break,
        }
    }
    caller
}

/// Whether the caller's connection was TLS, as far as a trusted peer says so: every hop that it names
/// in `X-Forwarded-Proto` has to be `https`.
pub(super) fn forwarded_tls(http: &HttpSettings, peer: IpAddr, headers: &HeaderMap) -> bool {
    let mut hops = list(headers, "x-forwarded-proto").peekable();
    http.trusts(peer)
        && hops.peek().is_some()
        && hops.all(|hop| hop.is_some_and(|hop| hop.eq_ignore_ascii_case("https")))
}

/// The members of a list header, over all its lines; `None` for a line that is not ASCII.
fn list<'a>(
    headers: &'a HeaderMap,
    name: &'static str,
) -> impl DoubleEndedIterator<Item = Option<&'a str>> {
    let lines: Vec<_> = headers.get_all(name).collect();
    lines
        .into_iter()
        .flat_map(|line| {
            let line = line.to_str().ok();
            line.map_or_else(|| vec![None], |line| line.split(',').map(Some).collect())
        })
        .map(|member| member.map(str::trim))
}

/// `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:443`
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .map_or(text, |(inside, _port)| inside);
    bare.parse()
        .ok()
        .or_else(|| bare.rsplit_once(':')?.0.parse().ok())
}

/// The least version of the client that `User-Agent` names, when the client is below it.
pub(super) fn outdated<'a>(
    least: &'a [ClientVersion],
    headers: &HeaderMap,
) -> Option<&'a ClientVersion> {
    let agent = headers.get(USER_AGENT)?.to_str().ok()?;
    products(agent).find_map(|(name, version)| {
        least
            .iter()
            .find(|least| least.name.eq_ignore_ascii_case(name) && version < least.version)
    })
}

/// The products `<name>/<x.y.z>` of a `User-Agent`, without comments; what is not of that form is no
/// product here.
fn products(agent: &str) -> impl Iterator<Item = (&str, (u64, u64, u64))> {
    let mut depth = 0_usize;
    agent
        .split_inclusive(['(', ')'])
        .filter_map(move |part| {
            let outside = depth == 0;
            match part.chars().next_back() {
                Some('(') => depth += 1,
                Some(')') => depth = depth.saturating_sub(1),
                _ => {}
            }
            outside.then(|| part.trim_end_matches(['(', ')']))
        })
        .flat_map(str::split_ascii_whitespace)
        .filter_map(|product| {
            let (name, version) = product.split_once('/')?;
            Some((name, version_numbers(version)?))
        })
}

/// `x.y.z`, also `x.y` and `x`; a pre-release or build part (`-…`, `+…`) is left out.
fn version_numbers(text: &str) -> Option<(u64, u64, u64)> {
    let core = text.split(['-', '+']).next()?;
    let mut numbers = core.split('.').map(|part| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse::<u64>().unwrap_or(u64::MAX))
    });
    let major = numbers.next()??;
    let minor = numbers.next().unwrap_or(Some(0))?;
    let patch = numbers.next().unwrap_or(Some(0))?;
    numbers.next().is_none().then_some((major, minor, patch))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actix_web::http::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn headers(name: &'static str, lines: &[&'static str]) -> HeaderMap {
        let name = HeaderName::from_static(name);
        let lines = lines
            .iter()
            .map(|line| (name.clone(), HeaderValue::from_static(line)));
        lines.collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn http() -> HttpSettings {
        HttpSettings {
            timeout: Duration::ZERO,
            write_timeout: Duration::ZERO,
            require_tls: true,
            min_client_versions: vec![],
            trusted_proxies: vec![
                "10.0.0.0/8".parse().unwrap(),
                "2001:db8:aaaa::/48".parse().unwrap(),
            ],
            cors_origins: vec![],
        }
    }

    #[test]
    fn the_caller_is_the_last_address_that_no_trusted_proxy_has() {
        let caller = |peer, lines: &[&'static str]| {
            caller(&http(), ip(peer), &headers("x-forwarded-for", lines))
        };
        assert_eq!(caller("192.0.2.9", &["192.0.2.1"]), ip("192.0.2.9"));
        assert_eq!(caller("10.0.0.1", &[]), ip("10.0.0.1"));
        assert_eq!(caller("10.0.0.1", &["192.0.2.1"]), ip("192.0.2.1"));
        assert_eq!(caller("::ffff:10.0.0.1", &["192.0.2.1"]), ip("192.0.2.1"));
        // What a client writes itself stands to the left, and does not count.
        assert_eq!(
            caller("10.0.0.1", &["127.0.0.1, 192.0.2.1, 10.0.0.2"]),
            ip("192.0.2.1")
        );
        assert_eq!(
            caller("10.0.0.1", &["192.0.2.1", "10.0.0.2"]),
            ip("192.0.2.1")
        );
        assert_eq!(caller("10.0.0.1", &["192.0.2.1, junk"]), ip("10.0.0.1"));
        assert_eq!(
            caller("2001:db8:aaaa::1", &["[2001:db8::5]:443"]),
            ip("2001:db8::5")
        );
        assert_eq!(caller("10.0.0.1", &["192.0.2.1:443"]), ip("192.0.2.1"));
    }

    #[test]
    fn an_ipv6_network_is_a_64() {
        let network = |text| Network::of(ip(text));
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:0:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }

    #[test]
    fn only_a_trusted_peer_can_say_that_tls_was_used() {
        let tls = |peer, lines: &[&'static str]| {
            forwarded_tls(&http(), ip(peer), &headers("x-forwarded-proto", lines))
        };
        assert!(tls("10.0.0.1", &["https"]));
        assert!(tls("10.0.0.1", &["HTTPS, https"]));
        assert!(!tls("192.0.2.1", &["https"]));
        assert!(!tls("10.0.0.1", &[]));
        assert!(!tls("10.0.0.1", &["http"]));
        assert!(!tls("10.0.0.1", &["https, http"]));
        assert!(!tls("10.0.0.1", &["https", "http"]));
        assert!(!tls("10.0.0.1", &[""]));
    }

    #[test]
    fn an_old_client_is_found_by_its_name() {
        let least = [
            ClientVersion {
                name: "rekey-cli".to_owned(),
                version: (1, 2, 0),
            },
            ClientVersion {
                name: "sdk".to_owned(),
                version: (0, 10, 0),
            },
        ];
        let old = |agent| {
            outdated(&least, &headers("user-agent", &[agent])).map(|least| least.name.as_str())
        };
        assert_eq!(old("rekey-cli/1.1.9"), Some("rekey-cli"));
        assert_eq!(old("Rekey-CLI/0.9"), Some("rekey-cli"));
        assert_eq!(
            old("curl/8.0.0 (x86; sdk/0.1.0) sdk/0.9.0 (y)"),
            Some("sdk")
        );
        for good in [
            "rekey-cli/1.2.0",
            "rekey-cli/1.2.0-beta+5",
            "rekey-cli/10.0.0",
            "sdk/0.10.0",
            "curl/0.0.1",
            "curl/8 (sdk/0.1.0 (rekey-cli/0.0.1) sdk/0.1.0)",
            "rekey-cli",
            "rekey-cli/new",
            "",
        ] {
            assert_eq!(old(good), None, "{good}");
        }
        assert!(outdated(&least, &HeaderMap::new()).is_none());
    }

    proptest! {
        #[test]
        fn any_header_ends_in_an_answer(text: String) {
            let _ = address(&text);
            let _ = products(&text).count();
        }

        #[test]
        fn versions_are_compared_by_number(a: (u32, u32, u32), b: (u32, u32, u32)) {
            let read = |(x, y, z): (u32, u32, u32)| version_numbers(&format!("{x}.{y}.{z}")).unwrap();
            prop_assert_eq!(read(a).cmp(&read(b)), a.cmp(&b));
        }
    }
}
