//! Retention: the oldest events of a log are removed in batches, and the chain stays verifiable at the cut.
//!
//! Only a prefix is removed, never past a relay's cursor and never a log's last event. `log_head` keeps epoch,
//! position and hash of the last event that was removed.

use std::time::Duration;

use chrono::Utc;
use sea_orm::{ConnectionTrait, FromQueryResult};
use tokio::time::sleep;

use super::{
    StoreError,
    commit::lock,
    committer::Committer,
    dialect::{Script, clock},
    log,
    rows::{signed, statement, unsigned},
    transaction::Transaction,
    writer::{Opener, Writer},
};
use crate::domain::{Log, Timestamp};

/// The most events that one transaction removes.
const BATCH: u64 = 1000;
/// The pause between two batches.
const BETWEEN_BATCHES: Duration = Duration::from_millis(50);
/// How often old events are looked for.
const EVERY: Duration = Duration::from_mins(10);

/// Clocks that differ by more stop retention.
const CLOCKS_APART: Duration = Duration::from_hours(1);

/// How long the logs are kept; for ever where it is none.
#[derive(Debug, Clone)]
pub(crate) struct RetentionPolicy {
    /// The log `changes`.
    pub(crate) changes: Option<Duration>,
    /// The log `activity`.
    pub(crate) activity: Option<Duration>,
    /// The exchange that this process relays to.
    pub(crate) exchange: Option<String>,
}

impl RetentionPolicy {
    /// Removes old events of both logs, at once and from then on every ten minutes.
    pub(crate) async fn run(self, committer: Committer) {
        loop {
            for (log, kept) in [(Log::Changes, self.changes), (Log::Activity, self.activity)] {
                let Some(kept) = kept else { continue };
                let retention = Retention {
                    log,
                    kept,
                    exchange: self.exchange.clone(),
                };
                // A batch that failed is logged by the committer, and tried again the next time.
                while matches!(committer.retain(retention.clone()).await, Ok(1..)) {
                    sleep(BETWEEN_BATCHES).await;
                }
            }
            sleep(EVERY).await;
        }
    }
}

/// What is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Retention {
    /// The log.
    pub log: Log,
    /// Events that happened longer ago, by the database's clock.
    pub kept: Duration,
    /// The exchange that this process relays to: its cursor must be there.
    pub exchange: Option<String>,
}

#[derive(Debug, FromQueryResult)]
struct TimeRow {
    micros: i64,
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

/// Removes one batch in a transaction of its own, and returns how many events it removed.
pub(super) async fn run(
    held: Option<Writer>,
    opener: Opener,
    retention: Retention,
) -> Result<(Writer, u64), StoreError> {
    let begun = opener.begin(held, Script::default()).await?;
    let removed = remove_batch(&begun.transaction, &retention).await?;
    Ok((begun.commit().await?, removed))
}

async fn remove_batch(transaction: &Transaction, retention: &Retention) -> Result<u64, StoreError> {
    let log = retention.log;
    lock(transaction, log).await?;
    let Some(now) = agreed_time(transaction).await? else {
        return Ok(0);
    };
    let head = log::head(transaction, log).await?;
    let cut = head.cut.position;
    let Some(relayed) = relayed(transaction, retention).await? else {
        return Ok(0);
    };
    let last = head.position.saturating_sub(1);
    let most = last.min(relayed).min(cut.saturating_add(BATCH));
    let before = now.before(retention.kept);
    let young = "SELECT position FROM events WHERE log = $1 AND position > $2 AND position <= $3 \
                 AND occurred_at >= $4 ORDER BY position LIMIT 1";
    let values = [
        log.as_str().into(),
        signed(cut).into(),
        signed(most).into(),
        before.micros().into(),
    ];
    let young = PositionRow::find_by_statement(statement(transaction, young, values))
        .one(transaction)
        .await?;
    let until = match young {
        Some(row) => unsigned(row.position, "events")?.saturating_sub(1),
        None => most,
    };
    if until <= cut {
        return Ok(0);
    }
    remove(transaction, log, cut, until).await?;
    Ok(until - cut)
}

/// The database's time; none when this process's clock says something else. One of the two is wrong then, and
/// what it would remove is gone for good.
async fn agreed_time(transaction: &Transaction) -> Result<Option<Timestamp>, StoreError> {
    let clock = clock(transaction.get_database_backend());
    let sql = format!("SELECT {clock} AS micros");
    let row = TimeRow::find_by_statement(statement(transaction, sql, []))
        .one(transaction)
        .await?
        .ok_or(StoreError::Corrupt("the clock"))?;
    let database = Timestamp::from_micros(row.micros);
    let apart = Timestamp::from(Utc::now()).apart(database);
    if apart > CLOCKS_APART {
        tracing::error!(
            clocks.apart_seconds = apart.as_secs(),
            "retention stops: the clocks of the database and of this process differ by more than an hour"
        );
        return Ok(None);
    }
    Ok(Some(database))
}

/// The position that every relay has passed; none while this process's own has yet to create its cursor.
async fn relayed(
    transaction: &Transaction,
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
    match least {
        Some(row) => unsigned(row.position, "relay_cursors").map(Some),
        // No relay has ever run: nothing holds retention back.
        None => Ok(Some(u64::MAX)),
    }
}

async fn remove(
    transaction: &Transaction,
    log: Log,
    cut: u64,
    until: u64,
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
