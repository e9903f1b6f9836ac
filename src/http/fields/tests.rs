//! What bodies are parsed as, and what is refused.

use proptest::prelude::*;

use super::*;
use crate::domain::{Provider, SecretName};

const KNOWN: &[&str] = &["name", "value", "provider", "updates"];

fn malformed(body: impl AsRef<[u8]>) -> Option<MalformedRequest> {
    parse_object(body.as_ref(), KNOWN).err()
}

fn text(body: &str, name: &str) -> Option<String> {
    match parse_object(body.as_bytes(), KNOWN).unwrap().0.remove(name) {
        Some(Field::Text(text)) => Some(text.to_string()),
        _ => None,
    }
}

#[test]
fn strings_are_kept_byte_for_byte() {
    assert_eq!(
        text(r#" {"value":" a\u0000\ud83d\ude00\/\n "} "#, "value").unwrap(),
        " a\0😀/\n "
    );
    assert_eq!(text("{\"v\\u0061lue\":\"x\"}", "value").unwrap(), "x");
}

#[test]
fn what_is_not_one_json_object_is_refused() {
    for bad in [
        "",
        " ",
        "null",
        "1",
        "\"x\"",
        "[]",
        "[{}]",
        "{",
        "{}}",
        "{} {}",
        "{}x",
        "{\"a\":1,}",
        "{'a':1}",
        "{a:1}",
        "{\"a\":01}",
        "{\"a\":NaN}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":1}//",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\\udc00\\ud800\"}",
        "{\"a\":{\"b\":[\"\\ud800\"]}}",
        "{\"\\ud800\":1}",
        "\u{feff}{}",
    ] {
        assert_eq!(malformed(bad), Some(MalformedRequest::Body), "{bad}");
    }
    assert_eq!(malformed(b"{\"a\":\"\xff\"}"), Some(MalformedRequest::Body));
    assert_eq!(
        malformed(b"{\"a\":\"\xed\xa0\x80\"}"),
        Some(MalformedRequest::Body)
    );
}

#[test]
fn nesting_has_a_limit_also_in_what_is_ignored() {
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(malformed(nested(100)), None);
    assert_eq!(malformed(nested(200)), Some(MalformedRequest::Body));
    assert_eq!(malformed("[".repeat(400_000)), Some(MalformedRequest::Body));
}

#[test]
fn what_nobody_asks_for_is_read_but_not_kept() {
    let body = r#"{"value":"a","other":"b","n\u0061me":"c","updates":[{"value":"d","other":"e"}]}"#;
    let mut fields = parse_object(body.as_bytes(), KNOWN).unwrap();
    let mut names: Vec<_> = fields.0.keys().copied().collect();
    names.sort_unstable();
    assert_eq!(names, ["name", "updates", "value"]);
    let Some(Field::List(mut entries)) = fields.0.remove("updates") else {
        panic!("no list");
    };
    let Some(Field::Object(Some(entry))) = entries.pop() else {
        panic!("no entry");
    };
    assert_eq!(entry.0.into_keys().collect::<Vec<_>>(), ["value"]);
}

#[test]
fn members_have_a_limit_also_in_what_is_ignored() {
    let list = |count: usize| format!("{{\"a\":[{}]}}", vec!["1"; count].join(","));
    assert_eq!(malformed(list(9_999)), None);
    assert_eq!(malformed(list(10_000)), Some(MalformedRequest::Members));
    let object = |count: usize| {
        let members: Vec<_> = (0..count).map(|n| format!("\"k{n}\":1")).collect();
        members.join(",")
    };
    assert_eq!(malformed(format!("{{{}}}", object(10_000))), None);
    for bad in [
        format!("{{{}}}", object(10_001)),
        format!("{{\"a\":{{{}}}}}", object(10_000)),
        format!("{{\"updates\":[{{{}}}]}}", object(9_999)),
        format!("{{\"updates\":[{}1]}}", "[[1]],".repeat(4_000)),
    ] {
        assert_eq!(malformed(bad), Some(MalformedRequest::Members));
    }
}

#[test]
fn a_repeated_key_is_refused_in_every_spelling_and_known_or_not() {
    for bad in [
        r#"{"value":"a","value":"a"}"#,
        r#"{"value":"a","v\u0061lue":"b"}"#,
        r#"{"x":1,"value":"a","x":2}"#,
        r#"{"":1,"":2}"#,
    ] {
        assert_eq!(malformed(bad), Some(MalformedRequest::RepeatedKey), "{bad}");
    }
    assert_eq!(malformed(r#"{"value":"a","VALUE":"b"}"#), None);
    assert_eq!(malformed(r#"{"x":{"a":1,"a":2}}"#), None);
    // Not JSON goes before a repeated key.
    assert_eq!(malformed(r#"{"x":1,"x":2"#), Some(MalformedRequest::Body));
}

#[test]
fn all_faults_of_a_body_are_reported_together() {
    let mut fields = parse_object(br#"{"name":7,"provider":"No","other":[]}"#, KNOWN).unwrap();
    let mut faults = Faults::default();
    let read = |text: Zeroizing<String>| SecretName::parse(&text);
    assert_eq!(fields.required("name", &mut faults, read), None);
    assert_eq!(fields.required("value", &mut faults, read), None);
    let read = |text: Zeroizing<String>| Provider::parse(&text);
    assert_eq!(fields.optional("provider", &mut faults, read), None);
    assert_eq!(fields.optional("absent", &mut faults, read), Some(None));
    let item = |name, kind| ErrorItem::new([Location::BODY, Location::Name(name)], kind);
    assert_eq!(
        faults.0,
        [
            item("name", ItemKind::StringType),
            item("value", ItemKind::Missing),
            item("provider", ItemKind::StringPatternMismatch),
        ]
    );
}

#[test]
fn null_is_absent_only_where_a_field_is_optional() {
    let mut fields = parse_object(br#"{"name":null,"provider":null}"#, KNOWN).unwrap();
    let mut faults = Faults::default();
    let read = |text: Zeroizing<String>| Provider::parse(&text);
    assert_eq!(fields.optional("provider", &mut faults, read), Some(None));
    assert!(faults.0.is_empty());
    assert_eq!(fields.required("name", &mut faults, read), None);
    assert_eq!(faults.0.len(), 1);
}

proptest! {
    #[test]
    fn any_bytes_end_in_an_answer(bytes: Vec<u8>) {
        let _ = parse_object(&bytes, KNOWN);
    }

    #[test]
    fn any_string_comes_back(value: String) {
        let body = serde_json::json!({ "value": value }).to_string();
        prop_assert_eq!(text(&body, "value").unwrap(), value);
    }

    #[test]
    fn what_serde_json_takes_as_an_object_is_taken(body in "\\{(\"[a-c]{1,2}\":(1|null|\"x\"|\\[\\]|\\{\\}),?){0,3}\\}") {
        let valid = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&body).is_ok();
        prop_assert_eq!(valid, malformed(&body) != Some(MalformedRequest::Body));
    }
}
