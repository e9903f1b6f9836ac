//! A call costs its caller as many tokens of the bucket as it has entries.

use crate::support::envelope::assert_error;
use crate::support::events::all;
use crate::support::fixture::{ALL, BATCH, World};
use crate::support::ledger;
use crate::support::service::{Answer, Client, Deployment, Replica};
use crate::support::wire::{Wire, address, head};
use serde_json::{Value, json};
use std::time::Duration;

/// A service with full buckets of that size, into which one token comes back a second; Alice, with eight secrets,
/// and Bob with one.
async fn with_buckets_of(burst: &str) -> (Replica, Deployment, [Client; 2], Vec<String>) {
    let World {
        mut replica,
        alice,
        bob,
        deployment,
        ..
    } = World::sqlite();
    let secrets = ledger::create(&alice, 8).await;
    ledger::create(&bob, 1).await;
    assert_eq!(replica.terminate(), Some(0));
    let replica = deployment.serve_with(&[
        ("REKEY__LIMITS__BURST", burst),
        ("REKEY__LIMITS__RATE_PER_SECOND", "1"),
    ]);
    let clients = [&alice, &bob].map(|client| client.on(replica.base()));
    (replica, deployment, clients, secrets)
}

fn left(answer: &Answer) -> u32 {
    let header = answer.header("ratelimit").unwrap();
    let rest = header.strip_prefix("\"caller\";r=").unwrap();
    rest.split_once(';').unwrap().0.parse().unwrap()
}

fn wait(answer: &Answer) -> u64 {
    assert_error(answer, 429, "rate_limit_error", "Too many requests", &[]);
    answer.header("retry-after").unwrap().parse().unwrap()
}

fn updates(secrets: &[String]) -> Value {
    let updates = secrets.iter().map(|id| json!({"id": id, "value": "next"}));
    json!({"updates": updates.collect::<Vec<_>>()})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolve_of_eight_names_and_a_batch_of_eight_cost_eight_each() {
    // A few may come back while the test runs.
    let (replica, deployment, [alice, bob], secrets) = with_buckets_of("60").await;
    let eight = json!({"ids": secrets});
    let answer = alice.resolve(&eight).await.unwrap().expect(200);
    assert!((52..58).contains(&left(&answer)), "{}", left(&answer));
    let answer = alice.post(BATCH, &updates(&secrets)).await;
    let answer = answer.unwrap().expect(200);
    assert!((44..50).contains(&left(&answer)), "{}", left(&answer));
    let mut answer = alice.list().await.unwrap().expect(200);
    assert!((43..50).contains(&left(&answer)), "{}", left(&answer));
    let mut granted = 8;
    for _ in 0..20 {
        answer = alice.resolve(&eight).await.unwrap();
        if answer.status != 200 {
            break;
        }
        granted += 8;
    }
    // The next attempt needs eight again: some are there.
    let wait = wait(&answer);
    assert!((1..=8).contains(&wait), "{wait}");
    assert!(left(&answer) < 8, "{}", left(&answer));
    // What costs less than what is left is let in, and so is everybody else.
    bob.resolve(&json!({"names": ["SECRET_0"]}))
        .await
        .unwrap()
        .expect(200);
    // A refused call did nothing: each access in the log is of a call that was granted.
    let reader = replica.client(&deployment.service_token("reader", &["*"], &ALL));
    let accesses = all(&reader, "log=activity&type=secret.accessed").await;
    assert_eq!(accesses.len(), granted + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_more_entries_than_a_bucket_holds_costs_a_whole_bucket() {
    let (_replica, _deployment, [alice, _], secrets) = with_buckets_of("4").await;
    let answer = alice.resolve(&json!({"ids": secrets})).await.unwrap();
    let answer = answer.expect(200);
    assert!(left(&answer) <= 1, "{}", left(&answer));
    // An empty bucket does not know yet how much is asked of it; after that it says how long it takes.
    let set = updates(&secrets);
    let mut answer = alice.post(BATCH, &set).await.unwrap();
    for _ in 0..2 {
        let wait = wait(&answer);
        assert!((1..=5).contains(&wait), "{wait}");
        tokio::time::sleep(Duration::from_secs(wait)).await;
        answer = alice.post(BATCH, &set).await.unwrap();
        if answer.status == 200 {
            break;
        }
    }
    answer.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_costs_by_its_size_before_it_is_read() {
    let (replica, deployment, [alice, _], secrets) = with_buckets_of("20").await;
    // Four megabytes are 31 tokens: more than a bucket holds, so that they cost a whole one.
    let filler = "y".repeat(4_000_000);
    let body = json!({"updates": [{"id": secrets[0], "value": "x"}], "filler": filler});
    let answer = alice.post(BATCH, &body).await.unwrap().expect(200);
    assert!(left(&answer) <= 2, "{}", left(&answer));
    // A usual value costs one.
    let value = "x".repeat(65_000);
    let mut answer = alice.put(&secrets[0], &value).await.unwrap();
    for _ in 0..3 {
        if answer.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_secs(wait(&answer))).await;
        answer = alice.put(&secrets[0], &value).await.unwrap();
    }
    answer.expect(200);
    // What can't be paid for is not read: the answer does not wait for the rest of it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let token = deployment.token("alice", &ALL);
    let mut wire = Wire::open(address(&replica)).await;
    wire.send(head(("POST", BATCH), &token, 4_000_000)).await;
    wire.send("{").await;
    assert_eq!(wire.status().await, Some(429));
}
