//! Requests that are refused for their credential are events of the log `activity`.

use crate::support::document::event_faults;
use crate::support::events::{Logged, all};
use crate::support::fixture::World;
use crate::support::metrics::{sample, scrape};
use crate::support::service::{Client, Deployment};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LIST: &str = "/api/v1/user/secrets";
const DENIED: &str = "log=activity&type=access.denied";
const LEFT_OUT: &str = "rekey_refusals_left_out_total";

/// The refusals that the log has, once there are so many: each is recorded soon after its answer.
async fn denials(client: &Client, number: usize) -> Vec<Logged> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let events = all(client, DENIED).await;
        assert!(events.len() <= number, "{} events", events.len());
        if events.len() == number {
            return events;
        }
        assert!(Instant::now() < deadline, "{} events", events.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn ask(client: &Client, method: Method, path: &str) -> u16 {
    let answer = client.send(client.request(method, path)).await;
    answer.unwrap().status
}

/// Whether the event has these fields.
fn assert_has(event: &Logged, fields: &Value) {
    for (name, value) in fields.as_object().unwrap() {
        assert_eq!(
            event.event.get(name),
            Some(value),
            "{name} of {}",
            event.event
        );
    }
}

/// The public part of a token.
fn id(token: &str) -> &str {
    token.get(6..22).unwrap()
}

/// What an event says of a request that nobody known made.
fn stranger(method: Option<&str>, route: Option<&str>, token: Option<&str>) -> Value {
    json!({
        "type": "access.denied", "actor": null, "client": "127.0.0.1", "method": method, "route": route,
        "status": 401, "token_id": token, "owner": null, "request_id": null, "left_out": 0,
    })
}

/// Whether the events say this, are what their schema says, and hold none of these words.
fn assert_told(events: &[Logged], expected: &[Value], words: &[&str]) {
    for (event, fields) in events.iter().zip(expected) {
        assert_has(event, fields);
        assert_eq!(event_faults(&event.event), Vec::<String>::new());
        let text = String::from_utf8(event.bytes.clone()).unwrap();
        for word in words {
            assert!(!text.contains(word), "{text}");
        }
        let id = event.text("server_request_id");
        assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7);
    }
}

#[tokio::test]
async fn a_refused_request_is_recorded_without_a_word_of_its_callers_own() {
    for world in World::both() {
        let nobody = world.anonymous().with("x-request-id", "my-own-words");
        let path = format!("{LIST}/my-own-id");
        assert_eq!(ask(&nobody, Method::PUT, &path).await, 401);
        let path = "/my-own-path?my-own=query";
        assert_eq!(ask(&nobody, Method::GET, path).await, 401);
        let odd = Method::from_bytes(b"MYOWN").unwrap();
        assert_eq!(ask(&nobody, odd, LIST).await, 401);
        // A token of another installation, and one that is damaged.
        let other = Deployment::sqlite().prepare();
        let foreign = other.token("mallory", &["secrets:read"]);
        let damaged = foreign.replacen("rekey_", "rekey-", 1);
        for token in [&foreign, &damaged] {
            let client = world.replica.client(token);
            assert_eq!(ask(&client, Method::GET, LIST).await, 401);
        }
        let one = format!("{LIST}/{{secret_id}}");
        let (get, list) = (Some("GET"), Some(LIST));
        let expected = [
            stranger(Some("PUT"), Some(&*one), None),
            stranger(get, None, None),
            stranger(None, list, None),
            stranger(get, list, Some(id(&foreign))),
            stranger(get, list, None),
        ];
        let secret = foreign.get(23..).unwrap();
        let events = denials(&world.auditor, expected.len()).await;
        assert_told(&events, &expected, &["my-own", "MYOWN", secret]);
        assert!(denials(&world.alice, 0).await.is_empty());
    }
}

#[tokio::test]
async fn an_owner_sees_what_was_refused_to_its_tokens() {
    for world in World::both() {
        let deployment = &world.deployment;
        let revoked = deployment.token("alice", &["secrets:read"]);
        deployment.run(&["token", "revoke", id(&revoked)]);
        let client = world.replica.client(&revoked);
        assert_eq!(ask(&client, Method::GET, LIST).await, 401);
        let reader = deployment.token("alice", &["secrets:read"]);
        let named = world.replica.client(&reader).with("x-request-id", "a-name");
        let path = format!("{LIST}/x");
        assert_eq!(ask(&named, Method::DELETE, &path).await, 403);
        let mut once_good = stranger(Some("GET"), Some(LIST), Some(id(&revoked)));
        once_good["owner"] = json!("alice");
        let known = json!({
            "actor": {"id": id(&reader), "kind": "token"}, "client": "127.0.0.1", "method": "DELETE",
            "route": format!("{LIST}/{{secret_id}}"), "status": 403, "token_id": id(&reader),
            "owner": "alice", "request_id": "a-name", "left_out": 0,
        });
        let events = denials(&world.auditor, 2).await;
        let secrets = [revoked.get(23..).unwrap(), reader.get(23..).unwrap()];
        assert_told(&events, &[once_good, known], &secrets);
        assert_eq!(denials(&world.alice, 2).await, events);
        assert!(denials(&world.bob, 0).await.is_empty());
    }
}

#[tokio::test]
async fn the_throttle_of_bad_credentials_is_recorded_and_other_limits_are_not() {
    let world = World::with(&[
        ("LIMITS__FAILED_PER_MINUTE", "1"),
        ("LIMITS__RATE_PER_SECOND", "1"),
        ("LIMITS__BURST", "3"),
    ]);
    let foreign = Deployment::sqlite()
        .prepare()
        .token("mallory", &["secrets:read"]);
    let stranger = world.replica.client(&foreign);
    assert_eq!(ask(&stranger, Method::GET, LIST).await, 401);
    assert_eq!(ask(&stranger, Method::GET, LIST).await, 429);
    while ask(&world.bob, Method::GET, LIST).await == 200 {}
    let events = denials(&world.auditor, 2).await;
    let statuses: Vec<_> = events.iter().map(|event| &event.event["status"]).collect();
    assert_eq!(statuses, [&json!(401), &json!(429)]);
}

#[tokio::test]
async fn each_address_and_each_owner_has_so_many_a_minute() {
    let world = World::with(&[
        ("ACTIVITY__REFUSALS_PER_MINUTE", "2"),
        ("HTTP__TRUSTED_PROXIES", "127.0.0.1"),
        ("LIMITS__RATE_PER_SECOND", "1000"),
        ("LIMITS__BURST", "1000"),
    ]);
    let reader = world.deployment.token("alice", &["secrets:read"]);
    let reader = world.replica.client(&reader);
    for _ in 0..5 {
        let from = world.anonymous().with("x-forwarded-for", "192.0.2.1");
        assert_eq!(ask(&from, Method::GET, LIST).await, 401);
        let from = world.anonymous().with("x-forwarded-for", "192.0.2.2");
        assert_eq!(ask(&from, Method::GET, LIST).await, 401);
        assert_eq!(ask(&reader, Method::DELETE, LIST).await, 405);
        assert_eq!(ask(&reader, Method::POST, LIST).await, 403);
    }
    let events = denials(&world.auditor, 6).await;
    let mut whose: Vec<_> = events
        .iter()
        .map(|event| format!("{} {}", event.text("client"), event.text("owner")))
        .collect();
    whose.sort();
    let expected = ["127.0.0.1 alice", "192.0.2.1 ", "192.0.2.2 "];
    assert_eq!(whose, expected.map(|one| [one, one]).concat());
    let text = scrape(&world.anonymous()).await;
    assert_eq!(sample(&text, LEFT_OUT), Some(9));
}

#[tokio::test]
async fn none_are_recorded_where_the_setting_says_so() {
    let world = World::with(&[("ACTIVITY__REFUSALS_PER_MINUTE", "0")]);
    assert_eq!(ask(&world.anonymous(), Method::GET, LIST).await, 401);
    let text = scrape(&world.anonymous()).await;
    assert_eq!(sample(&text, LEFT_OUT), Some(1));
    assert_eq!(denials(&world.auditor, 0).await, []);
}

#[tokio::test]
async fn a_refusal_that_can_not_be_recorded_fails_nobody_and_is_counted_in_the_next_one() {
    let world = World::sqlite();
    world.deployment.sql(
        "CREATE TRIGGER no_denials BEFORE INSERT ON events WHEN NEW.type = 'access.denied' \
         BEGIN SELECT RAISE(ABORT, 'no'); END",
    );
    let id = world
        .alice
        .create("A", "one")
        .await
        .unwrap()
        .expect(201)
        .id();
    for _ in 0..3 {
        let (refused, put) = tokio::join!(
            async { ask(&world.anonymous(), Method::GET, LIST).await },
            world.alice.put(&id, "two"),
        );
        assert_eq!(refused, 401);
        put.unwrap().expect(200);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while sample(&scrape(&world.anonymous()).await, LEFT_OUT) != Some(3) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.deployment.sql("DROP TRIGGER no_denials");
    assert_eq!(ask(&world.anonymous(), Method::GET, LIST).await, 401);
    let events = denials(&world.auditor, 1).await;
    assert_has(&events[0], &json!({"left_out": 3}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_bad_credentials_fills_neither_log_nor_queue() {
    let world = World::sqlite();
    let id = world
        .alice
        .create("A", "one")
        .await
        .unwrap()
        .expect(201)
        .id();
    let nobody = world.anonymous();
    let floods = (0..8).map(|_| {
        let nobody = nobody.clone();
        tokio::spawn(async move {
            for _ in 0..100 {
                assert_eq!(ask(&nobody, Method::GET, LIST).await, 401);
            }
        })
    });
    let floods: Vec<_> = floods.collect();
    for _ in 0..50 {
        world.alice.put(&id, "two").await.unwrap().expect(200);
    }
    for flood in floods {
        flood.await.unwrap();
    }
    let recorded = denials(&world.auditor, 60).await;
    let told: u64 = recorded
        .iter()
        .map(|e| e.event["left_out"].as_u64().unwrap())
        .sum();
    assert_eq!(told, 0, "this minute is not over");
    let text = scrape(&world.anonymous()).await;
    assert_eq!(sample(&text, LEFT_OUT), Some(740));
}
