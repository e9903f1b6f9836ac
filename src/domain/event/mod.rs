//! The events of both logs: what happened to which secret, who read a value, who was given a token, which key was
//! made. Never a value, nor anything computed from one.
//!
//! An [`Event`] has no place in its log yet. The commit gives it one, and serialises it once, as a
//! [`PlacedEvent`].

mod placed;

use serde::{Deserialize, Serialize};

use super::{
    Agent, ChangeSetId, Denial, EventId, Grantee, Origin, Owner, ParseError, Provider, RequestId,
    Scope, SecretId, SecretName, Timestamp, VersionId,
};

pub(crate) use placed::PlacedEvent;

/// The length of a hash of the chain (BLAKE2b-256), in bytes.
pub(crate) const HASH_BYTES: usize = 32;

/// One of the two logs. Each has its own positions and its own chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Log {
    /// What happened to secrets.
    Changes,
    /// Who read values, and who was given access.
    Activity,
}

impl Log {
    /// Both, in the order in which they are locked.
    pub(crate) const ALL: [Self; 2] = [Self::Changes, Self::Activity];

    /// The name in tables, queries and events.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Changes => "changes",
            Self::Activity => "activity",
        }
    }

    /// Reads a log's name.
    ///
    /// # Errors
    /// [`ParseError::NotAllowed`] when there is no such log.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|log| log.as_str() == text)
            .ok_or(ParseError::NotAllowed)
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub(crate) enum EventKind {
    /// A secret was created, with version 1.
    #[serde(rename = "secret.created")]
    Created,
    /// A secret has a new value.
    #[serde(rename = "secret.updated")]
    Updated,
    /// A secret was deleted.
    #[serde(rename = "secret.deleted")]
    Deleted,
    /// A secret expires at another time, or no more.
    #[serde(rename = "secret.expiry_changed")]
    ExpiryChanged,
    /// A secret will expire soon.
    #[serde(rename = "secret.expiring")]
    Expiring,
    /// A secret has expired: its value is handed out no more.
    #[serde(rename = "secret.expired")]
    Expired,
    /// A value was handed out.
    #[serde(rename = "secret.accessed")]
    Accessed,
    /// An API token was created.
    #[serde(rename = "token.created")]
    TokenCreated,
    /// An API token was revoked.
    #[serde(rename = "token.revoked")]
    TokenRevoked,
    /// One of the service's own keys was made anew.
    #[serde(rename = "key.added")]
    KeyAdded,
    /// The database was restored to an earlier point, and both logs go on in a higher epoch.
    #[serde(rename = "epoch.raised")]
    EpochRaised,
    /// A request was refused.
    #[serde(rename = "access.denied")]
    AccessDenied,
    /// From here on no value leaves and no change is made.
    #[serde(rename = "lockdown.on")]
    LockdownOn,
    /// The lockdown is over.
    #[serde(rename = "lockdown.off")]
    LockdownOff,
}

impl EventKind {
    /// All kinds of both logs.
    pub(crate) const ALL: [Self; 14] = [
        Self::Created,
        Self::Updated,
        Self::Deleted,
        Self::ExpiryChanged,
        Self::Expiring,
        Self::Expired,
        Self::Accessed,
        Self::TokenCreated,
        Self::TokenRevoked,
        Self::KeyAdded,
        Self::EpochRaised,
        Self::AccessDenied,
        Self::LockdownOn,
        Self::LockdownOff,
    ];

    /// The type, as the event and the log's column name it.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "secret.created",
            Self::Updated => "secret.updated",
            Self::Deleted => "secret.deleted",
            Self::ExpiryChanged => "secret.expiry_changed",
            Self::Expiring => "secret.expiring",
            Self::Expired => "secret.expired",
            Self::Accessed => "secret.accessed",
            Self::TokenCreated => "token.created",
            Self::TokenRevoked => "token.revoked",
            Self::KeyAdded => "key.added",
            Self::EpochRaised => "epoch.raised",
            Self::AccessDenied => "access.denied",
            Self::LockdownOn => "lockdown.on",
            Self::LockdownOff => "lockdown.off",
        }
    }
}

/// A change's place in the change set that it is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct ChangeSetMember {
    /// The set.
    pub id: ChangeSetId,
    /// The change's index in it, from 0.
    pub index: usize,
    /// How many changes the set has.
    pub size: usize,
}

/// An event of the log `changes`: what happened to a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChangeEvent {
    /// Who made the change.
    pub actor: Agent,
    /// The change set that it is part of.
    pub change_set: Option<ChangeSetMember>,
    /// When the secret expires, after it.
    pub expires_at: Option<Timestamp>,
    /// The event's ID.
    pub id: EventId,
    /// What happened.
    pub kind: EventKind,
    /// The secret's name.
    pub name: SecretName,
    /// When it happened: the secret's new `updated_at`.
    pub occurred_at: Timestamp,
    /// Where its request came from: the event's `client` and `server_request_id`.
    pub origin: Origin,
    /// The secret's owner.
    pub owner: Owner,
    /// The version before it; none for a new secret.
    pub previous_version: Option<u64>,
    /// The secret's provider.
    pub provider: Option<Provider>,
    /// The request that caused it; none for the command line.
    pub request_id: Option<RequestId>,
    /// The number of the version that had this value before, if the value was restored.
    pub restored_from: Option<u64>,
    /// The secret.
    pub secret_id: SecretId,
    /// Its place among the secret's changes, from 1.
    pub sequence: u64,
    /// The secret's version after it.
    pub version: u64,
    /// The ID of that version.
    pub version_id: VersionId,
}

/// `secret.accessed`: a value was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccessEvent {
    /// Who got it.
    pub actor: Agent,
    /// The event's ID.
    pub id: EventId,
    /// The secret's name.
    pub name: SecretName,
    /// When the record was committed.
    pub occurred_at: Timestamp,
    /// Where its request came from: the event's `client` and `server_request_id`.
    pub origin: Origin,
    /// The secret's owner.
    pub owner: Owner,
    /// The secret's provider.
    pub provider: Option<Provider>,
    /// The request that got it.
    pub request_id: Option<RequestId>,
    /// The secret.
    pub secret_id: SecretId,
    /// The version handed out.
    pub version: u64,
    /// The ID of that version.
    pub version_id: VersionId,
}

/// `token.created` and `token.revoked`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenEvent {
    /// Who did it.
    pub actor: Agent,
    /// When the token expires.
    pub expires_at: Option<Timestamp>,
    /// Whose token it is: the event's `token_kind`, `owner` and `acts_for`.
    pub grantee: Grantee,
    /// The event's ID.
    pub id: EventId,
    /// What happened.
    pub kind: EventKind,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// Where its request came from: the event's `client` and `server_request_id`.
    pub origin: Origin,
    /// The request that did it; none for the command line.
    pub request_id: Option<RequestId>,
    /// What the token may do.
    pub scopes: Vec<Scope>,
    /// The token's public ID.
    pub token_id: String,
}

/// `key.added`: one of the service's own keys was made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyEvent {
    /// Who did it.
    pub actor: Agent,
    /// The event's ID.
    pub id: EventId,
    /// The key's name.
    pub key_id: String,
    /// When it happened.
    pub occurred_at: Timestamp,
}

/// `epoch.raised`: the first event of an epoch, in each log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EpochEvent {
    /// Who raised it.
    pub actor: Agent,
    /// The event's ID.
    pub id: EventId,
    /// The log that it is in.
    pub log: Log,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// The log's epoch before.
    pub previous_epoch: u64,
}

/// `access.denied`: a request was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeniedEvent {
    /// What was refused to whom.
    pub denial: Denial,
    /// When the record was committed.
    pub occurred_at: Timestamp,
}

/// `lockdown.on` and `lockdown.off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LockdownEvent {
    /// Who did it.
    pub actor: Agent,
    /// The event's ID.
    pub id: EventId,
    /// What happened.
    pub kind: EventKind,
    /// When it happened.
    pub occurred_at: Timestamp,
}

/// An event of either log, without a place in it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A change of a secret.
    Change(ChangeEvent),
    /// A value was handed out.
    Access(AccessEvent),
    /// A token was created or revoked.
    Token(TokenEvent),
    /// A key was made.
    Key(KeyEvent),
    /// The epoch was raised.
    Epoch(EpochEvent),
    /// A request was refused.
    Denied(DeniedEvent),
    /// The service was locked down, or is open again.
    Lockdown(LockdownEvent),
}

impl Event {
    /// The log that it belongs to.
    #[must_use]
    pub(crate) fn log(&self) -> Log {
        match self {
            Self::Change(_) => Log::Changes,
            Self::Access(_)
            | Self::Token(_)
            | Self::Key(_)
            | Self::Denied(_)
            | Self::Lockdown(_) => Log::Activity,
            Self::Epoch(event) => event.log,
        }
    }

    /// Its owner, if it has one.
    #[must_use]
    pub(crate) fn owner(&self) -> Option<&Owner> {
        match self {
            Self::Change(event) => Some(&event.owner),
            Self::Access(event) => Some(&event.owner),
            Self::Token(event) => event.grantee.owner(),
            Self::Key(_) | Self::Epoch(_) | Self::Lockdown(_) => None,
            Self::Denied(event) => event.denial.owner.as_ref(),
        }
    }

    /// Its ID.
    #[must_use]
    pub(crate) fn id(&self) -> EventId {
        match self {
            Self::Change(event) => event.id,
            Self::Access(event) => event.id,
            Self::Token(event) => event.id,
            Self::Key(event) => event.id,
            Self::Epoch(event) => event.id,
            Self::Denied(event) => event.denial.event_id,
            Self::Lockdown(event) => event.id,
        }
    }

    /// What happened.
    #[must_use]
    pub(crate) fn kind(&self) -> EventKind {
        match self {
            Self::Change(event) => event.kind,
            Self::Access(_) => EventKind::Accessed,
            Self::Token(event) => event.kind,
            Self::Key(_) => EventKind::KeyAdded,
            Self::Epoch(_) => EventKind::EpochRaised,
            Self::Denied(_) => EventKind::AccessDenied,
            Self::Lockdown(event) => event.kind,
        }
    }

    /// When it happened.
    #[must_use]
    pub(crate) fn occurred_at(&self) -> Timestamp {
        match self {
            Self::Change(event) => event.occurred_at,
            Self::Access(event) => event.occurred_at,
            Self::Token(event) => event.occurred_at,
            Self::Key(event) => event.occurred_at,
            Self::Epoch(event) => event.occurred_at,
            Self::Denied(event) => event.occurred_at,
            Self::Lockdown(event) => event.occurred_at,
        }
    }
}
