//! What every answer of the API has in common.

use super::service::Answer;

/// What is wrong with a field: `msg` and `type`.
pub(crate) type Fault = [&'static str; 2];
pub(crate) const SHORT: Fault = ["Input is too short", "string_too_short"];
pub(crate) const LONG: Fault = ["Input is too long", "string_too_long"];
pub(crate) const PATTERN: Fault = [
    "Input does not match the pattern",
    "string_pattern_mismatch",
];
pub(crate) const STRING: Fault = ["Input should be a string", "string_type"];
pub(crate) const MISSING: Fault = ["Field required", "missing"];
pub(crate) const VALUE: Fault = ["Input is not allowed", "value_error"];
pub(crate) const ENUM: Fault = ["Input is none of the permitted values", "enum"];
pub(crate) const UUID: Fault = ["Input should be a UUID of 36 characters", "uuid_parsing"];
pub(crate) const INT: Fault = ["Input should be a whole number", "int_type"];
pub(crate) const LIMIT: Fault = ["The limit is reached", "limit_reached"];

/// An error is exactly these bytes; each of `errors` is `loc` as JSON, `msg` and `type`.
pub(crate) fn assert_error(
    answer: &Answer,
    status: u16,
    kind: &str,
    detail: &str,
    errors: &[[&str; 3]],
) {
    let items: Vec<_> = errors
        .iter()
        .map(|[loc, msg, kind]| format!(r#"{{"loc":{loc},"msg":"{msg}","type":"{kind}"}}"#))
        .collect();
    let errors = if items.is_empty() {
        String::new()
    } else {
        format!(r#","errors":[{}]"#, items.join(","))
    };
    let body = format!(r#"{{"code":{status},"detail":"{detail}","type":"{kind}"{errors}}}"#);
    assert_eq!((answer.status, answer.text()), (status, body));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_common(answer);
}

/// What every answer carries, an error too.
pub(crate) fn assert_common(answer: &Answer) {
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let id = answer.header("x-request-id").expect("a request ID");
    assert!((1..=128).contains(&id.len()), "{id}");
}

/// Each of `items` is a `loc` as JSON, and what is wrong there.
pub(crate) fn assert_422(answer: &Answer, items: &[(&str, Fault)]) {
    let items = items.iter().map(|(loc, [msg, kind])| [*loc, *msg, *kind]);
    let items: Vec<_> = items.collect();
    assert_error(answer, 422, "validation_error", "Validation failed", &items);
}

pub(crate) fn assert_missing(answer: &Answer) {
    assert_error(answer, 404, "not_found_error", "Not found", &[]);
}
