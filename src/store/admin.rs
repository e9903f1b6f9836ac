//! The administrator's store: what the command line and the first start do to schema, tokens and keys.
//!
//! Each write is a transaction of its own on a connection of its own, and waits up to 30 s for a busy
//! SQLite. It runs to its end: a command that is interrupted leaves all or nothing.

use std::time::Duration;

use migration::Migrator;
use sea_orm::DatabaseConnection;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::{
    StoreError, Target,
    chain::Head,
    commit::lock,
    keys, log,
    pool::{Home, Pool},
    schema::{self, MigrationState, SchemaError},
    service_keys::{self, StoredServiceKey},
    tokens::{self, StoredToken},
    transaction::Transaction,
};
use crate::domain::{
    Agent, Event, EventId, EventKind, KeyId, Log, ServiceKeyName, Timestamp, TokenEvent,
};

/// How long an administrator's command waits for a lock or a statement.
const PATIENCE: Duration = Duration::from_secs(30);

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

    /// Stores a token, with its event in the log `activity`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn add_token(
        &self,
        token: StoredToken,
        agent: Agent,
    ) -> Result<(), StoreError> {
        self.run(async move |db| {
            let transaction = Transaction::begin(&db).await?;
            let now = token.grant.created_at;
            record(&transaction, &token, EventKind::TokenCreated, now, agent).await?;
            tokens::insert(&transaction, token).await?;
            transaction.commit().await
        })
        .await
    }

    /// Revokes a token, with its event in the log `activity`; false when no active token
    /// has this ID.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn revoke_token(
        &self,
        id: &str,
        now: Timestamp,
        agent: Agent,
    ) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.run(async move |db| {
            let transaction = Transaction::begin(&db).await?;
            // First, so that of two at once the second sees the first's.
            lock(&transaction, Log::Activity).await?;
            let revoked = tokens::revoke(&transaction, &id, now).await?;
            if let Some(token) = &revoked {
                record(&transaction, token, EventKind::TokenRevoked, now, agent).await?;
            }
            transaction.commit().await?;
            Ok(revoked.is_some())
        })
        .await
    }

    /// All tokens, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tokens(&self) -> Result<Vec<StoredToken>, StoreError> {
        self.run(async |db| tokens::all(&db).await).await
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
    pub(crate) async fn keys(&self) -> Result<Vec<(keys::StoredKey, u64)>, StoreError> {
        self.run(async |db| {
            let mut counted = Vec::new();
            for key in keys::all(&db).await? {
                let versions = keys::versions_under(&db, &key.id).await?;
                counted.push((key, versions));
            }
            Ok(counted)
        })
        .await
    }

    /// Stores a key of the service's own, sealed under `kek_id`, unless there is one of that name or
    /// `kek_id` may seal no more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn add_service_key(
        &self,
        name: ServiceKeyName,
        kek_id: &KeyId,
        sealed: Vec<u8>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let kek_id = kek_id.clone();
        self.run(async move |db| {
            let transaction = Transaction::begin(&db).await?;
            service_keys::insert_absent(&transaction, name, &kek_id, sealed, now).await?;
            transaction.commit().await
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

/// Appends the event of a token to the log `activity`.
async fn record(
    transaction: &Transaction,
    token: &StoredToken,
    kind: EventKind,
    occurred_at: Timestamp,
    actor: Agent,
) -> Result<(), StoreError> {
    lock(transaction, Log::Activity).await?;
    let event = Event::Token(TokenEvent {
        actor,
        expires_at: token.grant.expires_at,
        grantee: token.grant.grantee.clone(),
        id: EventId::new(Uuid::now_v7()),
        kind,
        occurred_at,
        scopes: token.grant.scopes.clone(),
        token_id: token.id.clone(),
    });
    let entry = log::head(transaction, Log::Activity)
        .await?
        .append(event, None);
    let entries = [entry];
    transaction.write(vec![log::insert(&entries)]).await?;
    Ok(())
}
