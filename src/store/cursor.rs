//! The relay's cursor and its lease: one row for each exchange and log, by the database's clock.

use sea_orm::{ConnectionTrait, DatabaseTransaction, FromQueryResult, Statement, prelude::Uuid};

use super::{
    StoreError,
    dialect::clock,
    rows::{signed, unsigned},
};

/// How long a lease lasts without being renewed, in microseconds.
const LEASE: i64 = 5_000_000;

/// What a relay does to its cursor. Each is one statement, conditional on the row as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CursorStep {
    /// Takes the lease if nobody holds it. A cursor that is not there begins at the log's first event.
    Acquire {
        /// The exchange that the cursor is for.
        exchange: String,
        /// Who asks.
        holder: Uuid,
    },
    /// Renews the lease and moves the cursor over what was confirmed.
    Advance {
        /// The exchange that the cursor is for.
        exchange: String,
        /// The lease that the relay holds.
        lease_number: u64,
        /// The last position that was confirmed, with all before it.
        position: u64,
    },
    /// Like `Advance`, and lets the lease go.
    Release {
        /// The exchange that the cursor is for.
        exchange: String,
        /// The lease that the relay holds.
        lease_number: u64,
        /// The last position that was confirmed, with all before it.
        position: u64,
    },
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorState {
    /// The lease is the relay's.
    Held {
        /// Its number: it grows with each holder.
        lease_number: u64,
        /// The last position that was published and confirmed.
        position: u64,
    },
    /// The lease is somebody else's.
    Lost,
}

#[derive(Debug, FromQueryResult)]
struct CursorRow {
    lease_number: i64,
    position: i64,
}

pub(super) async fn run(
    transaction: &DatabaseTransaction,
    step: &CursorStep,
) -> Result<CursorState, StoreError> {
    let backend = transaction.get_database_backend();
    let now = clock(backend);
    let statement = match step {
        CursorStep::Acquire { exchange, holder } => {
            let sql = "INSERT INTO relay_cursors \
                       (exchange, log, position, holder, lease_number, leased_until) \
                       SELECT $1, log, cut_position, NULL, 0, 0 FROM log_head WHERE log = 'changes' \
                       ON CONFLICT DO NOTHING";
            let values = [exchange.as_str().into()];
            transaction
                .execute_raw(Statement::from_sql_and_values(backend, sql, values))
                .await?;
            let sql = format!(
                "UPDATE relay_cursors SET holder = $1, lease_number = lease_number + 1, \
                 leased_until = {now} + $2 WHERE exchange = $3 AND log = 'changes' \
                 AND leased_until <= {now} RETURNING lease_number, position"
            );
            let values = [(*holder).into(), LEASE.into(), exchange.as_str().into()];
            Statement::from_sql_and_values(backend, sql, values)
        }
        CursorStep::Advance {
            exchange,
            lease_number,
            position,
        } => {
            let until = format!("{now} + {LEASE}");
            advance(backend, &until, (exchange, *lease_number, *position))
        }
        CursorStep::Release {
            exchange,
            lease_number,
            position,
        } => advance(backend, "0", (exchange, *lease_number, *position)),
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

/// The lease's number is checked in the statement that moves the cursor, so a relay that was frozen past
/// its lease can't move its successor's. The cursor never goes back.
fn advance(
    backend: sea_orm::DbBackend,
    until: &str,
    (exchange, lease_number, position): (&str, u64, u64),
) -> Statement {
    let sql = format!(
        "UPDATE relay_cursors SET position = $1, leased_until = {until} \
         WHERE exchange = $2 AND log = 'changes' AND lease_number = $3 AND position <= $1 \
         RETURNING lease_number, position"
    );
    let values = [
        signed(position).into(),
        exchange.into(),
        signed(lease_number).into(),
    ];
    Statement::from_sql_and_values(backend, sql, values)
}
