//! One connection that streams a log.

use std::{collections::VecDeque, time::Duration};

use reqwest::{Response, header::CONTENT_TYPE};
use tokio::time::{Instant, timeout_at};

use super::{
    ClientError,
    sse::{SseBlock, SseParser},
};
use crate::domain::Cursor;

/// A stream that says nothing for so long is broken: the service says something every 15 s.
const SILENCE: Duration = Duration::from_secs(40);

/// The log has been read up to a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamItem {
    /// Resuming here misses nothing and repeats nothing.
    pub cursor: Cursor,
    /// The event at the cursor; `None` when only time or other owners' events have passed.
    pub event: Option<StreamedEvent>,
}

/// An event as it was streamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamedEvent {
    /// Its type, such as `secret.updated`.
    pub kind: String,
    /// Its exact bytes (they are UTF-8): what its hash is over.
    pub body: String,
}

/// A stream under way.
#[derive(Debug)]
pub struct EventStream {
    response: Response,
    parser: SseParser,
    blocks: VecDeque<SseBlock>,
    heard: Instant,
}

impl EventStream {
    pub(super) fn new(response: Response) -> Result<Self, ClientError> {
        let kind = response.headers().get(CONTENT_TYPE);
        if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
            return Err(ClientError::NotUnderstood);
        }
        Ok(Self {
            response,
            parser: SseParser::default(),
            blocks: VecDeque::new(),
            heard: Instant::now(),
        })
    }

    /// The next that has passed; `None` when the service has ended the stream.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when the connection breaks, [`ClientError::Silent`] after 40 s
    /// without a byte, [`ClientError::NotUnderstood`]. The stream is over then.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<StreamItem>, ClientError> {
        loop {
            if let Some(block) = self.blocks.pop_front() {
                return read(block).map(Some).ok_or(ClientError::NotUnderstood);
            }
            let piece = timeout_at(self.heard + SILENCE, self.response.chunk()).await;
            let piece = piece.or(Err(ClientError::Silent))?;
            self.heard = Instant::now();
            let Some(piece) = piece.map_err(ClientError::unreachable)? else {
                return Ok(None);
            };
            let fed = self.parser.feed(&piece, &mut self.blocks);
            fed.or(Err(ClientError::NotUnderstood))?;
        }
    }
}

fn read(block: SseBlock) -> Option<StreamItem> {
    Some(StreamItem {
        cursor: Cursor::parse(&block.id).ok()?,
        event: block.data.map(|body| StreamedEvent {
            kind: block.kind,
            body,
        }),
    })
}
