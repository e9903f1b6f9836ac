//! Where the broker is, how a connection to it is made and ended, and what can go wrong with one.

use std::{
    io,
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties, ErrorKind, Event, ExchangeKind,
    options::ExchangeDeclareOptions,
    protocol::{AMQPErrorKind, AMQPSoftError},
    runtime::default_runtime,
    tcp::OwnedTLSConfig,
    types::{FieldTable, ShortString},
    uri::{AMQPScheme, AMQPUri},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;
use url::Url;

use crate::domain::ErrorChain;

/// How long it may take to connect. (lapin itself has no limit: a frozen broker would block it for ever.)
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// How long a proper close may take.
const CLOSE: Duration = Duration::from_secs(1);

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
    /// The exchange is not there, and the account may not declare it: only an operator can help.
    #[error("the exchange {0} is missing, and the broker's account may not declare it")]
    Exchange(String),
    /// The account may not log in, or lacks a permission: only an operator can help.
    #[error("the broker denies access to its account")]
    Forbidden(#[source] lapin::Error),
    /// The broker refused, or the connection broke.
    #[error("the broker refused, or the connection broke")]
    Broken(#[source] lapin::Error),
}

impl BrokerError {
    /// Whether it lasts until an operator changes the account or the exchange.
    #[must_use]
    pub(crate) fn needs_operator(&self) -> bool {
        matches!(self, Self::Exchange(_) | Self::Forbidden(_))
    }
}

impl From<lapin::Error> for BrokerError {
    fn from(error: lapin::Error) -> Self {
        if is_forbidden(&error) {
            Self::Forbidden(error)
        } else {
            Self::Broken(error)
        }
    }
}

/// A connection. Once it is dropped nothing is left of it, whatever state it is in.
///
/// lapin keeps thread, socket and buffers of a connection until the broker closes it: of an attempt that is not
/// answered, and of one that is closed while the broker blocks it, for ever. The end of the socket ends them.
pub(super) struct BrokerLink {
    connection: Connection,
    events: Pin<Box<dyn Stream<Item = Event> + Send + Sync>>,
    blocked: Option<String>,
    _socket: Arc<Socket>,
}

impl BrokerLink {
    /// Connects; the broker's own tools show the connection by `name`. It has no deadline of its own, and may
    /// be dropped at any moment.
    pub(super) async fn open(
        target: &BrokerTarget,
        name: &'static str,
    ) -> Result<Self, BrokerError> {
        let url = target.url.expose_secret();
        // The parser's text may quote the password.
        let mut uri: AMQPUri = url.parse().or(Err(BrokerError::Url))?;
        uri.authority.host = host_of(url)?;
        uri.query.heartbeat = Some(HEARTBEAT);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let socket = Arc::new(Socket::default());
        let held = Arc::downgrade(&socket);
        let connection = Connection::connector(
            uri,
            default_runtime()?,
            async move |uri, runtime| {
                let host = uri.authority.host;
                let addresses = runtime.to_socket_addrs((host.clone(), uri.authority.port));
                let connecting = AsyncTcpStream::connect(&runtime, addresses);
                let stream = timeout(DEADLINE, connecting)
                    .await
                    .map_err(io::Error::from)??;
                // Where nobody waits for it any more, it ends here.
                let given_up = io::Error::from(io::ErrorKind::ConnectionAborted);
                let socket = held.upgrade().ok_or(given_up)?;
                if let AsyncTcpStream::Plain(plain) = &stream {
                    socket.hold(plain.get_ref())?;
                }
                drop(socket);
                Ok(match uri.scheme {
                    AMQPScheme::AMQP => stream,
                    AMQPScheme::AMQPS => {
                        let trust = OwnedTLSConfig::default();
                        stream.into_tls(&host, trust.as_ref()).await?
                    }
                })
            },
            properties,
        )
        .await?;
        Ok(Self {
            events: Box::pin(connection.events_listener()),
            connection,
            blocked: None,
            _socket: socket,
        })
    }

    /// Whether the connection is still there, as far as is known.
    pub(super) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// Takes note of what the broker has said of the connection.
    ///
    /// # Errors
    /// [`BrokerError`]: the connection is gone.
    pub(super) fn check(&mut self) -> Result<(), BrokerError> {
        while let Some(Some(event)) = self.events.next().now_or_never() {
            if let Event::Error(error) = event {
                return Err(error.into());
            } else if let Event::ConnectionBlocked(reason) = event {
                self.blocked = Some(reason);
            } else if let Event::ConnectionUnblocked = event {
                self.blocked = None;
            }
        }
        if self.is_connected() {
            Ok(())
        } else {
            Err(BrokerError::Gone)
        }
    }

    /// Why a channel can no longer be used, where the broker has closed it and keeps the connection: lapin tells the
    /// reason a moment later than the end.
    pub(super) async fn reason(&mut self, error: BrokerError) -> BrokerError {
        let is_vague = matches!(error, BrokerError::Gone | BrokerError::Broken(_));
        if is_vague && self.is_connected() {
            self.next_error().await.unwrap_or(error)
        } else {
            error
        }
    }

    /// Waits a short time for what ended a channel or the connection.
    async fn next_error(&mut self) -> Option<BrokerError> {
        let told = async {
            while let Some(event) = self.events.next().await {
                if let Event::Error(error) = event {
                    return Some(error.into());
                }
            }
            None
        };
        timeout(CLOSE, told).await.ok().flatten()
    }

    /// Why the broker blocks the connection, if it did at the last [`BrokerLink::check`]: it reads nothing from it, and
    /// keeps it.
    pub(super) fn blocked(&self) -> Option<&str> {
        self.blocked.as_deref()
    }

    /// Closes the connection properly, if the broker answers in time.
    pub(super) async fn close(self) {
        if self.connection.status().blocked() {
            // lapin would write nothing.
            return;
        }
        let closed = self.connection.close(200, "".into());
        if let Err(error) = within(CLOSE, closed).await {
            // The broker notices by itself that the connection is gone.
            tracing::debug!(error = %ErrorChain(&error), "cannot close the connection to the broker");
        }
    }
}

/// The host that a URL names. The driver's parser takes an IPv6 address for none, and then localhost.
fn host_of(url: &str) -> Result<String, BrokerError> {
    let url = Url::parse(url).or(Err(BrokerError::Url))?;
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or(BrokerError::Url)?;
    Ok(host.trim_matches(['[', ']']).to_owned())
}

/// The socket of a connection, as soon as there is one.
#[derive(Debug, Default)]
struct Socket(OnceLock<TcpStream>);

impl Socket {
    /// Takes a second handle of the socket.
    fn hold(&self, stream: &impl AsFd) -> io::Result<()> {
        let stream = stream.as_fd().try_clone_to_owned()?.into();
        // lapin connects once.
        self.0
            .set(stream)
            .or(Err(io::ErrorKind::AlreadyExists.into()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(stream) = self.0.get()
            && let Err(error) = stream.shutdown(Shutdown::Both)
        {
            // The other side was first.
            tracing::trace!(error = %ErrorChain(&error), "the broker's socket is not connected");
        }
    }
}

/// A new channel, and on it a durable exchange: declared, or where the account may not declare it, found.
///
/// # Errors
/// [`BrokerError::Exchange`] when it is not there and may not be declared.
pub(super) async fn channel_with(
    link: &mut BrokerLink,
    exchange: &ShortString,
    kind: ExchangeKind,
) -> Result<Channel, BrokerError> {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    match declare(link, exchange, kind.clone(), options).await {
        Err(error) if is_forbidden(&error) => {}
        declared => return Ok(declared?),
    }
    // The refusal has closed that channel. It must not be taken for the end of the next one.
    link.next_error().await.ok_or(BrokerError::Deadline)?;
    // To look for an exchange takes no permission.
    let options = ExchangeDeclareOptions {
        passive: true,
        ..options
    };
    match declare(link, exchange, kind, options).await {
        Err(error) if is_protocol(&error, AMQPSoftError::NOTFOUND) => {
            Err(BrokerError::Exchange(exchange.to_string()))
        }
        found => Ok(found?),
    }
}

async fn declare(
    link: &BrokerLink,
    exchange: &ShortString,
    kind: ExchangeKind,
    options: ExchangeDeclareOptions,
) -> lapin::Result<Channel> {
    let channel = link.connection.create_channel().await?;
    channel
        .exchange_declare(exchange.clone(), kind, options, FieldTable::default())
        .await?;
    Ok(channel)
}

/// Whether the account lacks a permission.
fn is_forbidden(error: &lapin::Error) -> bool {
    is_protocol(error, AMQPSoftError::ACCESSREFUSED)
}

fn is_protocol(error: &lapin::Error, kind: AMQPSoftError) -> bool {
    let kind = AMQPErrorKind::Soft(kind);
    matches!(error.kind(), ErrorKind::ProtocolError(error) if *error.kind() == kind)
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
