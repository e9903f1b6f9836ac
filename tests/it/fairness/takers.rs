//! A client that does not take its answer is let go.

use crate::support::fixture::{self, World};
use crate::support::ledger;
use crate::support::wire::{Wire, address, head};
use serde_json::json;
use std::time::{Duration, Instant};

/// Far more than the buffers of a connection hold.
const VALUE: usize = 65_000;
const SECRETS: usize = 100;

async fn world(timeout: &str) -> (World, String) {
    let deployment = fixture::sqlite().set("HTTP__WRITE_TIMEOUT_MS", timeout);
    let world = World::of(deployment);
    let value = "v".repeat(VALUE);
    let mut ids = Vec::new();
    for number in 0..SECRETS {
        let created = world.alice.create(&format!("LARGE_{number}"), &value).await;
        ids.push(created.unwrap().expect(201).id());
    }
    let body = json!({"ids": ids}).to_string();
    let head = head(
        ("POST", "/api/v1/secrets/resolve"),
        &world.token,
        body.len(),
    );
    (world, format!("{head}{body}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_taken_by_the_byte_ends_its_connection_in_time() {
    let (world, request) = world("2000").await;
    let mut wire = Wire::narrow(address(&world.replica)).await;
    wire.send(&request).await;
    assert_eq!(wire.take(12).await, b"HTTP/1.1 200");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        // Something is taken all the time.
        if wire.take(1).await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rest = wire.rest().await;
    assert!(rest.len() < SECRETS * VALUE, "it was given all");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_taken_in_time_comes_whole_however_large() {
    let (world, request) = world("30000").await;
    let mut wire = Wire::narrow(address(&world.replica)).await;
    wire.send(&request).await;
    let mut taken = 0;
    loop {
        let more = wire.take(256 << 10).await.len();
        if more == 0 {
            break;
        }
        taken += more;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(taken > SECRETS * VALUE, "{taken}");
    // The connection of a client that asks for one thing after the other is not idle.
    let ids = ledger::create(&world.bob, 1).await;
    world.bob.get(&ids[0]).await.unwrap().expect(200);
}
