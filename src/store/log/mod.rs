//! The logs: the commit appends to them, readers read them by position. Both are in one table.

mod append;
mod page;

use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter,
    QueryOrder, QuerySelect, prelude::Uuid,
};

use super::{
    StoreError,
    chain::{Head, LogEntry},
    entity::{events, log_head},
    rows::{corrupt, signed, statement, unsigned},
};
use crate::domain::{Cursor, EventId, Log, Owner, PlacedEvent, SecretId, Timestamp};

pub(in crate::store) use append::insert;
pub(crate) use page::{CursorError, Filter, Gone, Page};
pub(in crate::store) use page::{between, check_cursor, page};

/// An event as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoggedEvent {
    /// Its epoch.
    pub epoch: u64,
    /// Its position.
    pub position: u64,
    /// What happened, as the event's `type` says it.
    pub kind: String,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// Its owner, if it has one.
    pub owner: Option<String>,
    /// Its exact canonical bytes, both hashes included.
    pub body: Vec<u8>,
    /// The trace that it is part of.
    pub traceparent: Option<String>,
}

impl LoggedEvent {
    /// Its cursor.
    #[must_use]
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.epoch,
            position: self.position,
        }
    }
}

impl From<LogEntry> for LoggedEvent {
    fn from(entry: LogEntry) -> Self {
        let LogEntry {
            placed:
                PlacedEvent {
                    event,
                    position,
                    epoch,
                    body,
                    ..
                },
            traceparent,
        } = entry;
        Self {
            epoch,
            position,
            kind: event.kind().as_str().to_owned(),
            occurred_at: event.occurred_at(),
            owner: event.owner().map(|owner| owner.as_str().to_owned()),
            body,
            traceparent: traceparent.map(|traceparent| traceparent.as_str().to_owned()),
        }
    }
}

/// A page of a secret's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct History {
    /// The events' canonical bytes, newest first.
    pub events: Vec<Vec<u8>>,
    /// Where the next page begins; none at the end.
    pub next: Option<Cursor>,
}

#[derive(Debug, FromQueryResult)]
struct HeadRow {
    epoch: i64,
    last_epoch: Option<i64>,
    position: Option<i64>,
    hash: Option<Vec<u8>>,
    cut_epoch: i64,
    cut_position: i64,
    cut_hash: Vec<u8>,
    lockdown_since: Option<i64>,
}

/// The head of a log: its last event, or what retention left of it, in one statement.
pub(super) async fn head(db: &impl ConnectionTrait, log: Log) -> Result<Head, StoreError> {
    // ORDER BY and LIMIT, not max(): a plan made while the table is empty must not choose the index on
    // (log, owner, position), which would be read from end to end until the next ANALYZE.
    let sql = "SELECT h.epoch, e.epoch AS last_epoch, e.position, e.hash, \
               h.cut_epoch, h.cut_position, h.cut_hash, h.lockdown_since \
               FROM log_head h LEFT JOIN (SELECT log, epoch, position, hash FROM events \
               WHERE log = $1 ORDER BY position DESC LIMIT 1) e ON e.log = h.log \
               WHERE h.log = $1";
    let values = [log.as_str().into()];
    let statement = statement(db, sql, values);
    let row = HeadRow::find_by_statement(statement)
        .one(db)
        .await?
        .ok_or(StoreError::Corrupt("log_head"))?;
    // Of an empty log, what retention left of it.
    let hash = row.hash.unwrap_or(row.cut_hash);
    Ok(Head {
        epoch: unsigned(row.epoch, "log_head")?,
        last_epoch: unsigned(row.last_epoch.unwrap_or(row.cut_epoch), "events")?,
        position: unsigned(row.position.unwrap_or(row.cut_position), "events")?,
        hash: hash.try_into().map_err(corrupt("events"))?,
        cut: Cursor {
            epoch: unsigned(row.cut_epoch, "log_head")?,
            position: unsigned(row.cut_position, "log_head")?,
        },
        locked_down: row.lockdown_since.is_some(),
    })
}

/// Sets the epoch that the next events of both logs get.
pub(super) async fn set_epoch(db: &impl ConnectionTrait, epoch: u64) -> Result<(), StoreError> {
    log_head::Entity::update_many()
        .set(log_head::ActiveModel {
            epoch: Set(signed(epoch)),
            ..Default::default()
        })
        .exec(db)
        .await?;
    Ok(())
}

#[derive(Debug, FromQueryResult)]
struct IdRow {
    id: Uuid,
}

/// The ID of the event at a position.
pub(super) async fn id_at(
    db: &impl ConnectionTrait,
    log: Log,
    position: u64,
) -> Result<Option<EventId>, StoreError> {
    let row = events::Entity::find_by_id((log.as_str().to_owned(), signed(position)))
        .select_only()
        .column(events::Column::Id)
        .into_model::<IdRow>()
        .one(db)
        .await?;
    Ok(row.map(|row| EventId::new(row.id)))
}

#[derive(Debug, FromQueryResult)]
struct BodyRow {
    epoch: i64,
    position: i64,
    body: Vec<u8>,
}

/// A living secret's events before a position, newest first. One more than `limit` is read, to know
/// whether there is a next page.
pub(super) async fn history(
    db: &impl ConnectionTrait,
    owner: &Owner,
    id: SecretId,
    before: Option<Cursor>,
    limit: u32,
) -> Result<History, StoreError> {
    let mut query = events::Entity::find()
        .select_only()
        .columns([
            events::Column::Epoch,
            events::Column::Position,
            events::Column::Body,
        ])
        .filter(events::Column::SecretId.eq(id.get()))
        // The index holds no others.
        .filter(events::Column::Sequence.is_not_null())
        .filter(events::Column::Log.eq(Log::Changes.as_str()))
        .filter(events::Column::Owner.eq(owner.as_str()));
    if let Some(cursor) = before {
        query = query.filter(events::Column::Position.lt(signed(cursor.position)));
    }
    let mut rows = query
        .order_by_desc(events::Column::Sequence)
        .limit(u64::from(limit) + 1)
        .into_model::<BodyRow>()
        .all(db)
        .await?;
    // The one that is too many tells that there is a next page.
    let more = rows.len() as u64 > u64::from(limit);
    if more {
        rows.pop();
    }
    let next = match rows.last() {
        Some(last) if more => Some(Cursor {
            epoch: unsigned(last.epoch, "events")?,
            position: unsigned(last.position, "events")?,
        }),
        _ => None,
    };
    let events = rows.into_iter().map(|row| row.body).collect();
    Ok(History { events, next })
}
