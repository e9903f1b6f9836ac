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

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_fill_their_callers_share_and_no_more() {
    let (world, request) = world("60000").await;
    let resident = || resident_mib(world.replica.id());
    let before = resident();
    let mut held = Vec::new();
    let mut refused = 0;
    // Thirteen megabytes of each would be in memory.
    for _ in 0..40 {
        let mut wire = Wire::narrow(address(&world.replica)).await;
        wire.send(&request).await;
        match &*wire.take(12).await {
            b"HTTP/1.1 200" => held.push(wire),
            b"HTTP/1.1 429" => refused += 1,
            other => panic!("{}", String::from_utf8_lossy(other)),
        }
    }
    let grown = resident().saturating_sub(before);
    assert!((1..=4).contains(&held.len()), "{} are held", held.len());
    assert_eq!(held.len() + refused, 40);
    assert!(grown < 128, "{grown} MiB for {} answers", held.len());
    // Small answers are no part of it, nor is what others ask for.
    world.alice.list().await.unwrap().expect(200);
    ledger::create(&world.bob, 1).await;
    let names = json!({"names": ["SECRET_0"]});
    world.bob.resolve(&names).await.unwrap().expect(200);
    // Their places are free when they end.
    drop(held);
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let mut wire = Wire::open(address(&world.replica)).await;
        wire.send(&request).await;
        if wire.status().await == Some(200) {
            break;
        }
        assert!(Instant::now() < end, "their places");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn resident_mib(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<usize>().unwrap() / 1024
}
