//! The one transaction: everything that the process writes to the log and to secrets goes through here.
//!
//! In comes a batch; out goes its [`Plan`], which is whole before COMMIT is sent. A batch takes three round trips,
//! on SQLite to the driver's thread: begin, lock and read; write; COMMIT. One that creates secrets or restores
//! versions takes one more, to read which names are taken and which versions are kept, and so does one whose locks
//! were taken before it was put together. Each step begins after the one before has ended: only a statement that
//! begins after the lock is held sees all that was committed before it (READ COMMITTED).

use std::sync::{Arc, Mutex, PoisonError};

use sea_orm::{ConnectionTrait, DbBackend, QueryResult, Statement};

use super::{
    StoreError,
    apply::{Limits, Plan, apply},
    chain::{Heads, LogEntry},
    dialect::{Script, sqlite_script},
    gate::Gate,
    log,
    present::{look_postgres, look_sqlite, prepare_looks, read},
    rows::statement,
    transaction::{Session, Transaction},
    write::write,
    writer::{Begun, Opener, Writer},
};
use crate::{
    crypto::MacKey,
    domain::{EventId, KeyId, Log, Outcome, PlacedEvent, Refused, Timestamp, Work},
    faults,
};

/// Where a commit begins.
pub(super) enum Start {
    /// With the writing connection, or a new one.
    Idle(Option<Writer>),
    /// In a transaction that holds the batch's locks.
    Locked(Begun),
}

/// What one transaction holds.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) works: Arc<[Work]>,
    /// The index of the only one that is committed; all are where it is none.
    pub(super) only: Option<usize>,
    /// The last heads that this process saw under the lock.
    pub(super) seen: Heads,
    pub(super) limits: Limits,
    /// The key of the codes of the requests that are made once.
    pub(super) records: Arc<MacKey>,
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
    pub(super) fn alone(&self, index: usize, seen: Heads) -> Self {
        Self {
            works: Arc::clone(&self.works),
            only: Some(index),
            seen,
            limits: self.limits,
            records: Arc::clone(&self.records),
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
    /// The last heads that this process has seen, those of this batch included.
    pub(super) seen: Heads,
    /// Another process has written since this one did.
    pub(super) others_wrote: bool,
    /// The key that the log's head names as the primary one, where the batch read it.
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

/// The logs that work appends to, in the order of their locks.
pub(super) fn logs(works: &[Work]) -> Vec<Log> {
    let append = |log: &Log| works.iter().any(|work| work.log() == *log);
    Log::ALL.into_iter().filter(append).collect()
}

/// A transaction that holds the locks of a batch, before the batch is put together. What queues while it waits for
/// another process can still join.
///
/// # Cancel safety
/// As for [`commit`].
pub(super) async fn lock_first(
    held: Option<Writer>,
    opener: Opener,
    logs: Vec<Log>,
) -> Result<Begun, StoreError> {
    let locks = locks(&opener, &logs);
    let begun = opener.begin(held, lock_statements(locks).into()).await?;
    check_locks(&begun.results, locks)?;
    Ok(begun)
}

/// Runs the batch, and returns the connection. After an error the batch's gate says whether COMMIT may have
/// been sent.
///
/// # Cancel safety
/// None: it runs as a task of its own. Dropped, it takes its connection with it.
pub(super) async fn commit(
    start: Start,
    opener: Opener,
    batch: Arc<Batch>,
) -> Result<Writer, StoreError> {
    let mut first = look(&opener, &batch)?;
    let (begun, looked) = match start {
        Start::Locked(begun) => {
            let looked = begun.transaction.script(first).await?;
            (begun, looked)
        }
        Start::Idle(held) => {
            let logs = logs(batch.works());
            let locks = locks(&opener, &logs);
            first.sql.insert_str(0, &lock_statements(locks));
            let mut begun = opener.begin(held, first).await?;
            let looked = begun
                .results
                .split_off(locks.len().min(begun.results.len()));
            check_locks(&begun.results, locks)?;
            (begun, looked)
        }
    };
    let Begun {
        transaction,
        session,
        ..
    } = &begun;
    let (present, primary) = read(
        transaction,
        looked.iter().flatten(),
        (batch.works(), &batch.records),
        batch.seen,
    )
    .await?;
    let others_wrote = present.heads.have_grown_since(batch.seen);
    let Plan {
        outcomes,
        writes,
        heads,
    } = apply(present, batch.works(), batch.limits, batch.now);
    faults::point("before-rows").await;
    write(transaction, &writes, &batch.records).await?;
    faults::point("after-rows").await;
    let decided = Decided {
        outcomes,
        events: writes.events,
        seen: heads.or(batch.seen),
        others_wrote,
        primary,
        session: session.clone(),
    };
    *batch.decided.lock().unwrap_or_else(PoisonError::into_inner) = Some(decided);
    if !batch.gate.pass() {
        // The watchdog has answered. Dropping the transaction rolls it back.
        return Err(StoreError::Deadline);
    }
    faults::point("before-commit").await;
    let writer = begun.commit().await?;
    faults::point("after-commit").await;
    Ok(writer)
}

/// The statement that locks a log's head on PostgreSQL. Every writer of secrets, versions, keys or the log
/// `changes` holds that of `changes`, and every writer that appends to `activity` holds its, after that of
/// `changes` where it takes both.
const fn lock_sql(log: Log) -> &'static str {
    match log {
        Log::Changes => "SELECT 1 FROM log_head WHERE log = 'changes' FOR UPDATE",
        Log::Activity => "SELECT 1 FROM log_head WHERE log = 'activity' FOR UPDATE",
    }
}

/// The logs of which a transaction that appends to these takes the locks: on SQLite none.
pub(super) fn locks<'a>(opener: &Opener, logs: &'a [Log]) -> &'a [Log] {
    if opener.is_sqlite() { &[] } else { logs }
}

/// The statements that take these locks on a writing connection of PostgreSQL, each with its end.
pub(super) fn lock_statements(logs: &[Log]) -> String {
    let execute = |log: &Log| format!("EXECUTE lock_{}; ", log.as_str());
    logs.iter().map(execute).collect()
}

/// Checks that each lock has found its row.
fn check_locks(results: &[Vec<QueryResult>], locks: &[Log]) -> Result<(), StoreError> {
    if results.len() == locks.len() && results.iter().all(|rows| rows.len() == 1) {
        Ok(())
    } else {
        Err(StoreError::Corrupt("log_head"))
    }
}

/// The first look at what the batch is about. It begins when the locks are held.
fn look(opener: &Opener, batch: &Batch) -> Result<Script, StoreError> {
    let (works, limits, seen) = (batch.works(), batch.limits, batch.seen);
    Ok(if opener.is_sqlite() {
        sqlite_script(look_sqlite(works, limits, seen))?.0
    } else {
        look_postgres(works, limits, seen).join("; ").into()
    })
}

/// What a new writing connection of PostgreSQL prepares, for its locks and looks.
pub(super) fn prepare() -> String {
    let lock = |log: Log| format!("PREPARE lock_{} AS {}", log.as_str(), lock_sql(log));
    let [changes, activity] = Log::ALL.map(lock);
    format!("{changes}; {activity}; {}", prepare_looks())
}

/// Locks the head of a log. SQLite's transaction is the only one that writes.
pub(super) async fn lock(transaction: &Transaction, log: Log) -> Result<(), StoreError> {
    if transaction.get_database_backend() == DbBackend::Postgres {
        let statement = Statement::from_string(DbBackend::Postgres, lock_sql(log));
        let row = transaction.query_one_raw(statement).await?;
        row.ok_or(StoreError::Corrupt("log_head"))?;
    }
    Ok(())
}

/// After trouble with COMMIT: whether the log holds the batch's first event at its position.
///
/// The lock waits for the end of the transaction in question, and the COMMIT of this one waits for a
/// synchronous standby. The old session is ended, unless it waits for such a standby itself: what it committed
/// would become visible before it is replicated.
pub(super) async fn look_up(
    opener: Opener,
    first: FirstEvent,
) -> Result<(Writer, bool), StoreError> {
    let begun = opener.begin(None, Script::default()).await?;
    let transaction = &begun.transaction;
    if transaction.get_database_backend() == DbBackend::Postgres {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE pid = $1 AND extract(epoch FROM backend_start)::text = $2 \
                   AND wait_event IS DISTINCT FROM 'SyncRep'";
        let old = &first.session;
        let values = [old.pid.into(), old.backend_start.as_str().into()];
        transaction
            .query_one_raw(statement(transaction, sql, values))
            .await?;
    }
    lock(transaction, first.log).await?;
    let found = log::id_at(transaction, first.log, first.position).await?;
    Ok((begun.commit().await?, found == Some(first.id)))
}
