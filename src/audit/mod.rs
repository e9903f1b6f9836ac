//! The audit consumer: a second copy of both logs that the service can't change, and its verification.
//!
//! In come events from the broker, and from the service's log what the broker lost; out come a database of
//! its own with the exact bytes, and `verify`, which proves from those bytes that nothing is missing,
//! changed or moved. A message is acknowledged only after COMMIT. What it does not do: trust an event for
//! having arrived: it keeps a contradicting event next to the first one, as an alarm.

mod accesses;
mod chain;
mod entity;
mod event;
mod export;
mod gaps;
mod offline;
mod serve;
mod store;
mod values;
mod verify;

pub(crate) use chain::Bad;
pub(crate) use export::{ExportSource, export};
pub(crate) use offline::{Proof, verify_export};
pub(crate) use serve::Auditor;
pub(crate) use store::{Acceptance, AuditStore};
pub(crate) use verify::{Verifier, VerifyError};
