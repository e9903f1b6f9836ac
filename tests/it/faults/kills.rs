//! kill -9 of the service, at any moment and at named points.

use crate::support::broker::{Recorder, assert_delivers, delivered};
use crate::support::dice::Dice;
use crate::support::fixture::{self, SCOPES};
use crate::support::ledger::{self, Attempt, Load};
use crate::support::rabbitmq::RabbitMq;
use crate::support::service::Deployment;
use std::time::Duration;

async fn ten_kills(deployment: Deployment, name: &str) {
    let _heavy = fixture::heavy().await;
    let mut dice = Dice::new(name);
    let token = deployment.token("alice", SCOPES);
    let mut replica = deployment.serve();
    let secrets = ledger::create(&replica.client(&token), 5).await;
    let mut attempts: Vec<Attempt> = Vec::new();
    for _ in 0..10 {
        let clients = (0..8).map(|_| replica.client(&token)).collect();
        let load = Load::start(clients, &secrets, usize::MAX);
        load.reaches(20 + dice.below(200)).await;
        replica.kill_9();
        attempts.extend(load.end().await);
        replica = deployment.serve();
        ledger::settle(&replica.client(&token), &secrets, &attempts).await;
    }
    let client = replica.client(&token);
    let count = ledger::settle(&client, &secrets, &attempts).await;
    assert!(count.acknowledged >= 200 && count.unknown > 0, "{count:?}");
    eprintln!("{name}: {count:?}");
    let after = ledger::put(&client, &secrets[0]).await;
    attempts.push(after);
    let last = ledger::settle(&client, &secrets, &attempts).await;
    assert_eq!(last.acknowledged, count.acknowledged + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_ten_kills_every_acknowledged_put_stands_on_sqlite() {
    ten_kills(fixture::sqlite(), "ten kills, SQLite").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_ten_kills_every_acknowledged_put_stands_on_postgresql() {
    ten_kills(fixture::postgres(), "ten kills, PostgreSQL").await;
}

/// Where the process kills itself, and at which passage.
const POINTS: &[&str] = &[
    "before-rows:kill:3",
    "after-rows:kill:3",
    "before-commit:kill:4",
    "after-commit:kill:4",
    "after-publish:kill:7",
    "after-confirm:kill:7",
    "after-cursor:kill:1",
];

async fn killed_at_each_point(deployment: Deployment, name: &str) {
    let _heavy = fixture::heavy().await;
    let (broker, exchange) = (RabbitMq::shared().url(), fixture::exchange());
    let recorder = Recorder::start(&broker, &exchange, "secret.#").await;
    let deployment = deployment.broker(&broker, &exchange);
    let token = deployment.token("alice", SCOPES);
    let mut first = deployment.serve();
    let secrets = ledger::create(&first.client(&token), 3).await;
    assert_eq!(first.terminate(), Some(0));
    let mut attempts = Vec::new();
    for point in POINTS {
        let mut replica = deployment.serve_with(&[("REKEY_FAULT", point)]);
        let clients = (0..4).map(|_| replica.client(&token)).collect();
        let load = Load::start(clients, &secrets, usize::MAX);
        attempts.extend(load.end().await);
        // Nothing but the fault ends it.
        assert_eq!(replica.exit_code(Duration::from_secs(5)), None, "{point}");
    }
    let replica = deployment.serve();
    let client = replica.client(&token);
    let count = ledger::settle(&client, &secrets, &attempts).await;
    assert!(count.unknown >= POINTS.len(), "{count:?}");
    let record = delivered(&recorder, count.events, Duration::from_mins(1)).await;
    assert_delivers(&client, &secrets, &record).await;
    eprintln!("{name}: {count:?}, {} deliveries", record.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_named_point_it_keeps_and_delivers_all_on_sqlite() {
    killed_at_each_point(fixture::sqlite(), "named points, SQLite").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_named_point_it_keeps_and_delivers_all_on_postgresql() {
    killed_at_each_point(fixture::postgres(), "named points, PostgreSQL").await;
}
