//! Builds the rooms from the settings, runs them, and drains them in order.

mod jwt;
mod keep_house;

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::dev::{Server, ServerHandle};
use futures_util::future::join_all;
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    actor::{Arbiters, Secrets},
    auth::JwksError,
    broker::BrokerTarget,
    crypto::{Keyring, KeyringError, Sealer},
    domain::{KeyId, Log},
    http::{self, AppState, LinkState, Links, ServerTls, TlsError, TlsFiles},
    keys::{self, KeysError, OwnKeys},
    relay::{Relay, RelayHealth, RelayState},
    settings::Settings,
    shares::Amount,
    store::{
        Committer, CommitterKeys, CommitterSettings, Home, Limits, LogTail, Missing, QueueLimits,
        Reader, SchemaError, StoreError, Target, UnsafeDatabase,
    },
};

/// How long the whole drain may take.
const DRAIN: Duration = Duration::from_secs(20);
/// How long a step of the drain may take once nothing is under way; so much of the drain is kept for them.
const STEP: Duration = Duration::from_secs(5);
/// How long after the drain began a request may still hand its work in; then it is given up.
const HAND_IN: Duration = Duration::from_secs(2);
/// How long the answers may take to reach their clients once nothing is under way.
const ANSWERS: Duration = Duration::from_secs(1);

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The keyring can't be used.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Keyring and database don't go together.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The database's settings could lose acknowledged writes.
    #[error(transparent)]
    Unsafe(#[from] UnsafeDatabase),
    /// The schema is not what this binary needs.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The database can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys of JSON Web Tokens can't be used.
    #[error("auth.jwks_path can't be used")]
    Jwks(#[from] JwksError),
    /// The files of TLS can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address can't be listened on.
    #[error("can't listen on {0}")]
    Listen(String, #[source] std::io::Error),
    /// The committer has no thread.
    #[error("can't start a thread")]
    Thread(#[source] std::io::Error),
}

/// The service, listening but not yet answering.
pub(crate) struct Application {
    url: String,
    server: Server,
    reader: Reader,
    committer: Committer,
    committing: oneshot::Receiver<()>,
    arbiters: Arbiters,
    relaying: Vec<JoinHandle<()>>,
    stop_relay: watch::Sender<bool>,
    tailing: Tailing,
    retaining: JoinHandle<()>,
    metrics: Option<ServerHandle>,
    serving: watch::Sender<bool>,
    giving_up: watch::Sender<bool>,
    drain_delay: Duration,
}

/// The database of the settings.
#[must_use]
pub(crate) fn target(settings: &Settings, missing: Missing) -> Target {
    let database = &settings.database;
    Target {
        url: database.url.clone(),
        sqlite_path: database.sqlite_path().map(std::path::Path::to_owned),
        missing,
        max_connections: database.max_connections,
        timeout: database.timeout,
        idle_in_transaction: database.idle_in_transaction,
    }
}

/// Says how the connections to the database's server and to the broker are encrypted, where there are any.
pub(crate) fn show_tls(database: Option<String>, broker: Option<String>) {
    for (server, tls) in [("database", database), ("broker", broker)] {
        if let Some(tls) = tls {
            tracing::info!("{server}: tls={tls}");
        }
    }
}

/// The runtime that this runs on.
fn here() -> Home {
    Home::Runtime(Handle::current())
}

/// The keyring of the settings.
///
/// # Errors
/// [`KeyringError`].
pub(crate) fn keyring(settings: &Settings) -> Result<Keyring, KeyringError> {
    use secrecy::ExposeSecret;
    let keys = &settings.keyring.keys;
    if keys.is_empty() {
        Keyring::read(&settings.keyring.path, settings.keyring.passphrase.as_ref())
    } else {
        Keyring::from_list(keys.iter().map(ExposeSecret::expose_secret))
    }
}

impl Application {
    /// Opens everything that the settings name and listens. Must run inside an actix `System`.
    ///
    /// # Errors
    /// [`StartError`]: nothing is served then.
    pub(crate) async fn build(settings: Settings) -> Result<Self, StartError> {
        let tls = tls(&settings)?;
        let keyring = keyring(&settings)?;
        let target = target(&settings, Missing::Refuse);
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        let (reader, readers) = Reader::open_all(&target, here(), workers).await?;
        reader.refuse_old_schema().await?;
        reader.refuse_unsafe().await?;
        let primary = keys::verify_all(&reader, &keyring).await?;
        let sealer = Arc::new(Sealer::new(keyring));
        let own = keys::open(&reader, &sealer).await?;
        let (committer, committing) = start_committer(target, &settings, (primary, &own))?;
        let (secrets, arbiters) = Secrets::start(workers, &sealer, &committer);
        let [stop_relay, serving, giving_up] = [false, true, false].map(watch::Sender::new);
        let retaining = tokio::spawn(keep_house::run(&settings, &reader, &committer));
        let (tails, tailing) = Tailing::start(&reader, &committer);
        let (relaying, relays) = start_relays(&settings, &reader, &tails, &committer, &stop_relay);
        let (listener, address) = listen(&settings, settings.server.port)?;
        let url = format!("{}://{address}", settings.server.scheme());
        let metrics_listener = metrics_listener(&settings)?;
        let drain_delay = settings.server.drain_delay;
        let state = AppState {
            tls,
            reader: reader.clone(),
            sealer,
            signer: Arc::new(own.signer),
            idempotency: own.idempotency,
            secrets,
            committer: committer.clone(),
            authenticator: jwt::authenticator(&settings, &reader, own.token_mac, &committer)
                .await?,
            links: links(relays),
            tails,
            metrics_here: metrics_listener.is_none() && address.ip().is_loopback(),
            serving: serving.subscribe(),
            giving_up: giving_up.subscribe(),
            settings: Arc::new(settings),
        };
        let failed = |error| StartError::Listen(address.to_string(), error);
        let metrics = metrics_listener.map(|(one, at)| serve_metrics(one, at, state.clone()));
        let metrics = metrics.transpose().map_err(failed)?;
        let server = http::server(listener, state, readers, DRAIN).map_err(failed)?;
        Ok(Self {
            url,
            server,
            reader,
            committer,
            committing,
            arbiters,
            relaying,
            stop_relay,
            tailing,
            retaining,
            metrics,
            serving,
            giving_up,
            drain_delay,
        })
    }

    /// Where the service is: scheme, address and real port.
    #[must_use]
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Answers until `shutdown` ends, then drains: readiness off, HTTP, actors, relay, committer, pools.
    pub(crate) async fn run_until(self, shutdown: impl Future<Output = ()>) {
        let handle = self.server.handle();
        let server = tokio::task::spawn_local(self.server);
        shutdown.await;
        tracing::info!("draining");
        self.serving.send_replace(false);
        sleep(self.drain_delay).await;
        let drain = Drain::begin();
        tokio::select! {
            () = handle.stop(true) => {}
            () = drain.give_up(&self.giving_up, &self.committer) => {
                tracing::info!("the connections that are left are closed");
            }
        }
        // Nothing any more when it has stopped, else it drops its connections.
        server.abort();
        drain.step("HTTP", server).await;
        drain.settled(&self.committer).await;
        let left = drain.left();
        drain
            .step(
                "the actors",
                tokio::task::spawn_blocking(move || self.arbiters.stop(left)),
            )
            .await;
        self.tailing.stop(&drain).await;
        // A batch that it has handed in runs to its end in the committer.
        self.retaining.abort();
        self.stop_relay.send_replace(true);
        drain.step("the relays", join_all(self.relaying)).await;
        if let Some(metrics) = self.metrics {
            drain.step("the metrics", metrics.stop(false)).await;
        }
        self.committer.stop();
        drain.step("the committer", self.committing).await;
        self.reader.close(drain.left()).await;
        tracing::info!("drained");
    }
}

/// A drain that has begun, with its deadlines.
#[derive(Debug, Clone, Copy)]
struct Drain {
    began: Instant,
}

impl Drain {
    fn begin() -> Self {
        Self {
            began: Instant::now(),
        }
    }

    /// Gives up what was not handed in, then waits for the rest and its answers.
    async fn give_up(&self, giving_up: &watch::Sender<bool>, committer: &Committer) {
        sleep_until(self.began + HAND_IN).await;
        giving_up.send_replace(true);
        self.settled(committer).await;
        sleep(ANSWERS).await;
    }

    /// Waits until nothing is under way, as long as time is left for the steps that follow.
    async fn settled(&self, committer: &Committer) {
        let until = self.began + DRAIN - STEP;
        while committer.under_way() > 0 && Instant::now() < until {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for the end of a step. What does not end in time ends with the process.
    async fn step<T>(&self, name: &str, end: impl Future<Output = T>) {
        if timeout(self.left(), end).await.is_err() {
            tracing::warn!(drain.step = name, "a step of the drain did not end in time");
        }
    }

    /// What a step may take.
    fn left(&self) -> Duration {
        DRAIN.saturating_sub(self.began.elapsed()).min(STEP)
    }
}

/// The tailers of both logs, at work.
struct Tailing {
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Tailing {
    fn start(reader: &Reader, committer: &Committer) -> ([LogTail; Log::ALL.len()], Self) {
        let stop = watch::Sender::new(false);
        let start = |log| {
            let commits = committer.committed(log);
            LogTail::start(log, reader.clone(), commits, stop.subscribe())
        };
        let [(changes, one), (activity, other)] = Log::ALL.map(start);
        let (tails, tasks) = ([changes, activity], vec![one, other]);
        committer.feed(tails.clone());
        (tails, Self { tasks, stop })
    }

    async fn stop(self, drain: &Drain) {
        self.stop.send_replace(true);
        drain.step("the tailers", join_all(self.tasks)).await;
    }
}

/// Starts the committer.
fn start_committer(
    target: Target,
    settings: &Settings,
    (primary, own): (KeyId, &OwnKeys),
) -> Result<(Committer, oneshot::Receiver<()>), StartError> {
    let records = Arc::clone(&own.idempotency);
    let keys = CommitterKeys { primary, records };
    let started = Committer::start(target, committer_settings(settings), keys);
    started.map_err(StartError::Thread)
}

/// What the settings say of the committer.
#[must_use]
pub(crate) fn committer_settings(settings: &Settings) -> CommitterSettings {
    let commit = &settings.commit;
    let all = Amount {
        count: commit.queue,
        bytes: commit.queue_bytes,
    };
    CommitterSettings {
        limits: Limits {
            secrets_per_owner: settings.limits.secrets_per_owner.into(),
            versions: settings.limits.versions.into(),
        },
        max_batch: commit.max_batch,
        queue: QueueLimits {
            all,
            share: all.percent(commit.queue_share_percent),
            wait: commit.timeout,
            total: settings.http.timeout,
        },
        watchdog: commit.watchdog,
    }
}

/// Serves metrics beside the API, and says where.
fn serve_metrics(
    listener: TcpListener,
    address: SocketAddr,
    state: AppState,
) -> std::io::Result<ServerHandle> {
    let server = http::metrics_server(listener, state)?;
    let handle = server.handle();
    tokio::task::spawn_local(server);
    tracing::info!(metrics.address = %address, "metrics are served");
    Ok(handle)
}

/// The listener of metrics, where they have one of their own.
fn metrics_listener(settings: &Settings) -> Result<Option<(TcpListener, SocketAddr)>, StartError> {
    let port = settings.metrics.port;
    port.map(|port| listen(settings, port)).transpose()
}

fn listen(settings: &Settings, port: u16) -> Result<(TcpListener, SocketAddr), StartError> {
    let host = settings.server.host.as_str();
    let listening = TcpListener::bind((host, port)).and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    listening.map_err(|error| StartError::Listen(format!("{host} port {port}"), error))
}

/// TLS as the settings say, if they do, kept up with its files.
fn tls(settings: &Settings) -> Result<Option<Arc<ServerTls>>, TlsError> {
    let server = &settings.server;
    let (Some(certificate), Some(key)) = (&server.tls_cert, &server.tls_key) else {
        return Ok(None);
    };
    let tls = ServerTls::read(TlsFiles {
        certificate: certificate.clone(),
        key: key.clone(),
        client_authorities: server.tls_client_ca.clone(),
    })?;
    tokio::spawn(tls.clone().follow());
    Ok(Some(tls))
}

/// A relay for each log, if a broker is set, and how they do as HTTP shows it.
fn start_relays(
    settings: &Settings,
    reader: &Reader,
    tails: &[LogTail; Log::ALL.len()],
    committer: &Committer,
    stop: &watch::Sender<bool>,
) -> (Vec<JoinHandle<()>>, Vec<watch::Receiver<RelayState>>) {
    let Some(url) = settings.broker.url.clone() else {
        return (Vec::new(), Vec::new());
    };
    let exchange = settings.broker.exchange.clone();
    let broker = BrokerTarget { url, exchange };
    let relays = tails.iter().map(|tail| {
        let (reader, committer) = (reader.clone(), committer.clone());
        let (tail, broker) = (tail.clone(), broker.clone());
        let relay = Relay::new(tail, reader, committer, broker, stop.subscribe());
        let state = relay.state();
        (tokio::spawn(relay.run()), state)
    });
    relays.unzip()
}

/// How the relays do, as `/ready` and `/metrics` show it.
fn links(relays: Vec<watch::Receiver<RelayState>>) -> Links {
    Arc::new(move || {
        let RelayHealth {
            broker,
            relay,
            confirmed,
            unroutable,
        } = RelayHealth::of(&relays);
        LinkState {
            broker,
            relay,
            confirmed,
            unroutable,
        }
    })
}
