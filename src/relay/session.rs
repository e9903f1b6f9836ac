//! One connection's worth of relaying: a window of unconfirmed events, moved step by step.

use std::{collections::VecDeque, time::Duration};

use futures_util::FutureExt as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::Lease;
use crate::{
    broker::{BrokerError, Confirm, Message, Publisher, Verdict},
    domain::ErrorChain,
    faults,
    store::{Committer, CursorAction, CursorName, CursorState, CursorStep, LoggedEvent, Reader},
};

/// Events that may be unconfirmed.
const WINDOW: usize = 500;
/// Events that are read at once: more than the window, so that it seldom waits for the database.
const READ: u64 = 2000;
/// How long the broker may take to confirm an event.
const CONFIRM: Duration = Duration::from_secs(10);
/// How often lease and cursor are written.
const RENEW: Duration = Duration::from_secs(1);
/// The pause after a renewal that failed.
const RETRY: Duration = Duration::from_millis(100);
/// A lease that was not renewed for this long no longer counts.
const STALE: Duration = Duration::from_secs(4);
/// How often the log is read without a wake-up: other replicas write too.
const POLL: Duration = Duration::from_millis(250);

/// Why a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The relay is stopped.
    Stopped,
    /// Another relay has the lease, or it could not be renewed.
    LeaseLost,
    /// The connection can no longer be used.
    BrokerLost(BrokerError),
}

/// Publishes on one connection under one lease.
pub(super) struct PublishSession<'a> {
    publisher: &'a Publisher,
    cursor: &'a CursorName,
    lease: Lease,
    careful_until: u64,
    /// The last position that was published.
    published: u64,
    read: VecDeque<LoggedEvent>,
    window: VecDeque<Unconfirmed>,
    unroutable: u64,
}

/// An event that the broker has yet to confirm.
struct Unconfirmed {
    position: u64,
    published_at: Instant,
    confirm: Confirm,
}

/// What a step waits for.
enum Woken {
    Confirmed(Result<Verdict, BrokerError>),
    Late,
    Nothing,
}

impl<'a> PublishSession<'a> {
    pub(super) fn new(
        publisher: &'a Publisher,
        cursor: &'a CursorName,
        lease: Lease,
        careful_until: u64,
    ) -> Self {
        Self {
            publisher,
            cursor,
            lease,
            careful_until,
            published: lease.confirmed,
            read: VecDeque::new(),
            window: VecDeque::new(),
            unroutable: 0,
        }
    }

    pub(super) fn lease(&self) -> Lease {
        self.lease
    }

    pub(super) fn take_unroutable(&mut self) -> u64 {
        std::mem::take(&mut self.unroutable)
    }

    /// The position up to which the next session publishes one event at a time.
    pub(super) fn careful_until(&self, ended: &Ended) -> u64 {
        match ended {
            Ended::BrokerLost(_) => self.published.max(self.careful_until),
            Ended::Stopped | Ended::LeaseLost => self.careful_until,
        }
    }

    /// Publishes what the window has room for, then waits for the next thing to happen: a confirm, a
    /// commit, the time to renew. Renews the lease and moves the cursor when it is time.
    pub(super) async fn step(
        &mut self,
        reader: &Reader,
        committer: &Committer,
        stopping: &mut watch::Receiver<bool>,
    ) -> Result<(), Ended> {
        if !self.publisher.is_connected() {
            return Err(Ended::BrokerLost(BrokerError::Gone));
        }
        let renew_at = self.lease.renewed + RENEW;
        if Instant::now() >= renew_at {
            self.renew(committer).await?;
        }
        // Subscribed before the log is read: a commit in between wakes the next step.
        let mut commits = committer.committed(self.cursor.log);
        self.publish(reader).await?;
        let woken = if let Some(Unconfirmed {
            published_at,
            confirm,
            ..
        }) = self.window.front_mut()
        {
            let late = *published_at + CONFIRM;
            tokio::select! {
                biased;
                verdict = confirm => Woken::Confirmed(verdict),
                () = sleep_until(late) => Woken::Late,
                () = sleep_until(renew_at) => Woken::Nothing,
            }
        } else {
            tokio::select! {
                _ = commits.changed() => Woken::Nothing,
                () = sleep_until(Instant::now() + POLL) => Woken::Nothing,
                _ = stopping.wait_for(|stopping| *stopping) => return Err(Ended::Stopped),
            }
        };
        match woken {
            Woken::Nothing => Ok(()),
            Woken::Late => Err(Ended::BrokerLost(BrokerError::Deadline)),
            Woken::Confirmed(verdict) => {
                self.confirmed(verdict).await?;
                // The broker confirms many at once: take those that have arrived in this step.
                while let Some(first) = self.window.front_mut()
                    && let Some(verdict) = (&mut first.confirm).now_or_never()
                {
                    self.confirmed(verdict).await?;
                }
                Ok(())
            }
        }
    }

    /// Handles the broker's answer about the first event of the window.
    async fn confirmed(&mut self, verdict: Result<Verdict, BrokerError>) -> Result<(), Ended> {
        match verdict {
            Ok(Verdict::Taken { unroutable }) => {
                self.unroutable += u64::from(unroutable);
                #[expect(
                    clippy::expect_used,
                    reason = "the verdict comes from the future of the window's first event"
                )]
                let first = self.window.pop_front().expect("an unconfirmed event");
                self.lease.confirmed = first.position;
                faults::point("after-confirm").await;
                Ok(())
            }
            Ok(Verdict::Refused) => Err(Ended::BrokerLost(BrokerError::Refused)),
            Err(error) => Err(Ended::BrokerLost(error)),
        }
    }

    async fn publish(&mut self, reader: &Reader) -> Result<(), Ended> {
        let room = if self.lease.confirmed < self.careful_until {
            1
        } else {
            WINDOW
        };
        if self.read.is_empty() && self.window.len() < room {
            let log = self.cursor.log;
            match reader.log_after(log, self.published, READ).await {
                Ok(events) => self.read = events.into(),
                Err(error) => {
                    tracing::warn!(
                        error = %ErrorChain(&error),
                        "the relay can't read the log; trying again"
                    );
                }
            }
        }
        while self.window.len() < room
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
            let confirm = self
                .publisher
                .publish(message)
                .await
                .map_err(Ended::BrokerLost)?;
            self.window.push_back(Unconfirmed {
                position,
                published_at: Instant::now(),
                confirm,
            });
            faults::point("after-publish").await;
        }
        Ok(())
    }

    /// One statement renews the lease and moves the cursor over the confirmed prefix.
    async fn renew(&mut self, committer: &Committer) -> Result<(), Ended> {
        let step = CursorStep {
            cursor: self.cursor.clone(),
            action: CursorAction::Advance {
                lease_number: self.lease.number,
                position: self.lease.confirmed,
            },
        };
        match committer.cursor(step).await {
            Ok(CursorState::Held { .. }) => {
                self.lease.renewed = Instant::now();
                faults::point("after-cursor").await;
                Ok(())
            }
            Ok(CursorState::Lost) => Err(Ended::LeaseLost),
            Err(error) => {
                tracing::warn!(
                    relay.log = self.cursor.log.as_str(),
                    error = %ErrorChain(&error),
                    "cannot renew the relay's lease"
                );
                if self.lease.renewed.elapsed() >= STALE {
                    return Err(Ended::LeaseLost);
                }
                sleep(RETRY).await;
                Ok(())
            }
        }
    }
}
