//! One connection that streams a log.

use std::{collections::VecDeque, time::Duration};

use reqwest::{Response, header::CONTENT_TYPE};
use tokio::time::{Instant, timeout_at};

use super::{
    ClientError, answer, origin,
    sse::{SseBlock, SseParser},
};
use crate::domain::Cursor;

/// A stream without a byte for so long is broken: the service sends something every 15 s.
const SILENCE: Duration = Duration::from_secs(40);

/// The log was read through a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamItem {
    /// A consumer that resumes here misses nothing and sees nothing twice.
    pub cursor: Cursor,
    /// The event at the cursor; `None` when the service only says how far it has read.
    pub event: Option<StreamedEvent>,
}

/// An event as it was streamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamedEvent {
    /// Its type, such as `secret.updated`.
    pub kind: String,
    /// Its exact bytes (they are UTF-8). Its hash is over them.
    pub body: String,
}

/// A stream under way.
#[derive(Debug)]
pub(crate) struct EventStream {
    response: Response,
    parser: SseParser,
    blocks: VecDeque<SseBlock>,
    heard: Instant,
}

impl EventStream {
    pub(super) fn new(response: Response) -> Result<Self, ClientError> {
        let kind = response.headers().get(CONTENT_TYPE);
        if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
            return Err(ClientError::NotUnderstood("it is not a stream of events"));
        }
        Ok(Self {
            response,
            parser: SseParser::default(),
            blocks: VecDeque::new(),
            heard: Instant::now(),
        })
    }

    /// The next item; `None` when the service has ended the stream.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when the connection breaks, [`ClientError::Silent`] after 40 s without a
    /// byte, [`ClientError::NotUnderstood`]. The stream is over then.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<StreamItem>, ClientError> {
        loop {
            if let Some(block) = self.blocks.pop_front() {
                return Ok(Some(StreamItem {
                    cursor: answer::cursor(&block.id)?,
                    event: block.data.map(|body| StreamedEvent {
                        kind: block.kind,
                        body,
                    }),
                }));
            }
            let piece = timeout_at(self.heard + SILENCE, self.response.chunk())
                .await
                .map_err(|_elapsed| ClientError::Silent)?
                .map_err(|error| ClientError::unreachable(&origin(self.response.url()), error))?;
            self.heard = Instant::now();
            let Some(piece) = piece else {
                return Ok(None);
            };
            let fed = self.parser.feed(&piece, &mut self.blocks);
            fed.map_err(ClientError::not_understood(
                "the stream of events is malformed",
            ))?;
        }
    }
}
