//! What the relay does while the broker, a queue of it, or the database refuses: it waits, and costs no more the
//! longer that lasts.

use crate::support::broker::{Recorder, assert_delivers, assert_in_order, delivered};
use crate::support::broker::{Whole, first_deliveries};
use crate::support::fixture::{self, SCOPES};
use crate::support::ledger;
use crate::support::postgres::Postgres;
use crate::support::proxy::{Ending, Proxy};
use crate::support::rabbitmq::RabbitMq;
use crate::support::service::{Client, Deployment, Replica};
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};
use serde_json::Value;
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

async fn are(client: &Client, broker: &str, relay: &str) -> bool {
    links(client).await == (broker.to_owned(), relay.to_owned())
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

/// What it has logged of one part of the program.
fn said(replica: &Replica, target: &str) -> Vec<Value> {
    let lines = replica.stderr();
    let lines = lines
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines
        .filter(|line: &Value| {
            line["target"]
                .as_str()
                .is_some_and(|t| t.starts_with(target))
        })
        .collect()
}

fn of_level<'lines>(lines: &'lines [Value], level: &str) -> Vec<&'lines Value> {
    lines.iter().filter(|line| line["level"] == level).collect()
}

/// One more event, and a short time to see what comes of it.
async fn put(client: &Client, secret: &str) {
    client.put(secret, "sk-next").await.unwrap().expect(200);
    tokio::time::sleep(LOOK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_blocks_the_relay_keeps_its_connection_and_then_goes_on() {
    let _heavy = fixture::heavy().await;
    let broker = RabbitMq::start_private();
    let (url, exchange) = (broker.url(), fixture::exchange());
    let recorder = Recorder::start(&url, &exchange, "secret.#").await;
    let proxy = Proxy::start(broker.address());
    let deployment = fixture::sqlite().broker(&proxy.url(&url), &exchange);
    let (replica, client) = started(&deployment);
    let secrets = ledger::create(&client, 1).await;
    let mut events = 1;
    delivered(&recorder, events, SOON).await;

    broker.ctl(&["set_vm_memory_high_watermark", "0"]);
    while !are(&client, "ok", "failed").await {
        assert!(events < 300, "the relay does not see that it is blocked");
        put(&client, &secrets[0]).await;
        events += 1;
    }
    let (threads, _) = held(&replica);
    // Longer than any of the relay's deadlines.
    let end = Instant::now() + Duration::from_secs(13);
    while Instant::now() < end {
        assert_eq!(links(&client).await, ("ok".to_owned(), "failed".to_owned()));
        assert_eq!((proxy.accepted(), held(&replica).0), (2, threads));
        put(&client, &secrets[0]).await;
        events += 1;
    }
    assert!(recorder.deliveries().len() < events);

    broker.ctl(&["set_vm_memory_high_watermark", "0.4"]);
    let record = delivered(&recorder, events, SOON).await;
    assert_eq!(record.len(), events, "nothing comes twice");
    assert_delivers(&client, &secrets, &record).await;
    until("the relay is well", async || are(&client, "ok", "ok").await).await;
    assert_eq!(proxy.accepted(), 2);
    let said = said(&replica, "rekey::relay");
    let warnings = of_level(&said, "WARN");
    assert_eq!(warnings.len(), 1, "{said:#?}");
    let reason = warnings[0]["broker.reason"].as_str();
    assert!(reason.is_some_and(|reason| !reason.is_empty()), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_published_while_those_before_it_are_unconfirmed() {
    let _heavy = fixture::heavy().await;
    let mut broker = RabbitMq::start_private();
    let (url, exchange) = (broker.url(), fixture::exchange());
    let recorder = Recorder::start(&url, &exchange, "secret.#").await;
    let proxy = Proxy::start(broker.address());
    let deployment = fixture::sqlite().broker(&proxy.url(&url), &exchange);
    let (_replica, client) = started(&deployment);
    let secrets = ledger::create(&client, 1).await;
    delivered(&recorder, 1, SOON).await;

    // It takes what is sent to it, and answers nothing.
    broker.stop();
    for _ in 0..3 {
        let before = proxy.bytes_to_server();
        put(&client, &secrets[0]).await;
        // More than a heartbeat.
        until("the event is sent", async || {
            proxy.bytes_to_server() > before + 500
        })
        .await;
    }
    broker.cont();
    let record = delivered(&recorder, 4, SOON).await;
    assert_eq!(record.len(), 4, "nothing comes twice");
    assert_delivers(&client, &secrets, &record).await;
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

/// A queue of the exchange that refuses every event, until the connection is dropped.
async fn refusing_queue(url: &str, exchange: &str) -> Connection {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(0));
    let overflow = AMQPValue::LongString("reject-publish".into());
    arguments.insert("x-overflow".into(), overflow);
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let name = format!("full.{exchange}");
    let queue = channel
        .queue_declare(name.into(), options, arguments)
        .await
        .unwrap();
    channel
        .queue_bind(
            queue.name().clone(),
            exchange.into(),
            "secret.#".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_refuses_events_does_not_flood_the_others() {
    let (url, exchange) = (RabbitMq::shared().url(), fixture::exchange());
    let recorder = Recorder::start(&url, &exchange, "secret.#").await;
    let full = refusing_queue(&url, &exchange).await;
    let deployment = fixture::postgres().broker(&url, &exchange);
    let (_replica, client) = started(&deployment);
    let secrets = ledger::create(&client, 3).await;
    recorder.wait_for(1, SOON).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let record = recorder.deliveries();
    for first in first_deliveries(&record) {
        let times = record.iter().filter(|one| one.body == first.body).count();
        assert!(times <= 10, "{times} deliveries of one event");
    }
    assert_eq!(links(&client).await.1, "failed");

    full.close(200, "".into()).await.unwrap();
    fixture::change(&client, &secrets, 1).await;
    let record = delivered(&recorder, 6, SOON).await;
    assert_in_order(&record, Whole::Yes);
    assert_delivers(&client, &secrets, &record).await;
    until("the relay is well", async || are(&client, "ok", "ok").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_down_is_named_once_with_its_cause_and_once_when_it_is_well_again() {
    let (url, exchange) = (RabbitMq::shared().url(), fixture::exchange());
    let recorder = Recorder::start(&url, &exchange, "secret.#").await;
    let deployment = fixture::postgres().broker(&url, &exchange);
    let database = deployment.database().to_owned();
    let proxy = Proxy::start(Postgres::shared().address());
    let deployment = deployment.set("DATABASE__URL", &proxy.url(&database));
    let (replica, client) = started(&deployment);
    let secrets = ledger::create(&client, 1).await;
    delivered(&recorder, 1, SOON).await;

    proxy.refuse(Ending::Reset);
    until("the relay fails", async || {
        are(&client, "ok", "failed").await
    })
    .await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    proxy.pass();
    until("the relay is well", async || are(&client, "ok", "ok").await).await;
    fixture::change(&client, &secrets, 1).await;
    let record = delivered(&recorder, 2, SOON).await;
    assert_delivers(&client, &secrets, &record).await;

    for target in ["rekey::relay", "rekey::store::tail"] {
        let named = async || {
            let lines = said(&replica, target);
            let again = |line: &&Value| {
                let text = line["message"].as_str();
                text.is_some_and(|text| text.ends_with("again"))
            };
            lines.iter().filter(again).count() == 2
        };
        until("both logs are well again", named).await;
        let lines = said(&replica, target);
        // One for each log.
        let warnings = of_level(&lines, "WARN");
        assert_eq!(warnings.len(), 2, "{lines:#?}");
        for warning in warnings {
            let error = warning["error"].as_str();
            assert!(error.is_some_and(|error| error.contains(": ")), "{warning}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_the_lease_sees_that_its_broker_is_gone() {
    let (broker, exchange) = (RabbitMq::shared(), fixture::exchange());
    let deployment = fixture::postgres().broker(&broker.url(), &exchange);
    let (_first, client) = started(&deployment);
    until("the first is well", async || are(&client, "ok", "ok").await).await;
    let proxy = Proxy::start(broker.address());
    let url = proxy.url(&broker.url());
    let second = deployment.serve_with(&[("REKEY__BROKER__URL", &url)]);
    let other = client.on(second.base());
    until("the second is well", async || are(&other, "ok", "ok").await).await;

    proxy.refuse(Ending::Reset);
    until("it sees it", async || are(&other, "failed", "failed").await).await;
    proxy.pass();
    until("it is well again", async || are(&other, "ok", "ok").await).await;
    assert!(are(&client, "ok", "ok").await);
}
