//! Where the broker is, how a connection to it is made, and what can go wrong with one.

use std::time::Duration;

use lapin::{Connection, ConnectionProperties, uri::AMQPUri};
use secrecy::{ExposeSecret, SecretString};

/// How long connecting, or handing one message over, may take. (lapin itself has no limit: a frozen broker
/// would hold it for ever.)
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// Seconds between heartbeats: a silent broker is noticed after two of them.
const HEARTBEAT: u16 = 10;

/// A broker and the exchange on it.
#[derive(Debug, Clone)]
pub struct BrokerTarget {
    /// `amqp://…` or `amqps://…`.
    pub url: SecretString,
    /// The topic exchange that events are published to.
    pub exchange: String,
}

/// What can go wrong between rekey and the broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The URL is not one of AMQP. (Its text may hold a password, so it is not shown.)
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
    Broken(#[source] lapin::Error),
}

/// Connects; the broker's own tools show the connection by `name`. It has no deadline of its own.
pub(super) async fn connect(
    target: &BrokerTarget,
    name: &'static str,
) -> Result<Connection, BrokerError> {
    let url = target.url.expose_secret();
    let mut uri: AMQPUri = url.parse().or(Err(BrokerError::Url))?;
    uri.query.heartbeat = Some(HEARTBEAT);
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    Connection::connect_uri(uri, properties)
        .await
        .map_err(BrokerError::Broken)
}
