//! What a change set is refused for, to the byte; and that nothing of it stands then.

use crate::support::envelope::{
    LONG, MISSING, PATTERN, SHORT, STRING, UUID, VALUE, assert_422, assert_error,
};
use crate::support::events::all;
use crate::support::fixture::{ABSENT, ALL, BATCH, World};
use crate::support::ledger;
use crate::support::service::{Answer, Client};
use reqwest::Method;
use serde_json::{Value, json};

const UPDATES: &str = r#"["body","updates"]"#;

async fn raw(client: &Client, body: String) -> Answer {
    let request = client.request(Method::POST, BATCH);
    let request = request.header("content-type", "application/json");
    client.send(request.body(body)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_entry_that_is_absent_or_foreign_fails_all_and_is_named() {
    for world in World::both() {
        let alice = &world.alice;
        let secrets = ledger::create(alice, 5).await;
        let of_bob = ledger::create(&world.bob, 1).await;
        let gone = alice.create("GONE", "x").await.unwrap().expect(201).id();
        alice.delete(&gone).await.unwrap().expect(204);
        let before = all(&world.auditor, "").await;
        for index in 0..5 {
            for bad in [ABSENT, &of_bob[0], &gone] {
                let mut ids: Vec<&str> = secrets.iter().map(String::as_str).collect();
                ids[index] = bad;
                let updates: Vec<_> = ids
                    .iter()
                    .map(|id| json!({"id": id, "value": "two"}))
                    .collect();
                let answer = alice.post(BATCH, &json!({"updates": updates})).await;
                let place = format!(r#"["body","updates",{index},"id"]"#);
                let item = [&*place, "Not found", "not_found"];
                let answer = answer.unwrap();
                assert_error(&answer, 404, "not_found_error", "Not found", &[item]);
            }
        }
        assert_eq!(all(&world.auditor, "").await, before);
        let resolved = alice.resolve(&json!({"ids": secrets})).await.unwrap();
        let resolved = resolved.expect(200).json();
        for secret in resolved["secrets"].as_array().unwrap() {
            assert_eq!(secret["value"], "sk-the-first-value");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_rule_of_a_set_is_named_with_its_entry() {
    let world = World::sqlite();
    let alice = &world.alice;
    let secrets = ledger::create(alice, 51).await;
    let before = all(alice, "").await;
    let of = |count: usize| -> Vec<Value> {
        let ids = secrets.iter().take(count);
        ids.map(|id| json!({"id": id, "value": "x"})).collect()
    };
    let at = |index: usize, name: &str| format!(r#"["body","updates",{index},"{name}"]"#);
    let entry = r#"["body","updates",0]"#.to_owned();
    let updates = || UPDATES.to_owned();
    let (id, upper) = (&secrets[0], secrets[0].to_uppercase());
    let (long, wide) = ("x".repeat(65_537), "é".repeat(32_769));
    for (body, items) in [
        (json!({}), vec![(updates(), MISSING)]),
        (json!({"updates": null}), vec![(updates(), MISSING)]),
        (json!({"updates": []}), vec![(updates(), VALUE)]),
        (json!({"updates": of(51)}), vec![(updates(), VALUE)]),
        (
            json!({"updates": {"0": of(1)[0]}}),
            vec![(updates(), VALUE)],
        ),
        (json!({"updates": "x"}), vec![(updates(), VALUE)]),
        (json!({"updates": ["x"]}), vec![(entry.clone(), VALUE)]),
        (json!({"updates": [null]}), vec![(entry.clone(), VALUE)]),
        (
            json!({"updates": [[of(1)[0]]]}),
            vec![(entry.clone(), VALUE)],
        ),
        (
            json!({"updates": [{}]}),
            vec![(at(0, "id"), MISSING), (at(0, "value"), MISSING)],
        ),
        (
            json!({"updates": [of(1)[0], {"id": upper, "value": "y"}]}),
            vec![(at(1, "id"), VALUE)],
        ),
        (
            json!({"updates": [{"id": "x", "value": ""}, {"id": 1, "value": 2}, {"id": ABSENT, "value": "\0"}]}),
            vec![
                (at(0, "id"), UUID),
                (at(0, "value"), SHORT),
                (at(1, "id"), STRING),
                (at(1, "value"), STRING),
                (at(2, "value"), PATTERN),
            ],
        ),
        (
            json!({"updates": [{"id": id, "value": long}, {"id": ABSENT, "value": wide}]}),
            vec![(at(0, "value"), LONG), (at(1, "value"), LONG)],
        ),
    ] {
        let items: Vec<_> = items.iter().map(|(loc, kind)| (&**loc, *kind)).collect();
        assert_422(&raw(alice, body.to_string()).await, &items);
    }
    let twice = format!(r#"{{"updates":[{{"id":"{id}","value":"x","value":"y"}}]}}"#);
    assert_422(&raw(alice, twice).await, &[(&entry, VALUE)]);
    assert_eq!(all(alice, "").await, before);
    let fifty = json!({"updates": of(50)});
    alice.post(BATCH, &fifty).await.unwrap().expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_four_mebibytes_is_taken_and_one_byte_more_is_too_large() {
    let world = World::sqlite();
    let alice = &world.alice;
    let secrets = ledger::create(alice, 1).await;
    let body = json!({"updates": [{"id": secrets[0], "value": "x"}]}).to_string();
    let padded = |size: usize| format!("{}{body}", " ".repeat(size - body.len()));
    raw(alice, padded(4 << 20)).await.expect(200);
    let large = raw(alice, padded((4 << 20) + 1)).await;
    let kind = "payload_too_large_error";
    assert_error(&large, 413, kind, "The body is too large", &[]);
    // No other call takes so much.
    let path = format!("/api/v1/user/secrets/{}", secrets[0]);
    let put = alice.request(Method::PUT, &path);
    let put = put.header("content-type", "application/json");
    let answer = alice.send(put.body(padded(1 << 20))).await.unwrap();
    assert_error(&answer, 413, kind, "The body is too large", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_takes_an_owner_who_may_write_and_json() {
    let world = World::sqlite();
    let secrets = ledger::create(&world.alice, 1).await;
    let body = json!({"updates": [{"id": secrets[0], "value": "x"}]});
    let scopes = ["secrets:read", "secrets:resolve", "events:read"];
    for token in [
        world.deployment.token("alice", &scopes),
        world.deployment.service_token("s", &["*"], &ALL),
    ] {
        let answer = world.replica.client(&token).post(BATCH, &body).await;
        let answer = answer.unwrap();
        assert_error(&answer, 403, "permission_error", "Access forbidden", &[]);
    }
    let request = world.alice.request(Method::POST, BATCH);
    let answer = world.alice.send(request.body(body.to_string())).await;
    let detail = "The Content-Type must be application/json in UTF-8";
    assert_error(&answer.unwrap(), 400, "invalid_request_error", detail, &[]);
    let got = world.alice.fetch(BATCH).await.unwrap().expect(405);
    assert_eq!(got.header("allow"), Some("POST"));
    assert_eq!(all(&world.alice, "").await.len(), 1);
}
