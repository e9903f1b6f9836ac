//! A connection with one owner, and the write transaction that runs on it.
//!
//! SeaORM's statements and entities run in it, and so do [`Bulk`] statements, whose values are bound from where
//! they are: on PostgreSQL straight into the message to the server, on SQLite with one copy, because its driver
//! owns its arguments.

use futures_util::TryStreamExt as _;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, FromQueryResult,
    QueryResult, RuntimeErr, Statement, Values,
    prelude::async_trait,
    sqlx::{
        self, AssertSqlSafe, Connection as _, Either, Executor as _, Postgres, Sqlite,
        pool::PoolConnection,
    },
};
use sea_query_sqlx::SqlxValues;
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use super::{
    StoreError,
    dialect::{Bulk, Script, postgres_union, postgres_writes, sqlite_script},
};

/// A session of PostgreSQL. Process IDs are used again, so the start is part of the name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) pid: i32,
    /// Seconds since 1970, as PostgreSQL prints them.
    pub(super) backend_start: String,
}

/// Runs the same on a connection of either database.
macro_rules! on {
    ($connection:expr, $inner:ident => $run:expr) => {
        match $connection {
            Connection::Postgres(connection) => {
                let $inner = &mut **connection;
                $run
            }
            Connection::Sqlite(connection) => {
                let $inner = &mut **connection;
                $run
            }
        }
    };
}

/// A statement of SeaORM's as sqlx runs it.
macro_rules! query {
    ($statement:expr) => {{
        let Statement { sql, values, .. } = $statement;
        // A statement without values has none to bind.
        let values = values.unwrap_or_else(|| Values(Vec::new()));
        sqlx::query_with(AssertSqlSafe(sql), SqlxValues(values))
    }};
}

/// A connection of a pool. Dropped, it goes back there.
#[derive(Debug)]
pub(super) enum Connection {
    Postgres(PoolConnection<Postgres>),
    Sqlite(PoolConnection<Sqlite>),
}

impl Connection {
    /// Takes a connection out of its pool.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn take(db: &DatabaseConnection) -> Result<Self, StoreError> {
        Ok(if db.get_database_backend() == DbBackend::Postgres {
            Self::Postgres(db.get_postgres_connection_pool().acquire().await?)
        } else {
            Self::Sqlite(db.get_sqlite_connection_pool().acquire().await?)
        })
    }

    /// Closes it at once, without a word to the server, which then rolls back what was begun on it.
    pub(super) fn close_hard(self) {
        match self {
            Self::Postgres(connection) => drop(connection.detach()),
            Self::Sqlite(connection) => drop(connection.detach()),
        }
    }

    /// Closes it in good order.
    pub(super) async fn close(self) {
        // Whatever goes wrong, the connection is gone.
        let _ = match self {
            Self::Postgres(connection) => connection.detach().close().await,
            Self::Sqlite(connection) => connection.detach().close().await,
        };
    }

    /// Its session on PostgreSQL; an empty one on SQLite.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn session(&mut self) -> Result<Session, StoreError> {
        let Self::Postgres(connection) = self else {
            return Ok(Session::default());
        };
        let sql = "SELECT pid, extract(epoch FROM backend_start)::text \
                   FROM pg_stat_get_activity(pg_backend_pid())";
        let (pid, backend_start) = sqlx::query_as(sql).fetch_one(&mut **connection).await?;
        Ok(Session { pid, backend_start })
    }

    /// Runs statements that are sent as one message, and returns the rows of each. On PostgreSQL the text must
    /// hold no value but UUIDs and numbers of ours.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn script(
        &mut self,
        script: Script,
    ) -> Result<Vec<Vec<QueryResult>>, StoreError> {
        let (mut results, mut rows) = (Vec::new(), Vec::new());
        let Script { sql, arguments } = script;
        let sql = AssertSqlSafe(sql);
        macro_rules! collect {
            ($answers:expr) => {{
                let mut answers = $answers;
                while let Some(answer) = answers.try_next().await? {
                    match answer {
                        Either::Left(_done) => results.push(std::mem::take(&mut rows)),
                        Either::Right(row) => rows.push(QueryResult::from(row)),
                    }
                }
            }};
        }
        match (self, arguments) {
            (Self::Sqlite(connection), Some(arguments)) => {
                collect!(connection.fetch_many(sqlx::query_with(sql, arguments)));
            }
            (Self::Sqlite(connection), None) => collect!(connection.fetch_many(sqlx::raw_sql(sql))),
            (Self::Postgres(connection), _) => collect!(connection.fetch_many(sqlx::raw_sql(sql))),
        }
        Ok(results)
    }
}

/// A transaction in which everything that was committed before a statement began is seen (READ COMMITTED),
/// and which, on SQLite, is the only one that writes (`BEGIN IMMEDIATE`). Dropped without a commit, it takes its
/// connection with it.
#[derive(Debug)]
pub(crate) struct Transaction {
    backend: DbBackend,
    // A lock, because SeaORM's statements take a shared reference. No task ever waits for it.
    connection: Mutex<Option<Connection>>,
}

impl Transaction {
    /// Begins a transaction on a connection of a pool.
    ///
    /// # Errors
    /// [`StoreError`].
    ///
    /// # Cancel safety
    /// Dropped, it takes the connection with it. That holds for all that is done in the transaction.
    pub(crate) async fn begin(db: &DatabaseConnection) -> Result<Self, StoreError> {
        let connection = Connection::take(db).await?;
        Ok(Self::begin_on(connection, Script::default()).await?.0)
    }

    /// Begins a transaction on this connection and runs `first` in it, in one message. Returns the rows of each
    /// statement of `first`.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was written, and the connection is closed.
    pub(super) async fn begin_on(
        connection: Connection,
        mut first: Script,
    ) -> Result<(Self, Vec<Vec<QueryResult>>), StoreError> {
        let backend = connection.backend();
        let transaction = Self {
            backend,
            connection: Mutex::new(Some(connection)),
        };
        let begin = if backend == DbBackend::Postgres {
            "BEGIN; "
        } else {
            "BEGIN IMMEDIATE; "
        };
        first.sql.insert_str(0, begin);
        let results = transaction.connection().await.script(first).await?;
        // The first is that of BEGIN itself.
        Ok((transaction, results.into_iter().skip(1).collect()))
    }

    async fn connection(&self) -> MappedMutexGuard<'_, Connection> {
        #[expect(
            clippy::expect_used,
            reason = "only commit and drop take it, and both end the transaction"
        )]
        MutexGuard::map(self.connection.lock().await, |connection| {
            connection.as_mut().expect("a connection")
        })
    }

    /// Runs statements as [`Connection::script`] does.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn script(&self, script: Script) -> Result<Vec<Vec<QueryResult>>, StoreError> {
        self.connection().await.script(script).await
    }

    /// Commits it, and returns its connection.
    ///
    /// # Errors
    /// [`StoreError`]: then it is unknown whether it was committed.
    pub(super) async fn commit_and_keep(mut self) -> Result<Connection, StoreError> {
        self.connection()
            .await
            .script("COMMIT".to_owned().into())
            .await?;
        #[expect(clippy::expect_used, reason = "as in `connection`")]
        Ok(self.connection.get_mut().take().expect("a connection"))
    }

    /// Commits it.
    ///
    /// # Errors
    /// [`StoreError`]: then it is unknown whether it was committed.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        self.commit_and_keep().await.map(drop)
    }

    /// Runs writes over rows in their order, in one message.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::RowCount`] when one did not write the rows that it names.
    pub(super) async fn write(&self, mut writes: Vec<Bulk<'_>>) -> Result<(), StoreError> {
        writes.retain(|write| !write.is_empty());
        if writes.is_empty() {
            return Ok(());
        }
        let named: Vec<_> = writes.iter().map(|write| write.named).collect();
        let mut written = Vec::with_capacity(named.len());
        match &mut *self.connection().await {
            Connection::Postgres(connection) => {
                let (sql, arguments) = postgres_writes(writes)?;
                let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
                let row = QueryResult::from(query.fetch_one(&mut **connection).await?);
                for index in 0..named.len() {
                    let count: i64 = row.try_get_by_index(index)?;
                    written.push(count.unsigned_abs());
                }
            }
            Connection::Sqlite(connection) => {
                let (Script { sql, arguments }, statements) = sqlite_script(writes)?;
                let query = sqlx::query_with(AssertSqlSafe(sql), arguments.unwrap_or_default());
                let mut done = connection.fetch_many(query);
                for statements in statements {
                    let mut count = 0;
                    for _ in 0..statements {
                        // A write without RETURNING has no rows.
                        let Some(Either::Left(done)) = done.try_next().await? else {
                            return Err(StoreError::RowCount);
                        };
                        count += done.rows_affected();
                    }
                    written.push(count);
                }
            }
        }
        let wrong = |(named, written): (Option<u64>, u64)| named.is_some_and(|n| n != written);
        if named.into_iter().zip(written).any(wrong) {
            return Err(StoreError::RowCount);
        }
        Ok(())
    }

    /// Runs queries over rows in one message, and returns what they find together. They have the same columns.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn read<R: FromQueryResult>(
        &self,
        mut queries: Vec<Bulk<'_>>,
    ) -> Result<Vec<R>, StoreError> {
        queries.retain(|query| !query.is_empty());
        let mut found: Vec<QueryResult> = Vec::new();
        if queries.is_empty() {
            return Ok(Vec::new());
        }
        match &mut *self.connection().await {
            Connection::Postgres(connection) => {
                let (sql, arguments) = postgres_union(queries)?;
                let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
                let rows = query.fetch_all(&mut **connection).await?;
                found.extend(rows.into_iter().map(QueryResult::from));
            }
            sqlite @ Connection::Sqlite(_) => {
                let results = sqlite.script(sqlite_script(queries)?.0).await?;
                found.extend(results.into_iter().flatten());
            }
        }
        let found = found.iter().map(|row| R::from_query_result(row, ""));
        Ok(found.collect::<Result<_, DbErr>>()?)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.get_mut().take() {
            connection.close_hard();
        }
    }
}

fn failed(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(error.into()))
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        failed(error).into()
    }
}

/// SeaORM's statements.
impl Connection {
    /// Which database it is.
    pub(super) fn backend(&self) -> DbBackend {
        match self {
            Self::Postgres(_) => DbBackend::Postgres,
            Self::Sqlite(_) => DbBackend::Sqlite,
        }
    }

    async fn execute(&mut self, statement: Statement) -> Result<ExecResult, DbErr> {
        on!(self, connection => {
            let result = query!(statement).execute(connection).await;
            result.map(ExecResult::from).map_err(failed)
        })
    }

    /// The first row that it finds.
    pub(super) async fn query_one(
        &mut self,
        statement: Statement,
    ) -> Result<Option<QueryResult>, DbErr> {
        on!(self, connection => {
            let row = query!(statement).fetch_optional(connection).await;
            row.map(|row| row.map(QueryResult::from)).map_err(failed)
        })
    }

    /// All rows that it finds.
    pub(super) async fn query_all(
        &mut self,
        statement: Statement,
    ) -> Result<Vec<QueryResult>, DbErr> {
        on!(self, connection => {
            let rows = query!(statement).fetch_all(connection).await;
            rows.map(|rows| rows.into_iter().map(QueryResult::from).collect())
                .map_err(failed)
        })
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        self.backend
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.connection().await.execute(statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.execute_raw(Statement::from_string(self.backend, sql))
            .await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.connection().await.query_one(statement).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.connection().await.query_all(statement).await
    }
}
