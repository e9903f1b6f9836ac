//! Schemas: which migrations a database has, and applying them while no other process does.

use migration::MigratorTrait;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, FromQueryResult, Statement};

use super::StoreError;

/// A process that migrates holds this advisory lock, so that no other migrates at the same time: "rekey" in ASCII.
const LOCK: i64 = 0x0072_656b_6579;

/// The schema is not what this binary needs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemaError {
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
pub(crate) struct MigrationState {
    /// Its name.
    pub name: String,
    /// Whether it was applied.
    pub applied: bool,
}

/// Applies all migrations that are missing.
pub(crate) async fn up<M: MigratorTrait>(db: &DatabaseConnection) -> Result<(), SchemaError> {
    // The migrator fails where a newer binary's migrations stand, even with nothing to do.
    if missing::<M>(db).await?.is_none() {
        return Ok(());
    }
    alone(db, M::up(db, None)).await
}

/// Takes the last `steps` migrations back.
pub(super) async fn down<M: MigratorTrait>(
    db: &DatabaseConnection,
    steps: u32,
) -> Result<(), SchemaError> {
    alone(db, M::down(db, Some(steps))).await
}

/// The pool has one connection, so lock and work share it.
async fn alone(
    db: &DatabaseConnection,
    work: impl Future<Output = Result<(), DbErr>>,
) -> Result<(), SchemaError> {
    let postgres = db.get_database_backend() == DbBackend::Postgres;
    let call = async |function: &str| {
        if !postgres {
            return Ok(());
        }
        let sql = format!("SELECT {function}({LOCK})");
        let called = db.execute_unprepared(&sql).await;
        called.map(|_| ()).map_err(StoreError::from)
    };
    call("pg_advisory_lock").await?;
    let result = work.await.map_err(SchemaError::Migration);
    call("pg_advisory_unlock").await?;
    result
}

/// Every migration that this binary knows, in order.
///
/// Not asked of the migrator: it fails where a newer binary's migrations stand, and replicas of the last
/// version run on those.
pub(super) async fn migrations<M: MigratorTrait>(
    db: &impl ConnectionTrait,
) -> Result<Vec<MigrationState>, StoreError> {
    #[derive(FromQueryResult)]
    struct Row {
        version: String,
    }
    let backend = db.get_database_backend();
    let name = M::migration_table_name().to_string();
    let sql = if backend == DbBackend::Postgres {
        "SELECT table_name::text AS version FROM information_schema.tables \
         WHERE table_schema = current_schema() AND table_name = $1"
    } else {
        "SELECT name AS version FROM sqlite_master WHERE name = $1"
    };
    let table = Statement::from_sql_and_values(backend, sql, [name.as_str().into()]);
    let applied: Vec<Row> = if Row::find_by_statement(table).one(db).await?.is_some() {
        let sql = format!("SELECT version FROM {name}");
        Row::find_by_statement(Statement::from_string(backend, sql))
            .all(db)
            .await?
    } else {
        Vec::new()
    };
    Ok(M::get_migration_files()
        .iter()
        .map(|migration| MigrationState {
            name: migration.name().to_owned(),
            applied: applied.iter().any(|row| row.version == migration.name()),
        })
        .collect())
}

/// The first migration that this binary needs and the database lacks. (Newer ones don't matter.)
pub(crate) async fn missing<M: MigratorTrait>(
    db: &impl ConnectionTrait,
) -> Result<Option<String>, StoreError> {
    let migrations = migrations::<M>(db).await?;
    let missing = migrations.into_iter().find(|known| !known.applied);
    Ok(missing.map(|known| known.name))
}
