//! Server-sent events (WHATWG HTML, section 9.2): the log as it grows, from a cursor.
//!
//! A stream holds a cursor and nothing else: it is asked for more only while its connection takes more, and
//! reads it then from the shared ring, or from the database when it lags behind that. So there is no buffer
//! that a slow reader could fill; one that does not take what it was handed in time is disconnected by its
//! connection, and resumes.

use std::{sync::Arc, time::Duration};

use actix_web::web::Bytes;
use futures_util::{Stream, stream::unfold};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep_until};

use super::{
    AppState,
    connection::{RequestUnderWay, Requests},
};
use crate::{
    domain::{Cursor, ErrorChain, Log},
    shares::Portion,
    store::{CursorError, Filter, LoggedEvent},
};

/// How often a quiet stream says how far it has looked.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often the token is looked at. (What was good is remembered for 3 s: together less than 5 s.)
const RECHECK: Duration = Duration::from_secs(1);
/// How many events are handed over at once, at most.
const PIECE: usize = 32;

/// Who follows which log from where.
pub(super) struct Follower {
    /// Its place among the caller's streams.
    pub(super) _place: Portion,
    /// Keeps its connection from being idle.
    pub(super) _under_way: RequestUnderWay,
    /// The requests of its connection.
    pub(super) requests: Requests,
    /// The rooms below.
    pub(super) state: AppState,
    /// What the caller has shown.
    pub(super) credential: Arc<SecretString>,
    /// The log.
    pub(super) log: Log,
    /// What of it.
    pub(super) filter: Filter,
    /// Up to where it has looked and sent.
    pub(super) cursor: Cursor,
}

/// What comes next on a stream.
enum Step {
    /// Blocks to send.
    Send(Vec<u8>),
    /// Nothing, and nothing is left to look at.
    Wait,
    /// The end: the cursor is gone, or the database can't be read.
    End,
}

/// Counts a stream while it is open.
struct Open;

impl Open {
    fn count() -> Self {
        metrics::gauge!("rekey_event_streams").increment(1);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("rekey_event_streams").decrement(1);
    }
}

struct Streaming {
    _open: Open,
    follower: Follower,
    /// Whether any block was handed over.
    begun: bool,
    beat: Instant,
    check: Instant,
}

/// The blocks of a stream. The first, at once, is its start.
pub(super) fn events(
    follower: Follower,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    let now = Instant::now();
    let streaming = Streaming {
        _open: Open::count(),
        follower,
        begun: false,
        beat: now + HEARTBEAT,
        check: now + RECHECK,
    };
    unfold(streaming, |mut streaming| async move {
        let blocks = streaming.next().await?;
        Some((Ok(Bytes::from(blocks)), streaming))
    })
}

impl Streaming {
    async fn next(&mut self) -> Option<Vec<u8>> {
        let blocks = if self.begun {
            self.more().await?
        } else {
            position(self.follower.cursor)
        };
        self.begun = true;
        self.beat = Instant::now() + HEARTBEAT;
        Some(blocks)
    }

    /// Waits for the next blocks; nothing at the end.
    async fn more(&mut self) -> Option<Vec<u8>> {
        let mut head = self.follower.state.tail(self.follower.log).head();
        let mut serving = self.follower.state.serving.clone();
        loop {
            if !*serving.borrow() {
                return None;
            }
            if Instant::now() >= self.check {
                self.check = Instant::now() + RECHECK;
                let authenticator = &self.follower.state.authenticator;
                let credential = self.follower.credential.expose_secret();
                // In a box, so that a stream that waits has no room for it.
                Box::pin(authenticator.authenticate(credential))
                    .await
                    .ok()?;
            }
            // Marked before the ring is read: what comes in between wakes the next round.
            head.mark_unchanged();
            match self.follower.step().await {
                Step::Send(blocks) => return Some(blocks),
                Step::End => return None,
                Step::Wait => {}
            }
            tokio::select! {
                changed = head.changed() => changed.ok()?,
                _ = serving.changed() => {}
                () = self.follower.requests.client_left() => return None,
                () = sleep_until(self.check) => {}
                () = sleep_until(self.beat) => return Some(position(self.follower.cursor)),
            }
        }
    }
}

impl Follower {
    /// Looks at what is behind the cursor, and moves it there.
    async fn step(&mut self) -> Step {
        loop {
            let tail = self.state.tail(self.log);
            let Some(events) = tail.after(self.cursor.position, PIECE) else {
                return Box::pin(self.catch_up()).await;
            };
            let Some(last) = events.last() else {
                return Step::Wait;
            };
            self.cursor = last.cursor();
            let wanted = events.iter().filter(|event| self.filter.passes(event));
            let blocks = blocks(wanted.map(AsRef::as_ref));
            if !blocks.is_empty() {
                return Step::Send(blocks);
            }
        }
    }

    /// Reads a page from the database.
    async fn catch_up(&mut self) -> Step {
        let limit = u32::try_from(PIECE).unwrap_or(1);
        let after = Some(self.cursor);
        let page = self
            .state
            .reader
            .log_page(self.log, after, &self.filter, limit);
        match page.await {
            Ok(page) => {
                self.cursor = page.next;
                let mut blocks = blocks(&page.events);
                if blocks.is_empty() {
                    blocks = position(self.cursor);
                }
                Step::Send(blocks)
            }
            Err(CursorError::Gone(_)) => Step::End,
            Err(CursorError::Store(error)) => {
                tracing::warn!(
                    error = %ErrorChain(&error),
                    "a stream of events ends: the log can't be read"
                );
                Step::End
            }
        }
    }
}

/// A block with a position alone.
fn position(cursor: Cursor) -> Vec<u8> {
    format!("id: {cursor}\n\n").into_bytes()
}

/// The blocks of events. A body is canonical JSON: one line.
fn blocks<'a>(events: impl IntoIterator<Item = &'a LoggedEvent>) -> Vec<u8> {
    let mut blocks = Vec::new();
    for event in events {
        let head = format!("id: {}\nevent: {}\ndata: ", event.cursor(), event.kind);
        blocks.extend_from_slice(head.as_bytes());
        blocks.extend_from_slice(&event.body);
        blocks.extend_from_slice(b"\n\n");
    }
    blocks
}
