//! `/metrics`: where it is served, and what is looked up when somebody asks.

use std::{io, net::TcpListener};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::Server,
    http::{Method, header},
    web,
};
use chrono::Utc;
use metrics::{counter, gauge};

use super::{AppState, LinkState, error::ApiError, request::HandlerResult, serve::Edge};
use crate::{
    domain::{Log, Timestamp},
    store::Check,
    telemetry,
};

/// The format's version, as Prometheus asks for it.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET /metrics` where the API is: only on a loopback address, and only without a listener of their own.
pub(super) async fn serve(edge: &Edge) -> HandlerResult {
    if edge.state.metrics_here {
        Ok(render(&edge.state).await)
    } else {
        Err(ApiError::NotFound)
    }
}

/// Serves metrics alone, on a listener of their own, without a credential. It heeds no signals.
///
/// # Errors
/// When the listener can't be used.
pub(crate) fn metrics_server(listener: TcpListener, state: AppState) -> io::Result<Server> {
    let tls = state.tls.clone();
    let state = web::Data::new(state);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .default_service(web::to(alone))
    })
    .workers(1)
    .disable_signals();
    let server = match tls {
        Some(tls) => {
            server.listen_rustls_0_23(listener, tls.config().map_err(io::Error::other)?)?
        }
        None => server.listen(listener)?,
    };
    Ok(server.run())
}

async fn alone(state: web::Data<AppState>, request: HttpRequest) -> HttpResponse {
    let asked = request.path() == "/metrics";
    if asked && [Method::GET, Method::HEAD].contains(request.method()) {
        render(&state).await
    } else {
        HttpResponse::NotFound().finish()
    }
}

async fn render(state: &AppState) -> HttpResponse {
    look_up(state).await;
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, TEXT))
        .body(telemetry::metrics::render())
}

/// Sets the gauges that nothing else sets.
async fn look_up(state: &AppState) {
    let LinkState {
        broker,
        confirmed,
        unroutable,
        relay: _,
    } = (state.links)();
    gauge!("rekey_commit_queue_depth").set(number(state.committer.under_way() as u64));
    let log_broken = state.committer.log_check() != Check::Ok;
    gauge!("rekey_log_broken").set(if log_broken { 1.0 } else { 0.0 });
    // While the database can't be read, the last that was known stays.
    if let Ok(head) = state.reader.log_head(Log::Changes).await {
        gauge!("rekey_lockdown").set(if head.locked_down { 1.0 } else { 0.0 });
    }
    for log in Log::ALL {
        let head = state.tail(log).head().borrow().position;
        gauge!("rekey_log_position", "log" => log.as_str()).set(number(head));
    }
    if broker != Check::Off {
        gauge!("rekey_broker_connected").set(if broker == Check::Ok { 1.0 } else { 0.0 });
        counter!("rekey_relay_unroutable_events_total").absolute(unroutable);
    }
    for (log, confirmed) in confirmed {
        let (events, seconds) = match confirmed {
            Some(confirmed) => lag(state, log, confirmed).await,
            // Another replica's relay has the lease, and tells of its lag.
            None => (0.0, 0.0),
        };
        gauge!("rekey_relay_lag_events", "log" => log.as_str()).set(events);
        gauge!("rekey_relay_lag_seconds", "log" => log.as_str()).set(seconds);
    }
}

/// How far the relay of a log is behind, in events and in seconds.
async fn lag(state: &AppState, log: Log, confirmed: u64) -> (f64, f64) {
    let head = state.tail(log).head().borrow().position;
    let behind = head.saturating_sub(confirmed);
    if behind == 0 {
        return (0.0, 0.0);
    }
    let oldest = state.reader.log_after(log, confirmed, 1).await;
    let seconds = oldest.ok().and_then(|events| {
        let since = events.first()?.occurred_at.micros();
        let micros = Timestamp::from(Utc::now()).micros().saturating_sub(since);
        Some(number(u64::try_from(micros).unwrap_or(0)) / 1e6)
    });
    (number(behind), seconds.unwrap_or(0.0))
}

/// Prometheus knows floats alone; positions below 2^53 are exact.
#[expect(clippy::cast_precision_loss, reason = "as the line above says")]
fn number(count: u64) -> f64 {
    count as f64
}
