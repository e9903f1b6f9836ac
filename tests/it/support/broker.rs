//! A consumer that records what the broker delivers, and a publisher.
//!
//! It owns a durable queue bound to one exchange, records before it acknowledges, and comes back by itself after any
//! break; so the record holds every delivery in order, repeats included. The functions below the consumer judge such
//! a record by the promises of the event contract.

use super::background;
use super::ledger;
use super::service::Client;
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer,
    ExchangeKind,
};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;

const CONNECT: Duration = Duration::from_secs(5);
/// How often a quiet link is looked at.
const LOOK: Duration = Duration::from_secs(1);
const BACK_OFF: Duration = Duration::from_millis(200);
const HEARTBEAT_SECONDS: u16 = 5;

#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) routing_key: String,
    pub(crate) headers: FieldTable,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Vec<u8>,
}

impl Delivery {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("an event is JSON")
    }

    /// A header as text, whatever its AMQP type.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let value = self.headers.inner().get(name)?;
        let text = value.as_long_string().map(ToString::to_string);
        text.or_else(|| value.as_short_string().map(ToString::to_string))
            .or_else(|| Some(format!("{value:?}")))
    }
}

pub(crate) struct Recorder {
    record: watch::Receiver<Vec<Delivery>>,
    doing: watch::Receiver<String>,
    consuming: AbortHandle,
}

impl Recorder {
    /// Returns when the queue is bound and consumed, so nothing that is published from now on is missed.
    pub(crate) async fn start(url: &str, exchange: &str, binding: &str) -> Self {
        let route = Route {
            url: with_heartbeat(url),
            exchange: exchange.to_owned(),
            binding: binding.to_owned(),
            queue: format!("recorder.{}", uuid::Uuid::new_v4().simple()),
        };
        let (sender, record) = watch::channel(Vec::new());
        let (ready, mut is_ready) = watch::channel(false);
        let (tell, doing) = watch::channel(String::new());
        let consuming = background::runtime()
            .spawn(consume_for_ever(route, sender, ready, tell))
            .abort_handle();
        tokio::time::timeout(Duration::from_secs(30), is_ready.wait_for(|ready| *ready))
            .await
            .expect("the recorder consumes within 30 s")
            .expect("the recorder runs");
        Self {
            record,
            doing,
            consuming,
        }
    }

    /// Everything up to now, in order, repeats included.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.record.borrow().clone()
    }

    /// Waits for `count` deliveries, repeats included; panics at the deadline.
    pub(crate) async fn wait_for(&self, count: usize, deadline: Duration) -> Vec<Delivery> {
        self.wait_until(&format!("{count} deliveries"), deadline, |record| {
            record.len() >= count
        })
        .await
    }

    /// Waits for `count` deliveries without the repeats; panics at the deadline.
    pub(crate) async fn wait_for_distinct(
        &self,
        count: usize,
        deadline: Duration,
    ) -> Vec<Delivery> {
        let enough =
            |record: &[Delivery]| record.len() >= count && first_deliveries(record).len() >= count;
        self.wait_until(&format!("{count} distinct deliveries"), deadline, enough)
            .await
    }

    pub(crate) async fn wait_until(
        &self,
        what: &str,
        deadline: Duration,
        holds: impl Fn(&[Delivery]) -> bool,
    ) -> Vec<Delivery> {
        let mut record = self.record.clone();
        let waiting = record.wait_for(|record| holds(record));
        if let Ok(record) = tokio::time::timeout(deadline, waiting).await {
            return record.expect("the recorder runs").clone();
        }
        panic!(
            "not {what} within {deadline:?}, but {}; the recorder: {}",
            self.record.borrow().len(),
            *self.doing.borrow()
        );
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.consuming.abort();
    }
}

struct Route {
    url: String,
    exchange: String,
    binding: String,
    queue: String,
}

fn with_heartbeat(url: &str) -> String {
    let mut url = url::Url::parse(url).expect("a broker's URL");
    url.query_pairs_mut()
        .append_pair("heartbeat", &HEARTBEAT_SECONDS.to_string());
    url.into()
}

async fn consume_for_ever(
    route: Route,
    record: watch::Sender<Vec<Delivery>>,
    ready: watch::Sender<bool>,
    doing: watch::Sender<String>,
) {
    for attempt in 1_u32.. {
        doing.send_replace(format!("connection {attempt} is made"));
        let connecting = Connection::connect(&route.url, ConnectionProperties::default());
        let ended = match tokio::time::timeout(CONNECT, connecting).await {
            Ok(Ok(connection)) => {
                doing.send_replace(format!("connection {attempt} stands"));
                // What waits in lapin is not always told that its connection broke.
                tokio::select! {
                    ended = consume(&connection, &route, &record, &ready) => ended,
                    () = broken(&connection) => "its connection broke".to_owned(),
                }
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "nothing answers".to_owned(),
        };
        doing.send_replace(format!("connection {attempt} has ended: {ended}"));
        tokio::time::sleep(BACK_OFF).await;
    }
}

async fn broken(connection: &Connection) {
    while connection.status().connected() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Records until something breaks; the text says what.
async fn consume(
    connection: &Connection,
    route: &Route,
    record: &watch::Sender<Vec<Delivery>>,
    ready: &watch::Sender<bool>,
) -> String {
    // A broker that dies or is still recovering may never answer: come back then too.
    let mut consumer = match tokio::time::timeout(CONNECT, subscribe(connection, route)).await {
        Ok(Ok(consumer)) => consumer,
        Ok(Err(error)) => return error.to_string(),
        Err(_) => return "no subscription within 5 s".to_owned(),
    };
    ready.send_replace(true);
    while let Some(next) = consumer.next().await {
        let delivery = match next {
            Ok(delivery) => delivery,
            Err(error) => return error.to_string(),
        };
        record.send_modify(|record| {
            record.push(Delivery {
                routing_key: delivery.routing_key.to_string(),
                headers: delivery.properties.headers().clone().unwrap_or_default(),
                properties: delivery.properties.clone(),
                body: delivery.data.clone(),
            });
        });
        if let Err(error) = delivery.acker.ack(BasicAckOptions::default()).await {
            return error.to_string();
        }
    }
    "the consumer was ended".to_owned()
}

async fn subscribe(connection: &Connection, route: &Route) -> Result<Consumer, lapin::Error> {
    let channel = connection.create_channel().await?;
    declare(&channel, &route.exchange, &route.queue, &route.binding).await?;
    channel.basic_qos(256, BasicQosOptions::default()).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    channel
        .basic_consume(route.queue.as_str().into(), "".into(), options, none)
        .await
}

/// Declares a durable exchange of topics and a durable queue, and binds them.
pub(crate) async fn declare(
    channel: &Channel,
    exchange: &str,
    queue: &str,
    binding: &str,
) -> Result<(), lapin::Error> {
    let none = FieldTable::default;
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(exchange.into(), ExchangeKind::Topic, options, none())
        .await?;
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel.queue_declare(queue.into(), options, none()).await?;
    channel
        .queue_bind(
            queue.into(),
            exchange.into(),
            binding.into(),
            QueueBindOptions::default(),
            none(),
        )
        .await
}

/// Publishes bodies as the relay does, each as an event of Alice's, and returns when the broker has them.
pub(crate) async fn publish(url: &str, exchange: &str, bodies: &[Vec<u8>]) {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    for body in bodies {
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_app_id("rekey".into());
        let key = "secret.updated.alice.1".into();
        let sent = channel.basic_publish(
            exchange.into(),
            key,
            BasicPublishOptions::default(),
            body,
            properties,
        );
        assert_eq!(sent.await.unwrap().await.unwrap(), Confirmation::Ack(None));
    }
    connection.close(200, "".into()).await.unwrap();
}

/// The deliveries without their repeats, in order. Panics when a repeat differs from what it repeats.
pub(crate) fn first_deliveries(record: &[Delivery]) -> Vec<&Delivery> {
    let mut seen = HashMap::new();
    let mut first = Vec::new();
    for delivery in record {
        let event = delivery.json();
        let place = (
            event["log"].to_string(),
            event["epoch"].as_u64(),
            event["position"].as_u64(),
        );
        if let Some(before) = seen.insert(place.clone(), &delivery.body) {
            assert!(
                *before == delivery.body,
                "a repeat of {place:?} differs from the first"
            );
        } else {
            first.push(delivery);
        }
    }
    first
}

/// The events of each secret without repeats, in the order of their first delivery.
pub(crate) fn by_secret(record: &[Delivery]) -> BTreeMap<String, Vec<Value>> {
    let mut secrets: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for delivery in first_deliveries(record) {
        let event = delivery.json();
        if let Some(secret) = event["secret_id"].as_str() {
            secrets.entry(secret.to_owned()).or_default().push(event);
        }
    }
    secrets
}

/// Panics unless each secret's changes come as 1, 2, 3 … and each log's positions only rise, both counted at their
/// first delivery; with `whole`, positions may leave nothing out either.
pub(crate) fn assert_in_order(record: &[Delivery], whole: Whole) {
    let mut positions: HashMap<String, u64> = HashMap::new();
    for delivery in first_deliveries(record) {
        let event = delivery.json();
        let position = event["position"].as_u64().expect("a position");
        if let Some(before) = positions.insert(event["log"].to_string(), position) {
            assert!(
                position > before,
                "position {position} comes after {before}"
            );
            assert!(
                whole == Whole::No || position == before + 1,
                "position {position} follows {before}"
            );
        }
    }
    for (secret, events) in by_secret(record) {
        let changes = events.iter().filter_map(|event| event["sequence"].as_u64());
        for (expected, sequence) in (1..).zip(changes) {
            assert_eq!(sequence, expected, "the next change of {secret}");
        }
    }
}

/// Whether a record should hold every event of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whole {
    Yes,
    No,
}

/// Waits for the log's last event; everything before it has come by then, or never comes first.
pub(crate) async fn delivered(
    recorder: &Recorder,
    last: usize,
    deadline: Duration,
) -> Vec<Delivery> {
    let last = last as u64;
    let what = format!("position {last}");
    recorder
        .wait_until(&what, deadline, |record| {
            let newest = record
                .last()
                .map(|delivery| delivery.json()["position"].clone());
            newest.is_some_and(|position| position.as_u64() == Some(last))
        })
        .await
}

/// Panics unless the first deliveries are these secrets' whole log, byte for byte, from its first position.
pub(crate) async fn assert_delivers(client: &Client, secrets: &[String], record: &[Delivery]) {
    assert_in_order(record, Whole::Yes);
    let mut log = HashMap::new();
    for secret in secrets {
        for (event, bytes) in ledger::history(client, secret).await {
            log.insert(event["position"].as_u64(), bytes);
        }
    }
    let first = first_deliveries(record);
    assert_eq!(first.len(), log.len());
    assert_eq!(first[0].json()["position"], 1);
    for delivery in first {
        let position = delivery.json()["position"].as_u64();
        assert_eq!(log.get(&position), Some(&delivery.body));
    }
}
