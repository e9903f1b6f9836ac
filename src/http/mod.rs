//! The edge: HTTP in, commands and reads down, envelopes out.
//!
//! In come connections; down go commands whose values are already wiped from every buffer of this room;
//! out go answers that never repeat any part of a request but its ID. The order of the checks is that of
//! the contract and stands in one function, `serve::answer`; which routes there are and what they
//! need is one table, `routes::ROUTES`; a test compares it with `docs/openapi.json`.
//!
//! What it does not do: nothing that must finish lives here (a client that resets its connection drops
//! the handler's future midway), and what actix-http refuses below HTTP's semantics (bad framing, a head
//! over 128 KiB or 96 fields, a first head slower than 5 s) has no envelope.

mod body;
mod caller;
mod conditional;
mod connection;
mod cors;
mod denials;
mod documents;
mod envelope;
mod error;
mod events;
mod expiry;
mod fields;
mod guard;
mod health;
mod idempotency;
mod large;
mod limit;
mod media;
mod metrics;
mod presets;
mod query;
mod request;
mod resolve;
mod routes;
mod secrets;
mod serve;
mod sets;
mod stream;
mod tls;
mod tokens;
mod versions;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix_http::{Extensions, HttpService, error::DispatchError};
use actix_server::Server;
use actix_service::{ServiceFactoryExt as _, fn_service, map_config};
use actix_web::{
    App, HttpResponse, HttpResponseBuilder,
    body::MessageBody,
    dev::AppConfig,
    http::header::{self, AsHeaderName, HeaderMap, HeaderValue},
    rt::net::TcpStream,
    web,
};
use serde::Serialize;
use tokio::{sync::watch, time::timeout};
use tokio_rustls::TlsAcceptor;

use crate::{
    actor::Secrets,
    auth::Authenticator,
    crypto::{CheckpointSigner, MacKey, Sealer},
    domain::Log,
    settings::Settings,
    store::{Check, Committer, LogTail, Reader},
};

/// How long a first head may take.
const FIRST_HEAD: Duration = Duration::from_secs(5);
/// How long a connection whose request was not read to its end is read on, so that the answer arrives.
const LINGER: Duration = Duration::from_secs(1);

use connection::{ClientConnection, Places, Transport};
pub(crate) use metrics::metrics_server;
pub(crate) use tls::{ServerTls, TlsError, TlsFiles};

/// What the edge works with.
#[derive(Clone)]
pub(crate) struct AppState {
    /// The settings.
    pub settings: Arc<Settings>,
    /// TLS of our own; none: plain HTTP.
    pub tls: Option<Arc<ServerTls>>,
    /// Reads.
    pub reader: Reader,
    /// Opens masks.
    pub sealer: Arc<Sealer>,
    /// Signs checkpoints.
    pub signer: Arc<CheckpointSigner>,
    /// Makes the codes of requests that are made once.
    pub idempotency: Arc<MacKey>,
    /// Takes changes.
    pub secrets: Secrets,
    /// Takes what is to be recorded.
    pub committer: Committer,
    /// Knows tokens.
    pub authenticator: Arc<Authenticator>,
    /// How broker and relays do at the moment.
    pub links: Links,
    /// Whether `/metrics` is served where the API is.
    pub metrics_here: bool,
    /// The tailers of both logs, `changes` first.
    pub tails: [LogTail; Log::ALL.len()],
    /// `false` once the service drains: `/ready` then says so, and everything else still works.
    pub serving: watch::Receiver<bool>,
    /// `true` once the drain gives up the requests that have not handed in a change.
    pub giving_up: watch::Receiver<bool>,
}

impl AppState {
    /// The tailer of a log.
    fn tail(&self, log: Log) -> &LogTail {
        let [changes, activity] = &self.tails;
        match log {
            Log::Changes => changes,
            Log::Activity => activity,
        }
    }
}

/// Tells how the links to the outside do.
pub(crate) type Links = Arc<dyn Fn() -> LinkState + Send + Sync>;

/// How the links to the outside do, for `/ready` and `/metrics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkState {
    /// The connections to the broker.
    pub broker: Check,
    /// The relays of both logs.
    pub relay: Check,
    /// How far each log's relay got, where this process has its lease.
    pub confirmed: Vec<(Log, Option<u64>)>,
    /// Messages that no queue took, since the start.
    pub unroutable: u64,
}

/// Serves on a listener until it is told to stop by its handle, or dropped. It heeds no signals; a graceful
/// stop waits `drain` for requests under way.
///
/// # Errors
/// When the listener can't be used.
pub(crate) fn server(
    listener: TcpListener,
    state: AppState,
    readers: Vec<Reader>,
    drain: Duration,
) -> io::Result<Server> {
    let workers = readers.len();
    let tls = tls::acceptor(state.tls.as_ref()).map_err(io::Error::other)?;
    // Connections are counted for each worker.
    let connections = state.settings.limits.connections.div_ceil(workers);
    let address = listener.local_addr()?;
    let (limits, http) = (&state.settings.limits, &state.settings.http);
    let places = Places::new(limits.connections_per_address, http);
    let (idle, write_timeout) = (state.settings.server.keep_alive, http.write_timeout);
    let edge = serve::Edge::new(state);
    let readers = Arc::new(Mutex::new(readers));
    let builder = Server::build()
        .workers(workers)
        .max_concurrent_connections(connections)
        .disable_signals()
        .shutdown_timeout(drain.as_secs().max(1));
    let draining = builder.graceful_shutdown_signal();
    // As `HttpServer` does it, but with connections of ours.
    let serving = move || {
        let mut readers = readers.lock().unwrap_or_else(PoisonError::into_inner);
        // A worker that replaces one that panicked takes the reader that all threads may use.
        let reader = readers.pop().unwrap_or_else(|| edge.state.reader.clone());
        let app = App::new()
            .app_data(web::Data::new(edge.with_reader(reader)))
            .default_service(web::to(serve::entry));
        let draining = draining.clone();
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let draining = draining.clone();
                async move { draining.notified().await }
            })
            .keep_alive(idle)
            .client_request_timeout(FIRST_HEAD)
            .client_disconnect_timeout(LINGER)
            .local_addr(address)
            .on_connect_ext(|connection: &ClientConnection, data: &mut Extensions| {
                data.insert(connection.requests());
            })
            .h1(map_config(app, |()| AppConfig::default()));
        let (places, tls) = (places.clone(), tls.clone());
        let accept =
            move |stream| accept(stream, places.clone(), tls.clone(), (idle, write_timeout));
        fn_service(accept).and_then(http)
    };
    Ok(builder.listen("http", listener, serving)?.run())
}

/// Takes a connection, if its address may have one more. With TLS, the handshake takes no longer than a first head.
async fn accept(
    stream: TcpStream,
    places: Places,
    tls: Option<TlsAcceptor>,
    (idle, write_timeout): (Duration, Duration),
) -> Result<(ClientConnection, Option<SocketAddr>), DispatchError> {
    let peer = stream.peer_addr()?;
    let Some(place) = places.take(peer.ip()) else {
        ::metrics::counter!("rekey_connections_refused_total").increment(1);
        return Err(DispatchError::Io(io::ErrorKind::ConnectionRefused.into()));
    };
    stream.set_nodelay(true)?;
    let stream = match tls {
        None => Transport::Plain(stream),
        Some(tls) => {
            let secured = timeout(FIRST_HEAD, tls.accept(stream)).await;
            let secured = secured.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?;
            Transport::Tls(Box::new(secured?))
        }
    };
    // A head takes no longer than the first one may.
    let connection = ClientConnection::new(stream, place, (idle + FIRST_HEAD, write_timeout));
    Ok((connection, Some(peer)))
}

/// The text of a header that has one line; nothing when it has none or several, or when it is not ASCII.
fn single_line(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    let mut lines = headers.get_all(name);
    lines
        .next()
        .filter(|_| lines.next().is_none())?
        .to_str()
        .ok()
}

/// Completes an answer with a JSON body.
fn json(answer: &mut HttpResponseBuilder, body: &impl Serialize) -> request::HandlerResult {
    let body = serde_json::to_vec(body)?;
    Ok(json_bytes(answer, body))
}

/// Completes an answer with a body that is JSON already.
fn json_bytes(answer: &mut HttpResponseBuilder, body: impl Into<web::Bytes>) -> HttpResponse {
    json_body(answer, body.into())
}

/// The same with any kind of body.
fn json_body(answer: &mut HttpResponseBuilder, body: impl MessageBody + 'static) -> HttpResponse {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    answer
        .insert_header((header::CONTENT_TYPE, JSON))
        .body(body)
}
