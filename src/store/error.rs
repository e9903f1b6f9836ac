//! What can go wrong with the database, sorted by what the caller is told.

use sea_orm::{
    ConnAcquireErr, DbErr, RuntimeErr,
    sqlx::{self, error::DatabaseError},
};

use crate::domain::{Log, SecretId};

/// A failed read or write. Display is fixed text; the cause hangs below it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The database can't be reached, refuses, or broke off.
    #[error("the database refused or broke")]
    Unavailable(#[source] DbErr),
    /// The database answered that it waited too long.
    #[error("the database ran into a timeout")]
    TimedOut(#[source] DbErr),
    /// The database did not answer within our own deadline.
    #[error("the database did not answer within the deadline")]
    Deadline,
    /// The database refused a statement for what it says: a bug, or a race of an unknown kind.
    #[error("the database refused a statement")]
    Statement(#[source] DbErr),
    /// A row holds something that rekey never wrote.
    #[error("a row of {0} holds what it should not")]
    Corrupt(&'static str),
    /// A write wrote other rows than it names. (Somebody else changes the tables, or it is a bug.)
    #[error("a statement did not write the rows that it names")]
    RowCount,
    /// A secret's row is not as the last event of the secret in the log says.
    #[error("the row of secret {0} is not as the log says")]
    Disagrees(SecretId),
    /// A column of an event is not what the event itself says.
    #[error("event {1} of the log `{log}` was altered: a column is not what the event says", log = .0.as_str())]
    Altered(Log, u64),
    /// A log does not hold the last event that this process saw in it.
    #[error("the log `{}` does not hold the last event that was seen in it", .0.as_str())]
    LogBroken(Log),
    /// A task ended without an answer: it panicked, or the service is stopping.
    #[error("a database task ended without an answer")]
    Lost,
}

/// An error of a read, which tells whether its connection broke.
pub(crate) trait ReadError: From<StoreError> + Send + 'static {
    /// The connection broke, or there was none.
    fn is_broken(&self) -> bool;
}

impl ReadError for StoreError {
    fn is_broken(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        let sort = if let DbErr::Conn(cause) | DbErr::Exec(cause) | DbErr::Query(cause) = &error {
            sort(cause)
        } else if matches!(&error, DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)) {
            Sort::TimedOut
        } else if matches!(&error, DbErr::ConnectionAcquire(_)) {
            Sort::Unavailable
        } else {
            // What SeaORM itself finds wrong with a statement or a row.
            Sort::Statement
        };
        match sort {
            Sort::Unavailable => Self::Unavailable(error),
            Sort::TimedOut => Self::TimedOut(error),
            Sort::Statement => Self::Statement(error),
        }
    }
}

enum Sort {
    Unavailable,
    TimedOut,
    Statement,
}

fn sort(cause: &RuntimeErr) -> Sort {
    let RuntimeErr::SqlxError(error) = cause else {
        return Sort::Statement;
    };
    // sqlx's enum is open for additions: what is new there is a refused statement until someone decides.
    if let sqlx::Error::Database(error) = &**error {
        return sort_code(&**error);
    }
    if matches!(**error, sqlx::Error::PoolTimedOut) {
        return Sort::TimedOut;
    }
    let broken = matches!(
        **error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed
    );
    if broken {
        Sort::Unavailable
    } else {
        Sort::Statement
    }
}

/// PostgreSQL's codes have five characters (its manual, appendix A), SQLite's are numbers whose low
/// byte is the primary code (sqlite.org/rescode.html).
fn sort_code(error: &dyn DatabaseError) -> Sort {
    // Both databases give every error a code; one without is refused like one with an unknown code.
    let code = error.code().unwrap_or_default();
    // A number that is not SQLite's is PostgreSQL's.
    if let Ok(code) = code.parse::<u32>()
        && code < 10_000
    {
        return match code & 0xff {
            5 | 6 => Sort::TimedOut,
            3 | 7 | 8 | 10 | 11 | 13 | 14 | 23 | 26 => Sort::Unavailable,
            _ => Sort::Statement,
        };
    }
    match &*code {
        "57014" | "55P03" | "25P03" | "25P04" => Sort::TimedOut,
        "25006" => Sort::Unavailable,
        code if ["08", "40", "53", "57", "58"]
            .iter()
            .any(|class| code.starts_with(class)) =>
        {
            Sort::Unavailable
        }
        _ => Sort::Statement,
    }
}
