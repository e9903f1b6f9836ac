//! The audit database's tables as SeaORM sees them. Private to `audit`.

#![expect(
    unreachable_pub,
    reason = "SeaORM's macros want public items in a private module"
)]

pub(super) mod alarms;
pub(super) mod checkpoints;
pub(super) mod epochs;
pub(super) mod events;
pub(super) mod marks;
pub(super) mod waiting;
