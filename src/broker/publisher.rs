//! One connection to the broker, with one channel that one task owns.

use std::pin::Pin;

use super::{
    Message,
    connection::{BrokerError, BrokerLink, BrokerTarget, DEADLINE, channel_with, within},
};
use futures_util::FutureExt as _;
use lapin::{
    Channel, Confirmation, ExchangeKind,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};

/// Ends with the broker's answer about one message.
pub(crate) type Confirm = Pin<Box<dyn Future<Output = Result<Verdict, BrokerError>> + Send>>;

/// The broker's answer about one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The broker has it. lapin may attribute an unroutable message to the wrong publish: that only feeds a counter.
    Taken {
        /// Whether a message was returned as unroutable.
        unroutable: bool,
    },
    /// It refused it.
    Refused,
}

/// A connection with its channel.
pub(crate) struct Publisher {
    link: BrokerLink,
    channel: Channel,
    exchange: ShortString,
}

impl Publisher {
    /// Connects, declares the exchange (topic, durable; where the account may not, it must be there) and switches
    /// confirms on.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub(crate) async fn connect(target: &BrokerTarget) -> Result<Self, BrokerError> {
        within(DEADLINE, Self::open(target)).await
    }

    async fn open(target: &BrokerTarget) -> Result<Self, BrokerError> {
        let mut link = BrokerLink::open(target, "rekey relay").await?;
        let exchange = ShortString::from(target.exchange.as_str());
        let channel = channel_with(&mut link, &exchange, ExchangeKind::Topic).await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            link,
            channel,
            exchange,
        })
    }

    /// Hands a message over, and returns what ends with the broker's verdict. Messages are sent in the order of the
    /// calls, as soon as the broker takes them: while it blocks the connection they wait in memory.
    pub(crate) fn publish(&self, message: Message) -> Confirm {
        let (channel, exchange) = (self.channel.clone(), self.exchange.clone());
        let mut confirm: Confirm = Box::pin(async move {
            let options = BasicPublishOptions {
                mandatory: true,
                ..BasicPublishOptions::default()
            };
            let confirm = {
                let Message {
                    routing_key,
                    properties,
                    body,
                } = message;
                channel
                    .basic_publish(exchange, routing_key, options, &body, properties)
                    .await?
            };
            match confirm.await? {
                Confirmation::Ack(returned) => Ok(Verdict::Taken {
                    unroutable: returned.is_some(),
                }),
                Confirmation::Nack(_) | Confirmation::NotRequested => Ok(Verdict::Refused),
            }
        });
        // The first poll hands it over; lapin does not wait before that.
        match confirm.as_mut().now_or_never() {
            Some(verdict) => Box::pin(std::future::ready(verdict)),
            None => confirm,
        }
    }

    /// Takes note of what the broker has said of the connection.
    ///
    /// # Errors
    /// [`BrokerError`]: the connection can no longer be used.
    pub(crate) fn check(&mut self) -> Result<(), BrokerError> {
        self.link.check()?;
        if self.channel.status().connected() {
            Ok(())
        } else {
            Err(BrokerError::Gone)
        }
    }

    /// Why the broker blocks the connection, if it did at the last [`Publisher::check`]. It does so to all that
    /// publish, while it lacks memory or disk space.
    #[must_use]
    pub(crate) fn blocked(&self) -> Option<&str> {
        self.link.blocked()
    }

    /// Why the connection can no longer be used, if `error` does not say it.
    pub(crate) async fn reason(&mut self, error: BrokerError) -> BrokerError {
        self.link.reason(error).await
    }

    /// Closes the connection properly, if the broker answers in time.
    pub(crate) async fn close(self) {
        self.link.close().await;
    }
}
