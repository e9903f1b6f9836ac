//! The writes: adds events and checkpoints, and moves the marks.

use std::collections::{BTreeMap, HashMap, hash_map::Entry};

use sea_orm::{
    ActiveValue::Set, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder,
    QuerySelect, sea_query::OnConflict,
};

use super::{
    Mark, PAGE, Stored, hash_at,
    rows::{event_row, hash_of, mark_of, signed, unsigned},
};
use crate::{
    audit::{
        entity::{alarms, checkpoints, events, marks},
        event::AuditEvent,
    },
    domain::{Checkpoint, HASH_BYTES, Log, Timestamp},
    store::{StoreError, Transaction},
};

pub(super) async fn add(
    transaction: &Transaction,
    events: Vec<AuditEvent>,
    now: Timestamp,
) -> Result<Stored, StoreError> {
    let mut locked = lock_marks(transaction).await?;
    let mut by_log: BTreeMap<&'static str, (Log, Vec<AuditEvent>)> = BTreeMap::new();
    for event in events {
        let (_, list) = by_log
            .entry(event.log.as_str())
            .or_insert((event.log, Vec::new()));
        list.push(event);
    }
    let mut stored = Stored::default();
    for (name, (log, events)) in by_log {
        let mark = locked
            .remove(name)
            .ok_or(StoreError::Corrupt("audit_marks"))?;
        let mut rest = events;
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
async fn add_page(
    transaction: &Transaction,
    log: Log,
    page: Vec<AuditEvent>,
    now: Timestamp,
    stored: &mut Stored,
) -> Result<(), StoreError> {
    let positions = page.iter().map(|event| signed(event.position));
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
        match known.entry((signed(event.epoch), signed(event.position))) {
            Entry::Vacant(vacant) => {
                vacant.insert(event.hash.to_vec());
                fresh.push(event_row(event).into_active_model());
            }
            Entry::Occupied(first) if *first.get() == event.hash => stored.repeats += 1,
            Entry::Occupied(_) => {
                tracing::error!(
                    log = event.log.as_str(),
                    event.epoch = event.epoch,
                    event.position = event.position,
                    "an event contradicts the stored one; both are kept"
                );
                contradicting.push(alarms::Model {
                    log: log.as_str().to_owned(),
                    epoch: signed(event.epoch),
                    position: signed(event.position),
                    hash: event.hash.to_vec(),
                    body: event.body,
                    received_at: now.micros(),
                });
            }
        }
    }
    stored.new += fresh.len() as u64;
    stored.alarms += contradicting.len() as u64;
    if !fresh.is_empty() {
        events::Entity::insert_many(fresh)
            .exec_without_returning(transaction)
            .await?;
    }
    for alarm in contradicting {
        insert_alarm(transaction, alarm).await?;
    }
    Ok(())
}

async fn insert_alarm(transaction: &Transaction, alarm: alarms::Model) -> Result<(), StoreError> {
    let key = [
        alarms::Column::Log,
        alarms::Column::Epoch,
        alarms::Column::Position,
        alarms::Column::Hash,
    ];
    alarms::Entity::insert(alarm.into_active_model())
        .on_conflict(OnConflict::columns(key).do_nothing().to_owned())
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

pub(super) async fn add_checkpoint(
    transaction: &Transaction,
    checkpoint: &Checkpoint,
    now: Timestamp,
) -> Result<bool, StoreError> {
    lock_marks(transaction).await?;
    let (epoch, position) = (signed(checkpoint.epoch), signed(checkpoint.position));
    let row = checkpoints::Model {
        log: checkpoint.log.as_str().to_owned(),
        epoch,
        position,
        hash: checkpoint.hash.to_vec(),
        signature: checkpoint.signature.clone(),
        received_at: now.micros(),
    };
    let key = [
        checkpoints::Column::Log,
        checkpoints::Column::Epoch,
        checkpoints::Column::Position,
        checkpoints::Column::Hash,
    ];
    checkpoints::Entity::insert(row.into_active_model())
        .on_conflict(OnConflict::columns(key).do_nothing().to_owned())
        .exec_without_returning(transaction)
        .await?;
    let stored = hash_at(transaction, checkpoint.log, checkpoint.cursor()).await?;
    if stored.is_none_or(|hash| hash == checkpoint.hash) {
        return Ok(true);
    }
    let alarm = alarms::Model {
        log: checkpoint.log.as_str().to_owned(),
        epoch,
        position,
        hash: checkpoint.hash.to_vec(),
        body: checkpoint.to_json(),
        received_at: now.micros(),
    };
    insert_alarm(transaction, alarm).await?;
    Ok(false)
}

/// Moves the mark along the chain as far as it is stored. When a higher epoch branches off at or before the
/// mark, the mark moves to that branch: the service was restored to that point.
pub(super) async fn advance(
    transaction: &Transaction,
    log: Log,
    mut mark: Mark,
) -> Result<Mark, StoreError> {
    loop {
        let before = mark;
        if let Some(branch) = branch_off(transaction, log, &mark).await? {
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
            .filter(events::Column::Position.gt(signed(mark.position)))
            .filter(events::Column::Epoch.gte(signed(mark.epoch)))
            .order_by_asc(events::Column::Position)
            .order_by_asc(events::Column::Epoch)
            .limit(PAGE as u64)
            .into_tuple::<(i64, i64, Vec<u8>, Vec<u8>)>()
            .all(transaction)
            .await?;
        for (epoch, position, hash, prev_hash) in rows {
            let (epoch, position) = (unsigned(epoch)?, unsigned(position)?);
            if position > mark.position + 1 {
                break;
            }
            if position == mark.position + 1 && epoch >= mark.epoch && prev_hash == mark.hash {
                mark = Mark {
                    epoch,
                    position,
                    hash: hash_of(hash)?,
                };
            }
        }
        if mark == before {
            return Ok(mark);
        }
    }
}

/// The first event of a higher epoch at or before the mark, when it follows an event that is stored.
async fn branch_off(
    transaction: &Transaction,
    log: Log,
    mark: &Mark,
) -> Result<Option<Mark>, StoreError> {
    let first = events::Entity::find()
        .filter(events::Column::Log.eq(log.as_str()))
        .filter(events::Column::Epoch.gt(signed(mark.epoch)))
        .filter(events::Column::Position.lte(signed(mark.position)))
        .order_by_asc(events::Column::Epoch)
        .order_by_asc(events::Column::Position)
        .one(transaction)
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
            .filter(events::Column::Epoch.lte(signed(mark.epoch)))
            .filter(events::Column::Hash.eq(first.prev_hash))
            .one(transaction)
            .await?;
        before.is_some()
    };
    if !follows {
        return Ok(None);
    }
    Ok(Some(Mark {
        epoch: unsigned(first.epoch)?,
        position: unsigned(first.position)?,
        hash: hash_of(first.hash)?,
    }))
}

pub(super) async fn lock_marks(
    transaction: &Transaction,
) -> Result<HashMap<String, Mark>, StoreError> {
    let rows = marks::Entity::find()
        .order_by_asc(marks::Column::Log)
        .lock_exclusive()
        .all(transaction)
        .await?;
    rows.into_iter()
        .map(|row| Ok((row.log.clone(), mark_of(row)?)))
        .collect()
}

pub(super) async fn write_mark(
    transaction: &Transaction,
    log: Log,
    mark: Mark,
) -> Result<(), StoreError> {
    marks::Entity::update_many()
        .set(marks::ActiveModel {
            epoch: Set(signed(mark.epoch)),
            position: Set(signed(mark.position)),
            hash: Set(mark.hash.to_vec()),
            ..Default::default()
        })
        .filter(marks::Column::Log.eq(log.as_str()))
        .exec(transaction)
        .await?;
    Ok(())
}
