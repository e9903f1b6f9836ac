//! What an account of the broker tries, each on a channel of its own: a refusal closes the channel.

use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use serde_json::Value;

pub(super) type Tried<T = ()> = Result<T, lapin::Error>;

pub(super) struct Account(Connection);

impl Account {
    pub(super) async fn connect(url: &str) -> Self {
        let connecting = Connection::connect(url, ConnectionProperties::default());
        Self(connecting.await.expect("a connection"))
    }

    async fn channel(&self) -> Channel {
        self.0.create_channel().await.expect("a channel")
    }

    pub(super) async fn declares_exchange(&self, exchange: &str) -> Tried {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let (kind, none) = (ExchangeKind::Topic, FieldTable::default());
        let channel = self.channel().await;
        channel
            .exchange_declare(exchange.into(), kind, options, none)
            .await
    }

    pub(super) async fn deletes_exchange(&self, exchange: &str) -> Tried {
        let options = ExchangeDeleteOptions::default();
        self.channel()
            .await
            .exchange_delete(exchange.into(), options)
            .await
    }

    /// Replicated, as the audit consumer's are.
    pub(super) async fn declares(&self, queue: &str) -> Tried {
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let channel = self.channel().await;
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString("quorum".into()),
        );
        let declared = channel.queue_declare(queue.into(), options, arguments);
        declared.await.map(drop)
    }

    pub(super) async fn deletes(&self, queue: &str) -> Tried {
        let options = QueueDeleteOptions::default();
        self.channel()
            .await
            .queue_delete(queue.into(), options)
            .await
            .map(drop)
    }

    pub(super) async fn purges(&self, queue: &str) -> Tried {
        let options = QueuePurgeOptions::default();
        self.channel()
            .await
            .queue_purge(queue.into(), options)
            .await
            .map(drop)
    }

    /// Binds a queue to the service's exchange.
    pub(super) async fn binds(&self, queue: &str, key: &str) -> Tried {
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        let channel = self.channel().await;
        let exchange = "secrets.events".into();
        channel
            .queue_bind(queue.into(), exchange, key.into(), options, none)
            .await
    }

    pub(super) async fn consumes(&self, queue: &str) -> Tried {
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let channel = self.channel().await;
        channel
            .basic_consume(queue.into(), "".into(), options, none)
            .await
            .map(drop)
    }

    /// Takes one message out of a queue, if there is one.
    pub(super) async fn gets(&self, queue: &str) -> Tried<Option<Value>> {
        let options = BasicGetOptions { no_ack: true };
        let message = self
            .channel()
            .await
            .basic_get(queue.into(), options)
            .await?;
        Ok(message.map(|message| serde_json::from_slice(&message.data).expect("an event")))
    }

    /// Publishes a message, and waits until the broker has it.
    pub(super) async fn publishes(&self, exchange: &str, key: &str) -> Tried {
        let channel = self.channel().await;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let sent = channel.basic_publish(exchange.into(), key.into(), options, b"{}", properties);
        sent.await?.await.map(drop)
    }
}

/// Panics unless the broker refused it because of a permission.
pub(super) fn refused<T>(what: &str, tried: Tried<T>) {
    match tried {
        Ok(_) => panic!("{what}: it is allowed"),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("ACCESS_REFUSED"), "{what}: {text}");
        }
    }
}
