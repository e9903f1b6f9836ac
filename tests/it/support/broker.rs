//! A consumer that records what the broker delivers.
//!
//! It owns a durable queue bound to one exchange, records before it acknowledges, and comes back by itself after any
//! break; so the record holds every delivery in order, repeats included. The functions below the consumer judge such
//! a record by the promises of the event contract.

use super::background;
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties, Consumer, ExchangeKind};
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
    pub(crate) redelivered: bool,
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
    queue: String,
    record: watch::Receiver<Vec<Delivery>>,
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
        let queue = route.queue.clone();
        let (sender, record) = watch::channel(Vec::new());
        let (ready, mut is_ready) = watch::channel(false);
        let consuming = background::runtime()
            .spawn(consume_for_ever(route, sender, ready))
            .abort_handle();
        tokio::time::timeout(Duration::from_secs(30), is_ready.wait_for(|ready| *ready))
            .await
            .expect("the recorder consumes within 30 s")
            .expect("the recorder runs");
        Self {
            queue,
            record,
            consuming,
        }
    }

    pub(crate) fn queue(&self) -> &str {
        &self.queue
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
            "not {what} within {deadline:?}, but {}",
            self.record.borrow().len()
        );
    }

    /// Waits until nothing has come for that long.
    pub(crate) async fn quiet_for(&self, time: Duration) -> Vec<Delivery> {
        let mut record = self.record.clone();
        record.mark_unchanged();
        while let Ok(changed) = tokio::time::timeout(time, record.changed()).await {
            changed.expect("the recorder runs");
        }
        self.deliveries()
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
) {
    loop {
        // Its end, in order or not, is a broken link: come back.
        let _ = consume(&route, &record, &ready).await;
        tokio::time::sleep(BACK_OFF).await;
    }
}

async fn consume(
    route: &Route,
    record: &watch::Sender<Vec<Delivery>>,
    ready: &watch::Sender<bool>,
) -> Result<(), lapin::Error> {
    let connecting = Connection::connect(&route.url, ConnectionProperties::default());
    let Ok(connection) = tokio::time::timeout(CONNECT, connecting).await else {
        return Ok(());
    };
    let connection = connection?;
    // A broker that dies or is still recovering may never answer: come back then too.
    let Ok(consumer) = tokio::time::timeout(CONNECT, subscribe(&connection, route)).await else {
        return Ok(());
    };
    let mut consumer = consumer?;
    ready.send_replace(true);
    loop {
        // A link that breaks while the consumer is being set up may leave it waiting for ever.
        let Ok(next) = tokio::time::timeout(LOOK, consumer.next()).await else {
            if connection.status().connected() {
                continue;
            }
            return Ok(());
        };
        let Some(delivery) = next.transpose()? else {
            return Ok(());
        };
        record.send_modify(|record| {
            record.push(Delivery {
                routing_key: delivery.routing_key.to_string(),
                headers: delivery.properties.headers().clone().unwrap_or_default(),
                properties: delivery.properties.clone(),
                redelivered: delivery.redelivered,
                body: delivery.data.clone(),
            });
        });
        delivery.acker.ack(BasicAckOptions::default()).await?;
    }
}

async fn subscribe(connection: &Connection, route: &Route) -> Result<Consumer, lapin::Error> {
    let channel = connection.create_channel().await?;
    let none = FieldTable::default;
    let (exchange, queue) = (route.exchange.as_str(), route.queue.as_str());
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
    let binding = route.binding.as_str().into();
    channel
        .queue_bind(
            queue.into(),
            exchange.into(),
            binding,
            QueueBindOptions::default(),
            none(),
        )
        .await?;
    channel.basic_qos(256, BasicQosOptions::default()).await?;
    channel
        .basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            none(),
        )
        .await
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
