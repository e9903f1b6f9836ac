//! Cross-origin calls, for the origins that `http.cors_origins` lists; without a list, no header at all.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        Method,
        header::{self, HeaderMap, HeaderValue},
    },
};

use crate::settings::HttpSettings;

const METHODS: &str = "GET, HEAD, POST, PUT, DELETE";
const REQUEST_HEADERS: &str =
    "Authorization, X-API-Key, Content-Type, If-Match, Idempotency-Key, X-Request-Id";
const RESPONSE_HEADERS: &str = "ETag, Location, Idempotent-Replayed, X-Request-Id, Retry-After, RateLimit, RateLimit-Policy, Upgrade";

/// The answer to a preflight of a listed origin. A browser sends it without the credential, so it is
/// given before that is asked for, and it says nothing of the path.
pub(super) fn preflight(http: &HttpSettings, request: &HttpRequest) -> Option<HttpResponse> {
    let asks = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    (asks && listed(http, request).is_some()).then(|| {
        HttpResponse::NoContent()
            .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, METHODS))
            .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS))
            .insert_header((header::ACCESS_CONTROL_MAX_AGE, "600"))
            .finish()
    })
}

/// Lets a listed origin read an answer, an error too. Credentials in cookies are never allowed.
pub(super) fn expose(http: &HttpSettings, request: &HttpRequest, answer: &mut HeaderMap) {
    if http.cors_origins.is_empty() {
        return;
    }
    answer.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = listed(http, request) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(RESPONSE_HEADERS),
        );
    }
}

fn listed<'a>(http: &HttpSettings, request: &'a HttpRequest) -> Option<&'a HeaderValue> {
    let origin = request.headers().get(header::ORIGIN)?;
    let is_listed = http
        .cors_origins
        .iter()
        .any(|listed| listed.as_bytes() == origin.as_bytes());
    is_listed.then_some(origin)
}
