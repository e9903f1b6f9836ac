//! `POST /api/v1/user/secrets/batch`: several secrets in one commit, all or none.

mod refusals;

use crate::support::dice::Dice;
use crate::support::events::{Logged, Stream, all, assert_chained, positions};
use crate::support::fixture::{self, World, batch, change};
use crate::support::ledger;
use crate::support::service::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

pub(crate) const BATCH: &str = "/api/v1/user/secrets/batch";

/// The sets of a log by their IDs. Panics unless each is whole: its parts side by side and in order.
fn sets(log: &[Logged]) -> BTreeMap<String, Vec<&Logged>> {
    let mut sets: BTreeMap<String, Vec<&Logged>> = BTreeMap::new();
    for logged in log {
        if let Some(id) = logged.event["change_set"]["id"].as_str() {
            sets.entry(id.to_owned()).or_default().push(logged);
        }
    }
    for parts in sets.values() {
        let first = parts[0];
        for (index, part) in (0_u64..).zip(parts) {
            let set = &part.event["change_set"];
            assert_eq!(set["index"], index, "{}", part.event);
            assert_eq!(set["size"], parts.len(), "{}", part.event);
            assert_eq!(part.position(), first.position() + index);
            assert_eq!(part.event["request_id"], first.event["request_id"]);
        }
    }
    sets
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_answered_as_it_was_asked_and_stands_in_the_log_in_one_piece() {
    for world in World::both() {
        let alice = &world.alice;
        let secrets = ledger::create(alice, 3).await;
        let mut stream = Stream::open(alice, "", None).await;
        let order = [&secrets[2], &secrets[0], &secrets[1]];
        let updates: Vec<_> = order
            .iter()
            .map(|id| json!({"id": id.to_uppercase(), "value": "sk-0123456789abcdef0123456789", "x": 1}))
            .collect();
        let asking = alice.with("x-request-id", "the-request");
        let body = json!({"updates": updates, "unknown": []});
        let answer = asking.post(BATCH, &body).await.unwrap().expect(200);
        let answer = answer.json();
        assert_eq!(answer.as_object().unwrap().len(), 3);
        assert_eq!(answer["total"], 3);
        for (shown, id) in answer["secrets"].as_array().unwrap().iter().zip(order) {
            let got = alice.get(id).await.unwrap().expect(200);
            assert_eq!(got.header("etag"), Some("\"2\""));
            assert_eq!(*shown, got.json());
            assert_eq!(shown["masked_value"], "sk-012••••789");
        }
        let log = all(alice, "").await;
        let sets = sets(&log);
        assert_eq!(sets.len(), 1);
        let parts = &sets[answer["change_set"].as_str().unwrap()];
        let ids: Vec<_> = parts.iter().map(|part| part.text("secret_id")).collect();
        assert_eq!(ids, order);
        for part in parts {
            assert_eq!(part.text("type"), "secret.updated");
            assert_eq!(part.text("request_id"), "the-request");
        }
        // A change alone is part of no set.
        change(alice, &secrets[..1], 1).await;
        let told = stream.events(4).await;
        assert_eq!(told[..3], log[3..]);
        assert_eq!(told[3].event["change_set"], Value::Null);
        assert_chained(&told);
    }
}

/// A set of one is a set; fifty values of the greatest length are one, too.
#[tokio::test(flavor = "multi_thread")]
async fn one_secret_or_fifty_values_of_64_kib_are_a_set() {
    for world in World::both() {
        let alice = &world.alice;
        let secrets = ledger::create(alice, 50).await;
        assert_eq!(batch(alice, &[(&secrets[7], "one".to_owned())]).await, 200);
        let values: Vec<_> = (0..50)
            .map(|number| match number % 2 {
                0 => format!("{number:02}").repeat(32 * 1024),
                _ => "é".repeat(32 * 1024),
            })
            .collect();
        let updates = secrets.iter().map(String::as_str).zip(values.clone());
        assert_eq!(batch(alice, &updates.collect::<Vec<_>>()).await, 200);
        let answer = alice.resolve(&json!({"ids": secrets})).await.unwrap();
        let answer = answer.expect(200).json();
        for (secret, value) in answer["secrets"].as_array().unwrap().iter().zip(values) {
            assert_eq!(secret["value"], value);
        }
        let log = all(alice, "").await;
        let sizes: Vec<_> = sets(&log).values().map(Vec::len).collect();
        assert_eq!(sizes, [1, 50]);
        assert_chained(&log);
    }
}

/// Sets over the same secrets in different orders, beside changes alone, from everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn sets_that_overlap_neither_block_nor_mix_with_each_other() {
    let _heavy = fixture::heavy().await;
    let world = World::postgres();
    let other = world.deployment.serve();
    let secrets = ledger::create(&world.alice, 6).await;
    let there = world.alice.on(other.base());
    let mut writers = JoinSet::new();
    for number in 0..8 {
        let client = [&world.alice, &there][number % 2].clone();
        let mut order = secrets.clone();
        order.rotate_left(number % 6);
        if number % 3 == 0 {
            order.reverse();
        }
        writers.spawn(async move {
            for round in 0..25 {
                let value = format!("{number}-{round}");
                let updates = order.iter().map(|id| (&**id, value.clone()));
                assert_eq!(batch(&client, &updates.collect::<Vec<_>>()).await, 200);
                change(&client, &order[..1], 1).await;
            }
        });
    }
    writers.join_all().await;
    let log = all(&world.alice, "").await;
    assert_eq!(positions(&log), (1..=1406).collect::<Vec<_>>());
    assert_chained(&log);
    let sets = sets(&log);
    assert_eq!(sets.len(), 200);
    assert!(sets.values().all(|parts| parts.len() == 6));
    for secret in &secrets {
        let history = ledger::history(&world.alice, secret).await;
        let versions = history.iter().map(|(event, _)| event["version"].as_u64());
        assert!(versions.eq((1..=history.len() as u64).map(Some)));
    }
}

/// A set whose client goes away after so many bytes, or some time after the last.
async fn broken_off(base: &str, request: &[u8], bytes: usize, wait: Duration) {
    let address = base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&request[..bytes]).await.unwrap();
    tokio::time::sleep(wait).await;
    stream.set_zero_linger().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_breaks_off_leaves_a_whole_set_or_nothing() {
    let mut dice = Dice::new("sets broken off");
    for mut world in World::both() {
        let _heavy = fixture::heavy().await;
        let secrets = ledger::create(&world.alice, 20).await;
        let token = world.deployment.token("alice", &["secrets:write"]);
        let updates: Vec<_> = secrets
            .iter()
            .map(|id| json!({"id": id, "value": "x".repeat(2000)}))
            .collect();
        let body = json!({"updates": updates}).to_string();
        let head = format!(
            "POST {BATCH} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let request = (head + &body).into_bytes();
        for number in 0..300 {
            let bytes = match number % 3 {
                0 => dice.below(request.len()),
                _ => request.len(),
            };
            let wait = Duration::from_micros(dice.below(20_000) as u64);
            broken_off(world.replica.base(), &request, bytes, wait).await;
        }
        // The drain waits for whatever still runs.
        assert_eq!(world.replica.terminate(), Some(0));
        let replica = world.deployment.serve();
        let alice: Client = world.alice.on(replica.base());
        let log = all(&alice, "").await;
        assert_chained(&log);
        let sets = sets(&log);
        assert!(sets.values().all(|parts| parts.len() == 20));
        assert_eq!(log.len(), 20 + sets.len() * 20);
        eprintln!("300 sets broken off: {} stand", sets.len());
        assert!((1..=200).contains(&sets.len()));
        let resolved = alice.resolve(&json!({"ids": secrets})).await.unwrap();
        let resolved = resolved.expect(200).json();
        for secret in resolved["secrets"].as_array().unwrap() {
            assert_eq!(secret["version"], sets.len() + 1);
        }
    }
}
