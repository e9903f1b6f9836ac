//! The relay's side of the database: the log, the cursor, and the lease of the cursor.
//!
//! Every statement of a relay goes through here, so that one outage of the database is told once, and asked
//! about less and less often.

use std::{error::Error, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use crate::{
    backoff::Backoff,
    domain::{Cursor, ErrorChain, Log},
    faults,
    store::{
        Committer, CursorAction, CursorName, CursorState, CursorStep, LogTail, LoggedEvent, Reader,
    },
};

/// How often lease and cursor are written, and how often a relay without the lease asks for it.
const PERIOD: Duration = Duration::from_secs(1);
/// A lease that was not renewed for this long no longer counts.
const STALE: Duration = Duration::from_secs(4);
/// How long a relay that gave its lease back waits before it asks again, so that another replica gets it.
const STAND_BACK: Duration = Duration::from_secs(10);
/// The longest pause between two attempts while the database fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Events that are read at once: more than the window, so that it seldom waits for the database.
const READ: usize = 2000;

/// The lease of a cursor, and the last position that was confirmed under it.
#[derive(Debug, Clone, Copy)]
struct Lease {
    number: u64,
    confirmed: u64,
    renewed: Instant,
}

/// A cursor in a log, which its relay may move while it has the lease.
#[derive(Debug)]
pub(super) struct LeasedCursor {
    reader: Reader,
    tail: LogTail,
    committer: Committer,
    name: CursorName,
    holder: Uuid,
    lease: Option<Lease>,
    /// Whether another replica's relay had the lease when this one asked last.
    is_elsewhere: bool,
    /// When the lease is renewed or asked for next, and when the log may be read.
    due: Instant,
    readable: Instant,
    backoff: Backoff,
}

impl LeasedCursor {
    pub(super) fn new(
        name: CursorName,
        reader: Reader,
        tail: LogTail,
        committer: Committer,
    ) -> Self {
        let now = Instant::now();
        Self {
            reader,
            tail,
            committer,
            name,
            holder: Uuid::now_v7(),
            lease: None,
            is_elsewhere: false,
            due: now,
            readable: now,
            backoff: Backoff::new(LONGEST_PAUSE),
        }
    }

    pub(super) fn log(&self) -> Log {
        self.name.log
    }

    /// The last position that was confirmed, while the relay has the lease.
    pub(super) fn confirmed(&self) -> Option<u64> {
        self.lease.map(|lease| lease.confirmed)
    }

    /// Whether the database does what it is asked, and a relay has the lease, be it this one or another replica's.
    pub(super) fn is_well(&self) -> bool {
        !self.backoff.is_failing() && (self.lease.is_some() || self.is_elsewhere)
    }

    /// The broker has this event, and all before it.
    pub(super) fn confirm(&mut self, position: u64) {
        if let Some(lease) = &mut self.lease {
            lease.confirmed = position;
        }
    }

    /// Changes when the log has new events.
    pub(super) fn head(&self) -> watch::Receiver<Cursor> {
        self.tail.head()
    }

    /// Asks for the lease if the relay does not have it and it is time to ask.
    pub(super) async fn acquire(&mut self) {
        if self.lease.is_some() || Instant::now() < self.due {
            return;
        }
        let holder = self.holder;
        match self.write(CursorAction::Acquire { holder }).await {
            Some(CursorState::Held {
                lease_number,
                position,
            }) => {
                tracing::info!(
                    relay.log = self.name.log.as_str(),
                    relay.lease = lease_number,
                    event.position = position,
                    "the relay has the lease"
                );
                self.lease = Some(Lease {
                    number: lease_number,
                    confirmed: position,
                    renewed: Instant::now(),
                });
            }
            // Another replica has it: this one asks again later.
            Some(CursorState::Lost) | None => {}
        }
    }

    /// Renews the lease, if the relay has it and it is time to. The same statement moves the cursor over what was
    /// confirmed.
    pub(super) async fn renew(&mut self) {
        let Some(mut lease) = self.lease else {
            return;
        };
        if Instant::now() < self.due {
            return;
        }
        let action = CursorAction::Advance {
            lease_number: lease.number,
            position: lease.confirmed,
        };
        match self.write(action).await {
            Some(CursorState::Held { .. }) => {
                lease.renewed = Instant::now();
                self.lease = Some(lease);
                faults::point("after-cursor").await;
            }
            Some(CursorState::Lost) => self.lease = None,
            None if lease.renewed.elapsed() >= STALE => self.lease = None,
            None => {}
        }
    }

    /// Moves the cursor one last time and gives the lease back.
    pub(super) async fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            // If it fails, the lease ends by itself.
            self.write(CursorAction::Release {
                lease_number: lease.number,
                position: lease.confirmed,
            })
            .await;
            self.due = Instant::now() + STAND_BACK;
        }
    }

    /// The next events of the log, from the ring where it reaches back that far; none while the database fails.
    pub(super) async fn read(&mut self, after: u64) -> Vec<LoggedEvent> {
        if let Some(events) = self.tail.after(after, READ) {
            return events.into_iter().map(Arc::unwrap_or_clone).collect();
        }
        if Instant::now() < self.readable {
            return Vec::new();
        }
        match self
            .reader
            .log_after(self.name.log, after, READ as u64)
            .await
        {
            Ok(events) => {
                self.well();
                events
            }
            Err(error) => {
                self.failed(&error);
                Vec::new()
            }
        }
    }

    async fn write(&mut self, action: CursorAction) -> Option<CursorState> {
        let step = CursorStep {
            cursor: self.name.clone(),
            action,
        };
        let written = self.committer.cursor(step).await;
        self.is_elsewhere = matches!(written, Ok(CursorState::Lost));
        match written {
            Ok(state) => {
                self.well();
                self.readable = Instant::now();
                self.due = self.readable + PERIOD;
                Some(state)
            }
            Err(failure) => {
                // The committer keeps the causes to itself; a read meets the same ones.
                let read = if self.backoff.is_failing() {
                    None
                } else {
                    self.reader.log_head(self.name.log).await.err()
                };
                match read {
                    Some(error) => self.failed(&error),
                    None => self.failed(&failure),
                }
                None
            }
        }
    }

    fn failed(&mut self, error: &dyn Error) {
        if !self.backoff.is_failing() {
            tracing::warn!(
                relay.log = self.name.log.as_str(),
                error = %ErrorChain(error),
                "the relay can't use the database; it tries until it can"
            );
        }
        // Reads wait too: they begin once a write has succeeded.
        self.due = Instant::now() + self.backoff.next_pause();
        self.readable = self.due;
    }

    fn well(&mut self) {
        if self.backoff.is_failing() {
            tracing::info!(
                relay.log = self.name.log.as_str(),
                "the relay can use the database again"
            );
            self.backoff.reset();
        }
    }
}
