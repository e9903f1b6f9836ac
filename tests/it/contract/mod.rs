//! The OpenAPI document of the running service holds the compatible core, which clients were written for.
//!
//! `openapi.json` is that core. What the service says beyond it is its own affair.

use crate::support::service::{Client, Deployment};
use serde_json::Value;
use std::collections::BTreeSet;

const CORE: &str = include_str!("openapi.json");

/// Keys whose lists are sets that may neither shrink nor grow.
const SETS: [&str; 3] = ["required", "enum", "type"];
/// Keys that may not even grow: what is not there is said, too.
const EQUAL: [&str; 3] = ["security", "servers", "$ref"];

#[tokio::test]
async fn the_running_service_describes_at_least_the_compatible_core() {
    let replica = Deployment::sqlite().prepare().serve();
    let client = Client::anonymous(replica.base());
    let answer = client.fetch("/openapi.json").await.unwrap().expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let missing = lacks(&answer.json());
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn a_document_that_lacks_something_of_the_core_is_told_where() {
    let mut lacking = core();
    let schemas = &mut lacking["components"]["schemas"];
    let secret = schemas["UserSecret"].as_object_mut().unwrap();
    secret.insert("required".to_owned(), serde_json::json!(["id"]));
    schemas["ErrorEnvelope"]["properties"]["type"]["enum"]
        .as_array_mut()
        .unwrap()
        .push("teapot_error".into());
    let list = lacking["paths"]["/user/secrets"].as_object_mut().unwrap();
    list.remove("post");
    let places: Vec<_> = lacks(&lacking)
        .iter()
        .filter_map(|line| line.split(": ").next().map(str::to_owned))
        .collect();
    assert_eq!(
        places,
        [
            "/components/schemas/ErrorEnvelope/properties/type/enum",
            "/components/schemas/UserSecret/required",
            "/paths//user/secrets/post",
        ]
    );
}

fn core() -> Value {
    serde_json::from_str(CORE).unwrap()
}

/// Every place at which a document has less than the core.
fn lacks(document: &Value) -> Vec<String> {
    let mut comparison = Comparison {
        document,
        missing: Vec::new(),
    };
    comparison.compare("", &core(), document);
    comparison.missing
}

struct Comparison<'document> {
    document: &'document Value,
    missing: Vec<String>,
}

impl<'document> Comparison<'document> {
    fn compare(&mut self, place: &str, expected: &Value, actual: &Value) {
        let key = place.rsplit('/').next().unwrap_or_default();
        let good = match (expected, self.resolved(expected, actual)) {
            (Value::Object(members), actual @ Value::Object(_)) => {
                for (key, member) in members {
                    let place = format!("{place}/{key}");
                    match actual.get(key) {
                        Some(actual) => self.compare(&place, member, actual),
                        None => self.missing.push(format!("{place}: absent")),
                    }
                }
                true
            }
            (Value::String(_), Value::String(_)) if may_differ(place) => true,
            (Value::Array(expected), Value::Array(actual)) if SETS.contains(&key) => {
                texts(expected) == texts(actual)
            }
            (Value::Array(expected), Value::Array(actual)) if !EQUAL.contains(&key) => {
                expected.iter().all(|member| self.holds(actual, member))
            }
            (expected, actual) => expected == actual,
        };
        if !good {
            self.missing
                .push(format!("{place}: {expected} expected, {actual} found"));
        }
    }

    /// A schema of its own says the same as one in place.
    fn resolved<'value>(&self, expected: &Value, actual: &'value Value) -> &'value Value
    where
        'document: 'value,
    {
        let target = actual["$ref"]
            .as_str()
            .filter(|_| expected["$ref"].is_null());
        target
            .and_then(|target| self.document.pointer(target.trim_start_matches('#')))
            .unwrap_or(actual)
    }

    /// Whether one of the members has all of `wanted`.
    fn holds(&self, members: &[Value], wanted: &Value) -> bool {
        members.iter().any(|member| {
            let mut inner = Comparison {
                document: self.document,
                missing: Vec::new(),
            };
            inner.compare("", wanted, member);
            inner.missing.is_empty()
        })
    }
}

/// Words for people, and the version of the document.
fn may_differ(place: &str) -> bool {
    place == "/info/version" || place.ends_with("/description")
}

fn texts(members: &[Value]) -> BTreeSet<String> {
    members.iter().map(Value::to_string).collect()
}
