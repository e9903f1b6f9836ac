//! `Idempotency-Key`: a request that a client may send again is made once, and answered again.
//!
//! The edge reads the key and makes the code of the request; the commit looks for its record. What is answered again
//! has the fields of the first answer; its masks are opened anew, as long as their versions are kept.

use actix_web::http::header::{HeaderMap, IF_MATCH};

use super::{
    conditional::joined,
    error::{ApiError, MalformedRequest},
    request::Call,
    routes::Verb,
};
use crate::domain::{Answer, Applied, IdempotencyKey, Mask, Once, OnceName, Secret};

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The key of a request.
///
/// # Errors
/// [`MalformedRequest::IdempotencyKey`] when there are several, or it is none.
fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, MalformedRequest> {
    let mut lines = headers.get_all(IDEMPOTENCY_KEY);
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    let text = line.to_str().ok().filter(|_| lines.next().is_none());
    let key = text.and_then(|text| IdempotencyKey::parse(text.trim_matches([' ', '\t'])).ok());
    key.map(Some).ok_or(MalformedRequest::IdempotencyKey)
}

impl Call<'_> {
    /// Reads the idempotency key.
    ///
    /// # Errors
    /// [`ApiError::InvalidRequest`] when it is malformed or repeated.
    pub(super) fn idempotency_key(&self) -> Result<(), ApiError> {
        if let Some(key) = key(self.request.headers())? {
            // A request is read once.
            let _ = self.progress.idempotency_key.set(key);
        }
        Ok(())
    }

    /// What a request that was made before has answered; nothing when it is to be made now.
    ///
    /// It is for a request that can't be handed to the commit, because what it is about is gone: if the request itself
    /// was the cause, its record is there.
    ///
    /// # Errors
    /// As the commit's: [`ApiError::Validation`] when the key was used for another request.
    pub(super) async fn answered(&self) -> Result<Option<Answer>, ApiError> {
        let Some(once) = self.progress.once.get() else {
            return Ok(None);
        };
        let key = &self.state.idempotency;
        let answer = self.state.reader.answered(once, key).await?;
        self.progress.replayed.set(answer.is_some());
        Ok(answer)
    }

    /// The mask of an answer: `own`, which was made with the value, or that of the version that a replay shows.
    ///
    /// # Errors
    /// [`ApiError`] when it can't be read or opened.
    pub(super) async fn shown_mask(&self, secret: &Secret, own: &Mask) -> Result<Mask, ApiError> {
        if !self.progress.replayed.get() {
            return Ok(own.clone());
        }
        let version = (secret.id, secret.version_id);
        let Some(sealed) = self.state.reader.mask(&self.owner, version).await? else {
            return Ok(Mask::hidden());
        };
        let opened = self.state.sealer.open_mask(&self.owner, secret.id, &sealed);
        opened.map_err(|error| ApiError::Internal(error.into()))
    }
}

impl<W> Call<'_, W> {
    /// Notes what is asked for, where it has an idempotency key.
    pub(super) fn note_request(&self, body: &[u8]) {
        let (Some(key), Some(owner)) = (
            self.progress.idempotency_key.get(),
            self.principal.grantee.owner(),
        ) else {
            return;
        };
        let method = Verb::of(self.request.method()).map_or("", Verb::name);
        // One secret has one path, in whatever letter case its ID came.
        let secret_id = self.secret_id.unwrap_or_default().to_ascii_lowercase();
        let if_match = joined(self.request.headers(), &IF_MATCH);
        let request = self.state.idempotency.code(&[
            b"request",
            method.as_bytes(),
            self.progress.route.get().as_bytes(),
            secret_id.as_bytes(),
            &if_match,
            body,
        ]);
        let name = OnceName::new(owner.clone(), &self.principal.agent, key.clone());
        // A request has one body.
        let _ = self.progress.once.set(Once { name, request });
    }
}

/// The only change of an answer.
pub(super) fn only(answer: Answer) -> Option<Applied> {
    answer.applied.into_iter().next()
}
