//! The audit consumer's queue, and its messages.
//!
//! The queue is durable and replicated, and has one active consumer at a time. A message that is refused, or
//! was delivered too often, goes to a second queue, and leaves this one only when the second one has it.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions,
        ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::time::timeout;

use super::connection::{BrokerError, BrokerLink, BrokerTarget, DEADLINE, channel_with, within};

/// The queue; its name is part of the contract.
const AUDIT_QUEUE: &str = "rekey.audit";
/// The exchange and the queue of refused messages.
const AUDIT_DEAD: &str = "rekey.audit.dead";

/// What the queue is bound to: all events of both logs.
const BINDINGS: [&str; 3] = ["secret.#", "log.#", "activity.#"];
const DELIVERY_LIMIT: i64 = 100;
/// How many messages may be unacknowledged, and so the largest batch.
const PREFETCH: u16 = 256;

/// How long queues may take to be declared and consumed: after a broker's restart a replicated queue first
/// elects its leader, and on a busy machine that has taken more than 5 s.
const TOPOLOGY: Duration = Duration::from_secs(30);
/// How often a quiet connection is checked.
const LOOK: Duration = Duration::from_secs(1);
/// A longer `traceparent` is ignored (version 00 has 55 characters).
const TRACEPARENT: usize = 128;

/// A message, not yet acknowledged.
pub(crate) struct Delivery {
    tag: u64,
    /// The body.
    pub body: Vec<u8>,
    /// The header `traceparent`.
    pub traceparent: Option<String>,
}

/// A connection that consumes the queue.
pub(crate) struct Consumer {
    link: BrokerLink,
    channel: Channel,
    deliveries: lapin::Consumer,
}

impl Consumer {
    /// Connects, declares exchanges and queues with their bindings, and begins to consume. The service's exchange must
    /// be there where the account may not declare it.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub(crate) async fn connect(target: &BrokerTarget) -> Result<Self, BrokerError> {
        let mut link = within(DEADLINE, BrokerLink::open(target, "rekey audit")).await?;
        let exchange = ShortString::from(target.exchange.as_str());
        let declared = channel_with(&mut link, &exchange, ExchangeKind::Topic);
        let channel = within(DEADLINE, declared).await?;
        let opened = async { while_connected(&link, open(&channel, &exchange)).await? };
        let deliveries = within(TOPOLOGY, opened).await?;
        Ok(Self {
            link,
            channel,
            deliveries,
        })
    }

    /// Waits for a message, and takes those that have arrived with it.
    ///
    /// # Errors
    /// [`BrokerError`]: the connection can no longer be used; unacknowledged messages are delivered again.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken before the first message has arrived.
    pub(crate) async fn batch(&mut self) -> Result<Vec<Delivery>, BrokerError> {
        let first = while_connected(&self.link, self.deliveries.next()).await?;
        let mut batch = vec![taken(first)?];
        while batch.len() < usize::from(PREFETCH)
            && let Some(next) = self.deliveries.next().now_or_never()
            // Where the stream has ended, the next call returns the error.
            && let Ok(delivery) = taken(next)
        {
            batch.push(delivery);
        }
        Ok(batch)
    }

    /// Refuses messages for good: they go to the queue of refused messages.
    ///
    /// # Errors
    /// [`BrokerError`]; they may come again.
    pub(crate) async fn refuse(&self, deliveries: &[Delivery]) -> Result<(), BrokerError> {
        for delivery in deliveries {
            let refused = self
                .channel
                .basic_reject(delivery.tag, BasicRejectOptions { requeue: false });
            within(DEADLINE, refused).await?;
        }
        Ok(())
    }

    /// Acknowledges messages, and all earlier ones that were not refused.
    ///
    /// # Errors
    /// [`BrokerError`]; they may come again.
    pub(crate) async fn acknowledge(&self, deliveries: &[Delivery]) -> Result<(), BrokerError> {
        let Some(last) = deliveries.iter().map(|delivery| delivery.tag).max() else {
            return Ok(());
        };
        let acknowledged = self
            .channel
            .basic_ack(last, BasicAckOptions { multiple: true });
        within(DEADLINE, acknowledged).await
    }

    /// Closes the connection properly, if the broker answers in time.
    pub(crate) async fn close(self) {
        self.link.close().await;
    }
}

async fn open(channel: &Channel, exchange: &ShortString) -> Result<lapin::Consumer, BrokerError> {
    declare(channel, exchange).await?;
    channel
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    let deliveries = channel.basic_consume(
        AUDIT_QUEUE.into(),
        "".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    Ok(deliveries.await?)
}

/// Waits as long as the connection is up. (A future of lapin's does not always end when the broker closes its
/// connection.)
async fn while_connected<T>(
    link: &BrokerLink,
    waiting: impl Future<Output = T>,
) -> Result<T, BrokerError> {
    let mut waiting = std::pin::pin!(waiting);
    loop {
        match timeout(LOOK, &mut waiting).await {
            Ok(done) => return Ok(done),
            Err(_) if !link.is_connected() => return Err(BrokerError::Gone),
            Err(_) => {}
        }
    }
}

fn taken(
    next: Option<Result<lapin::message::Delivery, lapin::Error>>,
) -> Result<Delivery, BrokerError> {
    // The stream ends when the broker cancels the consumer, because its queue was deleted.
    let delivery = next.ok_or(BrokerError::Gone)??;
    let headers = delivery.properties.headers().as_ref();
    let traceparent = headers.and_then(|headers| headers.inner().get("traceparent"));
    Ok(Delivery {
        tag: delivery.delivery_tag,
        traceparent: traceparent
            .and_then(AMQPValue::as_long_string)
            .and_then(|text| std::str::from_utf8(text.as_bytes()).ok())
            .filter(|text| text.len() <= TRACEPARENT && text.bytes().all(|b| b.is_ascii_graphic()))
            .map(str::to_owned),
        body: delivery.data,
    })
}

async fn declare(channel: &Channel, exchange: &ShortString) -> lapin::Result<()> {
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let none = FieldTable::default;
    let (queue, dead) = (
        ShortString::from(AUDIT_QUEUE),
        ShortString::from(AUDIT_DEAD),
    );
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(dead.clone(), ExchangeKind::Fanout, options, none())
        .await?;
    let quorum = BTreeMap::from([("x-queue-type".into(), text("quorum"))]);
    channel
        .queue_declare(dead.clone(), durable, quorum.into())
        .await?;
    channel
        .queue_declare(queue.clone(), durable, queue_arguments())
        .await?;
    // The queue of refused messages first: it must be bound before a message can be refused.
    let bindings = BINDINGS.map(|binding| (&queue, exchange, binding));
    for (queue, exchange, binding) in [(&dead, &dead, "")].into_iter().chain(bindings) {
        let (queue, exchange) = (queue.clone(), exchange.clone());
        let options = QueueBindOptions::default();
        channel
            .queue_bind(queue, exchange, binding.into(), options, none())
            .await?;
    }
    Ok(())
}

/// At-least-once dead-lettering requires `reject-publish`: a refused message leaves only once the other
/// queue has it.
fn queue_arguments() -> FieldTable {
    let arguments = [
        ("x-queue-type", text("quorum")),
        ("x-single-active-consumer", AMQPValue::Boolean(true)),
        ("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT)),
        ("x-overflow", text("reject-publish")),
        ("x-dead-letter-exchange", text(AUDIT_DEAD)),
        ("x-dead-letter-strategy", text("at-least-once")),
    ];
    BTreeMap::from(arguments.map(|(name, value)| (name.into(), value))).into()
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}
