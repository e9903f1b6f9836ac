//! One connection that streams a log.

use std::{collections::VecDeque, time::Duration};

use reqwest::{Response, header::CONTENT_TYPE};
use tokio::time::{Instant, timeout_at};

use super::{
    RemoteError,
    sse::{Block, Parser},
};
use crate::domain::Cursor;

/// A stream that says nothing for so long is broken: the service says something every 15 s.
const SILENCE: Duration = Duration::from_secs(40);

/// The log has been read up to a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Resuming here misses nothing and repeats nothing.
    pub cursor: Cursor,
    /// The event at the cursor; `None` when only time or other owners' events have passed.
    pub event: Option<Streamed>,
}

/// An event as it was streamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streamed {
    /// Its type, such as `secret.updated`.
    pub kind: String,
    /// Its exact bytes (they are UTF-8): what its hash is over.
    pub body: String,
}

/// A stream under way.
#[derive(Debug)]
pub struct Follow {
    response: Response,
    parser: Parser,
    blocks: VecDeque<Block>,
    heard: Instant,
}

impl Follow {
    pub(super) fn new(response: Response) -> Result<Self, RemoteError> {
        let kind = response.headers().get(CONTENT_TYPE);
        if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
            return Err(RemoteError::NotUnderstood);
        }
        Ok(Self {
            response,
            parser: Parser::default(),
            blocks: VecDeque::new(),
            heard: Instant::now(),
        })
    }

    /// The next that has passed; `None` when the service has ended the stream.
    ///
    /// # Errors
    /// [`RemoteError::Unreachable`] when the connection breaks, [`RemoteError::Silent`] after 40 s
    /// without a byte, [`RemoteError::NotUnderstood`]. The stream is over then.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<Passed>, RemoteError> {
        loop {
            if let Some(block) = self.blocks.pop_front() {
                return read(block).map(Some).ok_or(RemoteError::NotUnderstood);
            }
            let piece = timeout_at(self.heard + SILENCE, self.response.chunk()).await;
            let piece = piece.or(Err(RemoteError::Silent))?;
            self.heard = Instant::now();
            let Some(piece) = piece.map_err(RemoteError::unreachable)? else {
                return Ok(None);
            };
            let fed = self.parser.feed(&piece, &mut self.blocks);
            fed.or(Err(RemoteError::NotUnderstood))?;
        }
    }
}

fn read(block: Block) -> Option<Passed> {
    Some(Passed {
        cursor: Cursor::parse(&block.id).ok()?,
        event: block.data.map(|body| Streamed {
            kind: block.kind,
            body,
        }),
    })
}
