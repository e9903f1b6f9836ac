//! The one writing connection of the process.
//!
//! The task that runs a transaction owns it: whatever ends that task early takes the connection with it, and the
//! database rolls back what had been begun. So no later transaction can find anything of an earlier one.

use sea_orm::{DbBackend, QueryResult};

use super::{
    StoreError, commit,
    connection::Target,
    dialect::Script,
    pool::{Home, Pool},
    transaction::{Connection, Session, Transaction},
    wal::WRITERS_LIMIT,
};
use crate::domain::ErrorChain;

/// The few large statements of a batch are planned once for a connection: planning one takes longer than running
/// it. A plan that was made while the tables were empty must be good when they are large, so the rows that are
/// looked up are always the inner side of a nested loop.
const PLAN_ONCE: &str = "SET plan_cache_mode = force_generic_plan; SET enable_hashjoin = off; \
     SET enable_mergejoin = off; SET enable_material = off";

/// The writing connection, between two transactions.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) session: Session,
}

/// A transaction on it.
pub(super) struct Begun {
    pub(super) transaction: Transaction,
    pub(super) session: Session,
    /// The rows of each statement that was sent with BEGIN.
    pub(super) results: Vec<Vec<QueryResult>>,
}

impl Begun {
    /// Commits it.
    ///
    /// # Errors
    /// [`StoreError`]: then it is unknown whether it was committed.
    pub(super) async fn commit(self) -> Result<Writer, StoreError> {
        Ok(Writer {
            connection: self.transaction.commit_and_keep().await?,
            session: self.session,
        })
    }
}

/// Opens the connection.
#[derive(Debug, Clone)]
pub(super) struct Opener {
    target: Target,
}

impl Opener {
    pub(super) fn new(target: Target) -> Self {
        Self { target }
    }

    /// The database is SQLite's.
    pub(super) fn is_sqlite(&self) -> bool {
        self.target.sqlite_path.is_some()
    }

    /// Which database it is.
    pub(super) fn backend(&self) -> DbBackend {
        if self.is_sqlite() {
            DbBackend::Sqlite
        } else {
            DbBackend::Postgres
        }
    }

    /// A pool of one connection, for the committer's own runtime.
    ///
    /// # Errors
    /// [`StoreError`] when the URL can't be used.
    pub(super) async fn pool(&self) -> Result<Pool, StoreError> {
        Pool::open(&self.target, 1, &Home::Caller).await
    }

    async fn open(&self) -> Result<Writer, StoreError> {
        let mut connection = self.pool().await?.take().await?;
        let script = if self.is_sqlite() {
            WRITERS_LIMIT.to_owned()
        } else {
            format!("{PLAN_ONCE}; {}", commit::prepare())
        };
        connection.script(script.into()).await?;
        let session = connection.session().await?;
        Ok(Writer {
            connection,
            session,
        })
    }

    /// Begins a transaction, with these statements in the same message. A connection that was held, and turns out
    /// to be dead, is replaced: nothing had been sent on it.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was written.
    pub(super) async fn begin(
        &self,
        held: Option<Writer>,
        first: Script,
    ) -> Result<Begun, StoreError> {
        if let Some(writer) = held {
            match begin(writer, first.clone()).await {
                Err(StoreError::Unavailable(error)) => {
                    tracing::warn!(
                        error = %ErrorChain(&error),
                        "the writing connection was dead; a new one is opened"
                    );
                }
                begun => return begun,
            }
        }
        begin(self.open().await?, first).await
    }
}

async fn begin(writer: Writer, first: Script) -> Result<Begun, StoreError> {
    let Writer {
        connection,
        session,
    } = writer;
    let (transaction, results) = Transaction::begin_on(connection, first).await?;
    Ok(Begun {
        transaction,
        session,
        results,
    })
}
