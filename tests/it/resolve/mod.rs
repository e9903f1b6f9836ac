//! `POST /api/v1/secrets/resolve`: the one call that hands values out.

mod faults;
mod refusals;

use crate::support::broker::Recorder;
use crate::support::events::{Logged, Stream, all, assert_chained};
use crate::support::fixture::{self, ABSENT, World, batch, change};
use crate::support::ledger;
use crate::support::rabbitmq::RabbitMq;
use crate::support::service::{Answer, Client};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

async fn resolved(client: &Client, body: &Value) -> Answer {
    client.resolve(body).await.unwrap().expect(200)
}

fn field(answer: &Answer, name: &str) -> Vec<Value> {
    let answer = answer.json();
    let secrets = answer["secrets"].as_array().unwrap().iter();
    secrets.map(|secret| secret[name].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_come_in_the_order_asked_by_name_in_any_letter_case_and_by_id() {
    for world in World::both() {
        let alice = &world.alice;
        let mut ids = Vec::new();
        for (name, value) in [("A", "1"), ("B_2", " \t\u{e9}\u{1}\"\\ "), ("C", "3")] {
            ids.push(alice.create(name, value).await.unwrap().expect(201).id());
        }
        alice.put(&ids[1], "two\n").await.unwrap().expect(200);
        // Bob's of the same name is nobody else's.
        world.bob.create("A", "bob's").await.unwrap().expect(201);
        let answer = resolved(alice, &json!({"names": ["c", "b_2", "A"]})).await;
        let exact = format!(
            r#"{{"secrets":[{{"id":"{}","name":"C","value":"3","version":1,"sequence":1}},{{"id":"{}","name":"B_2","value":"two\n","version":2,"sequence":2}},{{"id":"{}","name":"A","value":"1","version":1,"sequence":1}}],"cursor":"1-5"}}"#,
            ids[2], ids[1], ids[0]
        );
        assert_eq!(answer.text(), exact);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let upper: Vec<_> = ids.iter().map(|id| id.to_uppercase()).collect();
        let body = json!({"ids": upper, "owner": "alice", "names": null, "unknown": 1});
        let answer = resolved(alice, &body).await;
        assert_eq!(field(&answer, "id"), ids);
        let restored = json!({"value": " \t\u{e9}\u{1}\"\\ "});
        let path = format!("/api/v1/user/secrets/{}", ids[1]);
        let put = alice.request(reqwest::Method::PUT, &path).json(&restored);
        alice.send(put).await.unwrap().expect(200);
        let answer = resolved(alice, &json!({"ids": [ids[1]]})).await;
        assert_eq!(field(&answer, "value"), [restored["value"].clone()]);
        // For a service it is the owner that it names.
        let scopes = &["secrets:resolve"];
        for acts_for in [&["*"][..], &["bob", "alice"]] {
            let token = world.deployment.service_token("s", acts_for, scopes);
            let service = world.replica.client(&token);
            for (owner, value) in [("alice", "1"), ("bob", "bob's")] {
                let body = json!({"owner": owner, "names": ["a"]});
                let answer = resolved(&service, &body).await;
                assert_eq!(field(&answer, "value"), [value]);
            }
        }
    }
}

/// The activity log's `secret.accessed` events of one request.
async fn recorded(world: &World, request_id: &str) -> Vec<Logged> {
    let query = "log=activity&type=secret.accessed";
    let mut events = all(&world.auditor, query).await;
    events.retain(|event| event.text("request_id") == request_id);
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn each_value_handed_out_is_one_record_that_is_there_before_the_answer() {
    for world in World::both() {
        let alice = &world.alice;
        let secrets = ledger::create(alice, 3).await;
        change(alice, &secrets[1..], 1).await;
        change(alice, &secrets[2..], 1).await;
        let granted = &["secrets:resolve"];
        let service = world.deployment.service_token("s", &["alice"], granted);
        let service = world.replica.client(&service);
        let mut before = all(&world.auditor, "log=activity").await.len();
        for (client, kind) in [(alice, "token"), (&service, "service")] {
            for round in 0..10 {
                let request_id = format!("{kind}-{round}");
                let asking = client.with("x-request-id", &request_id);
                let order = [&secrets[2], &secrets[0], &secrets[1]];
                let body = json!({"ids": order, "owner": "alice"});
                let answer = resolved(&asking, &body).await;
                let records = recorded(&world, &request_id).await;
                assert_eq!(records.len(), 3);
                let of = |name: &'static str| {
                    let values = records.iter().map(|record| record.event[name].clone());
                    values.collect::<Vec<_>>()
                };
                assert_eq!(of("secret_id"), order.map(|id| json!(id)));
                assert_eq!(of("version"), [3, 1, 2].map(|version| json!(version)));
                assert_eq!(of("version"), field(&answer, "version"));
                assert_eq!(of("name"), field(&answer, "name"));
                assert_eq!(of("owner"), ["alice"; 3].map(|owner| json!(owner)));
                assert!(of("actor").iter().all(|actor| actor["kind"] == kind));
                for record in &records {
                    assert_eq!(record.event.get("sequence"), None);
                    assert_eq!(record.event.get("previous_version"), None);
                    let id = record.text("secret_id");
                    let history = ledger::history(alice, id).await;
                    let (last, _) = history.last().unwrap();
                    assert_eq!(record.event["version_id"], last["version_id"]);
                }
            }
        }
        // One unknown among three, and nobody gets or is said to have got anything.
        before += 60;
        let body = json!({"ids": [secrets[0], ABSENT, secrets[1]]});
        alice.resolve(&body).await.unwrap().expect(404);
        let activity = all(&world.auditor, "log=activity").await;
        assert_eq!(activity.len(), before);
        assert_chained(&activity);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_may_choose_to_record_later_or_not_at_all() {
    for (how, records) in [("off", 0), ("async", 20)] {
        for deployment in fixture::both() {
            let world = World::of(deployment.set("ACTIVITY__RECORD", how));
            ledger::create(&world.alice, 2).await;
            for _ in 0..10 {
                let body = json!({"names": ["SECRET_0", "secret_1"]});
                resolved(&world.alice, &body).await;
            }
            let query = "log=activity&type=secret.accessed";
            let until = Instant::now() + Duration::from_secs(10);
            let mut count = all(&world.alice, query).await.len();
            while count < records && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(20)).await;
                count = all(&world.alice, query).await.len();
            }
            assert_eq!(count, records, "{how}");
            // What is not chosen here is recorded all the same.
            let tokens = all(&world.auditor, "log=activity&type=token.created").await;
            assert_eq!(tokens.len(), 3);
        }
    }
}

/// What a `resolve` saw of two secrets.
struct Seen {
    cursor: u64,
    versions: [u64; 2],
}

/// Resolves both a thousand times, in either order, and sees the same value in both.
async fn look_at_both(alice: Client, secrets: Vec<String>, ending: Arc<AtomicBool>) -> Vec<Seen> {
    let mut seen = Vec::new();
    for turn in 0..1_000 {
        let ids = [&secrets[turn % 2], &secrets[1 - turn % 2]];
        let answer = resolved(&alice, &json!({"ids": ids})).await;
        let values = field(&answer, "value");
        assert_eq!(values[0], values[1], "half a change set");
        let mut versions = field(&answer, "version");
        if turn % 2 == 1 {
            versions.reverse();
        }
        let cursor = answer.json()["cursor"].clone();
        let position = cursor.as_str().unwrap().strip_prefix("1-");
        seen.push(Seen {
            cursor: position.unwrap().parse().unwrap(),
            versions: [0, 1].map(|index| versions[index].as_u64().unwrap()),
        });
    }
    ending.store(true, Ordering::SeqCst);
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_set_is_never_seen_in_half_and_no_version_is_skipped_behind_the_cursor() {
    for world in World::both() {
        let _heavy = fixture::heavy().await;
        let alice = world.alice.clone();
        let secrets = ledger::create(&alice, 2).await;
        let updates = |n: usize| {
            [
                (&*secrets[0], format!("v{n}")),
                (&*secrets[1], format!("v{n}")),
            ]
        };
        assert_eq!(batch(&alice, &updates(0)).await, 200);
        let ending = Arc::new(AtomicBool::new(false));
        let reading = look_at_both(alice.clone(), secrets.clone(), ending.clone());
        let reading = tokio::spawn(reading);
        let mut written = 0;
        while !ending.load(Ordering::SeqCst) {
            written += 1;
            assert_eq!(batch(&alice, &updates(written)).await, 200);
        }
        let seen = reading.await.unwrap();
        // Where each version stands in the log.
        let mut places = HashMap::new();
        for event in all(&alice, "").await {
            let version = event.event["version"].as_u64().unwrap();
            places.insert(
                (event.text("secret_id").to_owned(), version),
                event.position(),
            );
        }
        let mut distinct = 0;
        for (index, one) in seen.iter().enumerate() {
            for (secret, version) in secrets.iter().zip(one.versions) {
                if let Some(next) = places.get(&(secret.clone(), version + 1)) {
                    assert!(*next > one.cursor, "{secret} skips {}", version + 1);
                }
            }
            distinct += usize::from(index > 0 && seen[index - 1].versions != one.versions);
        }
        eprintln!("1000 resolves saw {distinct} of {written} change sets");
        assert!(distinct > 20, "it was no race");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hears_of_a_change_gets_its_value_from_any_replica() {
    let (broker, exchange) = (RabbitMq::shared().url(), fixture::exchange());
    let recorder = Recorder::start(&broker, &exchange, "secret.updated.#").await;
    let world = World::of(fixture::postgres().broker(&broker, &exchange));
    let other = world.deployment.serve();
    let secrets = ledger::create(&world.alice, 1).await;
    let there = world.alice.on(other.base());
    let mut streams = [
        (Stream::open(&world.alice, "", None).await, there.clone()),
        (Stream::open(&there, "", None).await, world.alice.clone()),
    ];
    for round in 0..50 {
        change(&world.alice, &secrets, 1).await;
        let at_least = async |event: &Logged, client: &Client| {
            let body = json!({"ids": secrets, "min_cursor": event.cursor()});
            let answer = resolved(client, &body).await;
            let version = field(&answer, "version")[0].as_u64().unwrap();
            assert!(version >= event.event["version"].as_u64().unwrap());
        };
        for (stream, elsewhere) in &mut streams {
            let event = &stream.events(1).await[0];
            at_least(event, elsewhere).await;
        }
        let record = recorder.wait_for(round + 1, Duration::from_secs(20)).await;
        let delivered = Logged::new(record[round].body.clone());
        assert_eq!(delivered.event["version"], round + 2);
        at_least(&delivered, &there).await;
        at_least(&delivered, &world.alice).await;
    }
}
