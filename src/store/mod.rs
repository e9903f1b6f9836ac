//! The database: the one transaction that writes, the queries that read, and the log.
//!
//! In come sealed versions and changes; out go rows as domain types. No function here takes a value in the
//! clear. Writes go through the [`Committer`], those of the command line through [`Admin`]. A read runs as a
//! task of its own with a deadline, so its caller may be dropped at any time.

mod admin;
mod admission;
mod apply;
mod backup;
mod chain;
mod commit;
mod committer;
mod connection;
mod cursor;
mod dialect;
mod entity;
mod error;
mod expiry;
mod gate;
mod idempotency;
mod keys;
mod lockdown;
mod log;
mod pool;
mod present;
mod read_connection;
mod reader;
mod retention;
mod rows;
mod schema;
mod secrets;
mod service_keys;
mod tail;
mod token_changes;
mod token_uses;
mod tokens;
mod transaction;
mod versions;
mod wal;
mod worker;
mod write;
mod writer;

pub(crate) use admin::Admin;
pub(crate) use admission::{Pending, QueueLimits, Share, Ticket};
pub(crate) use apply::Limits;
pub(crate) use committer::{Committer, CommitterKeys, CommitterSettings, DENIALS_LEFT_OUT};
pub(crate) use connection::{Missing, Target, UnsafeDatabase, refuse_unsafe};
pub(crate) use cursor::{CursorAction, CursorName, CursorState, CursorStep};
pub(crate) use error::StoreError;
pub(crate) use expiry::DueSecret;
pub(crate) use idempotency::AnsweredError;
pub(crate) use keys::StoredKey;
pub(crate) use lockdown::Lockdown;
pub(crate) use log::{CursorError, Filter, Gone, LoggedEvent};
pub(crate) use pool::{Home, Patience, ReplaceablePool};
pub(crate) use reader::{Check, Reader, Readiness};
pub(crate) use retention::RetentionPolicy;
pub(crate) use schema::{
    MigrationState, SchemaError, missing as missing_migration, up as migrate_up,
};
pub(crate) use secrets::{SealedSecret, Selection};
pub(crate) use service_keys::{MissingKey, NewServiceKey, ServiceKeyOutcome, StoredServiceKey};
pub(crate) use tail::LogTail;
pub(crate) use token_changes::{adding, revoking};
pub(crate) use tokens::{Revocation, RevokedTokens, StoredToken, TokenRow, TokenRows, Whose};
pub(crate) use transaction::Transaction;
pub(crate) use versions::{KeptVersion, Source};
