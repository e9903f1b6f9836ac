//! The audit consumer's own database.
//!
//! Every write is one transaction that begins with the lock of the marks, so that two consumers on one
//! database take turns. All work runs in tasks of its own; a hung task is abandoned with its whole pool (see
//! `store::Pool`). A write whose outcome is unknown is repeated: events that are stored already don't count.

mod add;
mod epochs;
mod rows;
mod waiting;
mod walk;

use std::{sync::Arc, time::Duration};

use migration::AuditMigrator;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, DatabaseConnection, EntityTrait, FromQueryResult, QueryFilter,
    QueryOrder, QuerySelect, Statement,
};
use tokio::runtime::Handle;

use add::{add, add_checkpoint, advance, lock_marks, newest_checkpoint, write_mark};
pub(crate) use epochs::Acceptance;
pub(super) use epochs::Raise;
pub(super) use rows::StoredEvent;
use rows::{CheckedRow, cursor_of, link_of, signed, unsigned};
pub(super) use walk::{Branches, Walk, Written};

use super::{
    entity::{alarms, events, marks},
    event::{AuditEvent, Link},
};
use crate::{
    domain::{Checkpoint, Cursor, HASH_BYTES, Log, Timestamp},
    store::{
        Home, Patience, ReplaceablePool, SchemaError, StoreError, Target, Transaction,
        UnsafeDatabase, migrate_up, missing_migration, refuse_unsafe,
    },
};

/// How long a piece of work may take before its pool is abandoned.
const DEADLINE: Duration = Duration::from_secs(30);
/// How many rows a statement writes or a page has.
const PAGE: usize = 256;

/// Where a log stands in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogState {
    /// The copy begins after this: before the log's first event, or where the service's log was cut before
    /// the consumer first ran.
    pub(super) base: Link,
    /// The low-water mark: every event through this one is stored, each following the one before it.
    pub(super) mark: Link,
    /// The highest epoch's last event that is stored; something is missing before it unless it is the mark.
    pub(super) highest: Cursor,
}

/// What became of the events of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Events that were not stored before.
    pub new: u64,
    /// Events that were stored already, with the same hash.
    pub repeats: u64,
    /// Events that contradict the stored one.
    pub alarms: u64,
    /// Events that wait until a checkpoint reaches them.
    pub waiting: u64,
    /// Events that should wait, and for which there is no room.
    pub dropped: u64,
}

/// A checkpoint, and the hash of the stored event at its position, as the column holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) checkpoint: Checkpoint,
    pub(super) event: Option<Vec<u8>>,
}

/// Why the database can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    /// The database's settings could lose what was acknowledged.
    #[error(transparent)]
    Unsafe(UnsafeDatabase),
    /// The schema can't be created.
    #[error(transparent)]
    Schema(SchemaError),
}

/// The database. Clones share one connection.
#[derive(Debug, Clone)]
pub(crate) struct AuditStore {
    pool: Arc<ReplaceablePool>,
}

impl AuditStore {
    /// A store that connects on first use.
    ///
    /// # Errors
    /// [`StoreError`] if the URL can't be used.
    pub(crate) async fn open(target: Target, runtime: &Handle) -> Result<Self, StoreError> {
        let patience = Patience {
            deadline: DEADLINE,
            overdue: 1,
        };
        let pool = ReplaceablePool::open(target, Home::Runtime(runtime.clone()), patience).await?;
        Ok(Self {
            pool: Arc::new(pool),
        })
    }

    /// Applies the migrations that are missing, and refuses settings that could lose what was acknowledged.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub(crate) async fn prepare(&self) -> Result<(), PrepareError> {
        self.run(async |db| migrate_up::<AuditMigrator>(&db).await)
            .await
            .map_err(PrepareError::Schema)?;
        self.run(refuse_unsafe).await.map_err(PrepareError::Unsafe)
    }

    /// Refuses a database that `audit serve` has not prepared.
    ///
    /// # Errors
    /// [`SchemaError`] names the first migration that is missing.
    pub(crate) async fn refuse_old_schema(&self) -> Result<(), SchemaError> {
        let missing = self
            .run(async |db| missing_migration::<AuditMigrator>(&db).await)
            .await?;
        missing.map_or(Ok(()), |name| Err(SchemaError::Audit(name)))
    }

    /// Stores events and moves the marks, in one transaction.
    ///
    /// # Errors
    /// [`StoreError`]; it is then unknown whether they are stored, and the call must be repeated.
    ///
    /// # Cancel safety
    /// If the future is dropped, the transaction still runs to its end.
    pub(crate) async fn add(
        &self,
        events: Vec<AuditEvent>,
        now: Timestamp,
    ) -> Result<Stored, StoreError> {
        self.run(async move |db| {
            let transaction = Transaction::begin(&db).await?;
            let stored = add(&transaction, events, now).await?;
            transaction.commit().await?;
            Ok(stored)
        })
        .await
    }

    /// Stores a checkpoint that was asked for at `asked`, and what waited for it; false when it contradicts the
    /// stored event, which is also kept as an alarm.
    ///
    /// # Errors
    /// [`StoreError`], as in [`AuditStore::add`].
    pub(crate) async fn add_checkpoint(
        &self,
        checkpoint: Checkpoint,
        (asked, now): (Timestamp, Timestamp),
    ) -> Result<bool, StoreError> {
        self.run(async move |db| {
            let transaction = Transaction::begin(&db).await?;
            let agrees = add_checkpoint(&transaction, &checkpoint, (asked, now)).await?;
            transaction.commit().await?;
            Ok(agrees)
        })
        .await
    }

    /// Lets a log begin after `base`, unless its first event is stored: retention has removed what was
    /// before. The mark goes there.
    ///
    /// # Errors
    /// [`StoreError`], as in [`AuditStore::add`].
    pub(super) async fn begin_after(&self, log: Log, base: Link) -> Result<(), StoreError> {
        self.run(async move |db| {
            let transaction = Transaction::begin(&db).await?;
            let locked = lock_marks(&transaction).await?;
            if locked
                .get(log.as_str())
                .is_some_and(|mark| mark.cursor.position == 0)
            {
                marks::Entity::update_many()
                    .set(marks::ActiveModel {
                        base_epoch: Set(signed(base.cursor.epoch)),
                        base_position: Set(signed(base.cursor.position)),
                        base_hash: Set(base.hash.to_vec()),
                        ..Default::default()
                    })
                    .filter(marks::Column::Log.eq(log.as_str()))
                    .exec(&transaction)
                    .await?;
                let moved = advance(&transaction, log, base).await?;
                write_mark(&transaction, log, moved).await?;
            }
            transaction.commit().await?;
            Ok(())
        })
        .await
    }

    /// Where a log stands.
    pub(super) async fn state(&self, log: Log) -> Result<LogState, StoreError> {
        self.run(async move |db| {
            let row = marks::Entity::find_by_id(log.as_str()).one(&db).await?;
            let row = row.ok_or(StoreError::Corrupt("audit_marks"))?;
            let highest = events::Entity::find()
                .select_only()
                .columns([events::Column::Epoch, events::Column::Position])
                .filter(events::Column::Log.eq(log.as_str()))
                .order_by_desc(events::Column::Epoch)
                .order_by_desc(events::Column::Position)
                .into_tuple()
                .one(&db)
                .await?;
            Ok(LogState {
                base: link_of(row.base_epoch, row.base_position, row.base_hash)?,
                mark: link_of(row.epoch, row.position, row.hash)?,
                // Perhaps nothing is stored.
                highest: highest.map_or(Ok(Cursor::START), cursor_of)?,
            })
        })
        .await
    }

    /// The last of the stored events that follow a link without a gap: the link itself, if none does.
    pub(super) async fn follow(&self, log: Log, link: Link) -> Result<Link, StoreError> {
        self.run(async move |db| advance(&db, log, link).await)
            .await
    }

    /// Whether any stored event of that position has that hash.
    pub(super) async fn holds(
        &self,
        log: Log,
        position: u64,
        hash: [u8; HASH_BYTES],
    ) -> Result<bool, StoreError> {
        self.run(async move |db| {
            let row = events::Entity::find()
                .filter(events::Column::Log.eq(log.as_str()))
                .filter(events::Column::Position.eq(signed(position)))
                .filter(events::Column::Hash.eq(hash.to_vec()))
                .one(&db)
                .await?;
            Ok(row.is_some())
        })
        .await
    }

    /// How many alarms a log has, and the lowest position of one.
    pub(super) async fn alarms(&self, log: Log) -> Result<Option<(u64, u64)>, StoreError> {
        self.run(async move |db| {
            let row = alarms::Entity::find()
                .select_only()
                .column_as(alarms::Column::Position.count(), "count")
                .column_as(alarms::Column::Position.min(), "lowest")
                .filter(alarms::Column::Log.eq(log.as_str()))
                .into_tuple::<(i64, Option<i64>)>()
                .one(&db)
                .await?;
            let Some((count, Some(lowest))) = row else {
                return Ok(None);
            };
            Ok(Some((unsigned(count)?, unsigned(lowest)?)))
        })
        .await
    }

    /// The checkpoints of a log after one of them, in the order of position, epoch and hash, at most
    /// [`PAGE`], each with its event.
    pub(super) async fn checkpoints(
        &self,
        log: Log,
        after: Option<&Checkpoint>,
    ) -> Result<Vec<Checked>, StoreError> {
        let (position, epoch, hash) = after.map_or((-1, -1, Vec::new()), |after| {
            let hash = after.hash.to_vec();
            (signed(after.position), signed(after.epoch), hash)
        });
        self.run(async move |db| {
            let sql = "SELECT c.log, c.epoch, c.position, c.hash, c.signature, \
                       e.hash AS event_hash FROM audit_checkpoints c \
                       LEFT JOIN audit_events e ON e.log = c.log AND e.epoch = c.epoch \
                       AND e.position = c.position \
                       WHERE c.log = $1 AND (c.position, c.epoch, c.hash) > ($2, $3, $4) \
                       ORDER BY c.position, c.epoch, c.hash LIMIT $5";
            let values = [
                log.as_str().into(),
                position.into(),
                epoch.into(),
                hash.into(),
                signed(PAGE as u64).into(),
            ];
            let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
            let rows = CheckedRow::find_by_statement(statement).all(&db).await?;
            rows.into_iter().map(CheckedRow::read).collect()
        })
        .await
    }

    /// The cursor of the newest checkpoint of a log.
    pub(super) async fn newest_checkpoint(&self, log: Log) -> Result<Option<Cursor>, StoreError> {
        self.run(async move |db| newest_checkpoint(&db, log).await)
            .await
    }

    /// Closes the connection, as far as that is possible within `deadline`.
    pub(crate) async fn close(&self, deadline: Duration) {
        self.pool.close(deadline).await;
    }

    async fn run<F, W, T, E>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(DatabaseConnection) -> W,
        W: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.pool.run(work).await
    }
}

#[cfg(test)]
mod tests;
