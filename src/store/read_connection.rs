//! Connections that reads borrow, one after the other.
//!
//! sqlx asks a connection that comes back to its pool whether it is still there: one more round trip for each
//! read. So the pool's connections stay here, and a broken one is found by the read that meets it.

use std::sync::{
    Arc, Mutex as StdMutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use sea_orm::{
    ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement,
    prelude::async_trait,
};
use tokio::sync::{Mutex, OwnedSemaphorePermit};

use super::transaction::Connection;

/// The connections that no read uses.
#[derive(Debug, Default)]
pub(super) struct Idle {
    connections: StdMutex<Vec<Connection>>,
    /// No connection comes back any more.
    closed: AtomicBool,
}

impl Idle {
    /// One of them.
    pub(super) fn take(&self) -> Option<Connection> {
        self.lock().pop()
    }

    /// Closes them all hard.
    pub(super) fn drop_all(&self) {
        let dropped = std::mem::take(&mut *self.lock());
        for connection in dropped {
            connection.close_hard();
        }
    }

    /// Gives all back to their pool, now and from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.lock().clear();
    }

    fn put(&self, connection: Connection) {
        let mut connections = self.lock();
        // Under the lock: what is put here after it was closed would never leave.
        if !self.closed.load(Ordering::Acquire) {
            connections.push(connection);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.drop_all();
    }
}

/// A connection that a read has for itself. Dropped in the middle of a statement, or after one that failed, it is
/// closed hard.
#[derive(Debug)]
pub(crate) struct ReadConnection {
    backend: DbBackend,
    // A lock, because SeaORM's statements take a shared reference. No task ever waits for it.
    connection: Mutex<Option<Connection>>,
    is_clean: AtomicBool,
    home: Arc<Idle>,
    _permit: OwnedSemaphorePermit,
}

impl ReadConnection {
    pub(super) fn new(
        connection: Connection,
        home: Arc<Idle>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            backend: connection.backend(),
            connection: Mutex::new(Some(connection)),
            is_clean: AtomicBool::new(true),
            home,
            _permit: permit,
        }
    }

    async fn run<T>(
        &self,
        statement: impl AsyncFnOnce(&mut Connection) -> Result<T, DbErr>,
    ) -> Result<T, DbErr> {
        let mut connection = self.connection.lock().await;
        #[expect(clippy::expect_used, reason = "only drop takes it")]
        let connection = connection.as_mut().expect("a connection");
        self.is_clean.store(false, Ordering::Relaxed);
        let result = statement(connection).await?;
        self.is_clean.store(true, Ordering::Relaxed);
        Ok(result)
    }
}

impl Drop for ReadConnection {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.get_mut().take() {
            if *self.is_clean.get_mut() {
                self.home.put(connection);
            } else {
                connection.close_hard();
            }
        }
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for ReadConnection {
    fn get_database_backend(&self) -> DbBackend {
        self.backend
    }

    async fn execute_raw(&self, _: Statement) -> Result<ExecResult, DbErr> {
        Err(not_a_read())
    }

    async fn execute_unprepared(&self, _: &str) -> Result<ExecResult, DbErr> {
        Err(not_a_read())
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.run(async |connection: &mut Connection| connection.query_one(statement).await)
            .await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.run(async |connection: &mut Connection| connection.query_all(statement).await)
            .await
    }
}

/// Writes go through the committer.
fn not_a_read() -> DbErr {
    DbErr::Exec(RuntimeErr::Internal("a read can't write".to_owned()))
}
