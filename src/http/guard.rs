//! Who may pass: TLS and client version, failed credentials, credential, scope.

use std::sync::Arc;

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderMap, HeaderName, HeaderValue},
};
use secrecy::SecretString;

use super::{
    caller::{self, Network},
    connection::Requests,
    error::ApiError,
    serve::{Edge, RequestState, ShownToken},
};
use crate::{
    auth::{AuthError, Memory, Principal, Token},
    settings::HttpSettings,
};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Refuses plain HTTP where TLS is required, then a client below its least version. Both rules are for the
/// API alone: what is not under `/api/` answers everybody.
///
/// # Errors
/// [`ApiError::UpgradeRequired`], before any credential is looked at.
pub(super) fn upgrade(
    http: &HttpSettings,
    request: &HttpRequest,
    path: &str,
) -> Result<(), ApiError> {
    if !path.starts_with("/api/") {
        return Ok(());
    }
    if http.require_tls && !over_tls(http, request) {
        let upgrade = HeaderValue::from_static("TLS/1.2, HTTP/1.1");
        return Err(ApiError::UpgradeRequired { upgrade });
    }
    let Some(least) = caller::outdated(&http.min_client_versions, request.headers()) else {
        return Ok(());
    };
    let (major, minor, fix) = least.version;
    let upgrade = format!("{}/{major}.{minor}.{fix}", least.name);
    let upgrade =
        HeaderValue::from_str(&upgrade).map_err(|error| ApiError::Internal(error.into()))?;
    Err(ApiError::UpgradeRequired { upgrade })
}

fn over_tls(http: &HttpSettings, request: &HttpRequest) -> bool {
    request
        .conn_data::<Requests>()
        .is_some_and(Requests::is_secure)
        || request
            .peer_addr()
            .is_some_and(|peer| caller::forwarded_tls(http, peer.ip(), request.headers()))
}

/// Finds out who calls.
///
/// A good credential is never refused for the bad ones that came from its network: it is always looked up. While
/// the network has used up its failures, the look-ups of tokens that were never seen to be good go one at a time.
/// A good credential that is used from outside its own networks is a bad one.
///
/// # Errors
/// [`ApiError::Unauthenticated`]; [`ApiError::RateLimited`] in its place when too many look-ups from there have
/// failed; or what became of the look-up.
pub(super) async fn authenticate(
    edge: &Edge,
    request: &HttpRequest,
    progress: &RequestState,
) -> Result<(Arc<Principal>, Arc<SecretString>), ApiError> {
    let headers = request.headers();
    let Presented::Token(text) = presented(headers) else {
        return Err(ApiError::Unauthenticated);
    };
    if edge.state.authenticator.takes_jwt(text) {
        let principal = verify_jwt(edge, text, progress).await?;
        return Ok((principal, Arc::new(text.to_owned().into())));
    }
    // A damaged token costs no look-up, so nobody counts it.
    let token = Token::parse(text).ok_or(ApiError::Unauthenticated)?;
    let authenticator = &edge.state.authenticator;
    let client = progress.client;
    let network = client.map(Network::of);
    let closed = || network.and_then(|network| edge.failed.check(network).err());
    let (found, closed) = match authenticator.recall(&token) {
        Memory::Fresh(principal) if principal.networks.include(client) => (Ok(principal), None),
        // Good, but not from here: that counts like a look-up that fails.
        Memory::Fresh(principal) => (Err(elsewhere(&principal)), closed()),
        memory @ (Memory::Stale | Memory::Unknown) => {
            let closed = closed();
            let _turn = match (&closed, memory) {
                (Some(_), Memory::Unknown) => edge.failed.turn().await,
                _ => None,
            };
            (authenticator.look_up(&token).await, closed)
        }
    };
    let found = found.and_then(|principal| {
        if principal.networks.include(client) {
            Ok(principal)
        } else {
            Err(elsewhere(&principal))
        }
    });
    let owner = match found {
        Ok(principal) => return Ok((principal, Arc::new(text.to_owned().into()))),
        Err(AuthError::Refused { owner }) => owner,
        Err(error @ AuthError::Store(_)) => return Err(error.into()),
    };
    let shown = ShownToken {
        id: token.id().to_owned(),
        owner,
    };
    // A request shows one token.
    let _ = progress.shown.set(shown);
    Err(match (closed, network) {
        (Some((level, wait_seconds)), _) => {
            progress.level.set(Some(level));
            ApiError::RateLimited { wait_seconds }
        }
        (None, Some(network)) => {
            edge.failed.record(network);
            ApiError::Unauthenticated
        }
        (None, None) => ApiError::Unauthenticated,
    })
}

/// The principal of a JSON Web Token. A bad one counts like a look-up that fails.
async fn verify_jwt(
    edge: &Edge,
    text: &str,
    progress: &RequestState,
) -> Result<Arc<Principal>, ApiError> {
    let network = progress.client.map(Network::of);
    match edge.state.authenticator.verify_jwt(text).await {
        Ok(principal) => return Ok(principal),
        Err(AuthError::Refused { .. }) => {}
        Err(error @ AuthError::Store(_)) => return Err(error.into()),
    }
    let Some(network) = network else {
        return Err(ApiError::Unauthenticated);
    };
    if let Err((level, wait_seconds)) = edge.failed.check(network) {
        progress.level.set(Some(level));
        return Err(ApiError::RateLimited { wait_seconds });
    }
    edge.failed.record(network);
    Err(ApiError::Unauthenticated)
}

/// The refusal of a good credential that is used from outside its networks.
fn elsewhere(principal: &Principal) -> AuthError {
    let owner = principal.grantee.owner().cloned();
    AuthError::Refused { owner }
}

/// The credential in a request's headers.
#[derive(Debug, PartialEq, Eq)]
enum Presented<'a> {
    Nothing,
    Malformed,
    Token(&'a str),
}

/// Reads `Authorization: Bearer` and `X-API-Key`. The same token may stand in both, or in several lines.
fn presented(headers: &HeaderMap) -> Presented<'_> {
    let bearers = headers.get_all(header::AUTHORIZATION).map(bearer);
    let keys = headers
        .get_all(API_KEY)
        .map(|line| line.to_str().ok().filter(|token| is_token(token)));
    let mut found = Presented::Nothing;
    for token in bearers.chain(keys) {
        found = match (token, found) {
            (Some(token), Presented::Nothing) => Presented::Token(token),
            (Some(token), Presented::Token(other)) if token == other => Presented::Token(token),
            _ => return Presented::Malformed,
        };
    }
    found
}

/// `Bearer <token>`, the scheme in any letter case (RFC 9110 section 11.1).
fn bearer(line: &HeaderValue) -> Option<&str> {
    let (scheme, token) = line.to_str().ok()?.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && is_token(token)).then_some(token)
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        lines.collect()
    }

    #[test]
    fn a_token_is_found_in_either_header() {
        for good in [
            &[("authorization", "Bearer t")][..],
            &[("authorization", "bEARER   t ")],
            &[("x-api-key", "t")],
            &[("authorization", "Bearer t"), ("x-api-key", "t")],
            &[("x-api-key", "t"), ("x-api-key", "t")],
            &[("authorization", "Bearer t"), ("authorization", "bearer t")],
        ] {
            assert_eq!(presented(&headers(good)), Presented::Token("t"), "{good:?}");
        }
        assert_eq!(presented(&headers(&[])), Presented::Nothing);
    }

    #[test]
    fn what_is_not_one_token_is_malformed() {
        for bad in [
            &[("authorization", "t")][..],
            &[("authorization", "")],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer ")],
            &[("authorization", "Bearer a b")],
            &[("authorization", "Basic dDp0")],
            &[("x-api-key", "")],
            &[("x-api-key", "a b")],
            &[("authorization", "Bearer t"), ("x-api-key", "u")],
            &[("authorization", "Basic dDp0"), ("x-api-key", "t")],
            &[("x-api-key", "t"), ("x-api-key", "u")],
            &[("x-api-key", "t"), ("x-api-key", "u"), ("x-api-key", "t")],
            &[("authorization", "Bearer t"), ("authorization", "Bearer u")],
        ] {
            assert_eq!(presented(&headers(bad)), Presented::Malformed, "{bad:?}");
        }
    }
}
