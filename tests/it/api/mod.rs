//! The HTTP contract, call by call, against the real binary.

mod connections;
mod errors;
mod malformed;
mod secrets;

use serde_json::Value;

fn text<'value>(object: &'value Value, key: &str) -> &'value str {
    object[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} is no text in {object}"))
}
