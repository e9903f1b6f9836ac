//! The edge: HTTP in, commands and reads down, envelopes out.
//!
//! In come connections; down go commands whose values are already wiped from every buffer of this room;
//! out go answers that never repeat any part of a request but its ID. The order of the checks is that of
//! the contract and stands in one function, `serve::answer`; which routes there are, what they need and
//! how OpenAPI describes them is one table, `routes::ROUTES`.
//!
//! What it does not do: nothing that must finish lives here (a client that resets its connection drops
//! the handler's future midway), and what actix-http refuses below HTTP's semantics (bad framing, a head
//! over 128 KiB or 96 fields, a first head slower than 5 s) has no envelope.

mod body;
mod client;
mod conditional;
mod cors;
mod error;
mod guard;
mod health;
mod history;
mod limit;
mod media;
pub mod openapi;
mod presets;
mod request;
mod routes;
mod secrets;
mod serve;

use std::{net::TcpListener, sync::Arc, time::Duration};

use actix_web::{
    App, HttpResponse, HttpResponseBuilder, HttpServer,
    dev::Server,
    http::header::{self, HeaderValue},
    web,
};
use serde::Serialize;
use tokio::sync::watch;

use crate::{
    actor::Secrets,
    auth::Authenticator,
    crypto::Sealer,
    settings::Settings,
    store::{Check, Store},
};

/// How long an idle connection of an authenticated caller is kept, and how long a first head may take.
const IDLE: Duration = Duration::from_secs(75);
const FIRST_HEAD: Duration = Duration::from_secs(5);
/// How long a connection whose request was not read to its end is read on, so that the answer arrives.
const LINGER: Duration = Duration::from_secs(1);

/// What the edge works with.
#[derive(Clone)]
pub struct AppState {
    /// The settings.
    pub settings: Arc<Settings>,
    /// Reads.
    pub store: Store,
    /// Opens masks.
    pub sealer: Arc<Sealer>,
    /// Takes commands.
    pub secrets: Secrets,
    /// Knows tokens.
    pub authenticator: Arc<Authenticator>,
    /// How broker and relay do.
    pub links: watch::Receiver<LinkState>,
    /// `false` once the service drains: `/ready` then says so, and everything else still works.
    pub serving: watch::Receiver<bool>,
}

/// How the links to the outside do, for `/ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkState {
    /// The connection to the broker.
    pub broker: Check,
    /// The relay of the log.
    pub relay: Check,
}

/// Serves on a listener until it is told to stop by its handle. It heeds no signals; a graceful stop
/// waits `drain` for requests under way.
///
/// # Errors
/// When the listener can't be used.
pub fn server(
    listener: TcpListener,
    state: AppState,
    workers: usize,
    drain: Duration,
) -> std::io::Result<Server> {
    let workers = workers.max(1);
    // actix-web counts connections per worker.
    let connections = state.settings.limits.connections.div_ceil(workers);
    let edge = web::Data::new(serve::Edge::new(state));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(edge.clone())
            .default_service(web::to(serve::entry))
    })
    .workers(workers)
    .max_connections(connections)
    .keep_alive(IDLE)
    .client_request_timeout(FIRST_HEAD)
    .client_disconnect_timeout(LINGER)
    .tcp_nodelay(true)
    .disable_signals()
    .shutdown_timeout(drain.as_secs().max(1))
    .listen(listener)?;
    Ok(server.run())
}

/// Completes an answer with a JSON body.
fn json(
    answer: &mut HttpResponseBuilder,
    body: &impl Serialize,
) -> Result<HttpResponse, serde_json::Error> {
    let body = serde_json::to_vec(body)?;
    Ok(json_bytes(answer, body))
}

/// Completes an answer with a body that is JSON already.
fn json_bytes(answer: &mut HttpResponseBuilder, body: impl Into<web::Bytes>) -> HttpResponse {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    answer
        .insert_header((header::CONTENT_TYPE, JSON))
        .body(body.into())
}
