//! Reading the body of a request, with a cap and a deadline.
//!
//! In come the connection's chunks; out go bytes that are wiped on drop. actix-web has no deadline for a body,
//! and its `Json` extractor accepts too much, so neither is used (`fields` parses the bytes).

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    dev::Payload,
    http::header::CONTENT_LENGTH,
    web::Bytes,
};
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::error::{ApiError, MalformedRequest};
use crate::shares::{Full, Portion};

/// A body on its way in.
pub(super) struct Incoming {
    payload: Payload,
    declared: Option<u64>,
    begun: bool,
    finished: bool,
}

impl Incoming {
    /// The body of a request that has just begun.
    pub(super) fn new(request: &HttpRequest, payload: Payload) -> Self {
        let declared = request
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        Self {
            finished: matches!(payload, Payload::None),
            payload,
            declared,
            begun: false,
        }
    }

    /// Whether its end is being waited for, or was in vain.
    pub(super) fn is_incomplete(&self) -> bool {
        self.begun && !self.finished
    }

    /// How many bytes the body will have, if the request says so.
    ///
    /// # Errors
    /// [`ApiError::PayloadTooLarge`] for more than `most`.
    pub(super) fn declared(&self, most: usize) -> Result<Option<usize>, ApiError> {
        let Some(declared) = self.declared else {
            return Ok(None);
        };
        let declared = usize::try_from(declared).ok();
        let within = declared.filter(|declared| *declared <= most);
        within.ok_or(ApiError::PayloadTooLarge).map(Some)
    }

    /// Reads the whole body. What it takes of memory is counted in the portion.
    ///
    /// # Errors
    /// [`ApiError::PayloadTooLarge`] as soon as it is known to have more than `most` bytes,
    /// [`MalformedRequest::Incomplete`] when it breaks off or is not complete `within` that time,
    /// [`ApiError::RateLimited`] or [`ApiError::Overloaded`] when the portion can't grow.
    pub(super) async fn read(
        &mut self,
        most: usize,
        within: Duration,
        portion: Portion,
    ) -> Result<Body, ApiError> {
        self.declared(most)?;
        let deadline = Instant::now() + within;
        let mut body = Body::new(portion);
        self.begun = true;
        while !self.finished {
            match timeout_at(deadline, self.payload.next()).await {
                Ok(Some(Ok(chunk))) if chunk.len() > most - body.bytes.len() => {
                    return Err(ApiError::PayloadTooLarge);
                }
                Ok(Some(Ok(chunk))) => body.append(&chunk)?,
                Ok(None) => self.finished = true,
                Ok(Some(Err(_))) | Err(_) => return Err(MalformedRequest::Incomplete.into()),
            }
        }
        Ok(body)
    }

    /// Gives an answer the rest of the body to hold.
    ///
    /// actix-http closes a connection whose body was not read to its end, after a short while of
    /// discarding, as long as the payload is alive when the answer ends. A chunked payload that was
    /// *dropped* it reads on for ever, without a deadline (`should_close_for_unread_payload`).
    pub(super) fn answer(self, answer: HttpResponse) -> HttpResponse {
        if self.finished {
            return answer;
        }
        answer.map_body(|_, body| {
            BoxBody::new(Holding {
                body,
                _unread: self.payload,
            })
        })
    }
}

/// The bytes of a body, which are wiped on drop, and their portion of all that are held.
pub(super) struct Body {
    bytes: Zeroizing<Vec<u8>>,
    portion: Portion,
}

impl Body {
    fn new(portion: Portion) -> Self {
        Self {
            bytes: Zeroizing::default(),
            portion,
        }
    }

    /// All of it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends without leaving a copy behind: a `Vec` that grows by itself frees its old bytes unwiped.
    fn append(&mut self, chunk: &[u8]) -> Result<(), Full> {
        let needed = self.bytes.len() + chunk.len();
        if needed > self.bytes.capacity() {
            let room = needed.next_power_of_two();
            self.portion.grow(room - self.bytes.capacity())?;
            let mut larger = Zeroizing::new(Vec::with_capacity(room));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }
}

/// An answer's body together with the request's unread one.
struct Holding {
    body: BoxBody,
    _unread: Payload,
}

impl MessageBody for Holding {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        match self.body.size() {
            // `BoxBody::new` would drop a body of no size at once, and the payload with it.
            BodySize::None => BodySize::Sized(0),
            size @ (BodySize::Sized(_) | BodySize::Stream) => size,
        }
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.body.as_pin_mut().poll_next(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shares::{Amount, Stock};

    #[test]
    fn a_growing_body_is_whole() {
        let stock = Stock::new(Amount::ALL, Amount::ALL);
        let portion = stock.take(None, Amount::default()).unwrap();
        let mut body = Body::new(portion);
        let mut expected = Vec::new();
        for n in 0..200_u8 {
            let chunk = vec![n; usize::from(n)];
            body.append(&chunk).unwrap();
            expected.extend_from_slice(&chunk);
        }
        assert_eq!(body.bytes(), expected);
        assert_eq!(stock.held().bytes, body.bytes.capacity());
    }
}
