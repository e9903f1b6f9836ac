//! What may be asked of a secret, and what may come of it.

use super::{
    Agent, EventId, KeyId, Owner, Provider, RequestId, SealedVersion, SecretId, SecretName,
    Timestamp, VersionId,
};

/// A change of one secret, sealed and ready for the commit.
#[derive(Debug, Clone)]
pub struct Change {
    /// The caller's owner: a secret of another one is as good as absent.
    pub owner: Owner,
    /// The secret.
    pub secret_id: SecretId,
    /// What to do.
    pub action: Action,
    /// The ID that the change's event will have.
    pub event_id: EventId,
    /// Who asked.
    pub agent: Agent,
    /// The request that asked.
    pub request_id: RequestId,
}

impl Change {
    /// What the change takes of a batch's byte limit: its sealed parts, and a round figure for its event.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const EVENT: usize = 1024;
        match &self.action {
            Action::Create { sealed, .. } | Action::Update { sealed, .. } => sealed.bytes() + EVENT,
            Action::Delete { .. } => EVENT,
        }
    }
}

/// What is done to a secret.
#[derive(Debug, Clone)]
pub enum Action {
    /// A new secret with its first version.
    Create {
        /// Its name, free among the owner's.
        name: SecretName,
        /// The service that it is for.
        provider: Option<Provider>,
        /// Its first value, sealed.
        sealed: SealedVersion,
    },
    /// A new value.
    Update {
        /// The value, sealed.
        sealed: SealedVersion,
        /// The versions that the caller expects.
        if_match: Option<IfMatch>,
    },
    /// The end of a secret: all versions are destroyed, and its name is free again.
    Delete {
        /// The versions that the caller expects.
        if_match: Option<IfMatch>,
    },
}

/// An `If-Match` precondition (RFC 9110 section 13.1.1) over a secret's version number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: any living secret.
    Any,
    /// One of these versions. Tags that can match no version (weak ones, foreign ones) are left out, so
    /// the list may be empty: then nothing holds.
    Versions(Vec<u64>),
}

impl IfMatch {
    /// Whether the precondition holds for a living secret at `version`.
    #[must_use]
    pub fn holds(&self, version: u64) -> bool {
        match self {
            Self::Any => true,
            Self::Versions(versions) => versions.contains(&version),
        }
    }
}

/// A secret without its value and its mask: a row of `secrets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its ID.
    pub id: SecretId,
    /// Whom it belongs to.
    pub owner: Owner,
    /// Its name.
    pub name: SecretName,
    /// The service that it is for.
    pub provider: Option<Provider>,
    /// How many values it has had.
    pub version: u64,
    /// The ID of the present version.
    pub version_id: VersionId,
    /// How many changes it has had.
    pub sequence: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed; strictly rises with each change.
    pub updated_at: Timestamp,
}

/// A change that stands in the database, with its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The secret as it was made.
    Created(Secret),
    /// The secret after its new value.
    Updated(Secret),
    /// The secret is gone.
    Deleted,
}

/// Why a change was refused; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Absent, deleted, or somebody else's.
    #[error("no such secret")]
    NotFound,
    /// The owner has a secret of that name.
    #[error("the name is taken")]
    NameTaken,
    /// The owner has as many secrets as it may have.
    #[error("the owner's limit of secrets is reached")]
    LimitReached,
    /// `If-Match` does not hold.
    #[error("the precondition does not hold at version {version}")]
    PreconditionFailed {
        /// The present version.
        version: u64,
    },
    /// The key that the version was sealed under may no longer seal.
    #[error("key {0} is not active")]
    KeyNotActive(KeyId),
}

/// Why there is no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The service has as much work queued as it may have. Not applied.
    #[error("the queue is full")]
    Overloaded,
    /// A bug before COMMIT. Not applied.
    #[error("an internal error before the commit")]
    Internal,
    /// The database refused or broke before COMMIT. Not applied.
    #[error("the database refused or broke before the commit")]
    Unavailable,
    /// The database did not answer in time, and the change was abandoned before COMMIT. Not applied.
    #[error("no answer in time before the commit")]
    TimedOut,
    /// COMMIT may have been sent, and nobody knows what came of it.
    #[error("the outcome of the commit is unknown")]
    Unknown,
}

/// What came of a change that the commit looked at.
pub type Outcome = Result<Applied, Refusal>;
