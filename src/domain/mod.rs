//! The nouns of rekey, each with one parser: parse once, then trust.
//!
//! In come bytes and strings from requests, rows and files; out go types whose fields are known to be
//! valid. Nothing here does I/O, reads a clock or knows a framework: time and IDs are parameters.

mod caller;
mod checkpoint;
mod error_chain;
mod event;
mod expiry;
mod grant;
mod host;
mod idempotency;
mod identity;
mod mask;
mod name;
mod named_secrets;
mod sealed;
mod time;
mod token_change;
mod value;
mod work;

pub(crate) use caller::Caller;
pub(crate) use checkpoint::Checkpoint;
pub(crate) use error_chain::ErrorChain;
pub(crate) use event::{
    AccessEvent, ChangeEvent, ChangeSetMember, DeniedEvent, EpochEvent, Event, EventKind,
    HASH_BYTES, KeyEvent, LockdownEvent, Log, PlacedEvent, TokenEvent,
};
pub(crate) use expiry::{Announcement, Expiry};
pub(crate) use grant::{ActsFor, Grant, Grantee, Networks, Scope};
pub(crate) use host::is_loopback;
pub(crate) use idempotency::{ANSWER_KEPT, Answer, IdempotencyKey, Once, OnceName};
pub(crate) use identity::{
    Agent, AgentKind, ChangeSetId, Cursor, EventId, KeyId, Owner, RequestId, SecretId,
    ServiceKeyName, TraceParent, VersionId,
};
pub(crate) use mask::Mask;
pub(crate) use name::{Provider, SecretName};
pub(crate) use named_secrets::{MOST_NAMED, NamedSecrets};
pub(crate) use sealed::{KeyState, MOST_VERSIONS, SealedMask, SealedVersion};
pub(crate) use time::Timestamp;
pub(crate) use token_change::{TokenAction, TokenChange};
pub use value::SecretValue;
pub(crate) use work::{
    Access, Action, Applied, Change, ChangeSet, Denial, EVENT_BYTES, Failure, IfMatch, Origin,
    Outcome, Refusal, Refused, RequestContext, Secret, VersionName, Work,
};

/// Why a string is not what it should be. The texts are fixed: none holds a part of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Nothing where at least one byte or character is needed.
    #[error("is too short")]
    TooShort,
    /// More bytes or characters than the type holds.
    #[error("is too long")]
    TooLong,
    /// A character where the type's pattern allows none.
    #[error("does not match the pattern")]
    Pattern,
    /// Of the right form, and still not allowed.
    #[error("is not allowed")]
    NotAllowed,
}
