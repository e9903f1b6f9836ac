//! What actors are sent.

use std::sync::Arc;

use actix::{Addr, Message};
use tokio::sync::oneshot;

use super::secret_actor::SecretActor;
use crate::{
    domain::{
        Change, Failure, IfMatch, Mask, Origin, Owner, Provider, SecretId, SecretName, SecretValue,
    },
    store::{Answer, Gate, Permit},
};

/// A change that somebody asks for, with the value still in the clear.
#[derive(Debug)]
pub struct Request {
    /// The caller's owner.
    pub owner: Owner,
    /// The secret; of a new one, the ID that it will have.
    pub secret_id: SecretId,
    /// Who asks.
    pub origin: Origin,
    /// What is to be done.
    pub wanted: Wanted,
}

/// What is to be done to a secret.
#[derive(Debug)]
pub enum Wanted {
    /// A new secret.
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
    /// A new value.
    Update {
        /// The value.
        value: SecretValue,
        /// The value's mask.
        mask: Mask,
        /// The versions that the caller expects.
        if_match: Option<IfMatch>,
    },
    /// The end of the secret.
    Delete {
        /// The versions that the caller expects.
        if_match: Option<IfMatch>,
    },
}

impl Request {
    /// What the request counts for among the bytes under way: its value, and a round figure for the rest.
    pub(super) fn bytes(&self) -> usize {
        const REST: usize = 1024;
        match &self.wanted {
            Wanted::Create { value, .. } | Wanted::Update { value, .. } => {
                value.expose().len() + REST
            }
            Wanted::Delete { .. } => REST,
        }
    }
}

/// A request on its way to the router.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Command {
    pub(super) request: Request,
    pub(super) then: Then,
}

/// What is done with a request once it is sealed.
#[derive(Debug)]
pub(super) enum Then {
    /// It is handed to the committer, unless its gate is shut.
    Commit {
        gate: Arc<Gate>,
        answer: oneshot::Sender<Answer>,
        permit: Permit,
    },
    /// It goes back, to become a part of a change set.
    Return(oneshot::Sender<Result<Change, Failure>>),
}

/// A command in its secret's mailbox.
///
/// It holds the actor's own address: an actor that still has mail can be found by the router, so there is
/// never a second one for the same secret.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Mail {
    pub(super) command: Command,
    pub(super) _alive: Addr<SecretActor>,
}
