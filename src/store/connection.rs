//! Connections: how they are opened, and which databases are refused.

use std::{io, path::PathBuf, time::Duration};

use sea_orm::{
    ConnectOptions, ConnectionTrait, DbBackend, Statement,
    sqlx::{
        self,
        pool::PoolOptions,
        sqlite::{SqliteJournalMode, SqliteSynchronous},
    },
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;

use super::{StoreError, error::ReadError};

/// What to do when the file of a SQLite database is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Make it.
    Create,
    /// Answer an error.
    Refuse,
}

/// A database, and the deadlines of its connections.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// `sqlite://path` or `postgres://…`.
    pub url: SecretString,
    /// The file, when it is SQLite.
    pub sqlite_path: Option<PathBuf>,
    /// What to do when that file is not there.
    pub missing: Missing,
    /// The size of the readers' pool.
    pub max_connections: u32,
    /// The longest a statement may run or wait for a lock.
    pub timeout: Duration,
    /// The longest a transaction may stand idle before PostgreSQL ends it.
    pub idle_in_transaction: Duration,
}

impl Target {
    pub(super) fn options(
        &self,
        connections: u32,
        condemned: &watch::Sender<bool>,
    ) -> ConnectOptions {
        let mut options = ConnectOptions::new(self.url.expose_secret());
        options
            .max_connections(connections)
            .acquire_timeout(self.timeout)
            .connect_timeout(self.timeout)
            .idle_timeout(None::<Duration>)
            .max_lifetime(None::<Duration>)
            .test_before_acquire(false)
            .sqlx_logging(false)
            .record_stmt_in_spans(false);
        if self.sqlite_path.is_some() {
            self.sqlite(&mut options, condemned.subscribe());
        } else {
            self.postgres(&mut options, condemned.subscribe());
        }
        options
    }

    fn sqlite(&self, options: &mut ConnectOptions, condemned: watch::Receiver<bool>) {
        let create = self.missing == Missing::Create;
        let timeout = self.timeout;
        options
            .map_sqlx_sqlite_opts(move |o| {
                o.create_if_missing(create)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    // Deleted rows are overwritten, not just given up. Measured: 196 µs of CPU for a PUT with it, 197 without.
                    .pragma("secure_delete", "ON")
                    .busy_timeout(timeout)
            })
            .map_sqlx_sqlite_pool_opts(move |o| close_hard_when(o, condemned.clone()));
    }

    fn postgres(&self, options: &mut ConnectOptions, condemned: watch::Receiver<bool>) {
        let timeout = self.timeout.as_millis().to_string();
        let idle = self.idle_in_transaction.as_millis().to_string();
        options
            .map_sqlx_postgres_opts(move |o| {
                // As connection options they cost no round trip. The keepalives are the server's: they
                // end a session whose client is gone within some 20 s. Nearly every statement looks
                // rows up by key, and a plan made while a table is empty would scan it, with all that
                // VACUUM has not yet removed, until the next ANALYZE.
                o.application_name("rekey").options([
                    ("default_transaction_isolation", "read committed"),
                    ("synchronous_commit", "on"),
                    ("statement_timeout", &timeout),
                    ("lock_timeout", &timeout),
                    ("idle_in_transaction_session_timeout", &idle),
                    ("tcp_keepalives_idle", "5"),
                    ("tcp_keepalives_interval", "5"),
                    ("tcp_keepalives_count", "3"),
                    ("enable_seqscan", "off"),
                    ("jit", "off"),
                ])
            })
            .map_sqlx_postgres_pool_opts(move |o| {
                close_hard_when(o, condemned.clone())
                    .after_connect(|connection, _| Box::pin(refuse_standby(connection)))
            });
    }
}

/// Makes a pool close its connections hard once it is condemned: `Ok(false)` would close gracefully,
/// which can hang on a dead socket.
fn close_hard_when<D: sqlx::Database>(
    options: PoolOptions<D>,
    condemned: watch::Receiver<bool>,
) -> PoolOptions<D> {
    options.after_release(move |_, _| {
        let verdict = if *condemned.borrow() {
            Err(sqlx::Error::PoolClosed)
        } else {
            Ok(true)
        };
        Box::pin(async move { verdict })
    })
}

/// Refuses a server that only follows another: what it holds may be old.
async fn refuse_standby(connection: &mut sqlx::PgConnection) -> Result<(), sqlx::Error> {
    let standby: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()")
        .fetch_one(connection)
        .await?;
    if standby {
        let reason = "the server is a standby: only the primary is used";
        return Err(sqlx::Error::Io(io::Error::other(reason)));
    }
    Ok(())
}

/// Refuses a database whose settings could lose acknowledged writes.
///
/// # Errors
/// [`UnsafeDatabase`] names the setting.
pub(crate) async fn refuse_unsafe(db: impl ConnectionTrait) -> Result<(), UnsafeDatabase> {
    let backend = db.get_database_backend();
    let queries: &[(&'static str, &'static str, &[&str])] = if backend == DbBackend::Postgres {
        &[
            ("fsync", "SHOW fsync", &["on"]),
            ("full_page_writes", "SHOW full_page_writes", &["on"]),
            ("synchronous_commit", "SHOW synchronous_commit", &["on"]),
        ]
    } else {
        &[
            ("journal_mode", "PRAGMA journal_mode", &["wal"]),
            (
                "synchronous",
                "SELECT CAST(synchronous AS TEXT) FROM pragma_synchronous",
                &["2", "3"],
            ),
        ]
    };
    for (name, sql, good) in queries {
        let row = db
            .query_one_raw(Statement::from_string(backend, *sql))
            .await
            .map_err(StoreError::from)?;
        // A value that can't be read is not known to be good.
        let value: Option<String> = row.and_then(|row| row.try_get_by_index(0).ok());
        if !value.as_deref().is_some_and(|value| good.contains(&value)) {
            return Err(UnsafeDatabase::Setting(name));
        }
    }
    if backend == DbBackend::Sqlite {
        refuse_old_sqlite(&db).await
    } else {
        Ok(())
    }
}

/// Versions before 3.51.3 can corrupt a database when its write-ahead log is reset.
async fn refuse_old_sqlite(db: &impl ConnectionTrait) -> Result<(), UnsafeDatabase> {
    let row = db
        .query_one_raw(Statement::from_string(
            DbBackend::Sqlite,
            "SELECT sqlite_version()",
        ))
        .await
        .map_err(StoreError::from)?;
    let version: String = match row {
        Some(row) => row.try_get_by_index(0).map_err(StoreError::from)?,
        None => return Err(StoreError::Corrupt("sqlite_version()").into()),
    };
    let numbers: Option<Vec<u32>> = version.split('.').map(|n| n.parse().ok()).collect();
    // A version that can't be read is not known to be good.
    if numbers.is_none_or(|numbers| numbers.as_slice() < [3, 51, 3].as_slice()) {
        return Err(UnsafeDatabase::SqliteVersion(version));
    }
    Ok(())
}

/// Why a database is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnsafeDatabase {
    /// A setting under which an acknowledged write could be lost.
    #[error("the database's setting {0} could lose acknowledged writes")]
    Setting(&'static str),
    /// A SQLite with a bug that can corrupt the database.
    #[error("SQLite {0} can corrupt its write-ahead log: at least 3.51.3 is needed")]
    SqliteVersion(String),
    /// It can't be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ReadError for UnsafeDatabase {
    fn is_broken(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_broken())
    }
}
