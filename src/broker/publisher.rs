//! One connection to the broker, with one channel that one task owns.

use std::{fmt, pin::Pin};

use lapin::{
    Channel, Confirmation, Connection, ExchangeKind,
    options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions},
    types::{FieldTable, ShortString},
};
use tokio::time::timeout;

use super::{
    Message,
    connection::{BrokerError, BrokerTarget, DEADLINE, connect},
};

/// What the broker says of one message, in time.
pub type Confirm = Pin<Box<dyn Future<Output = Result<Verdict, BrokerError>> + Send>>;

/// The broker's answer about one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The broker has it. lapin may attribute an unroutable message to the wrong publish: that only feeds a counter.
    Taken {
        /// Whether a message was returned as unroutable.
        unroutable: bool,
    },
    /// It refused it.
    Refused,
}

/// A connection with its channel.
pub struct Publisher {
    connection: Connection,
    channel: Channel,
    exchange: ShortString,
}

impl Publisher {
    /// Connects, declares the exchange (topic, durable) and switches confirms on.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn connect(target: &BrokerTarget) -> Result<Self, BrokerError> {
        timeout(DEADLINE, Self::open(target))
            .await
            .or(Err(BrokerError::Deadline))?
    }

    async fn open(target: &BrokerTarget) -> Result<Self, BrokerError> {
        let connection = connect(target, "rekey relay").await?;
        let exchange = ShortString::from(target.exchange.as_str());
        let channel = connection
            .create_channel()
            .await
            .map_err(BrokerError::Broken)?;
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        channel
            .exchange_declare(
                exchange.clone(),
                ExchangeKind::Topic,
                options,
                FieldTable::default(),
            )
            .await
            .map_err(BrokerError::Broken)?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .map_err(BrokerError::Broken)?;
        Ok(Self {
            connection,
            channel,
            exchange,
        })
    }

    /// Hands a message over. The future in the answer ends with the broker's verdict.
    ///
    /// # Errors
    /// [`BrokerError`]; whether the broker has the message is then unknown.
    pub async fn publish(&self, message: Message) -> Result<Confirm, BrokerError> {
        let Message {
            routing_key,
            properties,
            body,
        } = message;
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let handed = self.channel.basic_publish(
            self.exchange.clone(),
            routing_key,
            options,
            &body,
            properties,
        );
        let confirm = timeout(DEADLINE, handed)
            .await
            .or(Err(BrokerError::Deadline))?
            .map_err(BrokerError::Broken)?;
        Ok(Box::pin(async move {
            match confirm.await.map_err(BrokerError::Broken)? {
                Confirmation::Ack(returned) => Ok(Verdict::Taken {
                    unroutable: returned.is_some(),
                }),
                Confirmation::Nack(_) | Confirmation::NotRequested => Ok(Verdict::Refused),
            }
        }))
    }

    /// Whether the connection is still there, as far as is known.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// Closes the connection in good order, as far as that is possible in time.
    pub async fn close(self) {
        let closed = self.connection.close(200, "".into());
        let _ = timeout(DEADLINE, closed).await;
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("exchange", &self.exchange)
            .finish_non_exhaustive()
    }
}
