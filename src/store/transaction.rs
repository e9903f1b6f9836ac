//! A write transaction, on a connection of the pool that it was begun on.
//!
//! SeaORM's statements and entities run in it, and so do [`Rows`], whose values are bound from where they are:
//! on PostgreSQL straight into the message to the server, on SQLite with one copy, because its driver owns its
//! arguments. Dropped without a commit, it is rolled back.

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, FromQueryResult,
    QueryResult, RuntimeErr, Statement, Values,
    prelude::async_trait,
    sqlx::{self, AssertSqlSafe, Postgres, Sqlite},
};
use sea_query_sqlx::SqlxValues;
use tokio::sync::Mutex;

use super::{StoreError, dialect::Rows};

/// A transaction in which everything that was committed before a statement began is seen (READ COMMITTED),
/// and which, on SQLite, is the only one that writes (`BEGIN IMMEDIATE`).
#[derive(Debug)]
pub(crate) struct Transaction {
    backend: DbBackend,
    // A lock, because SeaORM's statements take a shared reference. No task ever waits for it.
    open: Mutex<Open>,
}

#[derive(Debug)]
enum Open {
    Postgres(sqlx::Transaction<'static, Postgres>),
    Sqlite(sqlx::Transaction<'static, Sqlite>),
}

impl Transaction {
    /// Begins a transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    ///
    /// # Cancel safety
    /// None: it must run to its end, or be dropped together with its pool.
    pub(crate) async fn begin(db: &DatabaseConnection) -> Result<Self, StoreError> {
        let backend = db.get_database_backend();
        let open = if backend == DbBackend::Postgres {
            Open::Postgres(db.get_postgres_connection_pool().begin().await?)
        } else {
            let pool = db.get_sqlite_connection_pool();
            Open::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?)
        };
        Ok(Self {
            backend,
            open: Mutex::new(open),
        })
    }

    /// Commits it.
    ///
    /// # Errors
    /// [`StoreError`]: then it is unknown whether it was committed.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        match self.open.into_inner() {
            Open::Postgres(transaction) => transaction.commit().await?,
            Open::Sqlite(transaction) => transaction.commit().await?,
        }
        Ok(())
    }

    /// Runs a statement over rows, and returns how many it wrote.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn write(&self, rows: Rows<'_>, sql: &str) -> Result<u64, StoreError> {
        let mut written = 0;
        match &mut *self.open.lock().await {
            Open::Postgres(transaction) => {
                if let Some((sql, arguments)) = rows.postgres(sql)? {
                    let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
                    written += query.execute(&mut **transaction).await?.rows_affected();
                }
            }
            Open::Sqlite(transaction) => {
                for (sql, arguments) in rows.sqlite(sql)? {
                    let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
                    written += query.execute(&mut **transaction).await?.rows_affected();
                }
            }
        }
        Ok(written)
    }

    /// Runs a query over rows, and returns what it finds.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn read<R: FromQueryResult>(
        &self,
        rows: Rows<'_>,
        sql: &str,
    ) -> Result<Vec<R>, StoreError> {
        let mut found: Vec<QueryResult> = Vec::new();
        match &mut *self.open.lock().await {
            Open::Postgres(transaction) => {
                if let Some((sql, arguments)) = rows.postgres(sql)? {
                    let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
                    let rows = query.fetch_all(&mut **transaction).await?;
                    found.extend(rows.into_iter().map(QueryResult::from));
                }
            }
            Open::Sqlite(transaction) => {
                for (sql, arguments) in rows.sqlite(sql)? {
                    let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
                    let rows = query.fetch_all(&mut **transaction).await?;
                    found.extend(rows.into_iter().map(QueryResult::from));
                }
            }
        }
        let found = found.iter().map(|row| R::from_query_result(row, ""));
        Ok(found.collect::<Result<_, DbErr>>()?)
    }
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

fn failed(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(error.into()))
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        failed(error).into()
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        self.backend
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        match &mut *self.open.lock().await {
            Open::Postgres(transaction) => {
                let result = query!(statement).execute(&mut **transaction).await;
                result.map(ExecResult::from).map_err(failed)
            }
            Open::Sqlite(transaction) => {
                let result = query!(statement).execute(&mut **transaction).await;
                result.map(ExecResult::from).map_err(failed)
            }
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.execute_raw(Statement::from_string(self.backend, sql))
            .await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        match &mut *self.open.lock().await {
            Open::Postgres(transaction) => {
                let row = query!(statement).fetch_optional(&mut **transaction).await;
                row.map(|row| row.map(QueryResult::from)).map_err(failed)
            }
            Open::Sqlite(transaction) => {
                let row = query!(statement).fetch_optional(&mut **transaction).await;
                row.map(|row| row.map(QueryResult::from)).map_err(failed)
            }
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match &mut *self.open.lock().await {
            Open::Postgres(transaction) => {
                let rows = query!(statement).fetch_all(&mut **transaction).await;
                rows.map(|rows| rows.into_iter().map(QueryResult::from).collect())
                    .map_err(failed)
            }
            Open::Sqlite(transaction) => {
                let rows = query!(statement).fetch_all(&mut **transaction).await;
                rows.map(|rows| rows.into_iter().map(QueryResult::from).collect())
                    .map_err(failed)
            }
        }
    }
}
