//! A copy of a `SQLite` database, made while others write to it, and the proof that the copy is whole.
//!
//! `VACUUM INTO` reads one snapshot, so no commit is in the copy by half, and it holds up no writer. It copies no
//! page that is free: nothing that was deleted comes along.

use std::path::Path;

use migration::Migrator;
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, FromQueryResult,
};

use super::{
    StoreError,
    rows::{statement, unsigned},
    schema,
};
use crate::domain::{Cursor, Log};

/// Why there is no good copy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// Only a file can be copied.
    #[error(
        "the database is PostgreSQL, and `rekey backup` copies SQLite files: take a dump with pg_dump"
    )]
    Server,
    /// `SQLite` takes names in UTF-8.
    #[error("the file's name is not UTF-8")]
    Name,
    /// `SQLite` itself finds the copy damaged.
    #[error("the copy is damaged: {0}")]
    Damaged(String),
    /// The copy has another schema.
    #[error("the copy has other migrations than the database")]
    Schema,
    /// The copy ends elsewhere.
    #[error("the copy of the log `{}` does not end with an event of the database's log", .0.as_str())]
    Head(Log),
    /// One of both can't be read, or the copy can't be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where a log of a copy ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackupHead {
    /// The log.
    pub log: Log,
    /// Its last event; 0-0 in an empty log.
    pub cursor: Cursor,
    /// The hash of that event; empty in an empty log.
    pub hash: Vec<u8>,
}

#[derive(Debug, Default, PartialEq, Eq, FromQueryResult)]
struct EventRow {
    epoch: i64,
    position: i64,
    hash: Vec<u8>,
    body: Vec<u8>,
}

/// Copies a database into an empty file, and compares the two.
///
/// # Errors
/// [`BackupError`]: the file is then of no use.
pub(super) async fn write(
    db: &DatabaseConnection,
    file: &Path,
) -> Result<Vec<BackupHead>, BackupError> {
    if db.get_database_backend() != DbBackend::Sqlite {
        return Err(BackupError::Server);
    }
    let name = file.to_str().ok_or(BackupError::Name)?;
    let mut before = Vec::new();
    for log in Log::ALL {
        before.push((log, last(db, log).await?));
    }
    let sql = statement(db, "VACUUM INTO $1", [name.into()]);
    db.execute_raw(sql).await.map_err(StoreError::from)?;
    let copy = open(file).await?;
    let compared = compare(db, &copy, before).await;
    copy.close().await.map_err(StoreError::from)?;
    compared
}

/// Opens a finished copy, to be read alone. Not as a read-only file: `SQLite` then leaves the conditions of the
/// tables unchecked. It is in no journal mode that makes a file beside it for that.
async fn open(file: &Path) -> Result<DatabaseConnection, StoreError> {
    let mut options = ConnectOptions::new("sqlite::memory:");
    let file = file.to_owned();
    options
        .max_connections(1)
        .sqlx_logging(false)
        .map_sqlx_sqlite_opts(move |o| {
            o.filename(&file)
                .in_memory(false)
                .shared_cache(false)
                .create_if_missing(false)
        });
    Ok(Database::connect(options).await?)
}

/// Whether the copy is sound and ends where the database was meanwhile.
async fn compare(
    db: &DatabaseConnection,
    copy: &DatabaseConnection,
    before: Vec<(Log, EventRow)>,
) -> Result<Vec<BackupHead>, BackupError> {
    #[derive(FromQueryResult)]
    struct Finding {
        integrity_check: String,
    }
    let check = statement(copy, "PRAGMA integrity_check", []);
    let findings = Finding::find_by_statement(check).all(copy).await;
    for finding in findings.map_err(StoreError::from)? {
        if finding.integrity_check != "ok" {
            return Err(BackupError::Damaged(finding.integrity_check));
        }
    }
    if schema::migrations::<Migrator>(copy).await? != schema::migrations::<Migrator>(db).await? {
        return Err(BackupError::Schema);
    }
    let mut heads = Vec::new();
    for (log, earlier) in before {
        let end = last(copy, log).await?;
        if end.position < earlier.position || at(db, log, end.position).await? != end {
            return Err(BackupError::Head(log));
        }
        heads.push(BackupHead {
            log,
            cursor: Cursor {
                epoch: unsigned(end.epoch, "events")?,
                position: unsigned(end.position, "events")?,
            },
            hash: end.hash,
        });
    }
    Ok(heads)
}

/// A log's last event, or zeros.
async fn last(db: &DatabaseConnection, log: Log) -> Result<EventRow, StoreError> {
    let sql = "SELECT epoch, position, hash, body FROM events WHERE log = $1 \
               ORDER BY position DESC LIMIT 1";
    let found = EventRow::find_by_statement(statement(db, sql, [log.as_str().into()]));
    Ok(found.one(db).await?.unwrap_or_default())
}

/// A log's event at a position, or zeros.
async fn at(db: &DatabaseConnection, log: Log, position: i64) -> Result<EventRow, StoreError> {
    let sql = "SELECT epoch, position, hash, body FROM events WHERE log = $1 AND position = $2";
    let values = [log.as_str().into(), position.into()];
    let found = EventRow::find_by_statement(statement(db, sql, values));
    Ok(found.one(db).await?.unwrap_or_default())
}
