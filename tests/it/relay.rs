//! What the relay does while the broker refuses: it waits, and costs no more the longer that lasts.

use crate::support::broker::{Recorder, assert_delivers, delivered};
use crate::support::fixture::{self, SCOPES};
use crate::support::ledger;
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::RabbitMq;
use crate::support::service::{Client, Deployment, Replica};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
const LATE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(100);

fn started(deployment: &Deployment) -> (Replica, Client) {
    let token = deployment.token("alice", SCOPES);
    let replica = deployment.serve();
    let client = replica.client(&token);
    (replica, client)
}

/// Waits until it holds.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let end = Instant::now() + LATE;
    while !holds().await {
        assert!(Instant::now() < end, "not within {LATE:?}: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// What `/ready` says of broker and relay.
async fn links(client: &Client) -> (String, String) {
    let checks = client.fetch("/ready").await.unwrap().json()["checks"].clone();
    let text = |name: &str| checks[name].as_str().expect("a check").to_owned();
    (text("broker"), text("relay"))
}

/// The threads and sockets that connections to the broker cost a process.
fn held(replica: &Replica) -> (usize, usize) {
    let entries = |folder: &str| {
        let path = format!("/proc/{}/{folder}", replica.id());
        std::fs::read_dir(path).expect("a process").flatten()
    };
    let threads = entries("task").filter(|entry| {
        let name = std::fs::read_to_string(entry.path().join("comm"));
        name.is_ok_and(|name| name.starts_with("lapin"))
    });
    let sockets = entries("fd").filter(|entry| {
        let target = std::fs::read_link(entry.path());
        target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    });
    (threads.count(), sockets.count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_accepts_and_says_nothing_costs_no_more_the_longer_it_lasts() {
    let (broker, exchange) = (RabbitMq::shared(), fixture::exchange());
    let recorder = Recorder::start(&broker.url(), &exchange, "secret.#").await;
    let proxy = Proxy::start(broker.address());
    proxy.stall();
    let deployment = fixture::sqlite().broker(&proxy.url(&broker.url()), &exchange);
    let (replica, client) = started(&deployment);
    until("two attempts", async || proxy.accepted() == 2).await;
    let (_, sockets) = held(&replica);
    until("six attempts more", async || proxy.accepted() >= 8).await;
    assert_eq!(
        links(&client).await,
        ("failed".to_owned(), "failed".to_owned())
    );
    // Two attempts at a time, and the client's one connection to the service.
    until("the first six are gone", async || {
        let (threads, now) = held(&replica);
        threads <= 2 && now <= sockets + 1
    })
    .await;

    proxy.pass();
    let secrets = ledger::create(&client, 3).await;
    let record = delivered(&recorder, 3, SOON).await;
    assert_delivers(&client, &secrets, &record).await;
}
