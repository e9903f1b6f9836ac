//! Reading a log by position, and on from a cursor.

use std::{collections::BTreeSet, ops::RangeInclusive};

use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbBackend, DbErr, EntityTrait, QueryFilter,
    QueryOrder, QuerySelect,
    prelude::Uuid,
    sea_query::{Expr, ExprTrait},
};
use serde::Deserialize;

use super::{LoggedEvent, head};
use crate::{
    domain::{Cursor, Log, NamedSecrets, Timestamp},
    store::{
        StoreError,
        dialect::event_name,
        entity::events,
        error::ReadError,
        rows::{signed, unsigned},
    },
};

/// What an event's body says in its columns' place.
#[derive(Deserialize)]
struct ToldFields {
    log: String,
    epoch: u64,
    position: u64,
    id: Uuid,
    r#type: String,
    owner: Option<String>,
    secret_id: Option<Uuid>,
    sequence: Option<u64>,
    version: Option<u64>,
    version_id: Option<Uuid>,
    hash: String,
}

/// Whether each column that a reader goes by is what the body says. (Only retention goes by the time.)
fn is_as_told(row: &events::Model) -> bool {
    let number = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
    let told: Result<ToldFields, _> = serde_json::from_slice(&row.body);
    told.is_ok_and(|told| {
        told.log == row.log
            && Some(told.epoch) == number(Some(row.epoch))
            && Some(told.position) == number(Some(row.position))
            && told.id == row.id
            && told.r#type == row.r#type
            && told.owner == row.owner
            && told.secret_id == row.secret_id
            && told.sequence == number(row.sequence)
            && told.version == number(row.version)
            && told.version_id == row.version_id
            && told.hash == hex::encode(&row.hash)
    })
}

fn read(row: events::Model) -> Result<LoggedEvent, StoreError> {
    Ok(LoggedEvent {
        epoch: unsigned(row.epoch, "events")?,
        position: unsigned(row.position, "events")?,
        kind: row.r#type,
        occurred_at: Timestamp::from_micros(row.occurred_at),
        owner: row.owner,
        body: row.body,
        traceparent: row.traceparent,
    })
}

/// Which events of a log to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Only events of these owners; none means the whole log.
    pub owners: Option<Vec<String>>,
    /// Only these types; empty means all.
    pub kinds: BTreeSet<&'static str>,
    /// Only events of secrets with these names; where it is not all, no others.
    pub secrets: NamedSecrets,
}

impl Filter {
    /// Whether it lets an event through.
    #[must_use]
    pub(crate) fn passes(&self, event: &LoggedEvent) -> bool {
        let owner = self.owners.as_ref().is_none_or(|owners| {
            let owner = event.owner.as_ref();
            owner.is_some_and(|owner| owners.contains(owner))
        });
        owner
            && (self.kinds.is_empty() || self.kinds.contains(event.kind.as_str()))
            && (self.secrets.is_all() || names_one_of(&event.body, &self.secrets))
    }
}

/// The name of the secret that an event is about.
#[derive(Deserialize)]
struct ToldName {
    name: Option<String>,
}

/// Whether an event is about one of these secrets.
fn names_one_of(body: &[u8], secrets: &NamedSecrets) -> bool {
    let told: Result<ToldName, _> = serde_json::from_slice(body);
    let name = told.ok().and_then(|told| told.name);
    name.is_some_and(|name| secrets.covers_text(&name))
}

/// The same in SQL. No column holds the name: it is taken from the event itself.
fn about(backend: DbBackend, secrets: &NamedSecrets) -> Condition {
    let name = event_name(backend);
    let mut any = Condition::any();
    for entry in secrets.to_list() {
        any = any.add(match entry.strip_suffix('*') {
            None => ExprTrait::eq(Expr::cust(name), entry.as_str()),
            Some(beginning) => {
                let sql = format!("substr({name}, 1, {})", beginning.len());
                ExprTrait::eq(Expr::cust(sql), beginning)
            }
        });
    }
    any
}

/// The events after one position through another, in position order, at most `limit`.
pub(in crate::store) async fn between(
    db: &impl ConnectionTrait,
    log: Log,
    positions: RangeInclusive<u64>,
    filter: &Filter,
    limit: u64,
) -> Result<Vec<LoggedEvent>, StoreError> {
    let rows = rows(db, log, positions, filter, limit).await?;
    rows.into_iter().map(read).collect()
}

async fn rows(
    db: &impl ConnectionTrait,
    log: Log,
    positions: RangeInclusive<u64>,
    filter: &Filter,
    limit: u64,
) -> Result<Vec<events::Model>, StoreError> {
    let mut query = events::Entity::find()
        .filter(events::Column::Log.eq(log.as_str()))
        .filter(events::Column::Position.gte(signed(*positions.start())))
        .filter(events::Column::Position.lte(signed(*positions.end())));
    if let Some(owners) = &filter.owners {
        query = query.filter(events::Column::Owner.is_in(owners));
    }
    if !filter.kinds.is_empty() {
        query = query.filter(events::Column::Type.is_in(filter.kinds.iter().copied()));
    }
    if !filter.secrets.is_all() {
        query = query.filter(about(db.get_database_backend(), &filter.secrets));
    }
    let rows = query
        .order_by_asc(events::Column::Position)
        .limit(limit)
        .all(db)
        .await?;
    Ok(rows)
}

/// A part of a log, read on from a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// The events that pass the filter, in position order.
    pub events: Vec<LoggedEvent>,
    /// Where the next page begins: after the last event of a full page, else after all that was scanned.
    pub next: Cursor,
}

/// What the log still holds, where a cursor points to an event that it does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone {
    /// The cursor before the first event that is kept.
    pub first: Cursor,
    /// The cursor of the last event.
    pub head: Cursor,
}

/// Why there is nothing to read after a cursor.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CursorError {
    /// The log does not hold the cursor's event, or no longer.
    #[error("the log does not hold the cursor's event")]
    Gone(Gone),
    /// The database can't be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ReadError for CursorError {
    fn is_broken(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_broken())
    }
}

impl From<DbErr> for CursorError {
    fn from(error: DbErr) -> Self {
        StoreError::from(error).into()
    }
}

/// The page after a cursor; without one it begins at the first event kept. An event with a column that is not what the
/// event itself says is an error: filters go by the columns, so somebody has hidden it, or shown it to another.
pub(in crate::store) async fn page(
    db: &impl ConnectionTrait,
    log: Log,
    cursor: Option<Cursor>,
    filter: &Filter,
    limit: u32,
) -> Result<Page, CursorError> {
    let head = head(db, log).await?;
    let start = cursor.unwrap_or(head.cut);
    if start.position > head.position {
        return Err(CursorError::Gone(head.gone()));
    }
    let range = start.position + 1..=head.position;
    let rows = rows(db, log, range, filter, limit.into()).await?;
    if let Some(row) = rows.iter().find(|row| !is_as_told(row)) {
        let position = unsigned(row.position, "events")?;
        return Err(StoreError::Altered(log, position).into());
    }
    let events = rows.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    // Checked last: while the cursor's event is there, retention has removed none after it.
    match check_cursor(db, log, start).await {
        Ok(()) => {}
        // Retention moved the cut meanwhile, and may move it again during the next attempt.
        Err(CursorError::Gone(_moved)) if cursor.is_none() => {
            return Box::pin(page(db, log, None, filter, limit)).await;
        }
        Err(error) => return Err(error),
    }
    let full = events.len() as u64 >= u64::from(limit);
    let next = match events.last() {
        Some(last) if full => last.cursor(),
        _ => head.cursor(),
    };
    Ok(Page { events, next })
}

/// Checks a cursor: the log's event at its position must have its epoch, or it must be the retention cut.
pub(in crate::store) async fn check_cursor(
    db: &impl ConnectionTrait,
    log: Log,
    cursor: Cursor,
) -> Result<(), CursorError> {
    let found = events::Entity::find_by_id((log.as_str().to_owned(), signed(cursor.position)))
        .select_only()
        .column(events::Column::Epoch)
        .into_tuple::<i64>()
        .one(db)
        .await?;
    if found.is_some_and(|epoch| u64::try_from(epoch) == Ok(cursor.epoch)) {
        return Ok(());
    }
    let head = head(db, log).await?;
    if cursor == head.cut {
        Ok(())
    } else {
        Err(CursorError::Gone(head.gone()))
    }
}
