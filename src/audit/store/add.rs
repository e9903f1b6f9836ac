//! The writes: adds events and checkpoints, and moves the marks.

use std::collections::{HashMap, hash_map::Entry};

use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, QuerySelect,
};

use super::{
    PAGE, Stored,
    rows::{cursor_of, event_row, hash_of, link_of, signed},
    waiting::{Reach, settle, wait},
};
use crate::{
    audit::{
        entity::{alarms, checkpoints, events, marks},
        event::{AuditEvent, Link},
    },
    domain::{Checkpoint, Cursor, HASH_BYTES, Log, Timestamp},
    store::{StoreError, Transaction},
};

pub(super) async fn add(
    transaction: &Transaction,
    mut events: Vec<AuditEvent>,
    now: Timestamp,
) -> Result<Stored, StoreError> {
    let locked = lock_marks(transaction).await?;
    let mut stored = Stored::default();
    for log in Log::ALL {
        let mut rest: Vec<_> = events.extract_if(.., |event| event.log == log).collect();
        if rest.is_empty() {
            continue;
        }
        let mark = mark_of(&locked, log)?;
        let reach = Reach::of(transaction, log, mark).await?;
        let ahead: Vec<_> = rest
            .extract_if(.., |event| !reach.includes(event.link.cursor))
            .collect();
        if !ahead.is_empty() {
            wait(transaction, log, ahead, now, &mut stored).await?;
        }
        while !rest.is_empty() {
            let page = rest.drain(..rest.len().min(PAGE)).collect();
            add_page(transaction, log, page, now, &mut stored).await?;
        }
        let moved = advance(transaction, log, mark).await?;
        if moved != mark {
            write_mark(transaction, log, moved).await?;
        }
    }
    Ok(stored)
}

/// Inserts new events, and keeps those that contradict a stored event as alarms.
pub(super) async fn add_page(
    transaction: &Transaction,
    log: Log,
    page: Vec<AuditEvent>,
    now: Timestamp,
    stored: &mut Stored,
) -> Result<(), StoreError> {
    let positions = page.iter().map(|event| signed(event.link.cursor.position));
    let rows = events::Entity::find()
        .select_only()
        .columns([
            events::Column::Epoch,
            events::Column::Position,
            events::Column::Hash,
        ])
        .filter(events::Column::Log.eq(log.as_str()))
        .filter(events::Column::Position.is_in(positions))
        .into_tuple::<(i64, i64, Vec<u8>)>()
        .all(transaction)
        .await?;
    let mut known: HashMap<(i64, i64), Vec<u8>> = rows
        .into_iter()
        .map(|(epoch, position, hash)| ((epoch, position), hash))
        .collect();
    let (mut fresh, mut contradicting) = (Vec::new(), Vec::new());
    for event in page {
        let Link { cursor, hash } = event.link;
        match known.entry((signed(cursor.epoch), signed(cursor.position))) {
            Entry::Vacant(vacant) => {
                vacant.insert(hash.to_vec());
                fresh.push(event_row(event).into_active_model());
            }
            Entry::Occupied(first) if *first.get() == hash => stored.repeats += 1,
            Entry::Occupied(_) => {
                tracing::error!(
                    log = event.log.as_str(),
                    event.epoch = cursor.epoch,
                    event.position = cursor.position,
                    "an event contradicts the stored one; both are kept"
                );
                let alarm = alarm(log, event.link, event.body, now);
                contradicting.push(alarm.into_active_model());
            }
        }
    }
    stored.new += fresh.len() as u64;
    stored.alarms += contradicting.len() as u64;
    events::Entity::insert_many(fresh)
        .exec_without_returning(transaction)
        .await?;
    alarms::Entity::insert_many(contradicting)
        .on_conflict_do_nothing()
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// What contradicts the event that is stored there.
fn alarm(log: Log, link: Link, body: Vec<u8>, now: Timestamp) -> alarms::Model {
    alarms::Model {
        log: log.as_str().to_owned(),
        epoch: signed(link.cursor.epoch),
        position: signed(link.cursor.position),
        hash: link.hash.to_vec(),
        body,
        received_at: now.micros(),
    }
}

pub(super) async fn add_checkpoint(
    transaction: &Transaction,
    checkpoint: &Checkpoint,
    (asked, now): (Timestamp, Timestamp),
) -> Result<bool, StoreError> {
    let log = checkpoint.log;
    let mark = mark_of(&lock_marks(transaction).await?, log)?;
    let (epoch, position) = (signed(checkpoint.epoch), signed(checkpoint.position));
    let row = checkpoints::Model {
        log: log.as_str().to_owned(),
        epoch,
        position,
        hash: checkpoint.hash.to_vec(),
        signature: checkpoint.signature.clone(),
        received_at: now.micros(),
    };
    checkpoints::Entity::insert(row.into_active_model())
        .on_conflict_do_nothing()
        .exec_without_returning(transaction)
        .await?;
    settle(transaction, log, mark, (asked, now)).await?;
    let event = events::Entity::find_by_id((log.as_str().to_owned(), epoch, position))
        .one(transaction)
        .await?;
    let stored = event.map(|row| hash_of(row.hash)).transpose()?;
    if stored.is_none_or(|hash| hash == checkpoint.hash) {
        return Ok(true);
    }
    let link = Link {
        cursor: checkpoint.cursor(),
        hash: checkpoint.hash,
    };
    let alarm = alarm(log, link, checkpoint.to_json(), now);
    alarms::Entity::insert(alarm.into_active_model())
        .on_conflict_do_nothing()
        .exec_without_returning(transaction)
        .await?;
    Ok(false)
}

/// The cursor of the newest checkpoint of a log.
pub(super) async fn newest_checkpoint(
    connection: &impl ConnectionTrait,
    log: Log,
) -> Result<Option<Cursor>, StoreError> {
    let newest = checkpoints::Entity::find()
        .filter(checkpoints::Column::Log.eq(log.as_str()))
        .order_by_desc(checkpoints::Column::Epoch)
        .order_by_desc(checkpoints::Column::Position)
        .one(connection)
        .await?;
    newest
        .map(|row| cursor_of((row.epoch, row.position)))
        .transpose()
}

/// Moves the mark along the chain as far as it is stored. When a higher epoch branches off at or before the
/// mark, the mark moves to that branch: the service was restored to that point.
pub(super) async fn advance(
    connection: &impl ConnectionTrait,
    log: Log,
    mut mark: Link,
) -> Result<Link, StoreError> {
    loop {
        let before = mark;
        if let Some(branch) = branch_off(connection, log, mark).await? {
            mark = branch;
        }
        let rows = events::Entity::find()
            .select_only()
            .columns([
                events::Column::Epoch,
                events::Column::Position,
                events::Column::Hash,
                events::Column::PrevHash,
            ])
            .filter(events::Column::Log.eq(log.as_str()))
            .filter(events::Column::Position.gt(signed(mark.cursor.position)))
            .filter(events::Column::Epoch.gte(signed(mark.cursor.epoch)))
            .order_by_asc(events::Column::Position)
            .order_by_asc(events::Column::Epoch)
            .limit(PAGE as u64)
            .into_tuple::<(i64, i64, Vec<u8>, Vec<u8>)>()
            .all(connection)
            .await?;
        for (epoch, position, hash, prev_hash) in rows {
            let (cursor, last) = (cursor_of((epoch, position))?, mark.cursor);
            if cursor.position > last.position + 1 {
                break;
            }
            let next = cursor.position == last.position + 1 && cursor.epoch >= last.epoch;
            if next && prev_hash == mark.hash {
                mark = link_of(epoch, position, hash)?;
            }
        }
        if mark == before {
            return Ok(mark);
        }
    }
}

/// The first event of a higher epoch at or before the mark, when it follows an event that is stored.
async fn branch_off(
    connection: &impl ConnectionTrait,
    log: Log,
    mark: Link,
) -> Result<Option<Link>, StoreError> {
    let first = events::Entity::find()
        .filter(events::Column::Log.eq(log.as_str()))
        .filter(events::Column::Epoch.gt(signed(mark.cursor.epoch)))
        .filter(events::Column::Position.lte(signed(mark.cursor.position)))
        .order_by_asc(events::Column::Epoch)
        .order_by_asc(events::Column::Position)
        .one(connection)
        .await?;
    let Some(first) = first else {
        return Ok(None);
    };
    let follows = if first.position == 1 {
        first.prev_hash == [0; HASH_BYTES]
    } else {
        let before = events::Entity::find()
            .filter(events::Column::Log.eq(log.as_str()))
            .filter(events::Column::Position.eq(first.position - 1))
            .filter(events::Column::Epoch.lte(signed(mark.cursor.epoch)))
            .filter(events::Column::Hash.eq(first.prev_hash))
            .one(connection)
            .await?;
        before.is_some()
    };
    if !follows {
        return Ok(None);
    }
    link_of(first.epoch, first.position, first.hash).map(Some)
}

fn mark_of(locked: &HashMap<String, Link>, log: Log) -> Result<Link, StoreError> {
    let mark = locked.get(log.as_str());
    mark.copied().ok_or(StoreError::Corrupt("audit_marks"))
}

pub(super) async fn lock_marks(
    transaction: &Transaction,
) -> Result<HashMap<String, Link>, StoreError> {
    let rows = marks::Entity::find()
        .order_by_asc(marks::Column::Log)
        .lock_exclusive()
        .all(transaction)
        .await?;
    rows.into_iter()
        .map(|row| Ok((row.log, link_of(row.epoch, row.position, row.hash)?)))
        .collect()
}

pub(super) async fn write_mark(
    transaction: &Transaction,
    log: Log,
    mark: Link,
) -> Result<(), StoreError> {
    marks::Entity::update_many()
        .set(marks::ActiveModel {
            epoch: Set(signed(mark.cursor.epoch)),
            position: Set(signed(mark.cursor.position)),
            hash: Set(mark.hash.to_vec()),
            ..Default::default()
        })
        .filter(marks::Column::Log.eq(log.as_str()))
        .exec(transaction)
        .await?;
    Ok(())
}
