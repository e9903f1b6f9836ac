//! One request, from its head to its answer, in the order of the contract.

use std::{
    cell::{Cell, OnceCell},
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, MessageBody as _},
    http::{
        ConnectionType, StatusCode, Version,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    web,
};
use futures_util::FutureExt as _;
use uuid::Uuid;

use super::{
    AppState,
    body::Incoming,
    caller,
    connection::Requests,
    cors,
    denials::{self, Denials},
    error::{ApiError, Bug, MalformedRequest, Stopping},
    guard,
    health::Look,
    limit::{Buckets, FailedCredentials, Level},
    request::Call,
    routes::{self, Operation, Run, Verb},
    single_line,
};
use crate::{
    auth::Principal,
    domain::{Caller, ErrorChain, IdempotencyKey, Once, Owner, RequestId},
    shares::{Amount, Stock},
    store::Reader,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// How much of the bytes of bodies is one caller's at most.
const BODIES_SHARE_PERCENT: usize = 25;

/// What all requests of a thread share.
#[derive(Clone)]
pub(super) struct Edge {
    /// The rooms below.
    pub(super) state: AppState,
    /// The callers' buckets: all tokens of an owner share one.
    pub(super) callers: Arc<Buckets<Caller>>,
    /// The bytes of bodies that are held, and of large answers.
    pub(super) bodies: Stock,
    /// The open streams of events.
    pub(super) streams: Stock,
    /// The addresses' buckets.
    pub(super) failed: Arc<FailedCredentials>,
    /// How many refusals each party caused that were recorded.
    pub(super) denials: Arc<Denials>,
    /// The last look at the database.
    pub(super) look: Arc<Look>,
}

impl Edge {
    /// Full buckets over the rooms given.
    pub(super) fn new(state: AppState) -> Self {
        let limits = &state.settings.limits;
        let interval = Duration::from_secs(1) / limits.rate_per_second.get();
        let bodies = Amount {
            bytes: limits.bodies_bytes,
            ..Amount::ALL
        };
        let streams = Amount {
            count: limits.streams_per_caller,
            ..Amount::ALL
        };
        Self {
            callers: Arc::new(Buckets::new("caller", interval, limits.burst)),
            bodies: Stock::new(bodies, bodies.percent(BODIES_SHARE_PERCENT)),
            streams: Stock::new(Amount::ALL, streams),
            failed: Arc::new(FailedCredentials::new(limits.failed_per_minute)),
            denials: Arc::new(Denials::new(state.settings.activity.refusals_per_minute)),
            look: Arc::default(),
            state,
        }
    }

    /// The same with another reader.
    pub(super) fn with_reader(&self, reader: Reader) -> Self {
        let mut edge = self.clone();
        edge.state.reader = reader;
        edge
    }
}

/// What is known of a request so far: its answer and its line in the log need it, however it ends.
pub(super) struct RequestState {
    /// Its ID: the caller's, where it gave a sane one.
    pub(super) request_id: RequestId,
    /// The ID that it has here, whatever its caller calls it.
    pub(super) server_request_id: Uuid,
    /// The caller's address, as seen through trusted proxies.
    pub(super) client: Option<IpAddr>,
    /// The route's pattern, once there is one.
    pub(super) route: Cell<&'static str>,
    /// The caller, once it has shown a good credential.
    pub(super) caller: OnceCell<Arc<Principal>>,
    /// The token that was shown in vain.
    pub(super) shown: OnceCell<ShownToken>,
    /// The tokens of its caller's bucket that it costs, as far as is known.
    pub(super) paid: Cell<usize>,
    /// The bucket that it was counted in.
    pub(super) level: Cell<Option<Level>>,
    /// The client's name for it, if it is to be made once.
    pub(super) idempotency_key: OnceCell<IdempotencyKey>,
    /// The same with the code of what was asked for.
    pub(super) once: OnceCell<Once>,
    /// It was made before, and is answered again.
    pub(super) replayed: Cell<bool>,
    /// A change was handed in, and no refusal came back: it may stand.
    pub(super) may_stand: Cell<bool>,
}

/// A token of the right form that was refused.
#[derive(Debug)]
pub(super) struct ShownToken {
    /// Its public ID.
    pub(super) id: String,
    /// Whose it was, where it is no guess.
    pub(super) owner: Option<Owner>,
}

/// Takes every request of every route.
pub(super) async fn entry(
    edge: web::Data<Edge>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let began = Instant::now();
    let _under_way = request.conn_data::<Requests>().map(Requests::begin);
    let server_request_id = Uuid::now_v7();
    let progress = RequestState {
        request_id: request_id(request.headers(), server_request_id),
        server_request_id,
        client: client(&edge, &request),
        route: Cell::new(""),
        caller: OnceCell::new(),
        shown: OnceCell::new(),
        paid: Cell::new(1),
        level: Cell::new(None),
        idempotency_key: OnceCell::new(),
        once: OnceCell::new(),
        replayed: Cell::new(false),
        may_stand: Cell::new(false),
    };
    let mut incoming = Incoming::new(&request, payload.into_inner());
    let work = answer(&edge, &request, &progress, &mut incoming);
    // The panic's own line, without its message, comes from the hook.
    let result = AssertUnwindSafe(work).catch_unwind().await;
    let result = result.unwrap_or_else(|_panic| Err(Bug::Panicked.into()));
    let mut response = result.unwrap_or_else(|error| {
        let error = if progress.may_stand.get() {
            error.or_unknown()
        } else {
            error
        };
        log(&request, &progress, &error);
        denials::note(&edge, &request, &progress, &error);
        error.into_response()
    });
    if progress.replayed.get() && response.status().is_success() {
        let replayed = HeaderValue::from_static("true");
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, replayed);
    }
    finish(&edge, &request, &progress, response.headers_mut());
    measure(&request, &progress, (response.status(), began));
    // actix-http times the first head of a connection alone: a later one that never ends holds its
    // connection for good. So strangers get no later one. (With an `Upgrade` the connection is kept, as
    // that header's `Connection: upgrade` says.)
    if progress.caller.get().is_none() && !response.headers().contains_key(header::UPGRADE) {
        response
            .head_mut()
            .set_connection_type(ConnectionType::Close);
    }
    let mut response = incoming.answer(response);
    // HTTP/1.0 knows no chunks: there the end of the connection is the end of the body.
    if request.version() < Version::HTTP_11 && response.body().size() == BodySize::Stream {
        let head = response.head_mut();
        head.no_chunking(true);
        head.set_connection_type(ConnectionType::Close);
    }
    response
}

/// The checks, in the order of the contract; a handler goes on with path, media type, conditional
/// headers, size and JSON, and fields.
async fn answer(
    edge: &Edge,
    request: &HttpRequest,
    progress: &RequestState,
    incoming: &mut Incoming,
) -> Result<HttpResponse, ApiError> {
    let http = &edge.state.settings.http;
    let path = request.match_info().as_str();
    guard::upgrade(http, request, path)?;
    if let Some(preflight) = cors::preflight(http, request) {
        return Ok(preflight);
    }
    let (operations, secret_id) = routes::find(path).unwrap_or_default();
    progress
        .route
        .set(operations.first().map_or("", |first| first.path));
    let operation = || routes::operation(operations, request.method());
    if operations.iter().any(Operation::is_public)
        && let Run::Public(run) = operation()?.run
    {
        return run(edge).await;
    }
    tokio::select! {
        // In this order, so that nothing is handed in once the request was given up.
        biased;
        () = given_up(&edge.state, progress) => {}
        result = authenticated(edge, request, progress, (operations, secret_id), incoming) => {
            return result;
        }
    }
    if incoming.is_incomplete() {
        return Err(MalformedRequest::Incomplete.into());
    }
    Err(Stopping.into())
}

/// Ends when the service drains and gives this request up; never when its change was handed in by then.
async fn given_up(state: &AppState, progress: &RequestState) {
    let mut giving_up = state.giving_up.clone();
    // An error means that the drain is over, and every request with it.
    let _ = giving_up.wait_for(|giving_up| *giving_up).await;
    if progress.may_stand.get() {
        std::future::pending::<()>().await;
    }
}

/// The checks from the credential on, and the handler.
async fn authenticated(
    edge: &Edge,
    request: &HttpRequest,
    progress: &RequestState,
    (operations, secret_id): (&'static [Operation], Option<&str>),
    incoming: &mut Incoming,
) -> Result<HttpResponse, ApiError> {
    let operation = || routes::operation(operations, request.method());
    let (principal, credential) = guard::authenticate(edge, request, progress).await?;
    // A request has one caller.
    let _ = progress.caller.set(Arc::clone(&principal));
    let caller = Caller::from(&principal.grantee);
    let (level, within_limit) = edge.callers.take(&caller);
    progress.level.set(Some(level));
    let run = operation()?.run;
    within_limit.map_err(|wait_seconds| ApiError::RateLimited { wait_seconds })?;
    let call = Call {
        state: &edge.state,
        edge,
        caller,
        request,
        secret_id,
        owner: (),
        principal,
        credential,
        progress,
        incoming,
    };
    match run {
        Run::Public(run) => run(edge).await,
        Run::Owner(scope, run) => run(call.permitted(scope)?.of_owner()?).await,
        Run::Anyone(scope, run) => run(call.permitted(scope)?).await,
    }
}

/// The caller's address; none where the connection has none.
fn client(edge: &Edge, request: &HttpRequest) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip();
    let http = &edge.state.settings.http;
    Some(caller::caller(http, peer, request.headers()))
}

/// The caller's ID when it is sane and the only one, else our own.
fn request_id(headers: &HeaderMap, own: Uuid) -> RequestId {
    single_line(headers, &REQUEST_ID)
        .and_then(|text| RequestId::parse(text).ok())
        .unwrap_or_else(|| RequestId::from_uuid(own))
}

/// What every answer has.
fn finish(edge: &Edge, request: &HttpRequest, progress: &RequestState, headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let mut insert = |name, text: &str| {
        // IDs, numbers and names of ours: always a good header value.
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    insert(REQUEST_ID, progress.request_id.as_str());
    if let Some(level) = progress.level.get() {
        insert(RATE_LIMIT, &level.state());
        insert(RATE_LIMIT_POLICY, &level.policy());
    }
    cors::expose(&edge.state.settings.http, request, headers);
}

/// Counts the request, under its route's pattern.
fn measure(request: &HttpRequest, progress: &RequestState, (status, began): (StatusCode, Instant)) {
    let method = Verb::of(request.method()).map_or("OTHER", Verb::name);
    let route = progress.route.get();
    let labels = [("method", method), ("route", route)];
    metrics::histogram!("rekey_http_request_duration_seconds", &labels).record(began.elapsed());
    let status = status.as_u16().to_string();
    metrics::counter!(
        "rekey_http_requests_total", "method" => method, "route" => route, "status" => status
    )
    .increment(1);
}

/// One line for each request that fails: where it went wrong, never what was in it.
fn log(request: &HttpRequest, progress: &RequestState, error: &ApiError) {
    let (status, kind, _) = error.row();
    // A method may be any word: one that is not ours is the caller's text.
    let method = Verb::of(request.method()).map_or("", |_| request.method().as_str());
    if let Some(cause) = error.cause() {
        tracing::error!(
            request.id = progress.request_id.as_str(),
            request.server_id = %progress.server_request_id,
            http.method = method,
            http.route = progress.route.get(),
            http.status = status.as_u16(),
            error.r#type = kind,
            error.cause = ErrorChain(cause.as_ref()).to_string(),
            "request failed"
        );
    } else {
        tracing::debug!(
            request.id = progress.request_id.as_str(),
            request.server_id = %progress.server_request_id,
            http.method = method,
            http.route = progress.route.get(),
            http.status = status.as_u16(),
            error.r#type = kind,
            "request refused"
        );
    }
}
