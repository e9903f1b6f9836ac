//! Whether the service is locked down: a column of both rows of `log_head`, which every commit reads under their locks.

use sea_orm::ConnectionTrait;

use super::{StoreError, rows::statement};
use crate::domain::Timestamp;

/// Whether values leave and changes are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lockdown {
    /// Neither.
    On,
    /// Both.
    Off,
}

/// Sets it in the rows of both logs, whose locks the caller holds. Returns whether a row was different.
pub(super) async fn set(
    db: &impl ConnectionTrait,
    lockdown: Lockdown,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let (sql, values) = match lockdown {
        Lockdown::On => (
            "UPDATE log_head SET lockdown_since = $1 WHERE lockdown_since IS NULL",
            vec![now.micros().into()],
        ),
        Lockdown::Off => (
            "UPDATE log_head SET lockdown_since = NULL WHERE lockdown_since IS NOT NULL",
            Vec::new(),
        ),
    };
    let changed = db.execute_raw(statement(db, sql, values)).await?;
    Ok(changed.rows_affected() > 0)
}
