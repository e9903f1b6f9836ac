//! Secrets that expire: from then on their values are handed out no more, and everybody is told once.

use crate::support::events::{Logged, all};
use crate::support::fixture::{self, LIST, World};
use crate::support::service::{Answer, Client};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

fn at(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn later(seconds: i64) -> String {
    at(Utc::now() + TimeDelta::seconds(seconds))
}

async fn set(client: &Client, id: &str, expires_at: Value) -> Answer {
    let path = format!("{LIST}/{id}/expiry");
    let request = client.request(Method::PUT, &path);
    let request = request.json(&json!({"expires_at": expires_at}));
    client.send(request).await.unwrap()
}

async fn take_back(client: &Client, id: &str) -> Answer {
    let request = client.request(Method::DELETE, &format!("{LIST}/{id}/expiry"));
    client.send(request).await.unwrap()
}

async fn shown(client: &Client, id: &str) -> Value {
    let path = format!("{LIST}/{id}/expiry");
    let answer = client.fetch(&path).await.unwrap().expect(200).json();
    assert_eq!(answer.as_object().unwrap().len(), 1);
    answer["expires_at"].clone()
}

fn kinds(log: &[Logged]) -> Vec<&str> {
    log.iter()
        .map(|logged| logged.event["type"].as_str().unwrap())
        .collect()
}

/// Waits until the log has so many events.
async fn log_of(client: &Client, count: usize) -> Vec<Logged> {
    let end = Instant::now() + SOON;
    loop {
        let log = all(client, "").await;
        if log.len() >= count {
            return log;
        }
        assert!(Instant::now() < end, "{:?}", kinds(&log));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_is_set_shown_and_taken_back_and_each_change_is_an_event() {
    for world in World::both() {
        let alice = &world.alice;
        let created = alice.create("KEY", "sk-value").await.unwrap().expect(201);
        let id = created.id();
        assert_eq!(shown(alice, &id).await, Value::Null);
        let far = "2999-12-31T23:59:59.123456+02:00";
        let answer = set(alice, &id, json!(far)).await.expect(200).json();
        let expected = json!({"expires_at": "2999-12-31T21:59:59.123456Z"});
        assert_eq!(answer, expected);
        assert_eq!(shown(alice, &id).await, expected["expires_at"]);
        let versions = alice.fetch(&format!("{LIST}/{id}/versions")).await.unwrap();
        let versions = versions.expect(200).json();
        assert_eq!(versions["expires_at"], expected["expires_at"]);
        // The same again changes nothing.
        set(alice, &id, json!(far)).await.expect(200);
        take_back(alice, &id).await.expect(204);
        take_back(alice, &id).await.expect(204);
        assert_eq!(shown(alice, &id).await, Value::Null);
        let log = all(alice, "").await;
        let changed = "secret.expiry_changed";
        assert_eq!(kinds(&log), ["secret.created", changed, changed]);
        let event = &log[1].event;
        assert_eq!(event["expires_at"], expected["expires_at"]);
        assert_eq!(event["version"], 1);
        assert_eq!(event["previous_version"], 1);
        assert_eq!(event["sequence"], 2);
        assert_eq!(log[2].event["expires_at"], Value::Null);
        // The value is still handed out.
        let resolved = alice.resolve(&json!({"names": ["KEY"]})).await.unwrap();
        assert_eq!(resolved.expect(200).json()["secrets"][0]["sequence"], 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_time_in_the_future_is_refused() {
    for world in World::both() {
        let alice = &world.alice;
        let id = alice.create("KEY", "sk").await.unwrap().expect(201).id();
        for (time, kind) in [
            (json!(later(-1)), "value_error"),
            (json!("1970-01-01T00:00:00Z"), "value_error"),
            (json!("tomorrow"), "string_pattern_mismatch"),
            (json!("2999-12-31"), "string_pattern_mismatch"),
            (json!(4_102_444_800_u64), "string_type"),
            (Value::Null, "string_type"),
        ] {
            let refused = set(alice, &id, time.clone()).await.expect(422).json();
            let item = &refused["errors"][0];
            assert_eq!(item["type"], kind, "{time}");
            assert_eq!(item["loc"], json!(["body", "expires_at"]), "{time}");
        }
        let stale = alice.with("if-match", "\"2\"");
        set(&stale, &id, json!(later(60))).await.expect(412);
        take_back(&stale, &id).await.expect(412);
        set(&world.bob, &id, json!(later(60))).await.expect(404);
        take_back(&world.bob, &id).await.expect(404);
        world
            .bob
            .fetch(&format!("{LIST}/{id}/expiry"))
            .await
            .unwrap()
            .expect(404);
        assert_eq!(all(alice, "").await.len(), 1);
        let once = alice.with("idempotency-key", "k");
        let time = json!(later(3_000_000));
        let first = set(&once, &id, time.clone()).await.expect(200);
        let again = set(&once, &id, time).await.expect(200);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!(again.json(), first.json());
    }
}

/// Panics unless a secret was told of once, in order and in time.
fn assert_told(log: &[Logged], id: &str) {
    let own: Vec<_> = log.iter().filter(|l| l.event["secret_id"] == id).collect();
    let kinds: Vec<_> = own
        .iter()
        .map(|l| l.event["type"].as_str().unwrap())
        .collect();
    let expected = ["created", "expiry_changed", "expiring", "expired"];
    assert_eq!(kinds, expected.map(|kind| format!("secret.{kind}")));
    let sequences: Vec<_> = own.iter().map(|l| l.event["sequence"].clone()).collect();
    assert_eq!(sequences, [1, 2, 3, 4].map(Value::from));
    for (one, seconds) in [(own[2], 2), (own[3], 0)] {
        assert_eq!(one.event["actor"], json!({"id": null, "kind": "system"}));
        assert_eq!(one.event["expires_at"], own[1].event["expires_at"]);
        let time = |field: &str| {
            let text = one.event[field].as_str().unwrap();
            DateTime::parse_from_rfc3339(text).unwrap()
        };
        let early = time("expires_at") - time("occurred_at");
        assert!(early <= TimeDelta::seconds(seconds), "{}", one.event);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_value_is_handed_out_no_more_and_both_events_come_once() {
    for deployment in fixture::both() {
        let is_sqlite = deployment.database().starts_with("sqlite:");
        let world = World::of(deployment.set("EXPIRY__LEAD_SECONDS", "2"));
        // On PostgreSQL three replicas sweep.
        let others: Vec<_> = (0..if is_sqlite { 0 } else { 2 })
            .map(|_| world.deployment.serve())
            .collect();
        let alice = &world.alice;
        let mut ids = Vec::new();
        for name in ["A", "B", "C"] {
            ids.push(
                alice
                    .create(name, "sk-value")
                    .await
                    .unwrap()
                    .expect(201)
                    .id(),
            );
        }
        let names = |names: &[&str]| json!({"names": names});
        for id in &ids[..2] {
            set(alice, id, json!(later(4))).await.expect(200);
        }
        alice
            .resolve(&names(&["A", "B", "C"]))
            .await
            .unwrap()
            .expect(200);
        let log = log_of(alice, 3 + 2 + 4).await;
        alice
            .resolve(&names(&["A", "C"]))
            .await
            .unwrap()
            .expect(404);
        alice.resolve(&names(&["C"])).await.unwrap().expect(200);
        for id in &ids[..2] {
            assert_told(&log, id);
        }
        // Nothing more is told, by whomever.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(all(alice, "").await.len(), log.len());
        // A new value lives again, and so does one whose time is put off.
        alice.put(&ids[0], "sk-new").await.unwrap().expect(200);
        assert_eq!(shown(alice, &ids[0]).await, Value::Null);
        set(alice, &ids[1], json!(later(3_000))).await.expect(200);
        alice
            .resolve(&names(&["A", "B"]))
            .await
            .unwrap()
            .expect(200);
        drop(others);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_changes_an_expiry_in_the_database_gets_no_value() {
    for world in World::both() {
        let alice = &world.alice;
        let id = alice
            .create("KEY", "sk-value")
            .await
            .unwrap()
            .expect(201)
            .id();
        let far = json!(later(100 * 86_400));
        set(alice, &id, far).await.expect(200);
        let body = json!({"names": ["KEY"]});
        for (column, value) in [
            ("expires_at", "NULL"),
            ("expires_at", "expires_at + 1"),
            ("expires_at", "1"),
            ("expiring_at", "1"),
            ("expired_at", "1"),
        ] {
            let keep = "CREATE TABLE kept AS SELECT expires_at FROM secrets";
            world.deployment.sql(keep);
            let change = format!("UPDATE secrets SET {column} = {value}");
            world.deployment.sql(&change);
            let answer = alice.resolve(&body).await.unwrap();
            assert_eq!(answer.status, 500, "{change}");
            world.deployment.sql(
                "UPDATE secrets SET expires_at = (SELECT expires_at FROM kept), expiring_at = NULL, expired_at = NULL",
            );
            world.deployment.sql("DROP TABLE kept");
        }
        alice.resolve(&body).await.unwrap().expect(200);
        assert_eq!(all(alice, "").await.len(), 2);
    }
}
