//! The log `changes`: appended by the commit, read by position.

use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseConnection, EntityTrait, FromQueryResult, QueryFilter,
    QueryOrder, QuerySelect, Statement, prelude::Uuid,
};

use super::{
    StoreError,
    chain::{Entry, Head},
    dialect::{Kind, Rows},
    entity::events,
    rows::{signed, unsigned},
};
use crate::domain::{Cursor, EventId, Log, Owner, SecretId};

/// An event as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedEvent {
    /// Its epoch.
    pub epoch: u64,
    /// Its position.
    pub position: u64,
    /// Its exact canonical bytes, both hashes included.
    pub body: Vec<u8>,
}

/// A page of a secret's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The events' canonical bytes, newest first.
    pub events: Vec<Vec<u8>>,
    /// Where the next page begins; nothing at the end.
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
}

/// The head of `changes`: its last event, or what retention left of it, in one statement.
pub(super) async fn head(db: &impl ConnectionTrait) -> Result<Head, StoreError> {
    // ORDER BY and LIMIT, not max(): a plan made while the table is empty must not fall for the index on
    // (log, owner, position), which would be read from end to end until the next ANALYZE.
    let sql = "SELECT h.epoch, e.epoch AS last_epoch, e.position, e.hash, \
               h.cut_epoch, h.cut_position, h.cut_hash \
               FROM log_head h LEFT JOIN (SELECT log, epoch, position, hash FROM events \
               WHERE log = 'changes' ORDER BY position DESC LIMIT 1) e ON e.log = h.log \
               WHERE h.log = 'changes'";
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let row = HeadRow::find_by_statement(statement)
        .one(db)
        .await?
        .ok_or(StoreError::Corrupt("log_head"))?;
    let hash = row.hash.unwrap_or(row.cut_hash);
    Ok(Head {
        epoch: unsigned(row.epoch, "log_head")?,
        last_epoch: unsigned(row.last_epoch.unwrap_or(row.cut_epoch), "events")?,
        position: unsigned(row.position.unwrap_or(row.cut_position), "events")?,
        hash: hash.try_into().or(Err(StoreError::Corrupt("events")))?,
    })
}

/// Rows and statement that append the entries.
pub(super) fn insert(entries: &[Entry]) -> (Rows, &'static str) {
    let mut rows = Rows::new(&[
        ("position", Kind::Number),
        ("epoch", Kind::Number),
        ("id", Kind::Uuid),
        ("type", Kind::Text),
        ("owner", Kind::Text),
        ("secret_id", Kind::Uuid),
        ("sequence", Kind::Number),
        ("version", Kind::Number),
        ("version_id", Kind::Uuid),
        ("occurred_at", Kind::Number),
        ("body", Kind::Bytes),
        ("hash", Kind::Bytes),
    ]);
    for Entry { event, body, hash } in entries {
        rows.push([
            signed(event.position).into(),
            signed(event.epoch).into(),
            event.id.get().into(),
            event.r#type.as_str().into(),
            event.owner.as_str().into(),
            event.secret_id.get().into(),
            signed(event.sequence).into(),
            signed(event.version).into(),
            event.version_id.get().into(),
            event.occurred_at.micros().into(),
            body.clone().into(),
            hash.to_vec().into(),
        ]);
    }
    let sql = "INSERT INTO events \
               (log, position, epoch, id, type, owner, secret_id, sequence, version, version_id, \
                occurred_at, body, hash) \
               SELECT 'changes', r.position, r.epoch, r.id, r.type, r.owner, r.secret_id, \
               r.sequence, r.version, r.version_id, r.occurred_at, r.body, r.hash FROM {rows}";
    (rows, sql)
}

#[derive(Debug, FromQueryResult)]
struct IdRow {
    id: Uuid,
}

/// The ID of the event at a position.
pub(super) async fn id_at(
    db: &impl ConnectionTrait,
    position: u64,
) -> Result<Option<EventId>, StoreError> {
    let row = events::Entity::find_by_id((Log::Changes.as_str().to_owned(), signed(position)))
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

/// The events after a position, in position order, at most `limit`.
pub(super) async fn after(
    db: DatabaseConnection,
    position: u64,
    limit: u64,
) -> Result<Vec<LoggedEvent>, StoreError> {
    let rows = events::Entity::find()
        .select_only()
        .columns([
            events::Column::Epoch,
            events::Column::Position,
            events::Column::Body,
        ])
        .filter(events::Column::Log.eq(Log::Changes.as_str()))
        .filter(events::Column::Position.gt(signed(position)))
        .order_by_asc(events::Column::Position)
        .limit(limit)
        .into_model::<BodyRow>()
        .all(&db)
        .await?;
    rows.into_iter()
        .map(
            |BodyRow {
                 epoch,
                 position,
                 body,
             }| {
                Ok(LoggedEvent {
                    epoch: unsigned(epoch, "events")?,
                    position: unsigned(position, "events")?,
                    body,
                })
            },
        )
        .collect()
}

/// A living secret's events before a position, newest first. One more than `limit` is read, to know
/// whether there is a next page.
pub(super) async fn history(
    db: &DatabaseConnection,
    (owner, id): (&Owner, SecretId),
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
        .filter(events::Column::Log.eq(Log::Changes.as_str()))
        .filter(events::Column::Owner.eq(owner.as_str()));
    if let Some(cursor) = before {
        query = query.filter(events::Column::Position.lt(signed(cursor.position)));
    }
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut rows = query
        .order_by_desc(events::Column::Sequence)
        .limit(u64::from(limit) + 1)
        .into_model::<BodyRow>()
        .all(db)
        .await?;
    let more = rows.len() > wanted;
    rows.truncate(wanted);
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
