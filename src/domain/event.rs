//! The events of both logs: what happened to which secret, who read, who was let in. Never a value, nor
//! anything made from one.
//!
//! In each struct the fields stand in the order of RFC 8785 (sorted by UTF-16 code units), every name is
//! ASCII, and every number is a whole one below 2^53: so `serde_json` writes it in canonical form. (A map
//! would not do: a crate in the tree may switch `serde_json/preserve_order` on.)

use serde::{Deserialize, Serialize};

use super::{
    Agent, ChangeSetId, EventId, Owner, ParseError, Provider, RequestId, SecretId, SecretName,
    Timestamp, VersionId,
};

/// The length of a hash of the chain (BLAKE2b-256), in bytes.
pub const HASH_BYTES: usize = 32;

/// One of the two logs. Each has its own positions and its own chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// What happened to secrets.
    Changes,
    /// Who read values, and who was let in.
    Activity,
}

impl Log {
    /// Both, in the order in which they are locked.
    pub const ALL: [Self; 2] = [Self::Changes, Self::Activity];

    /// The name in tables, queries and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changes => "changes",
            Self::Activity => "activity",
        }
    }

    /// Reads a log's name.
    ///
    /// # Errors
    /// [`ParseError::NotAllowed`] when there is no such log.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|log| log.as_str() == text)
            .ok_or(ParseError::NotAllowed)
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum EventKind {
    /// A secret was made, with version 1.
    #[serde(rename = "secret.created")]
    Created,
    /// A secret has a new value.
    #[serde(rename = "secret.updated")]
    Updated,
    /// A secret is gone.
    #[serde(rename = "secret.deleted")]
    Deleted,
    /// A value was handed out.
    #[serde(rename = "secret.accessed")]
    Accessed,
    /// An API token was made.
    #[serde(rename = "token.created")]
    TokenCreated,
    /// An API token was revoked.
    #[serde(rename = "token.revoked")]
    TokenRevoked,
}

impl EventKind {
    /// All kinds of both logs.
    pub const ALL: [Self; 6] = [
        Self::Created,
        Self::Updated,
        Self::Deleted,
        Self::Accessed,
        Self::TokenCreated,
        Self::TokenRevoked,
    ];

    /// The type as it stands in the event and in the log's column.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "secret.created",
            Self::Updated => "secret.updated",
            Self::Deleted => "secret.deleted",
            Self::Accessed => "secret.accessed",
            Self::TokenCreated => "token.created",
            Self::TokenRevoked => "token.revoked",
        }
    }
}

/// The change set that a change is part of, and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ChangeSet {
    /// The set.
    pub id: ChangeSetId,
    /// The change's place in it, from 0.
    pub index: usize,
    /// How many changes it has.
    pub size: usize,
}

/// An event of the log `changes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangeEvent {
    /// Who did it.
    pub actor: Agent,
    /// The change set that it is part of.
    pub change_set: Option<ChangeSet>,
    /// The log's epoch.
    pub epoch: u64,
    /// When the secret expires; always `null` as yet.
    pub expires_at: (),
    /// This event's hash, lower-case hex; absent while the hash is computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The event's ID.
    pub id: EventId,
    /// The log.
    pub log: Log,
    /// The secret's name.
    pub name: SecretName,
    /// When it happened: the secret's new `updated_at`.
    pub occurred_at: Timestamp,
    /// The secret's owner.
    pub owner: Owner,
    /// Its place in the log, from 1.
    pub position: u64,
    /// The hash of the event before it in the log; absent while the hash is computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_hash: Option<String>,
    /// The version before it; `null` for a new secret.
    pub previous_version: Option<u64>,
    /// The secret's provider.
    pub provider: Option<Provider>,
    /// The request that caused it; `null` for the command line.
    pub request_id: Option<RequestId>,
    /// The version whose value was restored; always `null` as yet.
    pub restored_from: (),
    /// The secret.
    pub secret_id: SecretId,
    /// Its place among the secret's changes, from 1.
    pub sequence: u64,
    /// What happened.
    pub r#type: EventKind,
    /// The secret's version after it.
    pub version: u64,
    /// The ID of that version.
    pub version_id: VersionId,
}

/// `secret.accessed`: a value was handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccessEvent {
    /// Who got it.
    pub actor: Agent,
    /// The log's epoch.
    pub epoch: u64,
    /// This event's hash, as in [`ChangeEvent`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The event's ID.
    pub id: EventId,
    /// The log.
    pub log: Log,
    /// The secret's name.
    pub name: SecretName,
    /// When the record was committed.
    pub occurred_at: Timestamp,
    /// The secret's owner.
    pub owner: Owner,
    /// Its place in the log, from 1.
    pub position: u64,
    /// The hash before it, as in [`ChangeEvent`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_hash: Option<String>,
    /// The secret's provider.
    pub provider: Option<Provider>,
    /// The request that got it.
    pub request_id: Option<RequestId>,
    /// The secret.
    pub secret_id: SecretId,
    /// [`EventKind::Accessed`].
    pub r#type: EventKind,
    /// The version handed out.
    pub version: u64,
    /// The ID of that version.
    pub version_id: VersionId,
}

/// `token.created` and `token.revoked`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenEvent {
    /// Who did it.
    pub actor: Agent,
    /// The owners that a service's token acts for; `null` for an owner's.
    pub acts_for: Option<Vec<String>>,
    /// The log's epoch.
    pub epoch: u64,
    /// When the token ends by itself.
    pub expires_at: Option<Timestamp>,
    /// This event's hash, as in [`ChangeEvent`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The event's ID.
    pub id: EventId,
    /// The log.
    pub log: Log,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// The token's owner; `null` for a service's.
    pub owner: Option<Owner>,
    /// Its place in the log, from 1.
    pub position: u64,
    /// The hash before it, as in [`ChangeEvent`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_hash: Option<String>,
    /// Always `null`: tokens are made and revoked on the command line.
    pub request_id: Option<RequestId>,
    /// What the token may do.
    pub scopes: Vec<String>,
    /// The token's public ID.
    pub token_id: String,
    /// `owner` or `service`.
    pub token_kind: &'static str,
    /// What happened.
    pub r#type: EventKind,
}

/// An event of either log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Event {
    /// A change of a secret.
    Change(ChangeEvent),
    /// A value handed out.
    Access(AccessEvent),
    /// A token made or revoked.
    Token(TokenEvent),
}

/// Runs an expression on the struct inside, whichever it is.
macro_rules! each {
    ($event:expr, $inner:ident => $do:expr) => {
        match $event {
            Event::Change($inner) => $do,
            Event::Access($inner) => $do,
            Event::Token($inner) => $do,
        }
    };
}

impl Event {
    /// The log that it belongs to.
    #[must_use]
    pub fn log(&self) -> Log {
        each!(self, event => event.log)
    }

    /// Its ID.
    #[must_use]
    pub fn id(&self) -> EventId {
        each!(self, event => event.id)
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        each!(self, event => event.r#type)
    }

    /// When.
    #[must_use]
    pub fn occurred_at(&self) -> Timestamp {
        each!(self, event => event.occurred_at)
    }

    /// Its epoch, once it is placed.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        each!(self, event => event.epoch)
    }

    /// Its position, once it is placed.
    #[must_use]
    pub fn position(&self) -> u64 {
        each!(self, event => event.position)
    }

    /// Gives it its place in its log.
    pub fn place(&mut self, epoch: u64, position: u64) {
        each!(self, event => (event.epoch, event.position) = (epoch, position));
    }

    /// Sets the hash before it and its own, in lower-case hex; or takes both out.
    pub fn link(&mut self, hashes: Option<(String, String)>) {
        let (before, own) = hashes.unzip();
        each!(self, event => (event.prev_hash, event.hash) = (before, own));
    }
}
