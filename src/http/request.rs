//! What a handler of an owner's route works on, and the steps in which it reads its request.

use actix_web::{HttpRequest, HttpResponse};
use futures_util::future::LocalBoxFuture;

use super::{
    AppState,
    body::{self, Fields, Incoming},
    conditional,
    error::{ApiError, ErrorItem, ItemKind, Place},
    media,
    serve::Progress,
};
use crate::{
    actor::{Request, Wanted},
    domain::{Agent, Applied, IfMatch, Owner, SecretId},
    faults,
};

/// A handler's answer.
pub(super) type Answer = Result<HttpResponse, ApiError>;

/// A handler's future; it stays on its worker's thread.
pub(super) type Answering<'a> = LocalBoxFuture<'a, Answer>;

/// A call of an owner that may make it.
///
/// A handler reads it in the order of the contract: [`Call::secret_id`], [`Call::json_only`],
/// [`Call::if_match`], [`Call::object`].
pub(super) struct Call<'a> {
    /// The rooms below.
    pub(super) state: &'a AppState,
    /// The head.
    pub(super) request: &'a HttpRequest,
    /// The path's `{secret_id}`, as it came.
    pub(super) secret_id: Option<&'a str>,
    /// The caller's owner.
    pub(super) owner: Owner,
    /// The caller, for events.
    pub(super) agent: Agent,
    /// What is known of the request.
    pub(super) progress: &'a Progress,
    /// The body.
    pub(super) incoming: &'a mut Incoming,
}

impl Call<'_> {
    /// The secret that the path names.
    ///
    /// # Errors
    /// [`ApiError::Validation`] when it is not of the one spelling that a secret has.
    pub(super) fn secret_id(&self) -> Result<SecretId, ApiError> {
        SecretId::parse(self.secret_id.unwrap_or_default()).map_err(|_malformed| {
            let place = [Place::PATH, Place("secret_id")];
            let item = ErrorItem::new(place, ItemKind::UuidParsing);
            ApiError::Validation(vec![item])
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

    /// The body's object. The bytes that it was read from are wiped.
    ///
    /// # Errors
    /// [`ApiError::PayloadTooLarge`] or [`ApiError::InvalidRequest`].
    pub(super) async fn object(&mut self) -> Result<Fields, ApiError> {
        let limits = &self.state.settings.limits;
        let bytes = self
            .incoming
            .read(limits.body_bytes, limits.body_time)
            .await?;
        Ok(body::parse_object(&bytes)?)
    }

    /// Hands a change in and waits for what comes of it.
    ///
    /// # Errors
    /// The refusal or the failure. From the moment that the change is handed in until one of these is
    /// there, a panic or a bug is answered as an unknown outcome.
    ///
    /// # Cancel safety
    /// A change that is still queued when the future is dropped is abandoned whole; one that was begun
    /// runs to its end.
    pub(super) async fn submit(
        &self,
        secret_id: SecretId,
        wanted: Wanted,
    ) -> Result<Applied, ApiError> {
        let pending = self.state.secrets.submit(Request {
            owner: self.owner.clone(),
            secret_id,
            agent: self.agent.clone(),
            request_id: self.progress.request_id.clone(),
            wanted,
        })?;
        self.progress.may_stand.set(true);
        let outcome = pending.outcome().await;
        let applied = matches!(outcome, Ok(Ok(_)));
        self.progress.may_stand.set(applied);
        faults::point("render").await;
        Ok(outcome??)
    }
}
