//! What the command line and the first start do to the database: schema, tokens, keys.
//!
//! Each write is a transaction of its own on a connection of its own, and waits up to 30 s for a busy
//! SQLite. It runs to its end: a command that is interrupted leaves all or nothing.

use std::time::Duration;

use migration::{Migrator, MigratorTrait};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, FromQueryResult,
    Statement,
};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::{
    StoreError, Target,
    chain::Head,
    commit::{begin, lock_activity},
    connection::Pool,
    keys, log,
    service_keys::{self, StoredServiceKey},
    tokens::{self, StoredToken, TokenKind},
    write,
};
use crate::domain::{
    Agent, Event, EventId, EventKind, KeyId, Log, ServiceKeyName, Timestamp, TokenEvent,
};

/// How long an operator's command waits for a lock or a statement.
const PATIENCE: Duration = Duration::from_secs(30);

/// `rekey migrate up` takes this advisory lock, so that two at once do not meet: "rekey" in ASCII.
const MIGRATE_LOCK: i64 = 0x0072_656b_6579;

/// The schema is not what this binary needs.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A migration that this binary needs was not applied.
    #[error("the database lacks the migration {0}: run `rekey migrate up`")]
    Missing(String),
    /// A migration of the audit consumer's database was not applied.
    #[error("the audit database lacks the migration {0}: run `rekey audit serve` first")]
    Audit(String),
    /// A migration failed.
    #[error("a migration failed")]
    Migration(#[source] DbErr),
    /// The database can't be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A migration that this binary knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationState {
    /// Its name.
    pub name: String,
    /// Whether it was applied.
    pub applied: bool,
}

/// A connection for an operator's commands.
#[derive(Debug)]
pub struct Operator {
    pool: Pool,
}

impl Operator {
    /// Connects when the first command needs it.
    ///
    /// # Errors
    /// [`StoreError`] when the URL is no good.
    pub async fn open(target: &Target, runtime: &Handle) -> Result<Self, StoreError> {
        let patient = Target {
            timeout: PATIENCE,
            idle_in_transaction: PATIENCE,
            ..target.clone()
        };
        Ok(Self {
            pool: Pool::open(&patient, 1, runtime).await?,
        })
    }

    async fn run<F, W, T>(&self, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(DatabaseConnection) -> W,
        W: Future<Output = Result<T, StoreError>> + Send + 'static,
        T: Send + 'static,
    {
        self.pool.spawn(work).await.unwrap_or(Err(StoreError::Lost))
    }

    /// Applies all migrations that are missing.
    ///
    /// # Errors
    /// [`SchemaError`].
    pub async fn migrate_up(&self) -> Result<(), SchemaError> {
        self.run(async |db| Ok(alone(db, async |db| Migrator::up(db, None).await).await))
            .await?
    }

    /// Takes the last `steps` migrations back.
    ///
    /// # Errors
    /// [`SchemaError`].
    pub async fn migrate_down(&self, steps: u32) -> Result<(), SchemaError> {
        self.run(async move |db| {
            Ok(alone(db, async move |db| Migrator::down(db, Some(steps)).await).await)
        })
        .await?
    }

    /// Every migration that this binary knows, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn migrations(&self) -> Result<Vec<MigrationState>, StoreError> {
        self.run(async |db| migrations(&db).await).await
    }

    /// Stores a token, with its event in the log `activity`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_token(&self, token: StoredToken, agent: Agent) -> Result<(), StoreError> {
        self.run(async move |db| {
            let transaction = begin(&db).await?;
            let now = token.created_at;
            record(&transaction, &token, (EventKind::TokenCreated, now), agent).await?;
            tokens::insert(&transaction, token).await?;
            Ok(transaction.commit().await?)
        })
        .await
    }

    /// Revokes a token, with its event in the log `activity`; false when there is none of that ID that was
    /// not revoked before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_token(
        &self,
        id: &str,
        now: Timestamp,
        agent: Agent,
    ) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.run(async move |db| {
            let transaction = begin(&db).await?;
            // First, so that of two at once the second sees the first's.
            lock_activity(&transaction).await?;
            let revoked = tokens::revoke(&transaction, &id, now).await?;
            if let Some(token) = &revoked {
                record(&transaction, token, (EventKind::TokenRevoked, now), agent).await?;
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
    pub async fn tokens(&self) -> Result<Vec<StoredToken>, StoreError> {
        self.run(async |db| tokens::all(&db).await).await
    }

    /// Makes a key the first and primary one, unless the database has keys.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_first_key(
        &self,
        id: &KeyId,
        check_value: Vec<u8>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let id = id.clone();
        self.run(async move |db| {
            let transaction = begin(&db).await?;
            keys::insert_first(&transaction, &id, check_value, now).await?;
            Ok(transaction.commit().await?)
        })
        .await
    }

    /// The keys that the database knows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keys(&self) -> Result<Vec<(keys::StoredKey, u64)>, StoreError> {
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
    pub async fn add_service_key(
        &self,
        name: ServiceKeyName,
        kek_id: &KeyId,
        sealed: Vec<u8>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let kek_id = kek_id.clone();
        self.run(async move |db| {
            let transaction = begin(&db).await?;
            service_keys::insert_absent(&transaction, name, (&kek_id, sealed), now).await?;
            Ok(transaction.commit().await?)
        })
        .await
    }

    /// The service's own keys, sealed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn service_keys(&self) -> Result<Vec<StoredServiceKey>, StoreError> {
        self.run(async |db| service_keys::all(&db).await).await
    }

    /// The head of a log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn log_head(&self, log: Log) -> Result<Head, StoreError> {
        self.run(async move |db| log::head(&db, log).await).await
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.pool.close(Duration::from_secs(3)).await;
    }
}

/// Appends the event of a token to the log `activity`.
async fn record(
    transaction: &DatabaseTransaction,
    token: &StoredToken,
    (kind, occurred_at): (EventKind, Timestamp),
    actor: Agent,
) -> Result<(), StoreError> {
    lock_activity(transaction).await?;
    let (token_kind, owner, acts_for) = match &token.kind {
        TokenKind::Owner(owner) => ("owner", Some(owner.clone()), None),
        TokenKind::Service { acts_for, .. } => ("service", None, Some(acts_for.clone())),
    };
    let event = Event::Token(TokenEvent {
        actor,
        acts_for,
        epoch: 0,
        expires_at: token.expires_at,
        hash: None,
        id: EventId::new(Uuid::now_v7()),
        log: Log::Activity,
        occurred_at,
        owner,
        position: 0,
        prev_hash: None,
        request_id: None,
        scopes: token.scopes.clone(),
        token_id: token.id.clone(),
        token_kind,
        r#type: kind,
    });
    let entry = log::head(transaction, Log::Activity)
        .await?
        .append(event, None);
    let (rows, sql) = log::insert(&[entry]);
    write::run(transaction, rows, sql).await
}

/// Runs migrations while no other process does: the pool has one connection, so lock and work share it.
async fn alone<F>(db: DatabaseConnection, work: F) -> Result<(), SchemaError>
where
    F: AsyncFnOnce(&DatabaseConnection) -> Result<(), DbErr>,
{
    let postgres = db.get_database_backend() == DbBackend::Postgres;
    let call = async |function: &str| {
        if !postgres {
            return Ok(());
        }
        let sql = format!("SELECT {function}({MIGRATE_LOCK})");
        db.execute_unprepared(&sql)
            .await
            .map(|_| ())
            .map_err(StoreError::from)
    };
    call("pg_advisory_lock").await?;
    let result = work(&db).await.map_err(SchemaError::Migration);
    call("pg_advisory_unlock").await?;
    result
}

#[derive(Debug, FromQueryResult)]
struct VersionRow {
    version: String,
}

async fn migrations(db: &DatabaseConnection) -> Result<Vec<MigrationState>, StoreError> {
    let backend = db.get_database_backend();
    // Not by the migrator: it would make its table where there is none.
    let sql = if backend == DbBackend::Postgres {
        "SELECT table_name::text AS version FROM information_schema.tables \
         WHERE table_schema = current_schema() AND table_name = 'seaql_migrations'"
    } else {
        "SELECT name AS version FROM sqlite_master WHERE name = 'seaql_migrations'"
    };
    let table = VersionRow::find_by_statement(Statement::from_string(backend, sql));
    let applied: Vec<VersionRow> = if table.one(db).await?.is_some() {
        let sql = "SELECT version FROM seaql_migrations";
        VersionRow::find_by_statement(Statement::from_string(backend, sql))
            .all(db)
            .await?
    } else {
        Vec::new()
    };
    Ok(Migrator::get_migration_files()
        .iter()
        .map(|migration| MigrationState {
            name: migration.name().to_owned(),
            applied: applied.iter().any(|row| row.version == migration.name()),
        })
        .collect())
}

/// Newer migrations than this binary's don't matter: the replicas of the last version run on them.
pub(super) async fn refuse_old_schema(db: &DatabaseConnection) -> Result<(), SchemaError> {
    match migrations(db).await?.into_iter().find(|m| !m.applied) {
        Some(missing) => Err(SchemaError::Missing(missing.name)),
        None => Ok(()),
    }
}
