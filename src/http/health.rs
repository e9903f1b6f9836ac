//! Whether the service lives, and whether it can serve.

use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use serde::Serialize;
use tokio::sync::Mutex;

use super::{LinkState, json, json_bytes, request::HandlerResult, serve::Edge};
use crate::store::{Check, Reader, Readiness};

/// For how long one look at the database answers everybody.
const LOOK: Duration = Duration::from_secs(1);

/// The last look at the database, which all callers share: anybody may ask, and as often as they please.
#[derive(Debug, Default)]
pub(super) struct Look(Mutex<Option<(Instant, Readiness)>>);

impl Look {
    /// What was seen within the last second. Who comes while a look is under way waits for it.
    async fn taken(&self, reader: &Reader) -> Readiness {
        let mut last = self.0.lock().await;
        if let Some((at, seen)) = *last
            && at.elapsed() < LOOK
        {
            return seen;
        }
        let seen = reader.ready().await;
        *last = Some((Instant::now(), seen));
        seen
    }
}

/// `GET /health`
pub(super) fn alive() -> HttpResponse {
    let body = br#"{"status":"ok"}"#;
    json_bytes(&mut HttpResponse::Ok(), body.as_slice())
}

/// `GET /ready`: 503 while the database, its schema, the keys or the logs are not as they should be, and once
/// the service drains. Broker and relay are reported and change nothing: writes do without them.
pub(super) async fn ready(edge: &Edge) -> HandlerResult {
    let state = &edge.state;
    let Readiness {
        database,
        schema,
        keys,
    } = edge.look.taken(&state.reader).await;
    let LinkState { broker, relay, .. } = (state.links)();
    let log = state.committer.log_check();
    let good = [database, schema, keys, log]
        .iter()
        .all(|check| *check == Check::Ok);
    let checks = Checks {
        database: name(database),
        schema: name(schema),
        keys: name(keys),
        log: name(log),
        broker: name(broker),
        relay: name(relay),
    };
    let (mut answer, status) = if good && *state.serving.borrow() {
        (HttpResponse::Ok(), "ready")
    } else {
        (HttpResponse::ServiceUnavailable(), "unready")
    };
    json(&mut answer, &ReadyBody { status, checks })
}

fn name(check: Check) -> &'static str {
    match check {
        Check::Ok => "ok",
        Check::Failed => "failed",
        Check::Off => "off",
    }
}

/// Whether the service can serve, and what that rests on.
#[derive(Debug, Serialize)]
pub(super) struct ReadyBody {
    status: &'static str,
    checks: Checks,
}

/// Each `ok`, `failed` or `off`.
#[derive(Debug, Serialize)]
struct Checks {
    database: &'static str,
    schema: &'static str,
    keys: &'static str,
    log: &'static str,
    broker: &'static str,
    relay: &'static str,
}
