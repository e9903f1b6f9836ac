//! Lines that are no assignments, but the end of a key in base64 that was wrapped.
//!
//! The end of such a key looks like a name, `=`, and a value that is empty or another `=`. Taken for a secret, its
//! name would be a part of the key, in clear in lists, logs and messages.

use super::{BLANKS, Statement};

/// The shortest line that is taken for the begin of a wrapped key. (openssl wraps at 64 characters, others at 76.)
const SHORTEST: usize = 40;

/// Whether a statement without a value is what is left of the key that the line before begins.
pub(super) fn continues(line_before: &str, statement: &Statement<'_>) -> bool {
    let Statement { name, value } = statement;
    let ends = value.text.is_empty()
        && !value.quoted
        && (name.len() + 1).is_multiple_of(4)
        && name.bytes().all(|b| b.is_ascii_alphanumeric());
    ends && line_before
        .split_once('=')
        .is_some_and(|(_, value)| begins(value.trim_matches(BLANKS)))
}

/// Whether a value may be the first line of a wrapped key: a whole number of base64's groups, and not hexadecimal.
fn begins(value: &str) -> bool {
    let base64 = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    value.len() >= SHORTEST
        && value.len().is_multiple_of(4)
        && value.bytes().all(base64)
        && !value.bytes().all(|b| b.is_ascii_hexdigit())
}
