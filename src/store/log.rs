//! The logs: appended by the commit, read by position. Both stand in one table.

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
use crate::domain::{Cursor, Event, EventId, Log, Owner, SecretId, Timestamp};

/// An event as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedEvent {
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
    pub fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.epoch,
            position: self.position,
        }
    }
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

/// The head of a log: its last event, or what retention left of it, in one statement.
pub(super) async fn head(db: &impl ConnectionTrait, log: Log) -> Result<Head, StoreError> {
    // ORDER BY and LIMIT, not max(): a plan made while the table is empty must not fall for the index on
    // (log, owner, position), which would be read from end to end until the next ANALYZE.
    let sql = "SELECT h.epoch, e.epoch AS last_epoch, e.position, e.hash, \
               h.cut_epoch, h.cut_position, h.cut_hash \
               FROM log_head h LEFT JOIN (SELECT log, epoch, position, hash FROM events \
               WHERE log = $1 ORDER BY position DESC LIMIT 1) e ON e.log = h.log \
               WHERE h.log = $1";
    let values = [log.as_str().into()];
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
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
        cut: Cursor {
            epoch: unsigned(row.cut_epoch, "log_head")?,
            position: unsigned(row.cut_position, "log_head")?,
        },
    })
}

/// Rows and statement that append the entries.
pub(super) fn insert(entries: &[Entry]) -> (Rows, &'static str) {
    let mut rows = Rows::new(&[
        ("log", Kind::Text),
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
        ("traceparent", Kind::Text),
    ]);
    for entry in entries {
        let event = &entry.event;
        let about = About::of(event);
        rows.push([
            event.log().as_str().into(),
            signed(event.position()).into(),
            signed(event.epoch()).into(),
            event.id().get().into(),
            event.kind().as_str().into(),
            about.owner.into(),
            about.secret_id.into(),
            signed(about.sequence).into(),
            signed(about.version).into(),
            about.version_id.into(),
            event.occurred_at().micros().into(),
            entry.body.clone().into(),
            entry.hash.to_vec().into(),
            entry
                .traceparent
                .as_ref()
                .map_or("", |trace| trace.as_str())
                .into(),
        ]);
    }
    // What an event is not about comes as '' or 0, which no real one is.
    let sql = "INSERT INTO events \
               (log, position, epoch, id, type, owner, secret_id, sequence, version, version_id, \
                occurred_at, body, hash, traceparent) \
               SELECT r.log, r.position, r.epoch, r.id, r.type, NULLIF(r.owner, ''), \
               CASE WHEN r.version > 0 THEN r.secret_id END, NULLIF(r.sequence, 0), \
               NULLIF(r.version, 0), CASE WHEN r.version > 0 THEN r.version_id END, \
               r.occurred_at, r.body, r.hash, NULLIF(r.traceparent, '') FROM {rows}";
    (rows, sql)
}

/// What an event is about, for its row.
#[derive(Default)]
struct About<'a> {
    owner: &'a str,
    secret_id: Uuid,
    sequence: u64,
    version: u64,
    version_id: Uuid,
}

impl<'a> About<'a> {
    fn of(event: &'a Event) -> Self {
        match event {
            Event::Change(event) => Self {
                owner: event.owner.as_str(),
                secret_id: event.secret_id.get(),
                sequence: event.sequence,
                version: event.version,
                version_id: event.version_id.get(),
            },
            Event::Access(event) => Self {
                owner: event.owner.as_str(),
                secret_id: event.secret_id.get(),
                sequence: 0,
                version: event.version,
                version_id: event.version_id.get(),
            },
            Event::Token(event) => Self {
                owner: event.owner.as_ref().map_or("", Owner::as_str),
                ..Self::default()
            },
        }
    }
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

#[derive(Debug, FromQueryResult)]
struct EventRow {
    epoch: i64,
    position: i64,
    r#type: String,
    occurred_at: i64,
    owner: Option<String>,
    body: Vec<u8>,
    traceparent: Option<String>,
}

/// Which events of a log are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only events of these owners; nothing stands for the whole log.
    pub owners: Option<Vec<String>>,
    /// Only these types; empty stands for all.
    pub kinds: Vec<String>,
}

impl Filter {
    /// Whether it lets an event through.
    #[must_use]
    pub fn passes(&self, event: &LoggedEvent) -> bool {
        let owner = self.owners.as_ref().is_none_or(|owners| {
            let owner = event.owner.as_ref();
            owner.is_some_and(|owner| owners.contains(owner))
        });
        owner && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
    }
}

/// The events after a position and up to another, in position order, at most `limit`.
pub(super) async fn after(
    db: &DatabaseConnection,
    log: Log,
    (after, up_to): (u64, u64),
    filter: &Filter,
    limit: u64,
) -> Result<Vec<LoggedEvent>, StoreError> {
    let mut query = events::Entity::find()
        .select_only()
        .columns([
            events::Column::Epoch,
            events::Column::Position,
            events::Column::Type,
            events::Column::OccurredAt,
            events::Column::Owner,
            events::Column::Body,
            events::Column::Traceparent,
        ])
        .filter(events::Column::Log.eq(log.as_str()))
        .filter(events::Column::Position.gt(signed(after)))
        .filter(events::Column::Position.lte(signed(up_to)));
    if let Some(owners) = &filter.owners {
        query = query.filter(events::Column::Owner.is_in(owners));
    }
    if !filter.kinds.is_empty() {
        query = query.filter(events::Column::Type.is_in(&filter.kinds));
    }
    let rows = query
        .order_by_asc(events::Column::Position)
        .limit(limit)
        .into_model::<EventRow>()
        .all(db)
        .await?;
    rows.into_iter()
        .map(|row| {
            Ok(LoggedEvent {
                epoch: unsigned(row.epoch, "events")?,
                position: unsigned(row.position, "events")?,
                kind: row.r#type,
                occurred_at: Timestamp::from_micros(row.occurred_at),
                owner: row.owner,
                body: row.body,
                traceparent: row.traceparent,
            })
        })
        .collect()
}

/// A part of a log, as somebody reads on from a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The events that were wanted, in position order.
    pub events: Vec<LoggedEvent>,
    /// Where the next page begins: behind the last event of a full page, else behind all that was
    /// looked at.
    pub next: Cursor,
}

/// A cursor that the log does not know (any more), with what it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// The cursor before the first event that is kept.
    pub first: Cursor,
    /// The cursor of the last event.
    pub head: Cursor,
}

/// The page after a cursor; without one it begins at the first event kept.
pub(super) async fn page(
    db: &DatabaseConnection,
    log: Log,
    after_cursor: Option<Cursor>,
    filter: &Filter,
    limit: u32,
) -> Result<Result<Page, Gone>, StoreError> {
    let head = head(db, log).await?;
    let start = after_cursor.unwrap_or(head.cut);
    if start.position > head.position {
        return Ok(Err(head.gone()));
    }
    let range = (start.position, head.position);
    let events = after(db, log, range, filter, limit.into()).await?;
    // Looked at last: while the cursor's event is there, retention has taken none behind it.
    if let Err(gone) = known(db, log, start).await? {
        return Ok(match after_cursor {
            Some(_) => Err(gone),
            // The cut moved meanwhile.
            None => Box::pin(page(db, log, Some(gone.first), filter, limit)).await?,
        });
    }
    let full = events.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = match events.last() {
        Some(last) if full => last.cursor(),
        _ => head.cursor(),
    };
    Ok(Ok(Page { events, next }))
}

/// Whether a cursor is good: the log's event at its position has its epoch, or it is the retention cut.
pub(super) async fn known(
    db: &impl ConnectionTrait,
    log: Log,
    cursor: Cursor,
) -> Result<Result<(), Gone>, StoreError> {
    let found = events::Entity::find_by_id((log.as_str().to_owned(), signed(cursor.position)))
        .select_only()
        .column(events::Column::Epoch)
        .into_tuple::<i64>()
        .one(db)
        .await?;
    if found.is_some_and(|epoch| u64::try_from(epoch) == Ok(cursor.epoch)) {
        return Ok(Ok(()));
    }
    let head = head(db, log).await?;
    Ok(if cursor == head.cut {
        Ok(())
    } else {
        Err(head.gone())
    })
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
