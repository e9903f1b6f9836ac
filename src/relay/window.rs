//! The window: the events that one connection was given and the broker has yet to confirm, moved step by step.

use std::{collections::VecDeque, time::Duration};

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep, timeout};

use super::{POLL, cursor::LeasedCursor};
use crate::{
    broker::{BrokerError, Confirm, Message, Publisher, Verdict},
    faults,
    store::LoggedEvent,
};

/// Events that may be unconfirmed.
const WINDOW: usize = 500;
/// How long the broker may confirm nothing of what it was given, while it does not block the connection.
const CONFIRM: Duration = Duration::from_secs(10);

/// What one connection publishes under one lease: a contiguous stretch of the log.
pub(super) struct Window {
    /// Up to this position it holds one event at a time.
    careful_until: u64,
    /// The last position that was published.
    published: u64,
    read: VecDeque<LoggedEvent>,
    unconfirmed: VecDeque<Unconfirmed>,
    /// Since when the broker owes an answer.
    quiet_since: Instant,
    is_well: bool,
    unroutable: u64,
}

/// An event that the broker has yet to confirm.
struct Unconfirmed {
    position: u64,
    confirm: Confirm,
}

impl Window {
    /// A window that begins after the last position that was confirmed.
    pub(super) fn new(confirmed: u64, careful_until: u64) -> Self {
        Self {
            careful_until,
            published: confirmed,
            read: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            quiet_since: Instant::now(),
            is_well: false,
            unroutable: 0,
        }
    }

    /// The last position that was published.
    pub(super) fn published(&self) -> u64 {
        self.published
    }

    /// Whether the broker has confirmed an event on this connection, or there was none.
    pub(super) fn is_well(&self) -> bool {
        self.is_well
    }

    pub(super) fn take_unroutable(&mut self) -> u64 {
        std::mem::take(&mut self.unroutable)
    }

    /// Publishes what the window has room for, then waits a short time for the next thing to happen: a confirm, or
    /// a commit. Renews the lease when it is time to.
    ///
    /// # Errors
    /// [`BrokerError`]: the connection can no longer be used.
    pub(super) async fn step(
        &mut self,
        publisher: &mut Publisher,
        cursor: &mut LeasedCursor,
    ) -> Result<(), BrokerError> {
        publisher.check()?;
        cursor.renew().await;
        let Some(confirmed) = cursor.confirmed() else {
            return Ok(());
        };
        // Subscribed before the log is read: an event in between ends the wait.
        let mut head = cursor.head();
        let flows = publisher.blocked().is_none();
        if flows {
            self.publish(publisher, cursor, confirmed).await;
        } else {
            self.quiet_since = Instant::now();
        }
        let may_publish = flows && self.unconfirmed.len() < self.room(confirmed);
        let Some(first) = self.unconfirmed.front_mut() else {
            self.is_well |= cursor.is_well();
            drop(timeout(POLL, head.changed()).await);
            return Ok(());
        };
        let verdict = tokio::select! {
            biased;
            verdict = &mut first.confirm => verdict,
            // What is committed now waits for no confirm.
            _ = head.changed(), if may_publish => return self.in_time(),
            () = sleep(POLL) => return self.in_time(),
        };
        self.confirmed(cursor, verdict).await?;
        // The broker confirms many at once: take those that have arrived in this step.
        while let Some(first) = self.unconfirmed.front_mut()
            && let Some(verdict) = (&mut first.confirm).now_or_never()
        {
            self.confirmed(cursor, verdict).await?;
        }
        Ok(())
    }

    /// Fails when the broker has owed an answer for too long.
    fn in_time(&self) -> Result<(), BrokerError> {
        if self.quiet_since.elapsed() < CONFIRM {
            Ok(())
        } else {
            Err(BrokerError::Deadline)
        }
    }

    /// How many events may be unconfirmed.
    fn room(&self, confirmed: u64) -> usize {
        if confirmed < self.careful_until {
            1
        } else {
            WINDOW
        }
    }

    /// Handles the broker's answer about the first event of the window.
    async fn confirmed(
        &mut self,
        cursor: &mut LeasedCursor,
        verdict: Result<Verdict, BrokerError>,
    ) -> Result<(), BrokerError> {
        match verdict? {
            Verdict::Taken { unroutable } => {
                self.unroutable += u64::from(unroutable);
                #[expect(
                    clippy::expect_used,
                    reason = "the verdict comes from the future of the window's first event"
                )]
                let first = self.unconfirmed.pop_front().expect("an unconfirmed event");
                cursor.confirm(first.position);
                self.quiet_since = Instant::now();
                self.is_well = true;
                faults::point("after-confirm").await;
                Ok(())
            }
            Verdict::Refused => Err(BrokerError::Refused),
        }
    }

    async fn publish(&mut self, publisher: &Publisher, cursor: &mut LeasedCursor, confirmed: u64) {
        let room = self.room(confirmed);
        if self.read.is_empty() && self.unconfirmed.len() < room {
            self.read = cursor.read(self.published).await.into();
        }
        if self.unconfirmed.is_empty() {
            self.quiet_since = Instant::now();
        }
        while self.unconfirmed.len() < room
            && let Some(event) = self.read.pop_front()
        {
            let LoggedEvent {
                position,
                body,
                traceparent,
                ..
            } = event;
            self.published = position;
            let Ok(message) = Message::of(body, traceparent) else {
                // Only an edit of the database can have put it there. It can't be sent, and must not stop the
                // events after it. The log keeps it.
                tracing::error!(
                    event.position = position,
                    "an event that can't be read is skipped"
                );
                continue;
            };
            let confirm = publisher.publish(message);
            self.unconfirmed
                .push_back(Unconfirmed { position, confirm });
            faults::point("after-publish").await;
        }
    }
}
