//! Answers that may be large: they go to their connection in pieces, and count among the bytes that are held until
//! the last piece has gone.
//!
//! actix-http copies what a body gives it into its own buffer. In one piece, an answer that its client does not take
//! would be there once more, and nobody would count it.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    body::{BodySize, MessageBody},
    web::Bytes,
};

use super::{error::ApiError, json_body, request::Call};
use crate::shares::{Amount, Portion};

/// An answer of fewer bytes goes at once: the buffers of its connection hold it.
const LARGE: usize = 64 << 10;
/// How many bytes go at a time.
const PIECE: usize = 32 << 10;

/// The room for an answer.
pub(super) struct Room(Option<Portion>);

impl Room {
    /// Room for an answer of so many bytes.
    ///
    /// # Errors
    /// [`ApiError::RateLimited`] or [`ApiError::Overloaded`] when too many bytes are held.
    pub(super) fn reserve<W>(call: &Call<'_, W>, bytes: usize) -> Result<Self, ApiError> {
        if bytes < LARGE {
            return Ok(Self(None));
        }
        let amount = Amount { count: 0, bytes };
        let portion = call.edge.bodies.take(Some(&call.caller), amount)?;
        Ok(Self(Some(portion)))
    }

    /// Completes an answer with a body that is JSON already.
    pub(super) fn json(self, answer: &mut HttpResponseBuilder, body: Bytes) -> HttpResponse {
        match self.0 {
            None => json_body(answer, body),
            Some(portion) => json_body(
                answer,
                Pieces {
                    rest: body,
                    _portion: portion,
                },
            ),
        }
    }
}

/// A body that is given piece by piece.
struct Pieces {
    rest: Bytes,
    _portion: Portion,
}

impl MessageBody for Pieces {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let next = self.rest.len().min(PIECE);
        Poll::Ready((next > 0).then(|| Ok(self.rest.split_to(next))))
    }
}
