//! Retention: the oldest events of a log go, in batches, and the chain stays verifiable at the cut.
//!
//! Only a prefix goes, never past a relay's cursor and never a log's last event; `log_head` keeps epoch,
//! position and hash of the last event that went.

use sea_orm::{ConnectionTrait, DatabaseTransaction, FromQueryResult, Statement, Value};

use super::{
    StoreError,
    commit::{lock, lock_activity},
    log,
    rows::signed,
};
use crate::domain::{Log, Timestamp};

/// Events that go in one transaction, at most.
const BATCH: u64 = 1000;

/// What is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// The log.
    pub log: Log,
    /// Events that happened before.
    pub before: Timestamp,
    /// The exchange that this process relays to: its cursor must be there.
    pub exchange: Option<String>,
}

#[derive(Debug, FromQueryResult)]
struct PositionRow {
    position: i64,
}

#[derive(Debug, FromQueryResult)]
struct CutRow {
    epoch: i64,
    hash: Vec<u8>,
}

/// Removes one batch; how many events went.
pub(super) async fn run(
    transaction: &DatabaseTransaction,
    retention: &Retention,
) -> Result<u64, StoreError> {
    let log = retention.log;
    match log {
        Log::Changes => drop(lock(transaction).await?),
        Log::Activity => lock_activity(transaction).await?,
    }
    let head = log::head(transaction, log).await?;
    let cut = head.cut.position;
    let Some(relayed) = relayed(transaction, retention).await? else {
        return Ok(0);
    };
    let last = head.position.saturating_sub(1);
    let most = last.min(relayed).min(cut.saturating_add(BATCH));
    let young = "SELECT position FROM events WHERE log = $1 AND position > $2 AND position <= $3 \
                 AND occurred_at >= $4 ORDER BY position LIMIT 1";
    let values = [
        log.as_str().into(),
        signed(cut).into(),
        signed(most).into(),
        retention.before.micros().into(),
    ];
    let young = PositionRow::find_by_statement(statement(transaction, young, values))
        .one(transaction)
        .await?;
    let until = young.map_or(most, |row| u64::try_from(row.position - 1).unwrap_or(0));
    if until <= cut {
        return Ok(0);
    }
    remove(transaction, log, (cut, until)).await?;
    Ok(until - cut)
}

/// Up to where every relay has got; nothing while this process's own has yet to make its cursor.
async fn relayed(
    transaction: &DatabaseTransaction,
    retention: &Retention,
) -> Result<Option<u64>, StoreError> {
    let log = retention.log.as_str();
    if let Some(exchange) = &retention.exchange {
        let own = "SELECT position FROM relay_cursors WHERE log = $1 AND exchange = $2";
        let values = [log.into(), exchange.as_str().into()];
        let own = statement(transaction, own, values);
        if transaction.query_one_raw(own).await?.is_none() {
            return Ok(None);
        }
    }
    let least = "SELECT position FROM relay_cursors WHERE log = $1 ORDER BY position LIMIT 1";
    let least = PositionRow::find_by_statement(statement(transaction, least, [log.into()]))
        .one(transaction)
        .await?;
    Ok(Some(least.map_or(u64::MAX, |row| {
        u64::try_from(row.position).unwrap_or(0)
    })))
}

async fn remove(
    transaction: &DatabaseTransaction,
    log: Log,
    (cut, until): (u64, u64),
) -> Result<(), StoreError> {
    let at = "SELECT epoch, hash FROM events WHERE log = $1 AND position = $2";
    let values = [log.as_str().into(), signed(until).into()];
    let CutRow { epoch, hash } = CutRow::find_by_statement(statement(transaction, at, values))
        .one(transaction)
        .await?
        .ok_or(StoreError::Corrupt("events"))?;
    let delete = "DELETE FROM events WHERE log = $1 AND position > $2 AND position <= $3";
    let values = [
        log.as_str().into(),
        signed(cut).into(),
        signed(until).into(),
    ];
    transaction
        .execute_raw(statement(transaction, delete, values))
        .await?;
    let update = "UPDATE log_head SET cut_epoch = $1, cut_position = $2, cut_hash = $3 \
                  WHERE log = $4";
    let values = [
        epoch.into(),
        signed(until).into(),
        hash.into(),
        log.as_str().into(),
    ];
    transaction
        .execute_raw(statement(transaction, update, values))
        .await?;
    Ok(())
}

fn statement<const N: usize>(
    transaction: &DatabaseTransaction,
    sql: &str,
    values: [Value; N],
) -> Statement {
    Statement::from_sql_and_values(transaction.get_database_backend(), sql, values)
}
