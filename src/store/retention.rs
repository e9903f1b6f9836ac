//! Retention: the oldest events of a log are removed in batches, and the chain stays verifiable at the cut.
//!
//! Only a prefix is removed, never past a relay's cursor and never a log's last event. `log_head` keeps epoch,
//! position and hash of the last event that was removed.

use std::time::Duration;

use chrono::Utc;
use sea_orm::FromQueryResult;
use tokio::time::sleep;

use super::{
    StoreError,
    commit::{lock_statements, locks},
    committer::Committer,
    dialect::clock,
    idempotency,
    rows::unsigned,
    transaction::Transaction,
    writer::{Opener, Writer},
};
use crate::domain::{Log, Timestamp};

/// The most events that one transaction removes: changes wait for it.
const BATCH: i64 = 250;
/// The pause between two batches. So more is removed in a second than can be written.
const BETWEEN_BATCHES: Duration = Duration::from_millis(15);
/// How long after the start expired records are looked for first.
const FIRST_RECORDS: Duration = Duration::from_mins(1);
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
        let mut first = FIRST_RECORDS;
        loop {
            for (log, kept) in [(Log::Changes, self.changes), (Log::Activity, self.activity)] {
                let Some(kept) = kept else { continue };
                let retention = Retention {
                    log,
                    kept,
                    exchange: self.exchange.clone(),
                };
                // A batch that failed is logged by the committer, and tried again the next time.
                while matches!(
                    committer.remove(Removal::Events(retention.clone())).await,
                    Ok(1..)
                ) {
                    sleep(BETWEEN_BATCHES).await;
                }
            }
            // A start has other things to do; records wait for a day as it is.
            sleep(std::mem::take(&mut first)).await;
            while matches!(committer.remove(Removal::Records).await, Ok(1..)) {
                sleep(BETWEEN_BATCHES).await;
            }
            sleep(EVERY).await;
        }
    }
}

/// What a batch removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Old events of a log.
    Events(Retention),
    /// The records of requests whose answers are kept no longer.
    Records,
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

/// A row of the look before a removal: one for each relay's cursor, or one alone.
#[derive(Debug, FromQueryResult)]
struct LookRow {
    /// The database's clock.
    now: i64,
    /// The position of the last event that was removed.
    cut: i64,
    /// The log's last position.
    last: Option<i64>,
    /// The first of the next events that is young.
    young: Option<i64>,
    /// The cursor's exchange.
    exchange: Option<String>,
    /// The cursor's position.
    relayed: Option<i64>,
}

/// Removes one batch in a transaction of its own, and returns how many rows it removed.
pub(super) async fn run(
    held: Option<Writer>,
    opener: Opener,
    removal: Removal,
) -> Result<(Writer, u64), StoreError> {
    match removal {
        Removal::Events(retention) => remove_events(held, opener, retention).await,
        Removal::Records => {
            let logs = [Log::Changes];
            let first = lock_statements(locks(&opener, &logs));
            let begun = opener.begin(held, first.into()).await?;
            let removed = idempotency::remove_expired(&begun.transaction).await?;
            Ok((begun.commit().await?, removed))
        }
    }
}

/// Removes one batch of events, and returns how many. It takes three round
/// trips: changes wait meanwhile.
async fn remove_events(
    held: Option<Writer>,
    opener: Opener,
    retention: Retention,
) -> Result<(Writer, u64), StoreError> {
    let logs = [retention.log];
    let mut first = lock_statements(locks(&opener, &logs));
    first.push_str(&look(&opener, &retention));
    let mut begun = opener.begin(held, first.into()).await?;
    let rows = begun.results.pop().unwrap_or_default();
    let rows = rows.iter().map(|row| LookRow::from_query_result(row, ""));
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    let removed = match removable(&rows, retention.exchange.as_deref())? {
        Some((cut, until)) => {
            remove(&begun.transaction, retention.log, cut, until).await?;
            until - cut
        }
        None => 0,
    };
    Ok((begun.commit().await?, removed))
}

/// The look goes with BEGIN, after the lock. It names no exchange: only numbers may stand in its text.
fn look(opener: &Opener, retention: &Retention) -> String {
    let now = clock(opener.backend());
    let log = retention.log.as_str();
    // A hundred years are fewer microseconds than a number can say.
    let kept = i64::try_from(retention.kept.as_micros()).unwrap_or(i64::MAX);
    format!(
        "SELECT {now} AS now, h.cut_position AS cut, \
         (SELECT e.position FROM events e WHERE e.log = h.log ORDER BY e.position DESC LIMIT 1) AS last, \
         (SELECT e.position FROM events e WHERE e.log = h.log AND e.position > h.cut_position \
          AND e.position <= h.cut_position + {BATCH} AND e.occurred_at >= {now} - {kept} \
          ORDER BY e.position LIMIT 1) AS young, c.exchange AS exchange, c.position AS relayed \
         FROM log_head h LEFT JOIN relay_cursors c ON c.log = h.log WHERE h.log = '{log}'"
    )
}

/// The last position that is removed already, and the last that can be; none when nothing can.
fn removable(rows: &[LookRow], exchange: Option<&str>) -> Result<Option<(u64, u64)>, StoreError> {
    let look = rows.first().ok_or(StoreError::Corrupt("log_head"))?;
    if !clocks_agree(Timestamp::from_micros(look.now)) {
        return Ok(None);
    }
    // This process's relay has yet to create its cursor.
    if exchange.is_some() && !rows.iter().any(|row| row.exchange.as_deref() == exchange) {
        return Ok(None);
    }
    let before = |position: Option<i64>| position.map(|position| position - 1);
    let relayed = rows.iter().filter_map(|row| row.relayed).min();
    let ends = [before(look.last), before(look.young), relayed];
    let batch = look.cut.saturating_add(BATCH);
    let until = ends.into_iter().flatten().fold(batch, i64::min);
    if look.last.is_none() || until <= look.cut {
        return Ok(None);
    }
    Ok(Some((
        unsigned(look.cut, "log_head")?,
        unsigned(until, "events")?,
    )))
}

/// Whether the database's time is about this process's. If not, one of the two is wrong, and what it would remove
/// is gone for good.
fn clocks_agree(database: Timestamp) -> bool {
    let apart = Timestamp::from(Utc::now()).apart(database);
    if apart > CLOCKS_APART {
        tracing::error!(
            clocks.apart_seconds = apart.as_secs(),
            "retention stops: the clocks of the database and of this process differ by more than an hour"
        );
    }
    apart <= CLOCKS_APART
}

/// Moves the cut, and removes what is before it. The text holds the range itself: PostgreSQL must not take a plan for
/// it that was made for another one.
async fn remove(
    transaction: &Transaction,
    log: Log,
    cut: u64,
    until: u64,
) -> Result<(), StoreError> {
    let log = log.as_str();
    let sql = format!(
        "UPDATE log_head SET cut_epoch = e.epoch, cut_position = e.position, cut_hash = e.hash \
         FROM events e WHERE e.log = '{log}' AND e.position = {until} AND log_head.log = '{log}' \
         RETURNING 1; \
         DELETE FROM events WHERE log = '{log}' AND position > {cut} AND position <= {until} RETURNING 1"
    );
    let written = transaction.script(sql.into()).await?;
    let counts: Vec<u64> = written.iter().map(|rows| rows.len() as u64).collect();
    // No position is missing.
    if counts == [1, until - cut] {
        Ok(())
    } else {
        Err(StoreError::RowCount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(last: Option<i64>, young: Option<i64>, relayed: Option<(&str, i64)>) -> LookRow {
        LookRow {
            now: Timestamp::from(Utc::now()).micros(),
            cut: 10,
            last,
            young,
            exchange: relayed.map(|(exchange, _)| exchange.to_owned()),
            relayed: relayed.map(|(_, position)| position),
        }
    }

    fn until(rows: &[LookRow], exchange: Option<&str>) -> Option<u64> {
        let found = removable(rows, exchange).unwrap();
        found.map(|(cut, until)| {
            assert_eq!(cut, 10);
            until
        })
    }

    #[test]
    fn what_is_removed_ends_before_what_must_stay() {
        let batch = 10 + BATCH.unsigned_abs();
        assert_eq!(until(&[row(Some(90_000), None, None)], None), Some(batch));
        // The last event, and the first young one.
        assert_eq!(until(&[row(Some(15), None, None)], None), Some(14));
        assert_eq!(until(&[row(Some(15), Some(13), None)], None), Some(12));
        // The relay that is furthest behind.
        let relays = ["a", "b"].map(|exchange| match exchange {
            "a" => row(Some(90), None, Some((exchange, 60))),
            _ => row(Some(90), None, Some((exchange, 50))),
        });
        assert_eq!(until(&relays, Some("a")), Some(50));
        assert_eq!(until(&relays, None), Some(50));
    }

    #[test]
    fn nothing_is_removed_where_nothing_can_be() {
        assert_eq!(until(&[row(None, None, None)], None), None);
        assert_eq!(until(&[row(Some(11), None, None)], None), None);
        assert_eq!(until(&[row(Some(90), Some(11), None)], None), None);
        // A relay that has published nothing, or has no cursor yet.
        assert_eq!(
            until(&[row(Some(90), None, Some(("a", 10)))], Some("a")),
            None
        );
        assert_eq!(
            until(&[row(Some(90), None, Some(("a", 60)))], Some("b")),
            None
        );
        assert_eq!(until(&[row(Some(90), None, None)], Some("b")), None);
        let apart = LookRow {
            now: Timestamp::from(Utc::now()).micros() + 3_700_000_000,
            ..row(Some(90), None, None)
        };
        assert_eq!(until(&[apart], None), None);
        assert!(removable(&[], None).is_err());
    }
}
