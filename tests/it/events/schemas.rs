//! The published JSON Schemas say of events what events are.

use super::{World, batch, change};
use crate::faults::ledger;
use crate::support::events::all;
use crate::support::service::Client;
use serde_json::{Value, json};

/// What is wrong with a value, by the words of JSON Schema that ours use.
fn faults(schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |good: bool, word: &str| {
        if !good {
            found.push(format!("{place}: {word} {}, found {value}", schema[word]));
        }
    };
    let words = schema.as_object().expect("a schema");
    for (word, said) in words {
        match &**word {
            "$schema" | "$id" | "properties" | "allOf" | "if" | "then" | "items" => {}
            "type" => check(types(said).any(|name| is(value, name)), word),
            "const" => check(said == value, word),
            "enum" => check(said.as_array().unwrap().contains(value), word),
            "minimum" => check(
                value.as_u64().is_none_or(|n| Some(n) >= said.as_u64()),
                word,
            ),
            "required" => {
                let names = said.as_array().unwrap().iter();
                let there = |name: &Value| value.get(name.as_str().unwrap()).is_some();
                check(!value.is_object() || names.clone().all(there), word);
            }
            "format" if said == "uuid" => check(uuid::Uuid::parse_str(text(value)).is_ok(), word),
            "format" if said == "date-time" => {
                check(
                    chrono::DateTime::parse_from_rfc3339(text(value)).is_ok(),
                    word,
                );
            }
            "pattern" if said == "^[0-9a-f]{64}$" => {
                let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
                check(
                    text(value).len() == 64 && text(value).chars().all(hex),
                    word,
                );
            }
            unknown => panic!("{place}: the test does not know {unknown}"),
        }
    }
    found.extend(faults_within(schema, value, place));
    found
}

/// What is wrong with its members and entries, and with what they depend on.
fn faults_within(schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, schema) in schema.get("properties").into_iter().flat_map(members) {
        if let Some(member) = value.get(name) {
            found.extend(faults(schema, member, &format!("{place}/{name}")));
        }
    }
    if let (Some(schema), Some(entries)) = (schema.get("items"), value.as_array()) {
        found.extend(
            entries
                .iter()
                .flat_map(|entry| faults(schema, entry, place)),
        );
    }
    for schema in schema
        .get("allOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if faults(&schema["if"], value, place).is_empty() {
            found.extend(faults(&schema["then"], value, place));
        }
    }
    found
}

fn members(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.as_object().expect("an object").iter()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn types(said: &Value) -> impl Iterator<Item = &str> {
    let many = said
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    said.as_str().into_iter().chain(many)
}

fn is(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "null" => value.is_null(),
        other => panic!("the test does not know the type {other}"),
    }
}

async fn schema(client: &Client, name: &str) -> Value {
    let answer = client.fetch(&format!("/schemas/{name}.v1.json")).await;
    let answer = answer.unwrap().expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_what_its_published_schema_says_and_has_no_field_beyond() {
    let world = World::of(ledger::sqlite());
    let secrets = ledger::create(&world.alice, 2).await;
    change(&world.alice, &secrets, 1).await;
    let updates = secrets.iter().map(|id| (&**id, "x".to_owned()));
    assert_eq!(batch(&world.alice, &updates.collect::<Vec<_>>()).await, 200);
    let preset = json!({"provider": "openai", "value": "x"});
    let path = "/api/v1/user/secrets/preset";
    world.alice.post(path, &preset).await.unwrap().expect(201);
    let names = json!({"names": ["SECRET_0", "OPENAI_API_KEY"]});
    world.alice.resolve(&names).await.unwrap().expect(200);
    world.alice.delete(&secrets[0]).await.unwrap().expect(204);
    let create = "token create --owner alice --scope secrets:read --expires-in 1h";
    let token = world.deployment.run(&create.split(' ').collect::<Vec<_>>());
    let id = token.split('_').nth(1).unwrap();
    world.deployment.run(&["token", "revoke", id]);
    // Anybody may read them.
    let anybody = Client::anonymous(world.replica.base());
    for (log, name, kinds) in [
        ("changes", "secret-event", 3),
        ("activity", "activity-event", 3),
    ] {
        let schema = schema(&anybody, name).await;
        let events = all(&world.auditor, &format!("log={log}")).await;
        let mut seen: Vec<_> = events.iter().map(|event| event.text("type")).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), kinds);
        for event in &events {
            assert_eq!(faults(&schema, &event.event, log), Vec::<String>::new());
            let described = schema.to_string();
            for (field, _) in members(&event.event) {
                assert!(described.contains(&format!("\"{field}\":{{")), "{field}");
            }
            // The test can see a fault, too.
            let mut wrong = event.event.clone();
            wrong["epoch"] = json!("1");
            assert_eq!(faults(&schema, &wrong, log).len(), 1, "{wrong}");
        }
    }
}
