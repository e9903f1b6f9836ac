//! The database: the one transaction that writes, the queries that read, and the log.
//!
//! In come sealed versions and commands; out go rows as domain types. No function here takes a value in
//! the clear. Writes go through the [`Committer`]; a read runs as a task of its own, so its caller may be
//! dropped at any time, and has a deadline.

mod apply;
mod chain;
mod commit;
mod committer;
mod connection;
mod cursor;
mod dialect;
mod entity;
mod error;
mod gate;
mod keys;
mod log;
mod operator;
mod pending;
mod readers;
mod retention;
mod rows;
mod schema;
mod secrets;
mod service_keys;
mod tail;
mod tokens;
mod write;

pub use apply::Limits;
pub use chain::Head;
pub use commit::begin;
pub use committer::{Answer, Committer, CommitterSettings, Permit, Submission};
pub use connection::{Missing, Pool, Target, UnsafeDatabase, refuse_unsafe};
pub use cursor::{CursorAction, CursorName, CursorState, CursorStep};
pub use error::StoreError;
pub use gate::Gate;
pub use keys::StoredKey;
pub use log::{Filter, Gone, History, LoggedEvent, Page};
pub use operator::Operator;
pub use pending::{Deadlines, Pending};
pub use readers::{Check, Readiness, Store};
pub use retention::Retention;
pub use schema::{MigrationState, SchemaError};
pub(crate) use schema::{missing as missing_migration, up as migrate_up};
pub use secrets::{Resolvable, Resolved, Wanted};
pub use service_keys::StoredServiceKey;
pub use tail::Tail;
pub use tokens::{StoredToken, TokenKind};
