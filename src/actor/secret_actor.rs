//! The actor of one secret.

use std::sync::Arc;

use actix::{Actor, Context, Handler};
use uuid::Uuid;

use super::messages::{Command, Mail, Wanted};
use crate::{
    crypto::{SealError, Sealer},
    domain::{
        Action, Change, EventId, Failure, Mask, Owner, SealedVersion, SecretId, SecretValue,
        VersionId,
    },
    store::{Committer, Submission},
};

/// Takes the commands of its secret in the order in which they arrive, seals, and hands on. It never
/// waits, so the order of its mailbox is the order of the committer's queue. It lives while somebody
/// holds its address: as long as it has mail.
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
        (owner, secret_id): (&Owner, SecretId),
        value: SecretValue,
        mask: &Mask,
    ) -> Result<SealedVersion, SealError> {
        let place = (owner, secret_id, VersionId::new(Uuid::now_v7()));
        self.sealer
            .seal(&self.committer.primary_key(), place, value, mask)
    }

    fn action(&self, place: (&Owner, SecretId), wanted: Wanted) -> Result<Action, SealError> {
        Ok(match wanted {
            Wanted::Create {
                name,
                provider,
                value,
                mask,
            } => Action::Create {
                name,
                provider,
                sealed: self.seal(place, value, &mask)?,
            },
            Wanted::Update {
                value,
                mask,
                if_match,
            } => Action::Update {
                sealed: self.seal(place, value, &mask)?,
                if_match,
            },
            Wanted::Delete { if_match } => Action::Delete { if_match },
        })
    }
}

impl Actor for SecretActor {
    type Context = Context<Self>;
}

impl Handler<Mail> for SecretActor {
    type Result = ();

    fn handle(&mut self, mail: Mail, _: &mut Self::Context) {
        let Command {
            request,
            gate,
            answer,
            permit,
        } = mail.command;
        if gate.is_abandoned() {
            return;
        }
        let action = match self.action((&request.owner, request.secret_id), request.wanted) {
            Ok(action) => action,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    secret.id = %request.secret_id,
                    request.id = request.request_id.as_str(),
                    "a value could not be sealed"
                );
                let _ = answer.send(Err(Failure::Internal));
                return;
            }
        };
        let change = Change {
            owner: request.owner,
            secret_id: request.secret_id,
            action,
            event_id: EventId::new(Uuid::now_v7()),
            agent: request.agent,
            request_id: request.request_id,
        };
        self.committer.enqueue(Submission {
            change,
            gate,
            answer,
            permit,
        });
    }
}
