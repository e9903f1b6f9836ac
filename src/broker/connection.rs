//! Where the broker is, how a connection to it is made, and what can go wrong with one.

use std::time::Duration;

use lapin::{
    Channel, Connection, ConnectionProperties, ExchangeKind,
    options::ExchangeDeclareOptions,
    types::{FieldTable, ShortString},
    uri::AMQPUri,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use crate::domain::ErrorChain;

/// How long it may take to connect, or to hand one message over. (lapin itself has no limit: a frozen broker
/// would block it for ever.)
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// Seconds between heartbeats: a silent broker is noticed after two of them.
const HEARTBEAT: u16 = 10;

/// A broker and the exchange on it.
#[derive(Debug, Clone)]
pub(crate) struct BrokerTarget {
    /// `amqp://…` or `amqps://…`.
    pub url: SecretString,
    /// The topic exchange that events are published to.
    pub exchange: String,
}

/// What can go wrong between rekey and the broker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokerError {
    /// The URL is not an AMQP URL. (Its text may hold a password, so it is not shown.)
    #[error("broker.url is not an AMQP URL")]
    Url,
    /// The broker did not answer in time.
    #[error("the broker did not answer in time")]
    Deadline,
    /// The connection is gone.
    #[error("the connection to the broker is gone")]
    Gone,
    /// The broker refused a message.
    #[error("the broker refused a message")]
    Refused,
    /// The broker refused, or the connection broke.
    #[error("the broker refused, or the connection broke")]
    Broken(#[from] lapin::Error),
}

/// Connects; the broker's own tools show the connection by `name`. It has no deadline of its own.
pub(super) async fn connect(
    target: &BrokerTarget,
    name: &'static str,
) -> Result<Connection, BrokerError> {
    let url = target.url.expose_secret();
    // The parser's text may quote the password.
    let mut uri: AMQPUri = url.parse().or(Err(BrokerError::Url))?;
    uri.query.heartbeat = Some(HEARTBEAT);
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    Ok(Connection::connect_uri(uri, properties).await?)
}

/// Declares a durable exchange.
pub(super) async fn declare_exchange(
    channel: &Channel,
    exchange: ShortString,
    kind: ExchangeKind,
) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(exchange, kind, options, FieldTable::default())
        .await
}

/// Waits for an answer of the broker, at most `limit`.
pub(super) async fn within<T, E: Into<BrokerError>>(
    limit: Duration,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, BrokerError> {
    let answered = timeout(limit, answer)
        .await
        .or(Err(BrokerError::Deadline))?;
    answered.map_err(Into::into)
}

/// Closes a connection properly, if the broker answers in time.
pub(super) async fn close(connection: &Connection) {
    let closed = connection.close(200, "".into());
    if let Err(error) = within(DEADLINE, closed).await {
        // The broker notices by itself that the connection is gone.
        tracing::debug!(error = %ErrorChain(&error), "cannot close the connection to the broker");
    }
}
