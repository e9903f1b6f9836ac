//! Builds the rooms from the settings, runs them, and drains them in order.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::dev::Server;
use tokio::{
    runtime::Handle,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    actor::{Arbiters, Deadlines, Secrets},
    auth::Authenticator,
    broker::BrokerTarget,
    crypto::{Keyring, KeyringError, Sealer},
    http::{self, AppState, LinkState},
    keys::{self, KeysError},
    relay::{Relay, RelayState},
    settings::Settings,
    store::{
        Check, Committer, CommitterSettings, Limits, Missing, SchemaError, Store, StoreError,
        Target, UnsafeDatabase,
    },
};

/// How long each step of the drain may take.
const STEP: Duration = Duration::from_secs(5);

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The keyring is no good.
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
    /// The address can't be listened on.
    #[error("can't listen on {0}")]
    Listen(String, #[source] std::io::Error),
}

/// The service, listening but not yet answering.
pub struct Application {
    address: SocketAddr,
    server: Server,
    store: Store,
    committer: Committer,
    committing: JoinHandle<()>,
    arbiters: Arbiters,
    relaying: Option<JoinHandle<()>>,
    stop_relay: watch::Sender<bool>,
    serving: watch::Sender<bool>,
    drain_delay: Duration,
}

/// The database of the settings.
#[must_use]
pub fn target(settings: &Settings, missing: Missing) -> Target {
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

/// The keyring of the settings.
///
/// # Errors
/// [`KeyringError`].
pub fn keyring(settings: &Settings) -> Result<Keyring, KeyringError> {
    use secrecy::ExposeSecret;
    match &settings.keyring.keys {
        Some(keys) => Keyring::from_list(keys.iter().map(ExposeSecret::expose_secret)),
        None => Keyring::read(&settings.keyring.path),
    }
}

impl Application {
    /// Opens everything that the settings name and listens. Must run inside an actix `System`.
    ///
    /// # Errors
    /// [`StartError`]: nothing is served then.
    pub async fn build(settings: Settings) -> Result<Self, StartError> {
        let runtime = Handle::current();
        let keyring = keyring(&settings)?;
        let target = target(&settings, Missing::Refuse);
        let store = Store::open(target.clone(), &runtime).await?;
        store.refuse_old_schema().await?;
        store.refuse_unsafe().await?;
        let primary = keys::verify(&store, &target, &keyring).await?;
        let sealer = Arc::new(Sealer::new(keyring));
        let (committer, committing) =
            Committer::start(target, &runtime, committer_settings(&settings), primary);
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        let deadlines = Deadlines {
            queue: settings.commit.timeout,
            total: settings.http.timeout,
        };
        let (secrets, arbiters) = Secrets::start(workers, &sealer, &committer, deadlines);
        let stop_relay = watch::Sender::new(false);
        let (relaying, links) = start_relay(&settings, &store, &committer, &stop_relay);
        let serving = watch::Sender::new(true);
        let listener = listen(&settings)?;
        let failed = |error| StartError::Listen(settings.server.host.clone(), error);
        let address = listener.local_addr().map_err(failed)?;
        let drain_delay = settings.server.drain_delay;
        let drain = settings.http.timeout;
        let state = AppState {
            store: store.clone(),
            sealer,
            secrets,
            authenticator: Arc::new(Authenticator::new(store.clone())),
            links,
            serving: serving.subscribe(),
            settings: Arc::new(settings),
        };
        let server = http::server(listener, state, workers, drain)
            .map_err(|error| StartError::Listen(address.to_string(), error))?;
        Ok(Self {
            address,
            server,
            store,
            committer,
            committing,
            arbiters,
            relaying,
            stop_relay,
            serving,
            drain_delay,
        })
    }

    /// The address that is listened on, with its real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` ends, then drains: readiness off, HTTP, actors, relay, committer, pools.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        let handle = self.server.handle();
        let server = tokio::task::spawn_local(self.server);
        shutdown.await;
        tracing::info!("draining");
        self.serving.send_replace(false);
        sleep(self.drain_delay).await;
        handle.stop(true).await;
        let _ = timeout(STEP, server).await;
        let until = Instant::now() + STEP;
        while self.committer.under_way() > 0 && Instant::now() < until {
            sleep(Duration::from_millis(5)).await;
        }
        let _ = tokio::task::spawn_blocking(move || self.arbiters.stop(STEP)).await;
        self.stop_relay.send_replace(true);
        if let Some(relaying) = self.relaying {
            let _ = timeout(STEP, relaying).await;
        }
        self.committer.stop();
        let _ = timeout(STEP, self.committing).await;
        self.store.close(STEP).await;
        tracing::info!("drained");
    }
}

fn committer_settings(settings: &Settings) -> CommitterSettings {
    CommitterSettings {
        limits: Limits {
            secrets_per_owner: settings.limits.secrets_per_owner.into(),
            versions: settings.limits.versions.into(),
        },
        max_batch: settings.commit.max_batch,
        queue: settings.commit.queue,
        queue_bytes: settings.commit.queue_bytes,
        watchdog: settings.commit.watchdog,
        give_up: settings.http.timeout,
    }
}

fn listen(settings: &Settings) -> Result<TcpListener, StartError> {
    let (host, port) = (settings.server.host.as_str(), settings.server.port);
    TcpListener::bind((host, port))
        .map_err(|error| StartError::Listen(format!("{host} port {port}"), error))
}

/// The relay, if a broker is set, and how it does as HTTP shows it.
fn start_relay(
    settings: &Settings,
    store: &Store,
    committer: &Committer,
    stop: &watch::Sender<bool>,
) -> (Option<JoinHandle<()>>, watch::Receiver<LinkState>) {
    let Some(url) = settings.broker.url.clone() else {
        let off = LinkState {
            broker: Check::Off,
            relay: Check::Off,
        };
        return (None, watch::channel(off).1);
    };
    let broker = BrokerTarget {
        url,
        exchange: settings.broker.exchange.clone(),
    };
    let relay = Relay::new(store.clone(), committer.clone(), broker, stop.subscribe());
    let mut state = relay.state();
    let shown = |state: RelayState| LinkState {
        broker: state.broker,
        relay: state.relay,
    };
    let (sender, links) = watch::channel(shown(*state.borrow()));
    tokio::spawn(async move {
        while state.changed().await.is_ok() {
            sender.send_replace(shown(*state.borrow_and_update()));
        }
    });
    (Some(tokio::spawn(relay.run())), links)
}
