//! Connections: how they are opened, and how they are given up.
//!
//! A future that touches the database is never dropped alone (sqlx 0.9.0 then loses acknowledged writes):
//! all work runs in tasks of its own. What hangs is given up together with its whole pool: a condemned
//! pool drops its tasks and closes its connections hard.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, Statement,
    sqlx::{
        self, Connection as _,
        pool::PoolOptions,
        sqlite::{SqliteJournalMode, SqliteSynchronous},
    },
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use super::{StoreError, transaction::Connection};
use crate::domain::ErrorChain;

/// A connection that was idle for so long is asked whether it is still there before it is used.
const ASK_AFTER: Duration = Duration::from_secs(1);

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
    fn options(&self, connections: u32, condemned: &watch::Sender<bool>) -> ConnectOptions {
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
                    .before_acquire(|connection, usage| {
                        Box::pin(async move {
                            // After a restart of the server all idle connections are dead. One in use is not
                            // asked: it costs a round trip.
                            if usage.idle_for >= ASK_AFTER {
                                connection.ping().await?;
                            }
                            Ok(true)
                        })
                    })
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

/// A pool whose tasks and connections can be given up as one.
#[derive(Debug)]
pub(super) struct Pool {
    db: DatabaseConnection,
    condemned: watch::Sender<bool>,
    runtime: Handle,
}

impl Pool {
    /// A pool of at most `connections`, which connects when it must.
    ///
    /// # Errors
    /// [`StoreError`] when the URL can't be used.
    pub(super) async fn open(
        target: &Target,
        connections: u32,
        runtime: &Handle,
    ) -> Result<Self, StoreError> {
        let condemned = watch::Sender::new(false);
        let mut options = target.options(connections, &condemned);
        options.connect_lazy(true);
        let db = Database::connect(options).await?;
        Ok(Self {
            db,
            condemned,
            runtime: runtime.clone(),
        })
    }

    /// Runs work as a task that runs to its end whether or not anybody waits, unless the pool is condemned.
    pub(super) fn spawn<F, W, T, E>(&self, work: F) -> Running<T, E>
    where
        F: FnOnce(DatabaseConnection) -> W,
        W: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let mut condemned = self.condemned.subscribe();
        let work = work(self.db.clone());
        Running(self.runtime.spawn(async move {
            tokio::select! {
                biased;
                result = work => result,
                // Also when the pool itself is dropped: then nothing could give up the task any more.
                _ = condemned.wait_for(|condemned| *condemned) => Err(StoreError::Deadline.into()),
            }
        }))
    }

    /// Takes a connection out of the pool.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn take(&self) -> Result<Connection, StoreError> {
        Connection::take(&self.db).await
    }

    /// Gives up the pool: drops its tasks and closes its connections hard.
    pub(super) fn condemn(&self) {
        self.condemned.send_replace(true);
    }

    /// Closes the pool in good order, as far as that is possible within `deadline`.
    pub(super) async fn close(&self, deadline: Duration) {
        // Nothing uses the pool any more, so the dropped future can lose no write. Connections that do not
        // close in time end with the process.
        let _ = timeout(deadline, self.db.clone().close()).await;
    }
}

/// How long work may take, and when its pool is replaced as a whole: a black-holed connection frees nothing by
/// itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// The longest that work may take. After that it is overdue.
    pub(crate) deadline: Duration,
    /// So many that are overdue together replace the pool. One alone does after [`LONGEST_OVERDUE`].
    pub(crate) overdue: u32,
}

/// One piece of work that takes this long replaces its pool.
const LONGEST_OVERDUE: Duration = Duration::from_secs(10);

/// A pool, and how much of its work is overdue.
#[derive(Debug)]
struct Watched {
    pool: Pool,
    overdue: AtomicU32,
}

/// A pool that is replaced when it does not answer.
#[derive(Debug)]
pub(crate) struct ReplaceablePool {
    target: Target,
    runtime: Handle,
    patience: Patience,
    watched: RwLock<Arc<Watched>>,
}

impl ReplaceablePool {
    /// A pool of the target's size, which connects when it must.
    ///
    /// # Errors
    /// [`StoreError`] when the URL can't be used.
    pub(crate) async fn open(
        target: Target,
        runtime: &Handle,
        patience: Patience,
    ) -> Result<Self, StoreError> {
        let watched = RwLock::new(watched(&target, runtime).await?);
        Ok(Self {
            target,
            runtime: runtime.clone(),
            patience,
            watched,
        })
    }

    fn watched(&self) -> Arc<Watched> {
        Arc::clone(&self.watched.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs work as a task of its own. When it misses its deadline the task goes on, unless the pool is given
    /// up with all its tasks.
    ///
    /// # Errors
    /// The work's own, or [`StoreError::Deadline`].
    pub(crate) async fn run<F, W, T, E>(self: &Arc<Self>, work: F) -> Result<T, E>
    where
        F: FnOnce(DatabaseConnection) -> W,
        W: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let watched = self.watched();
        let began = Instant::now();
        let mut task = watched.pool.spawn(work);
        match timeout(self.patience.deadline, task.finish()).await {
            Ok(result) => result,
            Err(_elapsed) => {
                let overdue = 1 + watched.overdue.fetch_add(1, Ordering::Relaxed);
                let pool = Arc::clone(self);
                self.runtime.spawn(async move {
                    // Whether it ends, and how, concerns nobody any more.
                    let ended = overdue < pool.patience.overdue
                        && timeout_at(began + LONGEST_OVERDUE, task.finish())
                            .await
                            .is_ok();
                    if ended {
                        watched.overdue.fetch_sub(1, Ordering::Relaxed);
                    } else {
                        pool.replace(&watched).await;
                    }
                });
                Err(StoreError::Deadline.into())
            }
        }
    }

    async fn replace(&self, late: &Arc<Watched>) {
        let fresh = match watched(&self.target, &self.runtime).await {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::error!(error = %ErrorChain(&error), "the connections can't be replaced");
                return;
            }
        };
        let mut held = self.watched.write().unwrap_or_else(PoisonError::into_inner);
        // Another task may have replaced it already.
        if Arc::ptr_eq(&held, late) {
            *held = fresh;
            late.pool.condemn();
            tracing::warn!("the connections to the database were replaced: it does not answer");
        }
    }

    /// Closes the pool, as far as that is possible within `deadline`.
    pub(crate) async fn close(&self, deadline: Duration) {
        self.watched().pool.close(deadline).await;
    }
}

async fn watched(target: &Target, runtime: &Handle) -> Result<Arc<Watched>, StoreError> {
    Ok(Arc::new(Watched {
        pool: Pool::open(target, target.max_connections, runtime).await?,
        overdue: AtomicU32::new(0),
    }))
}

/// Work that runs on a pool. Dropping it does not end the work.
#[derive(Debug)]
pub(super) struct Running<T, E = StoreError>(JoinHandle<Result<T, E>>);

impl<T, E: From<StoreError>> Running<T, E> {
    /// Waits for the work's end.
    ///
    /// # Errors
    /// The work's own, or [`StoreError::Lost`] when it panicked.
    pub(super) async fn finish(&mut self) -> Result<T, E> {
        (&mut self.0)
            .await
            .unwrap_or_else(|_panicked| Err(StoreError::Lost.into()))
    }
}

/// Refuses a database whose settings could lose acknowledged writes.
///
/// # Errors
/// [`UnsafeDatabase`] names the setting.
pub(crate) async fn refuse_unsafe(db: DatabaseConnection) -> Result<(), UnsafeDatabase> {
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
async fn refuse_old_sqlite(db: &DatabaseConnection) -> Result<(), UnsafeDatabase> {
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
