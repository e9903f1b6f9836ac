//! What actors are sent.

use actix::{Addr, Message};
use tokio::sync::oneshot;

use super::secret_actor::SecretActor;
use crate::{
    domain::{
        Change, EVENT_BYTES, Failure, IfMatch, Mask, Once, Owner, Provider, RequestContext,
        SecretId, SecretName, SecretValue, Timestamp, VersionName,
    },
    store::{Share, Ticket},
};

/// A change that a caller asks for, with the value still in the clear.
#[derive(Debug)]
pub(crate) struct ChangeRequest {
    /// The caller's owner.
    pub(crate) owner: Owner,
    /// The secret; of a new one, the ID that it will have.
    pub(crate) secret_id: SecretId,
    /// Who asks.
    pub(crate) context: RequestContext,
    /// The change.
    pub(crate) change: RequestedChange,
    /// That it is made once, if its caller asks for it. (A change of a set has none: the set has it.)
    pub(crate) once: Option<Once>,
}

/// What is to be done to a secret.
#[derive(Debug)]
pub(crate) enum RequestedChange {
    /// Create it.
    Create {
        /// Its name.
        name: SecretName,
        /// The service that it is for.
        provider: Option<Provider>,
        /// Its value.
        value: SecretValue,
        /// The value's mask.
        mask: Mask,
    },
    /// Give it a new value.
    Update {
        /// The value.
        value: SecretValue,
        /// The value's mask.
        mask: Mask,
        /// The version that had this value before, if the value is restored.
        restored_from: Option<VersionName>,
        /// The versions that the caller expects.
        if_match: Option<IfMatch>,
    },
    /// Say when it expires.
    SetExpiry {
        /// The time; never where it is none.
        expires_at: Option<Timestamp>,
        /// The versions that the caller expects.
        if_match: Option<IfMatch>,
    },
    /// Delete it.
    Delete {
        /// The versions that the caller expects.
        if_match: Option<IfMatch>,
    },
}

impl ChangeRequest {
    /// How many bytes the request counts for among those under way: its value, and a round figure for the
    /// rest.
    pub(super) fn bytes(&self) -> usize {
        match &self.change {
            RequestedChange::Create { value, .. } | RequestedChange::Update { value, .. } => {
                value.expose().len() + EVENT_BYTES
            }
            RequestedChange::SetExpiry { .. } | RequestedChange::Delete { .. } => EVENT_BYTES,
        }
    }
}

/// Where a change goes once it is sealed.
#[derive(Debug)]
pub(super) enum Destination {
    /// To the committer.
    Commit(Ticket),
    /// Back to the caller, as a part of a change set.
    ChangeSet {
        /// Takes the sealed part.
        part: oneshot::Sender<Result<Change, Failure>>,
        /// The set's share: its caller may give it up while this part waits here.
        share: Share,
    },
}

/// A request to the router, and from it to the secret's actor.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Seal {
    pub(super) request: ChangeRequest,
    pub(super) destination: Destination,
    /// The actor's own address, set by the router: while an actor has mail the router can find it, so there
    /// is never a second one for the same secret.
    pub(super) actor: Option<Addr<SecretActor>>,
}
