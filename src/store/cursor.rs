//! The relay's cursor and its lease: one row for each exchange and log, by the database's clock.

use sea_orm::{ConnectionTrait, FromQueryResult, Statement, prelude::Uuid};

use super::{
    StoreError,
    dialect::{Script, clock},
    rows::{signed, statement, unsigned},
    transaction::Transaction,
    writer::{Opener, Writer},
};
use crate::domain::Log;

/// How long a lease lasts without being renewed, in microseconds.
const LEASE: i64 = 5_000_000;

/// A relay's cursor: there is one for each exchange and log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CursorName {
    /// The exchange that events are published to.
    pub exchange: String,
    /// The log that they come from.
    pub log: Log,
}

/// What a relay does to its cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CursorStep {
    /// The cursor.
    pub cursor: CursorName,
    /// What is done to it.
    pub action: CursorAction,
}

/// What is done to a cursor. Each is one statement, conditional on the row as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CursorAction {
    /// Takes the lease if no relay holds it. A new cursor begins at the log's first event.
    Acquire {
        /// Who asks.
        holder: Uuid,
    },
    /// Renews the lease and moves the cursor over what was confirmed.
    Advance {
        /// The lease that the relay holds.
        lease_number: u64,
        /// The last position that was confirmed, with all before it.
        position: u64,
    },
    /// Like `Advance`, and releases the lease.
    Release {
        /// The lease that the relay holds.
        lease_number: u64,
        /// The last position that was confirmed, with all before it.
        position: u64,
    },
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CursorState {
    /// The lease is the relay's.
    Held {
        /// Its number: it grows with each holder.
        lease_number: u64,
        /// The last position that was published and confirmed.
        position: u64,
    },
    /// Another relay holds the lease.
    Lost,
}

#[derive(Debug, FromQueryResult)]
struct CursorRow {
    lease_number: i64,
    position: i64,
}

/// Runs a step in a transaction of its own. It takes no lock: one statement, conditional on the row as it stands.
pub(super) async fn run(
    held: Option<Writer>,
    opener: Opener,
    step: CursorStep,
) -> Result<(Writer, CursorState), StoreError> {
    let begun = opener.begin(held, Script::default()).await?;
    let state = take_step(&begun.transaction, &step).await?;
    Ok((begun.commit().await?, state))
}

async fn take_step(
    transaction: &Transaction,
    CursorStep { cursor, action }: &CursorStep,
) -> Result<CursorState, StoreError> {
    let now = clock(transaction.get_database_backend());
    let statement = match action {
        CursorAction::Acquire { holder } => acquire(transaction, cursor, *holder).await?,
        CursorAction::Advance {
            lease_number,
            position,
        } => {
            let until = format!("{now} + {LEASE}");
            advance(transaction, cursor, &until, *lease_number, *position)
        }
        CursorAction::Release {
            lease_number,
            position,
        } => advance(transaction, cursor, "0", *lease_number, *position),
    };
    let row = CursorRow::find_by_statement(statement)
        .one(transaction)
        .await?;
    row.map_or(Ok(CursorState::Lost), |row| {
        Ok(CursorState::Held {
            lease_number: unsigned(row.lease_number, "relay_cursors")?,
            position: unsigned(row.position, "relay_cursors")?,
        })
    })
}

/// Creates the cursor if it is not there. The statement that is returned takes its lease if no relay holds it.
async fn acquire(
    transaction: &Transaction,
    cursor: &CursorName,
    holder: Uuid,
) -> Result<Statement, StoreError> {
    let backend = transaction.get_database_backend();
    let (exchange, log) = (cursor.exchange.as_str(), cursor.log.as_str());
    let sql = "INSERT INTO relay_cursors \
               (exchange, log, position, holder, lease_number, leased_until) \
               SELECT $1, log, cut_position, NULL, 0, 0 FROM log_head WHERE log = $2 \
               ON CONFLICT DO NOTHING";
    let values = [exchange.into(), log.into()];
    transaction
        .execute_raw(statement(transaction, sql, values))
        .await?;
    let now = clock(backend);
    // A lease that ends later than one that is taken now was taken before the clock was set back: it is over.
    let sql = format!(
        "UPDATE relay_cursors SET holder = $1, lease_number = lease_number + 1, \
         leased_until = {now} + $2 WHERE exchange = $3 AND log = $4 \
         AND (leased_until <= {now} OR leased_until > {now} + $2) \
         RETURNING lease_number, position"
    );
    let values = [holder.into(), LEASE.into(), exchange.into(), log.into()];
    Ok(statement(transaction, sql, values))
}

/// The lease's number is checked in the statement that moves the cursor, so a relay that was frozen past
/// its lease can't move its successor's cursor. The cursor never moves back.
fn advance(
    transaction: &Transaction,
    cursor: &CursorName,
    until: &str,
    lease_number: u64,
    position: u64,
) -> Statement {
    let sql = format!(
        "UPDATE relay_cursors SET position = $1, leased_until = {until} \
         WHERE exchange = $2 AND log = $3 AND lease_number = $4 AND position <= $1 \
         RETURNING lease_number, position"
    );
    let values = [
        signed(position).into(),
        cursor.exchange.as_str().into(),
        cursor.log.as_str().into(),
        signed(lease_number).into(),
    ];
    statement(transaction, sql, values)
}
