//! Events that run ahead of what the service has signed.
//!
//! Anybody who may write to the exchange can claim any epoch and any position. An event of a later epoch than any
//! checkpoint, or far beyond the log's head, moves nothing: it waits, durably and within bounds, until a checkpoint
//! reaches it. A checkpoint that was asked for afterwards and does not reach it makes it an alarm.

use sea_orm::{ColumnTrait, EntityTrait, IntoActiveModel, ModelTrait, QueryFilter, QueryOrder};

use super::{
    Stored,
    add::{add_page, advance, newest_checkpoint, write_mark},
    rows::{link_of, signed},
};
use crate::{
    audit::{
        entity::{alarms, waiting},
        event::{AuditEvent, Link},
    },
    domain::{Cursor, Log, Timestamp},
    store::{StoreError, Transaction},
};

/// How far beyond the mark and the newest checkpoint an event may be.
const AHEAD: u64 = 1 << 20;
/// How many events of a log may wait.
const MOST: usize = 1000;
/// How many bytes they may have together.
const MOST_BYTES: usize = 4 << 20;

/// Up to where events are believed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    epoch: u64,
    position: u64,
}

impl Reach {
    /// As far as the mark and the newest checkpoint of the log go.
    pub(super) async fn of(
        transaction: &Transaction,
        log: Log,
        mark: Link,
    ) -> Result<Self, StoreError> {
        let newest = newest_checkpoint(transaction, log).await?;
        let newest = newest.unwrap_or(Cursor::START);
        // A log's first epoch is 1.
        Ok(Self {
            epoch: newest.epoch.max(mark.cursor.epoch).max(1),
            position: newest.position.max(mark.cursor.position) + AHEAD,
        })
    }

    pub(super) fn includes(self, cursor: Cursor) -> bool {
        cursor.epoch <= self.epoch && cursor.position <= self.position
    }
}

/// Lets events wait that are out of reach.
pub(super) async fn wait(
    transaction: &Transaction,
    log: Log,
    events: Vec<AuditEvent>,
    now: Timestamp,
    stored: &mut Stored,
) -> Result<(), StoreError> {
    let rows = of(transaction, log).await?;
    let (mut count, mut bytes) = (
        rows.len(),
        rows.iter().map(|row| row.body.len()).sum::<usize>(),
    );
    for event in events {
        count += 1;
        bytes += event.body.len();
        if count > MOST || bytes > MOST_BYTES {
            // The service's log has it, if it is one of its events.
            stored.dropped += 1;
            continue;
        }
        let row = waiting::Model {
            log: log.as_str().to_owned(),
            epoch: signed(event.link.cursor.epoch),
            position: signed(event.link.cursor.position),
            hash: event.link.hash.to_vec(),
            body: event.body,
            received_at: now.micros(),
        };
        waiting::Entity::insert(row.into_active_model())
            .on_conflict_do_nothing()
            .exec_without_returning(transaction)
            .await?;
        stored.waiting += 1;
    }
    Ok(())
}

/// Stores the waiting events that are within reach now, and makes alarms of those that came before the last
/// checkpoint was asked for and are not.
pub(super) async fn settle(
    transaction: &Transaction,
    log: Log,
    mark: Link,
    (asked, now): (Timestamp, Timestamp),
) -> Result<(), StoreError> {
    let rows = of(transaction, log).await?;
    if rows.is_empty() {
        return Ok(());
    }
    let reach = Reach::of(transaction, log, mark).await?;
    let mut good = Vec::new();
    for row in rows {
        let link = link_of(row.epoch, row.position, row.hash.clone())?;
        if reach.includes(link.cursor) {
            let parsed = AuditEvent::parse(row.body.clone());
            // Only events that were parsed wait.
            good.push(parsed.or(Err(StoreError::Corrupt("audit_waiting")))?);
        } else if row.received_at < asked.micros() {
            tracing::error!(
                log = log.as_str(),
                event.epoch = link.cursor.epoch,
                event.position = link.cursor.position,
                "a message claims to be an event that the service has not signed; it is an alarm"
            );
            let alarm = alarms::Model {
                log: row.log.clone(),
                epoch: row.epoch,
                position: row.position,
                hash: row.hash.clone(),
                body: row.body.clone(),
                received_at: row.received_at,
            };
            alarms::Entity::insert(alarm.into_active_model())
                .on_conflict_do_nothing()
                .exec_without_returning(transaction)
                .await?;
        } else {
            continue;
        }
        row.delete(transaction).await?;
    }
    let mut stored = Stored::default();
    add_page(transaction, log, good, now, &mut stored).await?;
    let moved = advance(transaction, log, mark).await?;
    if moved != mark {
        write_mark(transaction, log, moved).await?;
    }
    Ok(())
}

async fn of(transaction: &Transaction, log: Log) -> Result<Vec<waiting::Model>, StoreError> {
    let rows = waiting::Entity::find()
        .filter(waiting::Column::Log.eq(log.as_str()))
        .order_by_asc(waiting::Column::Epoch)
        .order_by_asc(waiting::Column::Position)
        .all(transaction)
        .await?;
    Ok(rows)
}
