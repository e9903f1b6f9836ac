//! One caller can fill its share of the committer's queue, and no more.

use crate::support::envelope::assert_error;
use crate::support::fixture::{self, BATCH, World};
use crate::support::ledger;
use crate::support::metrics::{sample, scrape};
use crate::support::postgres::Postgres;
use crate::support::proxy::{Fault, Moment, Proxy, Reach, Trigger};
use crate::support::service::{Answer, Client};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, JoinSet};

/// The time of a test, far below that of what it holds up.
const SOON: Duration = Duration::from_secs(15);

/// A service whose committer stands still from a test's first change on, until the proxy lets it go on.
async fn held_up(settings: &[(&str, &str)]) -> (Proxy, World, Vec<String>, Vec<String>) {
    let proxy = Proxy::start(Postgres::shared().address());
    let deployment = fixture::postgres();
    let url = proxy.url(deployment.database());
    let deployment = deployment
        .set("DATABASE__URL", &url)
        .set("DATABASE__TIMEOUT_MS", "30000")
        .set("COMMIT__TIMEOUT_MS", "30000")
        .set("COMMIT__WATCHDOG_MS", "40000")
        .set("HTTP__TIMEOUT_MS", "50000");
    let deployment = settings
        .iter()
        .fold(deployment, |all, (key, value)| all.set(key, value));
    let world = World::of(deployment);
    let of_alice = ledger::create(&world.alice, 20).await;
    let of_bob = ledger::create(&world.bob, 1).await;
    (proxy, world, of_alice, of_bob)
}

/// The next batch does not begin until the proxy lets it.
const STALL: Trigger = Trigger {
    text: "BEGIN",
    moment: Moment::Before,
    fault: Fault::Stall,
    reach: Reach::Link,
};

fn put(client: &Client, secret: &str) -> JoinHandle<Answer> {
    let (client, secret) = (client.clone(), secret.to_owned());
    tokio::spawn(async move { client.put(&secret, "sk-next").await.unwrap() })
}

async fn until_under_way(world: &World, count: u64) {
    let client = world.anonymous();
    let end = Instant::now() + SOON;
    while sample(&scrape(&client).await, "rekey_commit_queue_depth") != Some(count) {
        assert!(Instant::now() < end, "not {count} commands in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn assert_refused(answer: &Answer) {
    assert_error(answer, 429, "rate_limit_error", "Too many requests", &[]);
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarter_of_the_commands_is_one_owners_and_the_rest_is_open_to_others() {
    let (proxy, world, of_alice, of_bob) = held_up(&[("COMMIT__QUEUE", "8")]).await;
    let mut fired = proxy.arm(STALL);
    let mut hostile = JoinSet::new();
    for secret in &of_alice[..6] {
        let (alice, secret) = (world.alice.clone(), secret.clone());
        hostile.spawn(async move { alice.put(&secret, "sk-next").await.unwrap() });
    }
    assert!(fired.wait(SOON).await);
    for _ in 0..4 {
        // At once: nothing goes on meanwhile.
        assert_refused(&hostile.join_next().await.unwrap().unwrap());
    }
    let bob = put(&world.bob, &of_bob[0]);
    until_under_way(&world, 3).await;
    proxy.pass();
    bob.await.unwrap().expect(200);
    while let Some(answer) = hostile.join_next().await {
        answer.unwrap().expect(200);
    }
    until_under_way(&world, 0).await;
    // Its share came back with the answers.
    world
        .alice
        .put(&of_alice[0], "x")
        .await
        .unwrap()
        .expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarter_of_the_bytes_is_one_owners_and_one_command_alone_may_be_larger() {
    let settings = [("COMMIT__QUEUE_BYTES", "4194304")];
    let (proxy, world, of_alice, of_bob) = held_up(&settings).await;
    let mut fired = proxy.arm(STALL);
    let value = "x".repeat(60_000);
    let updates: Vec<Value> = of_alice
        .iter()
        .map(|id| json!({"id": id, "value": value}))
        .collect();
    let alice = world.alice.clone();
    let set = json!({"updates": updates});
    let large = tokio::spawn(async move { alice.post(BATCH, &set).await.unwrap() });
    assert!(fired.wait(SOON).await);
    assert_refused(&world.alice.put(&of_alice[0], "x").await.unwrap());
    let resolve = json!({"ids": [of_alice[0]]});
    assert_refused(&world.alice.resolve(&resolve).await.unwrap());
    let bob = put(&world.bob, &of_bob[0]);
    until_under_way(&world, 2).await;
    proxy.pass();
    large.await.unwrap().expect(200);
    bob.await.unwrap().expect(200);
}
