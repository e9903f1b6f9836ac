//! What a handler of an owner's route works on, and the steps in which it reads its request.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse};
use futures_util::future::LocalBoxFuture;
use secrecy::SecretString;

use super::{
    AppState,
    body::Incoming,
    conditional,
    envelope::{ItemKind, Location},
    error::{ApiError, Bug},
    fields::{Fields, parse_object},
    idempotency, media,
    serve::{Edge, RequestState},
    single_line,
};
use crate::{
    actor::{ChangeRequest, RequestedChange},
    auth::Principal,
    domain::{
        Answer, Applied, Caller, ChangeSetId, Failure, IfMatch, Origin, Outcome, Owner, Refusal,
        Refused, RequestContext, Scope, SecretId, SecretName, TraceParent,
    },
    faults,
    shares::Amount,
    store::Pending,
};

/// So many bytes of a body cost a token more: reading them takes as long as a small request. The largest value in
/// its usual spelling costs none.
const BYTES_PER_TOKEN: usize = 128 << 10;

/// A handler's answer.
pub(super) type HandlerResult = Result<HttpResponse, ApiError>;

/// A handler's future; it stays on its worker's thread.
pub(super) type Answering<'a> = LocalBoxFuture<'a, HandlerResult>;

/// A call that its caller may make: of an owner, or (`Call<()>`) of any principal.
///
/// A handler reads it in the order of the contract: [`Call::secret_id`], [`Call::json_only`],
/// [`Call::if_match`], [`Call::idempotency_key`], [`Call::object`].
pub(super) struct Call<'a, W = Owner> {
    /// The rooms below.
    pub(super) state: &'a AppState,
    /// What the callers share.
    pub(super) edge: &'a Edge,
    /// Whom the call counts for.
    pub(super) caller: Caller,
    /// The head.
    pub(super) request: &'a HttpRequest,
    /// The path's `{secret_id}`, as it came.
    pub(super) secret_id: Option<&'a str>,
    /// The caller's owner, where only owners call.
    pub(super) owner: W,
    /// The caller.
    pub(super) principal: Arc<Principal>,
    /// What the caller has shown.
    pub(super) credential: Arc<SecretString>,
    /// What is known of the request.
    pub(super) progress: &'a RequestState,
    /// The body.
    pub(super) incoming: &'a mut Incoming,
}

impl<W> Call<'_, W> {
    /// The secret that the path names.
    ///
    /// # Errors
    /// [`ApiError::Validation`] when it is not of the one spelling that a secret has.
    pub(super) fn secret_id(&self) -> Result<SecretId, ApiError> {
        SecretId::parse(self.secret_id.unwrap_or_default()).map_err(|_malformed| {
            let place = [Location::PATH, Location::Name("secret_id")];
            ApiError::fault(place, ItemKind::UuidParsing)
        })
    }

    /// Sees that the body is said to be JSON.
    ///
    /// # Errors
    /// [`ApiError::InvalidRequest`] when it is not.
    pub(super) fn json_only(&self) -> Result<(), ApiError> {
        Ok(media::check(self.request.headers())?)
    }

    /// The precondition.
    ///
    /// # Errors
    /// [`ApiError::InvalidRequest`] when it can't be read.
    pub(super) fn if_match(&self) -> Result<Option<IfMatch>, ApiError> {
        Ok(conditional::if_match(self.request.headers())?)
    }

    /// The known fields of the body's object. The bytes that it was read from are wiped.
    ///
    /// # Errors
    /// [`ApiError::PayloadTooLarge`] or [`ApiError::InvalidRequest`]; [`ApiError::RateLimited`] when the caller's bucket
    /// holds too little for its size, and also, as [`ApiError::Overloaded`], when too many bytes of bodies are held.
    pub(super) async fn object(&mut self, known: &[&'static str]) -> Result<Fields, ApiError> {
        self.object_within(self.state.settings.limits.body_bytes, known)
            .await
    }

    /// The same of a body of at most so many bytes.
    ///
    /// # Errors
    /// As [`Call::object`].
    pub(super) async fn object_within(
        &mut self,
        bytes: usize,
        known: &[&'static str],
    ) -> Result<Fields, ApiError> {
        let within = self.state.settings.limits.body_time;
        let portion = self
            .edge
            .bodies
            .take(Some(&self.caller), Amount::default())?;
        let declared = self.incoming.declared(bytes)?;
        self.charge_more(declared.unwrap_or(0) / BYTES_PER_TOKEN)?;
        let body = self.incoming.read(bytes, within, portion).await?;
        if declared.is_none() {
            self.charge_more(body.bytes().len() / BYTES_PER_TOKEN)?;
        }
        self.note_request(body.bytes());
        Ok(parse_object(body.bytes(), known)?)
    }

    /// Takes what a call of so many entries costs: it has paid for the first.
    ///
    /// # Errors
    /// [`ApiError::RateLimited`] when the caller's bucket holds less; nothing was taken then.
    pub(super) fn charge(&self, entries: usize) -> Result<(), ApiError> {
        self.charge_more(entries.saturating_sub(1))
    }

    /// Takes more tokens for this call.
    fn charge_more(&self, tokens: usize) -> Result<(), ApiError> {
        let paid = self.progress.paid.get();
        let cost = paid.saturating_add(tokens);
        self.progress.paid.set(cost);
        let taken = self.edge.callers.take_rest(&self.caller, (paid, cost));
        let Some((level, verdict)) = taken else {
            return Ok(());
        };
        self.progress.level.set(Some(level));
        verdict.map_err(|wait_seconds| ApiError::RateLimited { wait_seconds })
    }

    /// Waits for what comes of work that was handed in.
    ///
    /// # Errors
    /// [`Failure`]. From the moment that the work is handed in until it is answered, a panic or a bug is
    /// answered as an unknown outcome.
    pub(super) async fn settle(&self, pending: Pending) -> Result<Outcome, Failure> {
        self.progress.may_stand.set(true);
        let outcome = pending.outcome().await;
        // What is answered again was made by another attempt.
        let made = outcome.is_ok() && !matches!(outcome, Ok(Outcome::Replayed(_)));
        self.progress.may_stand.set(made);
        faults::point("render").await;
        outcome
    }

    /// Whether the caller's token lets a secret of this name be seen at all.
    pub(super) fn covers(&self, name: &SecretName) -> bool {
        self.principal.secrets.covers(name)
    }

    /// Who asks, for events.
    pub(super) fn context(&self) -> RequestContext {
        // Two of them are as good as none: nobody could say which is the parent.
        let traceparent = single_line(self.request.headers(), "traceparent");
        RequestContext {
            agent: self.principal.agent.clone(),
            secrets: self.principal.secrets.clone(),
            origin: Origin {
                client: self.progress.client,
                server_request_id: Some(self.progress.server_request_id),
            },
            request_id: Some(self.progress.request_id.clone()),
            traceparent: traceparent.and_then(|text| TraceParent::parse(text).ok()),
        }
    }
}

impl<'a> Call<'a, ()> {
    /// The call of a caller whose token has a scope.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`] without it.
    pub(super) fn permitted(self, scope: Scope) -> Result<Self, ApiError> {
        let has_scope = self.principal.scopes.contains(&scope);
        has_scope.then_some(self).ok_or(ApiError::Forbidden)
    }

    /// The call as its owner's.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`] when a service calls, whatever its scopes.
    pub(super) fn of_owner(self) -> Result<Call<'a>, ApiError> {
        let owner = self.principal.grantee.owner().cloned();
        Ok(Call {
            owner: owner.ok_or(ApiError::Forbidden)?,
            state: self.state,
            edge: self.edge,
            caller: self.caller,
            request: self.request,
            secret_id: self.secret_id,
            principal: self.principal,
            credential: self.credential,
            progress: self.progress,
            incoming: self.incoming,
        })
    }
}

impl Call<'_> {
    /// Hands a change in and waits for what comes of it.
    ///
    /// # Errors
    /// The refusal or the failure, as for [`Call::settle`].
    ///
    /// # Cancel safety
    /// A change that is still queued when the future is dropped is abandoned whole; one that was begun
    /// runs to its end.
    pub(super) async fn submit(
        &self,
        secret_id: SecretId,
        change: RequestedChange,
    ) -> Result<Applied, ApiError> {
        let request = self.change_request(secret_id, change);
        let pending = self.state.secrets.submit(&self.caller, request)?;
        match self.settle(pending).await? {
            Outcome::Changed(applied) => Ok(applied),
            Outcome::Replayed(answer) => {
                self.progress.replayed.set(true);
                idempotency::only(answer).ok_or_else(|| Bug::WrongOutcome.into())
            }
            Outcome::Set(..) | Outcome::Recorded => Err(Bug::WrongOutcome.into()),
        }
    }

    /// Hands a change set in and waits for what comes of it: the set's ID, which is another one when it was made
    /// before, and what was made of each change.
    ///
    /// # Errors
    /// As [`Call::submit`]; the refusal of one change names its index.
    ///
    /// # Cancel safety
    /// As [`Call::submit`]: the set is abandoned whole or applied whole.
    pub(super) async fn submit_set(
        &self,
        changes: Vec<(SecretId, RequestedChange)>,
        id: ChangeSetId,
    ) -> Result<(ChangeSetId, Vec<Applied>), ApiError> {
        let requests = changes
            .into_iter()
            .map(|(secret_id, change)| ChangeRequest {
                once: None,
                ..self.change_request(secret_id, change)
            });
        let once = self.progress.once.get().cloned();
        let pending = self
            .state
            .secrets
            .submit_set(&self.caller, requests.collect(), (id, once))
            .await?;
        match self.settle(pending).await {
            Ok(Outcome::Set(id, applied)) => Ok((id, applied)),
            Ok(Outcome::Replayed(Answer {
                change_set: Some(id),
                applied,
            })) => {
                self.progress.replayed.set(true);
                Ok((id, applied))
            }
            Ok(Outcome::Changed(_) | Outcome::Recorded | Outcome::Replayed(_)) => {
                Err(Bug::WrongOutcome.into())
            }
            Err(Failure::Refused(Refused {
                index,
                refusal: Refusal::NotFound,
            })) => Err(ApiError::EntryNotFound { index }),
            Err(failure) => Err(failure.into()),
        }
    }

    fn change_request(&self, secret_id: SecretId, change: RequestedChange) -> ChangeRequest {
        ChangeRequest {
            owner: self.owner.clone(),
            secret_id,
            context: self.context(),
            change,
            once: self.progress.once.get().cloned(),
        }
    }
}
