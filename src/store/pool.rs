//! Pools of connections, and how they are given up.
//!
//! A future that touches the database is never dropped alone (sqlx 0.9.0 then loses acknowledged writes):
//! all work runs in tasks of its own. What hangs is given up together with its whole pool: a condemned
//! pool drops its tasks and closes its connections hard.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sea_orm::{ConnAcquireErr, Database, DatabaseConnection, DbErr};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use super::{
    StoreError,
    connection::Target,
    error::ReadError,
    read_connection::{Idle, ReadConnection},
    transaction::Connection,
};
use crate::domain::ErrorChain;

/// On which runtime a pool's work runs, and its connections with it.
#[derive(Debug, Clone)]
pub(crate) enum Home {
    /// Always on this runtime.
    Runtime(Handle),
    /// On the caller's runtime, so that a read wakes no other thread. All callers must share one runtime.
    Caller,
}

impl Home {
    fn handle(&self) -> Handle {
        match self {
            Self::Runtime(handle) => handle.clone(),
            Self::Caller => Handle::current(),
        }
    }
}

/// A pool whose tasks and connections can be given up as one.
#[derive(Debug)]
pub(super) struct Pool {
    db: DatabaseConnection,
    condemned: watch::Sender<bool>,
    idle: Arc<Idle>,
    /// One for each connection that reads may have.
    permits: Arc<Semaphore>,
    patience: Duration,
    home: Home,
}

impl Pool {
    /// A pool of at most `connections`, which connects when it must.
    ///
    /// # Errors
    /// [`StoreError`] when the URL can't be used.
    pub(super) async fn open(
        target: &Target,
        connections: u32,
        home: &Home,
    ) -> Result<Self, StoreError> {
        let condemned = watch::Sender::new(false);
        let mut options = target.options(connections, &condemned);
        options.connect_lazy(true);
        let db = Database::connect(options).await?;
        Ok(Self {
            db,
            condemned,
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(connections as usize)),
            patience: target.timeout,
            home: home.clone(),
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
        self.start(work(self.db.clone()))
    }

    /// Runs a read as [`Pool::spawn`] runs work, on a connection that it has for itself. Where all are in use, it
    /// waits for one as long as a statement may run.
    pub(super) fn spawn_read<F, W, T, E>(&self, read: F) -> Running<T, E>
    where
        F: FnOnce(ReadConnection) -> W + Send + 'static,
        W: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (db, idle, permits) = (self.db.clone(), self.idle.clone(), self.permits.clone());
        let patience = self.patience;
        self.start(async move {
            let permit = timeout(patience, permits.acquire_owned()).await;
            // Nobody closes the semaphore.
            let Some(permit) = permit.ok().and_then(Result::ok) else {
                let late = DbErr::ConnectionAcquire(ConnAcquireErr::Timeout);
                return Err(StoreError::from(late).into());
            };
            let connection = match idle.take() {
                Some(connection) => connection,
                None => Connection::take(&db).await?,
            };
            read(ReadConnection::new(connection, idle, permit)).await
        })
    }

    fn start<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Running<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let mut condemned = self.condemned.subscribe();
        Running(self.home.handle().spawn(async move {
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
        self.idle.drop_all();
        self.idle.close();
    }

    /// Closes the pool in good order, as far as that is possible within `deadline`.
    pub(super) async fn close(&self, deadline: Duration) {
        self.idle.close();
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
    home: Home,
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
        home: Home,
        patience: Patience,
    ) -> Result<Self, StoreError> {
        let watched = RwLock::new(watched(&target, &home).await?);
        Ok(Self {
            target,
            home,
            patience,
            watched,
        })
    }

    fn watched(&self) -> Arc<Watched> {
        Arc::clone(&self.watched.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs a read as [`ReplaceablePool::run`] runs work. One that meets a broken connection is tried once more:
    /// whatever broke it may have broken all that are idle.
    ///
    /// # Errors
    /// As [`ReplaceablePool::run`].
    pub(crate) async fn read<F, W, T, E>(self: &Arc<Self>, read: F) -> Result<T, E>
    where
        F: FnOnce(ReadConnection) -> W + Clone + Send + 'static,
        W: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: ReadError,
    {
        let watched = self.watched();
        let again = read.clone();
        let first = self.wait(&watched, watched.pool.spawn_read(read)).await;
        if !first.as_ref().is_err_and(E::is_broken) {
            return first;
        }
        watched.pool.idle.drop_all();
        let watched = self.watched();
        self.wait(&watched, watched.pool.spawn_read(again)).await
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
        self.wait(&watched, watched.pool.spawn(work)).await
    }

    async fn wait<T, E>(
        self: &Arc<Self>,
        watched: &Arc<Watched>,
        mut task: Running<T, E>,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let began = Instant::now();
        if let Ok(result) = timeout(self.patience.deadline, task.finish()).await {
            return result;
        }
        let overdue = 1 + watched.overdue.fetch_add(1, Ordering::Relaxed);
        let (pool, watched) = (Arc::clone(self), Arc::clone(watched));
        self.home.handle().spawn(async move {
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

    async fn replace(&self, late: &Arc<Watched>) {
        let fresh = match watched(&self.target, &self.home).await {
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

async fn watched(target: &Target, home: &Home) -> Result<Arc<Watched>, StoreError> {
    Ok(Arc::new(Watched {
        pool: Pool::open(target, target.max_connections, home).await?,
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
