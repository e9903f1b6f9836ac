use crate::support::broker::{
    Delivery, Recorder, Whole, assert_in_order, by_secret, first_deliveries, publish,
};
use crate::support::rabbitmq::RabbitMq;
use lapin::BasicProperties;
use lapin::types::{FieldTable, ShortString};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn event(position: u64, secret: &str, sequence: u64) -> Vec<u8> {
    let event = json!({"log": "changes", "epoch": 1, "position": position, "secret_id": secret, "sequence": sequence});
    event.to_string().into_bytes()
}

fn delivery(body: Vec<u8>) -> Delivery {
    Delivery {
        routing_key: "secret.updated.alice.1".to_owned(),
        headers: FieldTable::default(),
        properties: BasicProperties::default(),
        body,
    }
}

#[test]
fn repeats_are_dropped_and_order_is_that_of_first_deliveries() {
    let record: Vec<_> = [
        event(1, "a", 1),
        event(2, "b", 1),
        event(1, "a", 1),
        event(3, "a", 2),
    ]
    .map(delivery)
    .into_iter()
    .collect();
    assert_eq!(first_deliveries(&record).len(), 3);
    assert_eq!(by_secret(&record)["a"].len(), 2);
    assert_in_order(&record, Whole::Yes);
}

#[test]
#[should_panic(expected = "position 1 comes after 2")]
fn an_inversion_fails() {
    assert_in_order(
        &[event(2, "b", 1), event(1, "a", 1)].map(delivery),
        Whole::No,
    );
}

#[test]
#[should_panic(expected = "position 3 follows 1")]
fn a_gap_fails() {
    assert_in_order(
        &[event(1, "a", 1), event(3, "b", 1)].map(delivery),
        Whole::Yes,
    );
}

#[test]
#[should_panic(expected = "the next change of a")]
fn a_missing_change_fails() {
    assert_in_order(
        &[event(1, "a", 1), event(2, "a", 3)].map(delivery),
        Whole::No,
    );
}

#[test]
#[should_panic(expected = "differs from the first")]
fn a_changed_repeat_fails() {
    first_deliveries(&[event(1, "a", 1), event(1, "a", 2)].map(delivery));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_before_and_after_a_broken_broker_is_recorded() {
    let mut broker = RabbitMq::start_private();
    let url = broker.url();
    let recorder = Recorder::start(&url, "events", "secret.#").await;
    publish(&url, "events", &[event(1, "a", 1), event(2, "a", 2)]).await;
    let record = recorder.wait_for(2, SOON).await;
    assert_eq!(record[0].routing_key, "secret.updated.alice.1");
    assert_eq!(
        record[0]
            .properties
            .app_id()
            .as_ref()
            .map(ShortString::as_str),
        Some("rekey")
    );

    broker.kill_9();
    broker.restart();
    publish(&url, "events", &[event(3, "a", 3)]).await;
    assert_in_order(&recorder.wait_for_distinct(3, SOON).await, Whole::Yes);

    broker.stop();
    let late = tokio::spawn(async move { publish(&url, "events", &[event(4, "a", 4)]).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(first_deliveries(&recorder.deliveries()).len(), 3);
    broker.cont();
    late.await.unwrap();
    assert_in_order(&recorder.wait_for_distinct(4, SOON).await, Whole::Yes);
}

#[test]
fn the_shared_broker_answers_its_control_program() {
    let broker = RabbitMq::shared();
    assert!(
        broker
            .ctl(&["list_vhosts", "name"])
            .lines()
            .any(|line| line == "/")
    );
}
