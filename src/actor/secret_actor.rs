//! The actor of one secret.

use std::sync::Arc;

use actix::{Actor, Context, Handler};
use uuid::Uuid;

use super::messages::{ChangeRequest, Destination, RequestedChange, Seal};
use crate::{
    crypto::{SealError, Sealer, SecretPlace},
    domain::{
        Action, Change, ErrorChain, EventId, Failure, Mask, Owner, RequestId, SealedVersion,
        SecretId, SecretValue, VersionId, Work,
    },
    store::Committer,
};

/// Takes the requests of its secret in the order in which they arrive, seals their values, and hands them on.
/// It never waits, so the order of its mailbox is the order of the committer's queue. It lives as
/// long as it has mail, which holds its address.
#[derive(Debug)]
pub(super) struct SecretActor {
    sealer: Arc<Sealer>,
    committer: Committer,
}

impl SecretActor {
    pub(super) fn new(sealer: Arc<Sealer>, committer: Committer) -> Self {
        Self { sealer, committer }
    }

    fn seal(
        &self,
        owner: &Owner,
        secret_id: SecretId,
        value: SecretValue,
        mask: &Mask,
    ) -> Result<SealedVersion, SealError> {
        let version_id = VersionId::new(Uuid::now_v7());
        let place = SecretPlace {
            owner,
            secret_id,
            version_id,
        };
        self.sealer
            .seal(&self.committer.primary_key(), place, value, mask)
    }

    fn action(
        &self,
        owner: &Owner,
        secret_id: SecretId,
        change: RequestedChange,
    ) -> Result<Action, SealError> {
        Ok(match change {
            RequestedChange::Create {
                name,
                provider,
                value,
                mask,
            } => Action::Create {
                name,
                provider,
                sealed: self.seal(owner, secret_id, value, &mask)?,
            },
            RequestedChange::Update {
                value,
                mask,
                restored_from,
                if_match,
            } => Action::Update {
                sealed: self.seal(owner, secret_id, value, &mask)?,
                restored_from,
                if_match,
            },
            RequestedChange::SetExpiry {
                expires_at,
                if_match,
            } => Action::SetExpiry {
                expires_at,
                if_match,
            },
            RequestedChange::Delete { if_match } => Action::Delete { if_match },
        })
    }

    fn change(&self, request: ChangeRequest) -> Result<Change, Failure> {
        let ChangeRequest {
            owner,
            secret_id,
            context,
            change,
            once,
        } = request;
        let action = self.action(&owner, secret_id, change).map_err(|error| {
            tracing::error!(
                error = %ErrorChain(&error),
                secret.id = %secret_id,
                request.id = context.request_id.as_ref().map(RequestId::as_str),
                "a value could not be sealed"
            );
            Failure::Internal
        })?;
        Ok(Change {
            owner,
            secret_id,
            action,
            event_id: EventId::new(Uuid::now_v7()),
            context,
            once,
        })
    }
}

impl Actor for SecretActor {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        metrics::gauge!("rekey_secret_actors").increment(1);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        metrics::gauge!("rekey_secret_actors").decrement(1);
    }
}

impl Handler<Seal> for SecretActor {
    type Result = ();

    fn handle(&mut self, seal: Seal, _: &mut Self::Context) {
        match seal.destination {
            Destination::Commit(ticket) if ticket.is_abandoned() => {}
            Destination::Commit(ticket) => match self.change(seal.request) {
                Ok(change) => ticket.commit(Work::Change(change)),
                Err(failure) => ticket.fail(failure),
            },
            Destination::ChangeSet { part, .. } if part.is_closed() => {}
            Destination::ChangeSet { part, share: _held } => {
                // A caller that has gone away meanwhile needs no part.
                let _ = part.send(self.change(seal.request));
            }
        }
    }
}
