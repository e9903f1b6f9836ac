//! The one transaction: everything that the process writes to the log and to secrets goes through here.
//!
//! In comes a batch; out goes its [`Plan`], which is whole before COMMIT is sent. Each step is a statement
//! of its own, completed before the next: only a statement that begins after the lock is held sees all
//! that was committed before it (READ COMMITTED).

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, FromQueryResult,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};

use super::{
    StoreError,
    apply::{Limits, Plan, Present, apply},
    cursor::{self, CursorState, CursorStep},
    dialect::{Kind, Rows},
    log,
    retention::{self, Retention},
    rows::{SECRET_COLUMNS, SecretRow},
    write::write,
};
use crate::{
    domain::{Action, Change, KeyId, Log, Owner, Secret, SecretId, SecretName, Timestamp, Work},
    faults,
};

/// What one transaction holds.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) works: Vec<Work>,
    /// Steps of the relays' cursors, `changes` first.
    pub(super) cursors: Vec<CursorStep>,
    pub(super) retention: Option<Retention>,
    pub(super) limits: Limits,
    pub(super) now: Timestamp,
    pub(super) phase: Phase,
    /// Set before COMMIT is sent.
    pub(super) decided: OnceLock<Decided>,
}

/// All that a batch's answers need.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) plan: Plan,
    /// What came of each cursor step.
    pub(super) cursors: Vec<CursorState>,
    /// How many events went.
    pub(super) removed: u64,
    /// The key that the log's head names as the primary one.
    pub(super) primary: Option<KeyId>,
    /// The session that ran the transaction (PostgreSQL).
    pub(super) session: Session,
}

/// A session of PostgreSQL: process IDs come again, so the start is part of the name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Session {
    pid: i32,
    /// Seconds since 1970, as PostgreSQL prints them.
    backend_start: String,
}

/// The batch's gate: either COMMIT may have been sent, or it never will be.
#[derive(Debug, Default)]
pub(super) struct Phase(AtomicU8);

impl Phase {
    const RUNNING: u8 = 0;
    const SENT: u8 = 1;
    const CONDEMNED: u8 = 2;

    fn swap(&self, to: u8) -> bool {
        self.0
            .compare_exchange(Self::RUNNING, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// From now on COMMIT may have been sent; false when the batch was condemned before.
    fn send(&self) -> bool {
        self.swap(Self::SENT)
    }

    /// From now on COMMIT is never sent; false when it may have been sent already.
    pub(super) fn condemn(&self) -> bool {
        self.swap(Self::CONDEMNED)
    }
}

/// Begins a transaction that no other writer can overtake on SQLite.
///
/// # Errors
/// [`StoreError`].
pub async fn begin(db: &DatabaseConnection) -> Result<DatabaseTransaction, StoreError> {
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    Ok(db.begin_with_options(options).await?)
}

/// Runs the batch. After an error [`Phase::condemn`] says whether COMMIT may have been sent.
///
/// # Cancel safety
/// None: it runs as a task of its own.
pub(super) async fn commit(db: DatabaseConnection, batch: Arc<Batch>) -> Result<(), StoreError> {
    let transaction = begin(&db).await?;
    let (plan, primary, session) = if batch.works.is_empty() {
        <(Plan, Option<KeyId>, Session)>::default()
    } else {
        work(&transaction, &batch).await?
    };
    let mut cursors = Vec::with_capacity(batch.cursors.len());
    for step in &batch.cursors {
        cursors.push(cursor::run(&transaction, step).await?);
    }
    let removed = match &batch.retention {
        Some(retention) => retention::run(&transaction, retention).await?,
        None => 0,
    };
    let decided = Decided {
        plan,
        cursors,
        removed,
        primary,
        session,
    };
    if batch.decided.set(decided).is_err() || !batch.phase.send() {
        // Condemned: the watchdog has answered. Dropping the transaction rolls it back.
        return Err(StoreError::Deadline);
    }
    // Of batches that somebody waits for.
    let awaited = !batch.works.is_empty();
    if awaited {
        faults::point("before-commit").await;
    }
    transaction.commit().await?;
    if awaited {
        faults::point("after-commit").await;
    }
    Ok(())
}

async fn work(
    transaction: &DatabaseTransaction,
    batch: &Batch,
) -> Result<(Plan, Option<KeyId>, Session), StoreError> {
    let (primary, session) = lock(transaction).await?;
    let present = read(transaction, &batch.works).await?;
    let plan = apply(present, &batch.works, batch.limits, batch.now);
    faults::point("before-rows").await;
    write(transaction, &plan.writes).await?;
    faults::point("after-rows").await;
    Ok((plan, primary, session))
}

#[derive(Debug, FromQueryResult)]
struct LockRow {
    primary_kek_id: Option<String>,
    pid: i32,
    backend_start: String,
}

/// Step 1: locks the head of `changes`. Whoever writes secrets, versions, keys or the log holds it.
pub(super) async fn lock(
    transaction: &DatabaseTransaction,
) -> Result<(Option<KeyId>, Session), StoreError> {
    let backend = transaction.get_database_backend();
    let sql = if backend == DbBackend::Postgres {
        "SELECT h.primary_kek_id, a.pid, extract(epoch FROM a.backend_start)::text AS backend_start \
         FROM log_head h, pg_stat_get_activity(pg_backend_pid()) a \
         WHERE h.log = 'changes' FOR UPDATE OF h"
    } else {
        "SELECT primary_kek_id, 0 AS pid, '' AS backend_start FROM log_head WHERE log = 'changes'"
    };
    let row = LockRow::find_by_statement(Statement::from_string(backend, sql))
        .one(transaction)
        .await?
        .ok_or(StoreError::Corrupt("log_head"))?;
    let primary = row.primary_kek_id.as_deref().map(KeyId::parse).transpose();
    let session = Session {
        pid: row.pid,
        backend_start: row.backend_start,
    };
    Ok((primary.or(Err(StoreError::Corrupt("log_head")))?, session))
}

/// Locks the head of `activity`: whoever appends to it does, after that of `changes` if it takes both.
pub(super) async fn lock_activity(transaction: &DatabaseTransaction) -> Result<(), StoreError> {
    // SQLite's transaction is the only one that writes.
    if transaction.get_database_backend() == DbBackend::Postgres {
        let sql = "SELECT 1 FROM log_head WHERE log = 'activity' FOR UPDATE";
        let statement = Statement::from_string(DbBackend::Postgres, sql);
        transaction.query_one_raw(statement).await?;
    }
    Ok(())
}

/// Step 2: reads what the batch is about.
async fn read(transaction: &DatabaseTransaction, works: &[Work]) -> Result<Present, StoreError> {
    let activity = if works.iter().any(|work| matches!(work, Work::Accesses(_))) {
        lock_activity(transaction).await?;
        Some(log::head(transaction, Log::Activity).await?)
    } else {
        None
    };
    let changes: Vec<&Change> = works
        .iter()
        .filter_map(|work| match work {
            Work::Command(command) => Some(command.changes.iter()),
            Work::Accesses(_) => None,
        })
        .flatten()
        .collect();
    Ok(Present {
        changes: log::head(transaction, Log::Changes).await?,
        activity,
        active_keys: active_keys(transaction).await?,
        secrets: secrets(transaction, &changes).await?,
        names: names(transaction, &changes).await?,
        counts: counts(transaction, &changes).await?,
    })
}

#[derive(Debug, FromQueryResult)]
struct KeyRow {
    id: String,
}

async fn active_keys(transaction: &DatabaseTransaction) -> Result<HashSet<KeyId>, StoreError> {
    let sql = "SELECT id FROM keys WHERE state = 'active'";
    let statement = Statement::from_string(transaction.get_database_backend(), sql);
    let rows = KeyRow::find_by_statement(statement)
        .all(transaction)
        .await?;
    rows.into_iter()
        .map(|row| KeyId::parse(&row.id).or(Err(StoreError::Corrupt("keys"))))
        .collect()
}

async fn all<R: FromQueryResult>(
    transaction: &DatabaseTransaction,
    rows: Rows,
    sql: &str,
) -> Result<Vec<R>, StoreError> {
    let mut found = Vec::new();
    for statement in rows.statements(transaction.get_database_backend(), sql) {
        found.extend(R::find_by_statement(statement).all(transaction).await?);
    }
    Ok(found)
}

/// The secrets that are updated or deleted, if they are their caller's.
async fn secrets(
    transaction: &DatabaseTransaction,
    changes: &[&Change],
) -> Result<HashMap<SecretId, Secret>, StoreError> {
    let wanted: BTreeSet<_> = changes
        .iter()
        .filter(|change| !matches!(change.action, Action::Create { .. }))
        .map(|change| (change.secret_id, &change.owner))
        .collect();
    let mut rows = Rows::new(&[("id", Kind::Uuid), ("owner", Kind::Text)]);
    for (id, owner) in wanted {
        rows.push([id.get().into(), owner.as_str().into()]);
    }
    let sql = format!(
        "SELECT {SECRET_COLUMNS} FROM {{rows}} \
         JOIN secrets s ON s.id = r.id AND s.owner = r.owner \
         JOIN secret_versions v ON v.secret_id = s.id AND v.version = s.version"
    );
    let found: Vec<SecretRow> = all(transaction, rows, &sql).await?;
    found
        .into_iter()
        .map(|row| Secret::try_from(row).map(|secret| (secret.id, secret)))
        .collect()
}

#[derive(Debug, FromQueryResult)]
struct NameRow {
    owner: String,
    name: String,
}

/// Which of the names that are to be created are taken.
async fn names(
    transaction: &DatabaseTransaction,
    changes: &[&Change],
) -> Result<HashSet<(Owner, SecretName)>, StoreError> {
    let mut rows = Rows::new(&[("owner", Kind::Text), ("name", Kind::Text)]);
    let wanted: BTreeSet<_> = created(changes).collect();
    for (owner, name) in wanted {
        rows.push([owner.as_str().into(), name.as_str().into()]);
    }
    let sql = "SELECT s.owner, s.name FROM {rows} JOIN secrets s ON s.owner = r.owner AND s.name = r.name";
    let found: Vec<NameRow> = all(transaction, rows, sql).await?;
    found
        .into_iter()
        .map(
            |row| match (Owner::parse(&row.owner), SecretName::parse(&row.name)) {
                (Ok(owner), Ok(name)) => Ok((owner, name)),
                _ => Err(StoreError::Corrupt("secrets")),
            },
        )
        .collect()
}

#[derive(Debug, FromQueryResult)]
struct CountRow {
    owner: String,
    secrets: i64,
}

/// How many secrets the owners have for whom one is to be created.
async fn counts(
    transaction: &DatabaseTransaction,
    changes: &[&Change],
) -> Result<HashMap<Owner, u64>, StoreError> {
    let mut rows = Rows::new(&[("owner", Kind::Text)]);
    let wanted: BTreeSet<_> = created(changes).map(|(owner, _)| owner).collect();
    for owner in wanted {
        rows.push([owner.as_str().into()]);
    }
    let sql = "SELECT r.owner, count(*) AS secrets FROM {rows} \
               JOIN secrets s ON s.owner = r.owner GROUP BY r.owner";
    let found: Vec<CountRow> = all(transaction, rows, sql).await?;
    found
        .into_iter()
        .map(
            |row| match (Owner::parse(&row.owner), u64::try_from(row.secrets)) {
                (Ok(owner), Ok(count)) => Ok((owner, count)),
                _ => Err(StoreError::Corrupt("secrets")),
            },
        )
        .collect()
}

fn created<'a>(changes: &[&'a Change]) -> impl Iterator<Item = (&'a Owner, &'a SecretName)> {
    changes.iter().filter_map(|change| match &change.action {
        Action::Create { name, .. } => Some((&change.owner, name)),
        Action::Update { .. } | Action::Delete { .. } => None,
    })
}

/// After trouble with COMMIT: whether the log holds the batch's first event at its position.
///
/// The lock waits for the end of the transaction in question, and the COMMIT of this one waits for a
/// synchronous standby.
pub(super) async fn look_up(db: DatabaseConnection, batch: Arc<Batch>) -> Result<bool, StoreError> {
    let Some((decided, first)) = batch
        .decided
        .get()
        .and_then(|decided| Some((decided, decided.plan.writes.events.first()?)))
    else {
        return Ok(false);
    };
    if db.get_database_backend() == DbBackend::Postgres {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE pid = $1 AND extract(epoch FROM backend_start)::text = $2";
        let session = &decided.session;
        let values = [session.pid.into(), session.backend_start.as_str().into()];
        db.query_one_raw(Statement::from_sql_and_values(
            DbBackend::Postgres,
            sql,
            values,
        ))
        .await?;
    }
    let transaction = begin(&db).await?;
    lock(&transaction).await?;
    let first = &first.event;
    let found = log::id_at(&transaction, first.log(), first.position()).await?;
    transaction.commit().await?;
    Ok(found == Some(first.id()))
}
