//! The administrator's store: what the command line and the first start do to schema, tokens and keys.
//!
//! Each write is a transaction of its own on a connection of its own, and waits up to 30 s for a busy
//! SQLite. It runs to its end: a command that is interrupted leaves all or nothing.

use std::{path::Path, sync::Arc, time::Duration};

use migration::Migrator;
use sea_orm::DatabaseConnection;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::{
    StoreError, Target,
    backup::{self, BackupError, BackupHead},
    chain::Head,
    commit::lock,
    keys::{self, StoredKey},
    lockdown::{self, Lockdown},
    log,
    pool::{Home, Pool},
    schema::{self, MigrationState, SchemaError},
    service_keys::{self, MissingKey, NewServiceKey, ServiceKeyOutcome, StoredServiceKey},
    tokens::{self, Revocation, RevokedTokens, StoredToken, TokenRows, Whose},
    transaction::Transaction,
};
use crate::{
    crypto::MacKey,
    domain::{
        Agent, EpochEvent, Event, EventId, EventKind, KeyEvent, KeyId, LockdownEvent, Log, Origin,
        Timestamp, TokenEvent,
    },
};

/// How long an administrator's command waits for a lock or a statement.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a database can hold, by the migrations that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holds {
    /// Key-encryption keys.
    pub keys: bool,
    /// A code for each token.
    pub token_codes: bool,
}

/// A connection for an administrator's commands.
#[derive(Debug)]
pub(crate) struct Admin {
    pool: Pool,
}

impl Admin {
    /// Connects when the first command needs it.
    ///
    /// # Errors
    /// [`StoreError`] when the URL can't be used.
    pub(crate) async fn open(target: &Target, runtime: &Handle) -> Result<Self, StoreError> {
        let patient = Target {
            timeout: PATIENCE,
            idle_in_transaction: PATIENCE,
            ..target.clone()
        };
        Ok(Self {
            pool: Pool::open(&patient, 1, &Home::Runtime(runtime.clone())).await?,
        })
    }

    async fn run<F, W, T, E>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(DatabaseConnection) -> W,
        W: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let mut task = self.pool.spawn(work);
        task.finish().await
    }

    /// Applies all migrations that are missing.
    ///
    /// # Errors
    /// [`SchemaError`].
    pub(crate) async fn migrate_up(&self) -> Result<(), SchemaError> {
        self.run(async |db| schema::up::<Migrator>(&db).await).await
    }

    /// Takes the last `steps` migrations back.
    ///
    /// # Errors
    /// [`SchemaError`].
    pub(crate) async fn migrate_down(&self, steps: u32) -> Result<(), SchemaError> {
        self.run(async move |db| schema::down::<Migrator>(&db, steps).await)
            .await
    }

    /// Every migration that this binary knows, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn migrations(&self) -> Result<Vec<MigrationState>, StoreError> {
        self.run(async |db| schema::migrations::<Migrator>(&db).await)
            .await
    }

    /// Whether the database can hold key-encryption keys yet, and codes of tokens.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn holds(&self) -> Result<Holds, StoreError> {
        let migrations = self.migrations().await?;
        let applied = |name| migrations.iter().any(|one| one.applied && one.name == name);
        Ok(Holds {
            keys: applied(migration::KEYS),
            token_codes: applied(migration::TOKEN_MAC),
        })
    }

    /// Stores a token, with its event in the log `activity`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn add_token(
        &self,
        token: StoredToken,
        key: &Arc<MacKey>,
        agent: Agent,
    ) -> Result<(), StoreError> {
        let key = Arc::clone(key);
        self.run(async move |db| {
            let transaction = Transaction::begin(&db).await?;
            let now = token.grant.created_at;
            let event = token_event(&token, EventKind::TokenCreated, now, agent);
            record(&transaction, [event]).await?;
            tokens::insert(&transaction, token, &key).await?;
            transaction.commit().await
        })
        .await
    }

    /// Revokes a token, with its event in the log `activity`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn revoke_token(
        &self,
        id: &str,
        key: &Arc<MacKey>,
        now: Timestamp,
        agent: Agent,
    ) -> Result<Revocation, StoreError> {
        let (id, key) = (id.to_owned(), Arc::clone(key));
        self.run(async move |db| {
            let transaction = Transaction::begin(&db).await?;
            // First, so that of two at once the second sees the first's.
            lock(&transaction, Log::Activity).await?;
            let (revocation, revoked) = tokens::revoke(&transaction, &id, now, &key).await?;
            if let Some(token) = &revoked {
                let event = token_event(token, EventKind::TokenRevoked, now, agent);
                record(&transaction, [event]).await?;
            }
            transaction.commit().await?;
            Ok(revocation)
        })
        .await
    }

    /// Revokes all of somebody's tokens at once, each with its event in the log `activity`.
    ///
    /// # Errors
    /// [`StoreError`]; then all are as they were.
    pub(crate) async fn revoke_tokens(
        &self,
        whose: Whose,
        key: &Arc<MacKey>,
        now: Timestamp,
        agent: Agent,
    ) -> Result<RevokedTokens, StoreError> {
        let key = Arc::clone(key);
        self.run(async move |db| {
            let transaction = Transaction::begin(&db).await?;
            // First: a token that is created beside it is either revoked, too, or created afterwards.
            lock(&transaction, Log::Activity).await?;
            let revoked = tokens::revoke_all(&transaction, &whose, now, &key).await?;
            let events = revoked
                .tokens
                .iter()
                .map(|token| token_event(token, EventKind::TokenRevoked, now, agent.clone()));
            record(&transaction, events).await?;
            transaction.commit().await?;
            Ok(revoked)
        })
        .await
    }

    /// Locks the service down, or opens it again, with its event in the log `activity`. Returns whether that changed
    /// anything. Each commit that takes a lock afterwards sees it.
    ///
    /// # Errors
    /// [`StoreError`]; then all is as it was.
    pub(crate) async fn lock_down(
        &self,
        lockdown: Lockdown,
        now: Timestamp,
        agent: Agent,
    ) -> Result<bool, StoreError> {
        self.run(async move |db| {
            let transaction = Transaction::begin(&db).await?;
            for log in Log::ALL {
                lock(&transaction, log).await?;
            }
            let changed = lockdown::set(&transaction, lockdown, now).await?;
            if changed {
                let event = Event::Lockdown(LockdownEvent {
                    actor: agent,
                    id: EventId::new(Uuid::now_v7()),
                    kind: match lockdown {
                        Lockdown::On => EventKind::LockdownOn,
                        Lockdown::Off => EventKind::LockdownOff,
                    },
                    occurred_at: now,
                });
                record(&transaction, [event]).await?;
            }
            transaction.commit().await?;
            Ok(changed)
        })
        .await
    }

    /// All tokens.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tokens(&self, key: &Arc<MacKey>) -> Result<TokenRows, StoreError> {
        let key = Arc::clone(key);
        self.run(async move |db| tokens::all(&db, &key).await).await
    }

    /// Whether there is no row of a token.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn has_no_token(&self) -> Result<bool, StoreError> {
        self.run(async |db| Ok(tokens::count(&db).await? == 0))
            .await
    }

    /// Registers a key as the first and primary one, unless the database has keys.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn add_first_key(
        &self,
        id: &KeyId,
        check_value: Vec<u8>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let id = id.clone();
        self.run(async move |db| {
            let transaction = Transaction::begin(&db).await?;
            keys::insert_first(&transaction, &id, check_value, now).await?;
            transaction.commit().await
        })
        .await
    }

    /// The keys that the database knows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        self.run(async |db| keys::all(&db).await).await
    }

    /// How many versions a key still seals.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn versions_under(&self, id: &KeyId) -> Result<u64, StoreError> {
        let id = id.clone();
        self.run(async move |db| keys::versions_under(&db, &id).await)
            .await
    }

    /// Stores a key of the service's own; one that is made anew has its event in the log `activity`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn add_service_key(
        &self,
        key: NewServiceKey,
        agent: Agent,
    ) -> Result<ServiceKeyOutcome, StoreError> {
        self.run(async move |db| {
            let transaction = Transaction::begin(&db).await?;
            let event = matches!(key.missing, MissingKey::Anew).then(|| {
                Event::Key(KeyEvent {
                    actor: agent,
                    id: EventId::new(Uuid::now_v7()),
                    key_id: key.name.as_str().to_owned(),
                    occurred_at: key.created_at,
                })
            });
            let outcome = service_keys::insert(&transaction, key).await?;
            if let (ServiceKeyOutcome::Stored(_), Some(event)) = (outcome, event) {
                record(&transaction, [event]).await?;
            }
            transaction.commit().await?;
            Ok(outcome)
        })
        .await
    }

    /// The service's own keys, sealed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn service_keys(&self) -> Result<Vec<StoredServiceKey>, StoreError> {
        self.run(async |db| service_keys::all(&db).await).await
    }

    /// Raises the epoch of both logs, with the event `epoch.raised` as the first of the new epoch in each, and
    /// returns it: the Unix time in seconds, or one more than the highest epoch so far if that is more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn bump_epoch(&self, now: Timestamp, actor: Agent) -> Result<u64, StoreError> {
        self.run(async move |db| {
            let transaction = Transaction::begin(&db).await?;
            let mut heads = Vec::new();
            for log in Log::ALL {
                lock(&transaction, log).await?;
                heads.push((log, log::head(&transaction, log).await?));
            }
            let highest = heads
                .iter()
                .map(|(_, head)| head.epoch.max(head.last_epoch));
            let epoch = now.seconds().max(highest.max().unwrap_or_default() + 1);
            log::set_epoch(&transaction, epoch).await?;
            let mut entries = Vec::new();
            for (log, mut head) in heads {
                let event = Event::Epoch(EpochEvent {
                    actor: actor.clone(),
                    id: EventId::new(Uuid::now_v7()),
                    log,
                    occurred_at: now,
                    previous_epoch: head.epoch,
                });
                head.epoch = epoch;
                entries.push(head.append(event, None));
            }
            transaction.write(vec![log::insert(&entries)]).await?;
            transaction.commit().await?;
            Ok(epoch)
        })
        .await
    }

    /// Copies a `SQLite` database into an empty file, while others write to it, and proves the copy.
    ///
    /// # Errors
    /// [`BackupError`]: the file is then of no use.
    pub(crate) async fn back_up(&self, file: &Path) -> Result<Vec<BackupHead>, BackupError> {
        let file = file.to_owned();
        self.run(async move |db| backup::write(&db, &file).await)
            .await
    }

    /// The head of a log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn log_head(&self, log: Log) -> Result<Head, StoreError> {
        self.run(async move |db| log::head(&db, log).await).await
    }

    /// Closes the connection.
    pub(crate) async fn close(self) {
        self.pool.close(Duration::from_secs(3)).await;
    }
}

fn token_event(
    token: &StoredToken,
    kind: EventKind,
    occurred_at: Timestamp,
    actor: Agent,
) -> Event {
    Event::Token(TokenEvent {
        actor,
        expires_at: token.grant.expires_at,
        grantee: token.grant.grantee.clone(),
        id: EventId::new(Uuid::now_v7()),
        kind,
        occurred_at,
        origin: Origin::default(),
        request_id: None,
        scopes: token.grant.scopes.clone(),
        token_id: token.id.clone(),
    })
}

/// Appends events to the log `activity`.
async fn record(
    transaction: &Transaction,
    events: impl IntoIterator<Item = Event>,
) -> Result<(), StoreError> {
    lock(transaction, Log::Activity).await?;
    let mut head = log::head(transaction, Log::Activity).await?;
    let entries = events.into_iter().map(|event| head.append(event, None));
    let entries: Vec<_> = entries.collect();
    transaction.write(vec![log::insert(&entries)]).await?;
    Ok(())
}
