//! The actor of one secret.

use std::sync::Arc;

use actix::{Actor, Context, Handler};
use uuid::Uuid;

use super::messages::{Command, Mail, Request, Then, Wanted};
use crate::{
    crypto::{SealError, Sealer},
    domain::{
        self, Action, Change, EventId, Failure, Mask, Owner, RequestId, SealedVersion, SecretId,
        SecretValue, VersionId, Work,
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

impl SecretActor {
    fn change(&self, request: Request) -> Result<Change, Failure> {
        let place = (&request.owner, request.secret_id);
        let action = self.action(place, request.wanted).map_err(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                secret.id = %request.secret_id,
                request.id = request.origin.request_id.as_ref().map(RequestId::as_str),
                "a value could not be sealed"
            );
            Failure::Internal
        })?;
        Ok(Change {
            owner: request.owner,
            secret_id: request.secret_id,
            action,
            event_id: EventId::new(Uuid::now_v7()),
            origin: request.origin,
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

impl Handler<Mail> for SecretActor {
    type Result = ();

    fn handle(&mut self, mail: Mail, _: &mut Self::Context) {
        let Command { request, then } = mail.command;
        match then {
            Then::Commit { gate, .. } if gate.is_abandoned() => {}
            Then::Commit {
                gate,
                answer,
                permit,
            } => match self.change(request) {
                Ok(change) => self.committer.enqueue(Submission {
                    work: Work::Command(domain::Command {
                        changes: vec![change],
                        change_set: None,
                    }),
                    gate,
                    answer,
                    permit,
                }),
                Err(failure) => drop(answer.send(Err(failure))),
            },
            // Whoever has gone away meanwhile needs no part.
            Then::Return(part) => drop(part.send(self.change(request))),
        }
    }
}
