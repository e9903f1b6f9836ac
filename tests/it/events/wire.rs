//! What reaches the broker beside the changes themselves: traces, and the log `activity`.

use crate::support::broker::{Delivery, Recorder, Whole, assert_in_order};
use crate::support::events::{Logged, all};
use crate::support::fixture::{self, ALL, World, batch};
use crate::support::ledger;
use crate::support::rabbitmq::RabbitMq;
use crate::support::service::{Client, Deployment};
use reqwest::Method;
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

const MALFORMED: [&str; 10] = [
    "",
    "x",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01,x",
    "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01",
    "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
    "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b77-01",
];

/// A deployment with a broker, and all that comes of both logs.
async fn recorded(deployment: Deployment) -> (Deployment, Recorder) {
    let (broker, exchange) = (RabbitMq::shared().url(), fixture::exchange());
    let recorder = Recorder::start(&broker, &exchange, "#").await;
    (deployment.broker(&broker, &exchange), recorder)
}

/// The first delivery that belongs to a request.
async fn of_request(recorder: &Recorder, request_id: &str) -> Delivery {
    let is = |delivery: &Delivery| delivery.json()["request_id"] == request_id;
    let record = recorder
        .wait_until(request_id, SOON, |record| record.iter().any(is))
        .await;
    record.into_iter().find(is).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_a_request_goes_with_its_events_and_a_malformed_one_does_not() {
    for deployment in fixture::both() {
        let (deployment, recorder) = recorded(deployment).await;
        let World {
            alice,
            deployment: _deployment,
            replica: _replica,
            ..
        } = &World::of(deployment);
        let traced = alice.with("traceparent", TRACE);
        let secrets = ledger::create(&traced, 2).await;
        let in_trace = |delivery: &Delivery| {
            assert_eq!(delivery.header("traceparent").as_deref(), Some(TRACE));
            assert!(!String::from_utf8_lossy(&delivery.body).contains("4bf92f3577b34da6"));
        };
        let put = async |client: &Client, request_id: &str| {
            let client = client.with("x-request-id", request_id);
            client.put(&secrets[0], "x").await.unwrap().expect(200);
            of_request(&recorder, request_id).await
        };
        in_trace(&put(&traced, "put").await);
        let set = traced.with("x-request-id", "set");
        let updates = secrets.iter().map(|id| (&**id, "y".to_owned()));
        assert_eq!(batch(&set, &updates.collect::<Vec<_>>()).await, 200);
        let resolving = traced.with("x-request-id", "read");
        let body = json!({"ids": secrets});
        resolving.resolve(&body).await.unwrap().expect(200);
        let deleting = traced.with("x-request-id", "delete");
        deleting.delete(&secrets[1]).await.unwrap().expect(204);
        for request_id in ["set", "read", "delete"] {
            in_trace(&of_request(&recorder, request_id).await);
        }
        assert_eq!(put(alice, "none").await.header("traceparent"), None);
        for (number, malformed) in MALFORMED.into_iter().enumerate() {
            let client = alice.with("traceparent", malformed);
            let delivery = put(&client, &format!("malformed-{number}")).await;
            assert_eq!(delivery.header("traceparent"), None, "{malformed}");
        }
        // Two of them are none: which one would be the parent?
        let path = format!("/api/v1/user/secrets/{}", secrets[0]);
        let twice = traced.request(Method::PUT, &path);
        let twice = twice.header("x-request-id", "twice");
        let other = TRACE.replace("00f0", "11f0");
        let twice = twice
            .header("traceparent", other)
            .json(&json!({"value": "z"}));
        alice.send(twice).await.unwrap().expect(200);
        let delivery = of_request(&recorder, "twice").await;
        assert_eq!(delivery.header("traceparent"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_read_and_who_was_let_in_reaches_the_broker_as_the_log_has_it() {
    for deployment in fixture::both() {
        let (deployment, recorder) = recorded(deployment).await;
        let world = World::of(deployment);
        let strange = "a.b*é";
        let token = world.deployment.token(strange, &ALL);
        let id = token.split('_').nth(1).unwrap();
        let client = world.replica.client(&token);
        let secrets = ledger::create(&client, 2).await;
        let body = json!({"ids": secrets});
        client.resolve(&body).await.unwrap().expect(200);
        world.deployment.run(&["token", "revoke", id]);
        let log = all(&world.auditor, "log=activity").await;
        assert_eq!(log.len(), 7);
        let record = recorder.wait_for_distinct(9, SOON).await;
        assert_in_order(&record, Whole::Yes);
        let activity: Vec<_> = record
            .iter()
            .filter(|delivery| delivery.json()["log"] == "activity")
            .collect();
        let bodies: Vec<_> = activity.iter().map(|delivery| &delivery.body).collect();
        assert_eq!(
            bodies,
            log.iter().map(|event| &event.bytes).collect::<Vec<_>>()
        );
        let keys: Vec<_> = activity.iter().map(|one| one.routing_key.clone()).collect();
        let token_of = |index: usize| log[index].text("token_id").to_owned();
        let owner = "a%2Eb%2A%C3%A9";
        assert_eq!(
            keys,
            [
                format!("activity.token_created.alice.{}", token_of(0)),
                format!("activity.token_created.bob.{}", token_of(1)),
                format!("activity.token_created._.{}", token_of(2)),
                format!("activity.token_created.{owner}.{id}"),
                format!("activity.secret_accessed.{owner}.{}", secrets[0]),
                format!("activity.secret_accessed.{owner}.{}", secrets[1]),
                format!("activity.token_revoked.{owner}.{id}"),
            ]
        );
        for (delivery, event) in activity.iter().zip(&log) {
            assert_cloud_event(delivery, event);
        }
    }
}

fn assert_cloud_event(delivery: &Delivery, event: &Logged) {
    let text = |name: &str| Some(event.text(name).to_owned()).filter(|text| !text.is_empty());
    let source = match (text("secret_id"), text("token_id")) {
        (Some(id), _) => format!("/secrets/{id}"),
        (None, id) => format!("/tokens/{}", id.unwrap()),
    };
    for (name, value) in [
        ("specversion", Some("1.0".to_owned())),
        ("id", text("id")),
        ("type", text("type")),
        ("source", Some(source)),
        ("subject", text("name")),
        ("time", text("occurred_at")),
        ("sequence", None),
        ("partitionkey", text("secret_id")),
        ("dataschema", Some("urn:rekey:activity-event:1".to_owned())),
    ] {
        let header = delivery.header(&format!("cloudEvents:{name}"));
        assert_eq!(header, value, "{name}");
    }
    let properties = &delivery.properties;
    let short = |value: &Option<lapin::types::ShortString>| Some(value.as_ref()?.to_string());
    assert_eq!(short(properties.message_id()), text("id"));
    assert_eq!(short(properties.kind()), text("type"));
    assert_eq!(short(properties.app_id()).as_deref(), Some("rekey"));
    assert_eq!(
        short(properties.content_type()).as_deref(),
        Some("application/json")
    );
    assert_eq!(properties.delivery_mode(), &Some(2));
}
