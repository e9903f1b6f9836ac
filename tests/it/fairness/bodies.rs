//! All bodies that are held have one bound, and each caller has its share of it.

use crate::support::envelope::assert_error;
use crate::support::fixture::{self, ALL, BATCH, World};
use crate::support::ledger;
use crate::support::service::{Answer, Client};
use crate::support::wire::{Wire, address, head};
use reqwest::Method;
use serde_json::json;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
/// A body of a PUT that is held in half a mebibyte.
const LENGTH: usize = 500_000;

/// A service that holds four mebibytes of bodies, one of them for each caller, and waits for them for long.
fn small() -> World {
    let deployment = fixture::sqlite()
        .set("LIMITS__BODIES_BYTES", "4194304")
        .set("LIMITS__BODY_SECONDS", "100");
    World::of(deployment)
}

fn secret(id: &str) -> String {
    format!("{}/{id}", fixture::LIST)
}

/// A PUT of which all but the end has come.
struct Unfinished {
    wire: Wire,
    end: String,
}

impl Unfinished {
    async fn begin(world: &World, token: &str, id: &str) -> Self {
        let body = json!({"value": "sk-next", "filler": "x".repeat(LENGTH)}).to_string();
        let mut wire = Wire::open(address(&world.replica)).await;
        wire.send(head(("PUT", &secret(id)), token, body.len()))
            .await;
        let (begin, end) = body.split_at(body.len() - 10);
        wire.send(begin).await;
        let end = end.to_owned();
        Self { wire, end }
    }

    async fn finish(mut self) -> Option<u16> {
        self.wire.send(&self.end).await;
        self.wire.status().await
    }
}

async fn put(client: &Client, id: &str) -> Answer {
    client.put(id, "sk-next").await.unwrap()
}

/// Waits until a small PUT is refused: what was sent before has arrived.
async fn until_refused(client: &Client, id: &str) -> Answer {
    let end = Instant::now() + SOON;
    loop {
        let answer = put(client, id).await;
        if answer.status != 200 {
            return answer;
        }
        assert!(Instant::now() < end, "not refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_whose_bodies_fill_its_share_is_refused_and_others_are_not() {
    let world = small();
    let (of_alice, of_bob) = (
        ledger::create(&world.alice, 1).await,
        ledger::create(&world.bob, 1).await,
    );
    let mut unfinished = Vec::new();
    for _ in 0..2 {
        unfinished.push(Unfinished::begin(&world, &world.token, &of_alice[0]).await);
    }
    let answer = until_refused(&world.alice, &of_alice[0]).await;
    assert_error(&answer, 429, "rate_limit_error", "Too many requests", &[]);
    assert_eq!(answer.header("retry-after"), Some("1"));
    // One that goes on beyond the share is refused in the middle.
    let third = Unfinished::begin(&world, &world.token, &of_alice[0]).await;
    assert_eq!(third.finish().await, Some(429));
    put(&world.bob, &of_bob[0]).await.expect(200);
    // What needs no body is served.
    world.alice.get(&of_alice[0]).await.unwrap().expect(200);
    for request in unfinished {
        assert_eq!(request.finish().await, Some(200));
    }
    put(&world.alice, &of_alice[0]).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_bodies_together_are_too_many_the_service_is_busy_until_some_are_read() {
    let world = small();
    let of_bob = ledger::create(&world.bob, 1).await;
    let mut unfinished = Vec::new();
    for number in 0..4 {
        let token = world.deployment.token(&format!("tenant-{number}"), &ALL);
        let own = ledger::create(&world.replica.client(&token), 1).await;
        for _ in 0..2 {
            unfinished.push(Unfinished::begin(&world, &token, &own[0]).await);
        }
    }
    let answer = until_refused(&world.bob, &of_bob[0]).await;
    assert_error(&answer, 429, "rate_limit_error", "The service is busy", &[]);
    for request in unfinished {
        assert_eq!(request.finish().await, Some(200));
    }
    put(&world.bob, &of_bob[0]).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_body_alone_may_be_larger_than_the_share() {
    let world = small();
    let alice = &world.alice;
    let secrets = ledger::create(alice, 50).await;
    let value = "x".repeat(60_000);
    let updates: Vec<_> = secrets
        .iter()
        .map(|id| json!({"id": id, "value": value}))
        .collect();
    let set = json!({"updates": updates});
    alice.post(BATCH, &set).await.unwrap().expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_with_too_many_members_is_refused_whatever_they_are() {
    let world = World::sqlite();
    let secrets = ledger::create(&world.alice, 1).await;
    let put = async |members: usize| {
        let members: Vec<_> = (0..members).map(|n| format!("\"k{n}\":1")).collect();
        let body = format!("{{\"value\":\"x\",{}}}", members.join(","));
        let request = world.alice.request(Method::PUT, &secret(&secrets[0]));
        let request = request.header("content-type", "application/json");
        world.alice.send(request.body(body)).await.unwrap()
    };
    put(9_999).await.expect(200);
    let answer = put(10_000).await;
    let detail = "The body holds too many members";
    assert_error(&answer, 400, "invalid_request_error", detail, &[]);
}
