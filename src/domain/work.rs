//! The work that the commit does, and what can come of it.

use std::net::IpAddr;

use uuid::Uuid;

use super::{
    Agent, Announcement, Answer, ChangeSetId, EventId, Expiry, KeyId, Log, NamedSecrets, Once,
    Owner, Provider, RequestId, SealedVersion, SecretId, SecretName, Timestamp, TokenChange,
    TraceParent, VersionId,
};

/// Where a request came from, as the service knows it itself. Neither is the caller's to choose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The caller's address, as seen through trusted proxies; none for the command line.
    pub client: Option<IpAddr>,
    /// The service's own ID of the request; none for the command line.
    pub server_request_id: Option<Uuid>,
}

/// Who asked, and by which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestContext {
    /// The caller.
    pub agent: Agent,
    /// The secrets that the caller may change: any other counts as absent.
    pub secrets: NamedSecrets,
    /// Where it came from.
    pub origin: Origin,
    /// The request; none for the command line.
    pub request_id: Option<RequestId>,
    /// The trace that the request is part of.
    pub traceparent: Option<TraceParent>,
}

/// What is handed to the commit. Each piece of work is committed whole or not at all.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "most work is one change, and a box would only move it once more"
)]
pub(crate) enum Work {
    /// One change of one secret.
    Change(Change),
    /// Changes that are applied together.
    Set(ChangeSet),
    /// Values that are about to be handed out: recorded first.
    Accesses(Vec<Access>),
    /// Requests that were refused.
    Denials(Vec<Denial>),
    /// A token that is made or revoked.
    Token(Box<TokenChange>),
}

impl Work {
    /// How many changes or records it counts for in a batch.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Change(_) | Self::Token(_) => 1,
            Self::Set(set) => set.changes.len(),
            Self::Accesses(accesses) => accesses.len(),
            Self::Denials(denials) => denials.len(),
        }
    }

    /// The log that it appends to.
    #[must_use]
    pub(crate) fn log(&self) -> Log {
        match self {
            Self::Change(_) | Self::Set(_) => Log::Changes,
            Self::Accesses(_) | Self::Denials(_) | Self::Token(_) => Log::Activity,
        }
    }

    /// How many bytes it counts for in a batch.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Change(change) => change.bytes(),
            Self::Set(set) => set.bytes(),
            Self::Accesses(_) | Self::Denials(_) | Self::Token(_) => self.count() * EVENT_BYTES,
        }
    }

    /// That it is made once, if its caller asks for it.
    #[must_use]
    pub(crate) fn once(&self) -> Option<&Once> {
        match self {
            Self::Change(change) => change.once.as_ref(),
            Self::Set(set) => set.once.as_ref(),
            Self::Token(_) | Self::Accesses(_) | Self::Denials(_) => None,
        }
    }

    /// The changes of secrets in it, in order.
    #[must_use]
    pub(crate) fn changes(&self) -> &[Change] {
        match self {
            Self::Change(change) => std::slice::from_ref(change),
            Self::Set(set) => &set.changes,
            Self::Accesses(_) | Self::Denials(_) | Self::Token(_) => &[],
        }
    }
}

/// How many bytes an event counts for: a round figure.
pub(crate) const EVENT_BYTES: usize = 1024;

/// Changes that are applied together or not at all.
#[derive(Debug)]
pub(crate) struct ChangeSet {
    /// The set's ID.
    pub id: ChangeSetId,
    /// The changes, in order; at least one.
    pub changes: Vec<Change>,
    /// That it is made once, if its caller asks for it.
    pub once: Option<Once>,
}

impl ChangeSet {
    /// How many bytes the set counts for in a batch.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.changes.iter().map(Change::bytes).sum()
    }
}

/// A value that is handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Access {
    /// The ID that its event will have.
    pub event_id: EventId,
    /// Who gets it.
    pub context: RequestContext,
    /// The secret's owner.
    pub owner: Owner,
    /// The secret.
    pub secret_id: SecretId,
    /// Its name.
    pub name: SecretName,
    /// Its provider.
    pub provider: Option<Provider>,
    /// The version handed out.
    pub version: u64,
    /// The ID of that version.
    pub version_id: VersionId,
}

/// A request that was refused. Nothing in it is the caller's own text, but for the ID that a known caller gave its
/// request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denial {
    /// The ID that its event will have.
    pub event_id: EventId,
    /// The caller, where its credential was good.
    pub agent: Option<Agent>,
    /// The owner that the credential belongs to, where that is known.
    pub owner: Option<Owner>,
    /// The public ID of the token that was shown, if it had the form of one.
    pub token_id: Option<String>,
    /// Where the request came from.
    pub origin: Origin,
    /// What a known caller calls its request.
    pub request_id: Option<RequestId>,
    /// The method, if it is one of ours.
    pub method: Option<&'static str>,
    /// The pattern of the route, if there is one.
    pub route: Option<&'static str>,
    /// The status of the answer.
    pub status: u16,
    /// How many refusals before this one have no event.
    pub left_out: u64,
}

/// A change of one secret, sealed and ready for the commit.
#[derive(Debug)]
pub(crate) struct Change {
    /// The caller's owner: another owner's secret counts as absent.
    pub owner: Owner,
    /// The secret.
    pub secret_id: SecretId,
    /// What to do.
    pub action: Action,
    /// The ID that the change's event will have.
    pub event_id: EventId,
    /// Who asked.
    pub context: RequestContext,
    /// That it is made once, if its caller asks for it. (A change of a set has none: the set has it.)
    pub once: Option<Once>,
}

impl Change {
    /// How many bytes the change counts for in a batch: its sealed parts, and a round figure for its event.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        match &self.action {
            Action::Create { sealed, .. } | Action::Update { sealed, .. } => {
                sealed.bytes() + EVENT_BYTES
            }
            Action::SetExpiry { .. } | Action::Announce(_) | Action::Delete { .. } => EVENT_BYTES,
        }
    }
}

/// What is done to a secret.
#[derive(Debug)]
pub(crate) enum Action {
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
        /// The version that had this value before, if the value is restored: it must still be kept.
        restored_from: Option<VersionName>,
        /// The versions that the caller expects.
        if_match: Option<IfMatch>,
    },
    /// Says when the secret expires.
    SetExpiry {
        /// The time, in the future; never where it is none.
        expires_at: Option<Timestamp>,
        /// The versions that the caller expects.
        if_match: Option<IfMatch>,
    },
    /// Tells that the secret expires, once for each expiry.
    Announce(Announcement),
    /// Deletes the secret: all versions are destroyed, and its name is free again.
    Delete {
        /// The versions that the caller expects.
        if_match: Option<IfMatch>,
    },
}

impl Action {
    /// The version whose value a restore takes.
    #[must_use]
    pub(crate) fn restored_from(&self) -> Option<VersionName> {
        match self {
            Self::Update { restored_from, .. } => *restored_from,
            Self::Create { .. }
            | Self::SetExpiry { .. }
            | Self::Announce(_)
            | Self::Delete { .. } => None,
        }
    }
}

/// A version of a secret, by its number and its ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct VersionName {
    /// Its number, from 1.
    pub version: u64,
    /// Its ID, which no other version has.
    pub version_id: VersionId,
}

/// An `If-Match` precondition (RFC 9110 section 13.1.1) over a secret's version number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IfMatch {
    /// `*`: any living secret.
    Any,
    /// One of these versions. Tags that can match no version (weak ones, foreign ones) are left out, so
    /// the list may be empty; then the precondition never holds.
    Versions(Vec<u64>),
}

impl IfMatch {
    /// Whether the precondition holds for a living secret at `version`.
    #[must_use]
    pub(crate) fn holds(&self, version: u64) -> bool {
        match self {
            Self::Any => true,
            Self::Versions(versions) => versions.contains(&version),
        }
    }
}

/// A secret without its value and its mask: a row of `secrets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Secret {
    /// Its ID.
    pub id: SecretId,
    /// Its owner.
    pub owner: Owner,
    /// Its name.
    pub name: SecretName,
    /// The service that it is for.
    pub provider: Option<Provider>,
    /// How many values it has had.
    pub version: u64,
    /// The ID of the current version.
    pub version_id: VersionId,
    /// How many changes it has had.
    pub sequence: u64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed; strictly rises with each change.
    pub updated_at: Timestamp,
    /// When it expires, if it does.
    pub expiry: Option<Expiry>,
}

impl Secret {
    /// When it expires, if it does.
    #[must_use]
    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        self.expiry.map(|expiry| expiry.at)
    }

    /// Whether its value is handed out no more.
    #[must_use]
    pub(crate) fn has_expired(&self, now: Timestamp) -> bool {
        self.expiry.is_some_and(|expiry| expiry.at <= now)
    }
}

/// A change that was committed, with its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Applied {
    /// The secret as it was created.
    Created(Secret),
    /// The secret with its new value.
    Updated(Secret),
    /// The secret with another expiry, or with the one that it had.
    ExpirySet(Secret),
    /// It was told that the secret expires.
    Announced,
    /// The secret was deleted.
    Deleted,
}

/// Why a change was refused; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Absent, deleted, or another owner's.
    #[error("no such secret")]
    NotFound,
    /// The owner has a secret of that name.
    #[error("the name is taken")]
    NameTaken,
    /// The owner has as many secrets as it may have.
    #[error("the owner's limit of secrets is reached")]
    LimitReached,
    /// Another request was made by that idempotency key.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The record of that idempotency key is not one that rekey wrote.
    #[error("the record of an idempotency key was not written by rekey, or was changed")]
    RecordAltered,
    /// The version whose value was to be restored is no longer kept.
    #[error("the version is no longer kept")]
    VersionGone,
    /// The time at which the secret would expire has passed.
    #[error("the time has passed")]
    Passed,
    /// There is nothing to tell of an expiry, or it was told.
    #[error("the announcement is not due")]
    NotDue,
    /// `If-Match` does not hold.
    #[error("the precondition does not hold at version {version}")]
    PreconditionFailed {
        /// The present version.
        version: u64,
    },
    /// The service is locked down: no value leaves and no change is made.
    #[error("the service is locked down")]
    LockedDown,
    /// The key that the version was sealed under may no longer seal.
    #[error("key {0} is not active")]
    KeyNotActive(KeyId),
}

/// What came of a piece of work that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The change was made.
    Changed(Applied),
    /// All changes of the set were made, in order.
    Set(ChangeSetId, Vec<Applied>),
    /// The accesses are recorded.
    Recorded,
    /// Nothing was done: the same request was made before, and answered this.
    Replayed(Answer),
}

/// The change that was refused, and with it all the others of its set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("change {index} was refused")]
pub(crate) struct Refused {
    /// The change's index in its set, from 0; 0 where it came alone.
    pub index: usize,
    /// Why.
    #[source]
    pub refusal: Refusal,
}

/// Why work was not applied, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The commit looked at the work and refused it. Not applied.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The service has as much work queued as it may have. Not applied.
    #[error("the queue is full")]
    Overloaded,
    /// The caller has as much work queued as one caller may have. Not applied.
    #[error("the caller has its share of the queue")]
    ShareTaken,
    /// A bug before COMMIT. Not applied.
    #[error("an internal error before the commit")]
    Internal,
    /// The database refused or broke before COMMIT. Not applied.
    #[error("the database refused or broke before the commit")]
    Unavailable,
    /// The database did not answer in time, and the work was abandoned before COMMIT. Not applied.
    #[error("no answer in time before the commit")]
    TimedOut,
    /// COMMIT may have been sent, and it is unknown whether it took effect.
    #[error("the outcome of the commit is unknown")]
    Unknown,
}
