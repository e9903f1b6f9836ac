//! The event of a change: what happened to which secret, never the value nor anything made from it.

use serde::Serialize;

use super::{
    Agent, EventId, Owner, Provider, RequestId, SecretId, SecretName, Timestamp, VersionId,
};

/// The length of a hash of the chain (BLAKE2b-256), in bytes.
pub const HASH_BYTES: usize = 32;

/// One of the two logs. Each has its own positions and its own chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// What happened to secrets.
    Changes,
}

impl Log {
    /// The name in tables and cursors.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changes => "changes",
        }
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
}

impl EventKind {
    /// The type as it stands in the event and in the log's column.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "secret.created",
            Self::Updated => "secret.updated",
            Self::Deleted => "secret.deleted",
        }
    }
}

/// An event of the log `changes`.
///
/// The fields stand in the order of RFC 8785 (sorted by UTF-16 code units), every name is ASCII, and
/// every number is a whole one below 2^53: so `serde_json` writes this struct in canonical form. (A
/// map would not do: a crate in the tree may switch `serde_json/preserve_order` on.)
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Who did it.
    pub actor: Agent,
    /// The change set that it is part of; always `null` as yet.
    pub change_set: (),
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
    /// The request that caused it.
    pub request_id: RequestId,
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
