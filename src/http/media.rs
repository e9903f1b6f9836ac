//! The media type of a body: `application/json` in UTF-8, as it is, and nothing else.

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};

use super::{error::MalformedRequest, single_line};

/// Checks the headers that say what the body is.
///
/// # Errors
/// [`MalformedRequest::ContentEncoding`] for any `Content-Encoding`, [`MalformedRequest::ContentType`] unless there is
/// exactly one `Content-Type`, of JSON in UTF-8.
pub(super) fn check(headers: &HeaderMap) -> Result<(), MalformedRequest> {
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(MalformedRequest::ContentEncoding);
    }
    match single_line(headers, CONTENT_TYPE) {
        Some(line) if is_json(line) => Ok(()),
        _ => Err(MalformedRequest::ContentType),
    }
}

/// `application/json`, with at most one parameter, `charset=utf-8` (RFC 9110 sections 5.6.6 and 8.3.1).
fn is_json(line: &str) -> bool {
    let mut parts = line.split(';').map(|part| part.trim_matches([' ', '\t']));
    let essence = parts.next().unwrap_or_default();
    let mut parameters = parts.filter(|part| !part.is_empty());
    essence.eq_ignore_ascii_case("application/json")
        && parameters.next().is_none_or(is_utf8)
        && parameters.next().is_none()
}

fn is_utf8(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, value)| {
        let bare = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'))
            .unwrap_or(value);
        name.eq_ignore_ascii_case("charset") && bare.eq_ignore_ascii_case("utf-8")
    })
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn json_in_utf8_is_taken_in_every_spelling() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=UTF-8",
            "application/json ; Charset=\"Utf-8\"",
            "application/json;",
            "application/json; ; charset=utf-8;",
        ] {
            assert!(is_json(good), "{good}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for bad in [
            "",
            "text/json",
            "application/problem+json",
            "application/json5",
            "application/json, text/plain",
            "application/json; charset=latin1",
            "application/json; charset=utf8",
            "application/json; charset",
            "application/json; charset=\"utf-8",
            "application/json; charset = utf-8",
            "application/json; charset=utf-8; charset=utf-8",
            "application/json; profile=x",
            "*/*",
        ] {
            assert!(!is_json(bad), "{bad}");
        }
    }

    #[test]
    fn there_is_exactly_one_content_type_and_no_encoding() {
        let json = HeaderValue::from_static("application/json");
        let mut headers = HeaderMap::new();
        assert_eq!(check(&headers), Err(MalformedRequest::ContentType));
        headers.append(CONTENT_TYPE, json.clone());
        assert_eq!(check(&headers), Ok(()));
        headers.append(CONTENT_TYPE, json);
        assert_eq!(check(&headers), Err(MalformedRequest::ContentType));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("identity"));
        assert_eq!(check(&headers), Err(MalformedRequest::ContentEncoding));
    }
}
