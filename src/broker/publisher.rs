//! One connection to the broker, with one channel that one task owns.

use std::pin::Pin;

use super::{
    Message,
    connection::{BrokerError, BrokerLink, BrokerTarget, DEADLINE, declare_exchange, within},
};
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
    /// Connects, declares the exchange (topic, durable) and switches confirms on.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub(crate) async fn connect(target: &BrokerTarget) -> Result<Self, BrokerError> {
        within(DEADLINE, Self::open(target)).await
    }

    async fn open(target: &BrokerTarget) -> Result<Self, BrokerError> {
        let link = BrokerLink::open(target, "rekey relay").await?;
        let exchange = ShortString::from(target.exchange.as_str());
        let channel = link.channel().await?;
        declare_exchange(&channel, exchange.clone(), ExchangeKind::Topic).await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            link,
            channel,
            exchange,
        })
    }

    /// Hands a message over. The returned future ends with the broker's verdict.
    ///
    /// # Errors
    /// [`BrokerError`]; whether the broker has the message is then unknown.
    pub(crate) async fn publish(&self, message: Message) -> Result<Confirm, BrokerError> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let handed = self.channel.basic_publish(
            self.exchange.clone(),
            message.routing_key,
            options,
            &message.body,
            message.properties,
        );
        let confirm = within(DEADLINE, handed).await?;
        Ok(Box::pin(async move {
            match confirm.await? {
                Confirmation::Ack(returned) => Ok(Verdict::Taken {
                    unroutable: returned.is_some(),
                }),
                Confirmation::Nack(_) | Confirmation::NotRequested => Ok(Verdict::Refused),
            }
        }))
    }

    /// Whether the connection is still there, as far as is known.
    #[must_use]
    pub(crate) fn is_connected(&self) -> bool {
        self.link.is_connected() && self.channel.status().connected()
    }

    /// Closes the connection properly, if the broker answers in time.
    pub(crate) async fn close(self) {
        self.link.close().await;
    }
}
