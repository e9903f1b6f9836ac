//! The one transaction: everything that the process writes to the log and to secrets goes through here.
//!
//! In comes a batch; out goes its [`Plan`], which is whole before COMMIT is sent. Each step is a statement
//! of its own, completed before the next: only a statement that begins after the lock is held sees all
//! that was committed before it (READ COMMITTED).

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, FromQueryResult, Statement};

use super::{
    StoreError,
    apply::{Limits, Plan, Present, apply},
    chain::LogEntry,
    cursor::{self, CursorState, CursorStep},
    dialect::Rows,
    gate::Gate,
    log,
    retention::{self, Retention},
    rows::{SECRET_COLUMNS, SecretRow, corrupt, statement},
    transaction::Transaction,
    write::write,
};
use crate::{
    domain::{
        Action, Change, EventId, KeyId, Log, Outcome, Owner, PlacedEvent, Refused, Secret,
        SecretId, SecretName, Timestamp, Work,
    },
    faults,
};

/// What one transaction holds.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) works: Arc<[Work]>,
    /// The index of the only one that is committed; all are where it is none.
    pub(super) only: Option<usize>,
    /// Steps of the relays' cursors, `changes` first.
    pub(super) cursors: Vec<CursorStep>,
    pub(super) retention: Option<Retention>,
    pub(super) limits: Limits,
    pub(super) now: Timestamp,
    /// Either COMMIT may have been sent, or it never will be.
    pub(super) gate: Gate,
    /// Set before COMMIT is sent.
    pub(super) decided: Mutex<Option<Decided>>,
}

impl Batch {
    /// The work that is committed.
    pub(super) fn works(&self) -> &[Work] {
        match self.only {
            None => &self.works,
            // The index is one of a caller of this batch.
            Some(index) => self.works.get(index..=index).unwrap_or_default(),
        }
    }

    /// A batch of one piece of this batch's work alone.
    pub(super) fn alone(&self, index: usize) -> Self {
        Self {
            works: Arc::clone(&self.works),
            only: Some(index),
            cursors: Vec::new(),
            retention: None,
            limits: self.limits,
            now: self.now,
            gate: Gate::default(),
            decided: Mutex::default(),
        }
    }

    /// The first event that the batch appends, once that is decided.
    pub(super) fn first_event(&self) -> Option<FirstEvent> {
        let decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        let decided = decided.as_ref()?;
        let PlacedEvent {
            event, position, ..
        } = &decided.events.first()?.placed;
        Some(FirstEvent {
            id: event.id(),
            log: event.log(),
            position: *position,
            session: decided.session.clone(),
        })
    }

    /// Takes what was decided out of a batch that was committed.
    pub(super) fn take_decided(&self) -> Decided {
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        #[expect(
            clippy::expect_used,
            reason = "it is set before COMMIT is sent, and taken once"
        )]
        decided.take().expect("a committed batch was decided")
    }
}

/// All that a batch's answers need.
#[derive(Debug)]
pub(super) struct Decided {
    /// What came of each piece of work, in order.
    pub(super) outcomes: Vec<Result<Outcome, Refused>>,
    /// The events that were appended.
    pub(super) events: Vec<LogEntry>,
    /// What came of each cursor step.
    pub(super) cursors: Vec<CursorState>,
    /// How many events were removed.
    pub(super) removed: u64,
    /// The key that the log's head names as the primary one.
    pub(super) primary: Option<KeyId>,
    /// The session that ran the transaction (PostgreSQL).
    session: Session,
}

/// By what a transaction can be found in the log, and its session on the server.
#[derive(Debug, Clone)]
pub(super) struct FirstEvent {
    id: EventId,
    log: Log,
    position: u64,
    session: Session,
}

/// A session of PostgreSQL. Process IDs are used again, so the start is part of the name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Session {
    pid: i32,
    /// Seconds since 1970, as PostgreSQL prints them.
    backend_start: String,
}

/// Runs the batch. After an error the batch's gate says whether COMMIT may have been sent.
///
/// # Cancel safety
/// None: it runs as a task of its own.
pub(super) async fn commit(db: DatabaseConnection, batch: Arc<Batch>) -> Result<(), StoreError> {
    let transaction = Transaction::begin(&db).await?;
    let mut decided = if batch.works().is_empty() {
        Decided {
            outcomes: Vec::new(),
            events: Vec::new(),
            cursors: Vec::new(),
            removed: 0,
            primary: None,
            session: Session::default(),
        }
    } else {
        work(&transaction, &batch).await?
    };
    for step in &batch.cursors {
        decided.cursors.push(cursor::run(&transaction, step).await?);
    }
    if let Some(retention) = &batch.retention {
        decided.removed = retention::run(&transaction, retention).await?;
    }
    *batch.decided.lock().unwrap_or_else(PoisonError::into_inner) = Some(decided);
    if !batch.gate.pass() {
        // The watchdog has answered. Dropping the transaction rolls it back.
        return Err(StoreError::Deadline);
    }
    // Only for batches that a caller waits for.
    let awaited = !batch.works().is_empty();
    if awaited {
        faults::point("before-commit").await;
    }
    transaction.commit().await?;
    if awaited {
        faults::point("after-commit").await;
    }
    Ok(())
}

async fn work(transaction: &Transaction, batch: &Batch) -> Result<Decided, StoreError> {
    let Locked { primary, session } = lock(transaction).await?;
    let present = read(transaction, batch.works()).await?;
    let Plan { outcomes, writes } = apply(present, batch.works(), batch.limits, batch.now);
    faults::point("before-rows").await;
    write(transaction, &writes).await?;
    faults::point("after-rows").await;
    Ok(Decided {
        outcomes,
        events: writes.events,
        cursors: Vec::with_capacity(batch.cursors.len()),
        removed: 0,
        primary,
        session,
    })
}

#[derive(Debug, FromQueryResult)]
struct LockRow {
    primary_kek_id: Option<String>,
    pid: i32,
    backend_start: String,
}

/// What the statement that takes the lock reads.
pub(super) struct Locked {
    primary: Option<KeyId>,
    session: Session,
}

/// Step 1: locks the head of `changes`. Every writer of secrets, versions, keys or that log holds it.
pub(super) async fn lock(transaction: &Transaction) -> Result<Locked, StoreError> {
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
    Ok(Locked {
        primary: primary.map_err(corrupt("log_head"))?,
        session: Session {
            pid: row.pid,
            backend_start: row.backend_start,
        },
    })
}

/// Locks the head of `activity`. Every writer that appends to it does so, after the head of `changes` where it
/// takes both.
pub(super) async fn lock_activity(transaction: &Transaction) -> Result<(), StoreError> {
    // SQLite's transaction is the only one that writes.
    if transaction.get_database_backend() == DbBackend::Postgres {
        let sql = "SELECT 1 FROM log_head WHERE log = 'activity' FOR UPDATE";
        let statement = Statement::from_string(DbBackend::Postgres, sql);
        transaction.query_one_raw(statement).await?;
    }
    Ok(())
}

/// Step 2: reads what the batch is about.
async fn read(transaction: &Transaction, works: &[Work]) -> Result<Present, StoreError> {
    let activity = if works.iter().any(|work| matches!(work, Work::Accesses(_))) {
        lock_activity(transaction).await?;
        Some(log::head(transaction, Log::Activity).await?)
    } else {
        None
    };
    let changes: Vec<&Change> = works.iter().flat_map(Work::changes).collect();
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

async fn active_keys(transaction: &Transaction) -> Result<HashSet<KeyId>, StoreError> {
    let sql = "SELECT id FROM keys WHERE state = 'active'";
    let statement = Statement::from_string(transaction.get_database_backend(), sql);
    let rows = KeyRow::find_by_statement(statement)
        .all(transaction)
        .await?;
    rows.into_iter()
        .map(|row| KeyId::parse(&row.id).map_err(corrupt("keys")))
        .collect()
}

/// The secrets that are updated or deleted, if they are their caller's.
async fn secrets(
    transaction: &Transaction,
    changes: &[&Change],
) -> Result<HashMap<SecretId, Secret>, StoreError> {
    let wanted: BTreeSet<_> = changes
        .iter()
        .filter(|change| !matches!(change.action, Action::Create { .. }))
        .map(|change| (change.secret_id, &change.owner))
        .collect();
    let rows = Rows::default()
        .uuids("id", wanted.iter().map(|(id, _)| id.get()))
        .texts("owner", wanted.iter().map(|(_, owner)| owner.as_str()));
    let sql = format!(
        "SELECT {SECRET_COLUMNS} FROM {{rows}} \
         JOIN secrets s ON s.id = r.id AND s.owner = r.owner \
         JOIN secret_versions v ON v.secret_id = s.id AND v.version = s.version"
    );
    let found: Vec<SecretRow> = transaction.read(rows, &sql).await?;
    found
        .into_iter()
        .map(|row| Secret::try_from(row).map(|secret| (secret.id, secret)))
        .collect()
}

#[derive(Debug, FromQueryResult)]
struct TakenName {
    owner: String,
    name: String,
}

/// Which of the names that are to be created are taken.
async fn names(
    transaction: &Transaction,
    changes: &[&Change],
) -> Result<HashSet<(Owner, SecretName)>, StoreError> {
    let wanted: BTreeSet<_> = created(changes).collect();
    let rows = Rows::default()
        .texts("owner", wanted.iter().map(|(owner, _)| owner.as_str()))
        .texts("name", wanted.iter().map(|(_, name)| name.as_str()));
    let sql = "SELECT s.owner, s.name FROM {rows} JOIN secrets s ON s.owner = r.owner AND s.name = r.name";
    let found: Vec<TakenName> = transaction.read(rows, sql).await?;
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
struct OwnerCount {
    owner: String,
    secrets: i64,
}

/// How many secrets each owner has for whom the batch creates one.
async fn counts(
    transaction: &Transaction,
    changes: &[&Change],
) -> Result<HashMap<Owner, u64>, StoreError> {
    let wanted: BTreeSet<_> = created(changes).map(|(owner, _)| owner).collect();
    let rows = Rows::default().texts("owner", wanted.iter().map(|owner| owner.as_str()));
    let sql = "SELECT r.owner, count(*) AS secrets FROM {rows} \
               JOIN secrets s ON s.owner = r.owner GROUP BY r.owner";
    let found: Vec<OwnerCount> = transaction.read(rows, sql).await?;
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
pub(super) async fn look_up(db: DatabaseConnection, first: FirstEvent) -> Result<bool, StoreError> {
    if db.get_database_backend() == DbBackend::Postgres {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE pid = $1 AND extract(epoch FROM backend_start)::text = $2";
        let session = &first.session;
        let values = [session.pid.into(), session.backend_start.as_str().into()];
        db.query_one_raw(statement(&db, sql, values)).await?;
    }
    let transaction = Transaction::begin(&db).await?;
    lock(&transaction).await?;
    let found = log::id_at(&transaction, first.log, first.position).await?;
    transaction.commit().await?;
    Ok(found == Some(first.id))
}
