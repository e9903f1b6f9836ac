//! What is written arrives at the broker: whole, in order, whatever happens to the broker.

use crate::support::broker::{Delivery, Recorder, assert_delivers, delivered};
use crate::support::fixture::{self, SCOPES};
use crate::support::ledger::{self, Load, Told};
use crate::support::postgres::psql;
use crate::support::proxy::{Fault, Moment, Proxy, Reach, Trigger};
use crate::support::rabbitmq::RabbitMq;
use crate::support::service::{Client, Deployment, Replica};
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const LATE: Duration = Duration::from_secs(90);

fn started(deployment: &Deployment) -> (Replica, Client) {
    let token = deployment.token("alice", SCOPES);
    let replica = deployment.serve();
    let client = replica.client(&token);
    (replica, client)
}

fn assert_cloud_event(delivery: &Delivery, event: &Value) {
    let text = |name: &str| event[name].as_str().unwrap().to_owned();
    let id = text("secret_id");
    let wanted = [
        ("specversion", "1.0".to_owned()),
        ("id", text("id")),
        ("type", text("type")),
        ("source", format!("/secrets/{id}")),
        ("subject", text("name")),
        ("time", text("occurred_at")),
        (
            "sequence",
            format!("{:020}", event["sequence"].as_u64().unwrap()),
        ),
        ("partitionkey", id),
        ("dataschema", "urn:rekey:secret-event:1".to_owned()),
    ];
    for (name, value) in wanted {
        let header = delivery.header(&format!("cloudEvents:{name}"));
        assert_eq!(header.as_deref(), Some(&*value), "{name}");
    }
    let properties = &delivery.properties;
    let short = |value: &Option<lapin::types::ShortString>| value.as_ref().unwrap().to_string();
    assert_eq!(short(properties.content_type()), "application/json");
    assert_eq!(short(properties.message_id()), text("id"));
    assert_eq!(short(properties.kind()), text("type"));
    assert_eq!(short(properties.app_id()), "rekey");
    assert_eq!(properties.delivery_mode(), &Some(2));
    let seconds = chrono::DateTime::parse_from_rfc3339(&text("occurred_at")).unwrap();
    assert_eq!(
        properties.timestamp(),
        &u64::try_from(seconds.timestamp()).ok()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_event_of_a_put_stands_in_the_broker_exactly_as_in_the_log() {
    let broker = RabbitMq::shared().url();
    for deployment in fixture::both() {
        let exchange = fixture::exchange();
        let recorder = Recorder::start(&broker, &exchange, "secret.#").await;
        let updates = Recorder::start(&broker, &exchange, "secret.updated.alice.*").await;
        let deployment = deployment.broker(&broker, &exchange);
        let (_replica, client) = started(&deployment);
        let secrets = ledger::create(&client, 1).await;
        let answer = client
            .put(&secrets[0], "sk-second")
            .await
            .unwrap()
            .expect(200);
        assert_eq!(answer.header("etag"), Some("\"2\""));
        let record = delivered(&recorder, 2, SOON).await;
        assert_delivers(&client, &secrets, &record).await;
        let keys: Vec<_> = record
            .iter()
            .map(|delivery| delivery.routing_key.as_str())
            .collect();
        let key = |verb: &str| format!("secret.{verb}.alice.{}", secrets[0]);
        assert_eq!(keys, [key("created"), key("updated")]);
        let history = ledger::history(&client, &secrets[0]).await;
        for (delivery, (event, _)) in record.iter().zip(&history) {
            assert_cloud_event(delivery, event);
        }
        assert_eq!(history[1].0["type"], "secret.updated");
        let updates = updates.wait_for(1, SOON).await;
        assert_eq!(updates[0].body, history[1].1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_url_no_relay_runs() {
    let deployment = fixture::postgres();
    let (mut replica, client) = started(&deployment);
    let secrets = ledger::create(&client, 1).await;
    client
        .put(&secrets[0], "sk-second")
        .await
        .unwrap()
        .expect(200);
    let ready = client.fetch("/ready").await.unwrap().expect(200).json();
    assert_eq!(ready["checks"]["broker"], "off", "{ready}");
    assert_eq!(ready["checks"]["relay"], "off", "{ready}");
    assert_eq!(replica.terminate(), Some(0));
    // Also the drain has written no cursor.
    assert_eq!(
        psql(deployment.database(), "SELECT count(*) FROM relay_cursors"),
        "0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_the_broker_is_down_arrives_when_it_is_up() {
    let _heavy = fixture::heavy().await;
    let mut broker = RabbitMq::start_private();
    let (url, exchanges) = (broker.url(), [fixture::exchange(), fixture::exchange()]);
    let mut runs = Vec::new();
    for (deployment, exchange) in fixture::both().into_iter().zip(exchanges) {
        // Its queue is durable: it is there when the broker is up again.
        let recorder = Recorder::start(&url, &exchange, "secret.#").await;
        runs.push((deployment.broker(&url, &exchange), recorder));
    }
    broker.kill_9();
    let mut written = Vec::new();
    for (deployment, recorder) in runs {
        let (replica, client) = started(&deployment);
        let secrets = ledger::create(&client, 4).await;
        let attempts = Load::start(vec![client.clone(); 4], &secrets, 25)
            .end()
            .await;
        let count = ledger::settle(&client, &secrets, &attempts).await;
        assert_eq!((count.acknowledged, count.events), (100, 104));
        assert_eq!(recorder.deliveries().len(), 0);
        written.push((deployment, replica, client, secrets, recorder));
    }
    broker.restart();
    for (_deployment, _replica, client, secrets, recorder) in &written {
        let record = delivered(recorder, 104, SOON).await;
        assert_delivers(client, secrets, &record).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_broker_never_saw_is_the_first_on_the_next_connection() {
    let broker = RabbitMq::shared();
    let (url, exchange) = (broker.url(), fixture::exchange());
    let recorder = Recorder::start(&url, &exchange, "secret.#").await;
    let proxy = Proxy::start(broker.address());
    let deployment = fixture::sqlite().broker(&proxy.url(&url), &exchange);
    let (_replica, client) = started(&deployment);
    let secrets = ledger::create(&client, 1).await;
    let mut position = 1;
    delivered(&recorder, position, SOON).await;
    for fault in [Fault::Reset, Fault::Cut, Fault::Reset] {
        let mut fired = proxy.arm(Trigger {
            text: "secret.updated.",
            moment: Moment::Before,
            fault,
            reach: Reach::Link,
        });
        client
            .put(&secrets[0], "sk-lost")
            .await
            .unwrap()
            .expect(200);
        assert!(fired.wait(SOON).await, "{fault:?}");
        client
            .put(&secrets[0], "sk-next")
            .await
            .unwrap()
            .expect(200);
        position += 2;
        let record = delivered(&recorder, position, SOON).await;
        assert_delivers(&client, &secrets, &record).await;
    }
    // The relays of both logs, and three times that of `changes` again.
    assert_eq!(proxy.accepted(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_kills_of_the_broker_within_two_thousand_puts_lose_and_swap_nothing() {
    let _heavy = fixture::heavy().await;
    let mut broker = RabbitMq::start_private();
    let exchange = fixture::exchange();
    let recorder = Recorder::start(&broker.url(), &exchange, "secret.#").await;
    let deployment = fixture::postgres().broker(&broker.url(), &exchange);
    let (_replica, client) = started(&deployment);
    let secrets = ledger::create(&client, 20).await;
    // Four stretches of 500 PUTs; the broker dies within the first three, once some of it has come through.
    let mut attempts = Vec::new();
    for stretch in 0..4 {
        let load = Load::start(vec![client.clone(); 10], &secrets, 50);
        if stretch < 3 {
            load.reaches(100).await;
            let come = 20 + stretch * 500 + 1;
            recorder.wait_for(come, LATE).await;
            broker.kill_9();
            attempts.extend(load.end().await);
            broker.restart();
        } else {
            attempts.extend(load.end().await);
        }
    }
    assert!(
        attempts
            .iter()
            .all(|attempt| matches!(attempt.told, Told::Applied(_))),
        "no PUT fails"
    );
    let count = ledger::settle(&client, &secrets, &attempts).await;
    assert_eq!((count.acknowledged, count.events), (2000, 2020));
    let record = delivered(&recorder, 2020, LATE).await;
    assert_delivers(&client, &secrets, &record).await;
    eprintln!(
        "2020 events, {} deliveries, 3 kills of the broker",
        record.len()
    );
}
