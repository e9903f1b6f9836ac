//! The relay: follows a committed log with a cursor and publishes it in position order.
//!
//! The log is the outbox: there is no flag on an event, only the cursor, which moves over what the broker
//! confirmed. At most one relay holds the cursor's lease. Delivery is at least once; the first delivery of
//! position n + 1 always follows that of n, because each connection publishes a contiguous stretch that
//! begins at or before the first unconfirmed event.
//!
//! A relay is in one of four states. *Connected*, it publishes. *Blocked*: the broker lacks memory or disk space and
//! reads nothing; the relay keeps connection and lease, and nothing is late. *Pausing*: the broker is away or has
//! refused an event; the pauses grow until an event is confirmed. *Without the lease*: another replica publishes.

mod cursor;
mod health;
mod window;

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    backoff::Backoff,
    broker::{BrokerError, BrokerTarget, Publisher},
    domain::{ErrorChain, Log},
    store::{Check, Committer, CursorName, LogTail, Reader},
};
use cursor::LeasedCursor;
pub(crate) use health::RelayHealth;
use window::Window;

/// How long a relay without a broker keeps its lease.
const WITHOUT_BROKER: Duration = Duration::from_secs(5);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often the relay looks about itself: other replicas write too.
const POLL: Duration = Duration::from_millis(250);

/// The state of the relay and its broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RelayState {
    /// The log that it relays.
    pub log: Log,
    /// The connection to the broker.
    pub broker: Check,
    /// The relay: it publishes, or another replica's does.
    pub relay: Check,
    /// Messages that no queue took, since the start.
    pub unroutable: u64,
    /// The last position that the broker confirmed, while this process holds the lease.
    pub confirmed: Option<u64>,
}

/// The relay of one log.
#[derive(Debug)]
pub(crate) struct Relay {
    target: BrokerTarget,
    cursor: LeasedCursor,
    /// Publishes one event at a time up to this position, because a window before it was refused or timed out.
    careful_until: u64,
    backoff: Backoff,
    /// Whether the log says that an operator must help.
    told_operator: bool,
    /// When there was a connection last.
    connected: Instant,
    state: watch::Sender<RelayState>,
    stopping: watch::Receiver<bool>,
}

impl Relay {
    /// A relay of the log that `tail` follows. It runs until `stopping` is true.
    #[must_use]
    pub(crate) fn new(
        tail: LogTail,
        reader: Reader,
        committer: Committer,
        target: BrokerTarget,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let log = tail.log();
        let name = CursorName {
            exchange: target.exchange.clone(),
            log,
        };
        let state = RelayState {
            log,
            broker: Check::Failed,
            relay: Check::Failed,
            unroutable: 0,
            confirmed: None,
        };
        Self {
            target,
            cursor: LeasedCursor::new(name, reader, tail, committer),
            careful_until: 0,
            backoff: Backoff::new(LONGEST_PAUSE),
            told_operator: false,
            connected: Instant::now(),
            state: watch::Sender::new(state),
            stopping,
        }
    }

    /// Its state.
    #[must_use]
    pub(crate) fn state(&self) -> watch::Receiver<RelayState> {
        self.state.subscribe()
    }

    /// Publishes until it is stopped; then moves the cursor one last time and releases the lease.
    pub(crate) async fn run(mut self) {
        while !self.is_stopping() {
            let served = match Publisher::connect(&self.target).await {
                Ok(mut publisher) => {
                    let mut served = self.serve(&mut publisher).await;
                    self.connected = Instant::now();
                    if let Err(error) = served {
                        served = Err(publisher.reason(error).await);
                    }
                    publisher.close().await;
                    served
                }
                Err(error) => Err(error),
            };
            if let Err(error) = served {
                self.pause(&error).await;
            }
        }
        self.cursor.release().await;
    }

    /// Uses one connection until it has to be given up, or the relay is stopped.
    async fn serve(&mut self, publisher: &mut Publisher) -> Result<(), BrokerError> {
        while !self.is_stopping() {
            publisher.check()?;
            self.cursor.acquire().await;
            if let Some(confirmed) = self.cursor.confirmed() {
                self.publish(publisher, confirmed).await?;
            } else {
                self.well();
                self.report(Check::Ok, check(self.cursor.is_well()));
                self.rest(POLL).await;
            }
        }
        Ok(())
    }

    /// Publishes what follows the last confirmed event until the lease is lost.
    async fn publish(
        &mut self,
        publisher: &mut Publisher,
        confirmed: u64,
    ) -> Result<(), BrokerError> {
        let mut window = Window::new(confirmed, self.careful_until);
        let mut was_blocked = false;
        while !self.is_stopping() && self.cursor.confirmed().is_some() {
            let step = window.step(publisher, &mut self.cursor).await;
            let unroutable = window.take_unroutable();
            self.state.send_if_modified(|state| {
                state.unroutable += unroutable;
                unroutable > 0
            });
            if let Err(error) = step {
                self.careful_until = self.careful_until.max(window.published());
                return Err(error);
            }
            let blocked = publisher.blocked();
            if blocked.is_some() != was_blocked {
                was_blocked = !was_blocked;
                self.tell_blocked(blocked);
            }
            let flows = !was_blocked && window.is_well();
            if flows {
                self.well();
            }
            self.report(Check::Ok, check(flows && self.cursor.is_well()));
        }
        Ok(())
    }

    /// Pauses after an attempt that failed. A broker that only refuses is no reason to give the lease away: it would
    /// refuse another replica too.
    async fn pause(&mut self, error: &BrokerError) {
        self.report(Check::Failed, Check::Failed);
        let news = error.needs_operator() && !self.told_operator;
        if news || !self.backoff.is_failing() {
            self.told_operator = error.needs_operator();
            tracing::warn!(
                relay.log = self.cursor.log().as_str(),
                error = %ErrorChain(error),
                "the relay can't publish; it tries until it can"
            );
        }
        let end = Instant::now() + self.backoff.next_pause();
        if self.connected.elapsed() >= WITHOUT_BROKER {
            self.cursor.release().await;
        }
        while !self.is_stopping() && Instant::now() < end {
            self.cursor.renew().await;
            self.rest(POLL.min(end - Instant::now())).await;
        }
    }

    fn well(&mut self) {
        if self.backoff.is_failing() {
            tracing::info!(
                relay.log = self.cursor.log().as_str(),
                "the relay can publish again"
            );
            self.backoff.reset();
            self.told_operator = false;
        }
    }

    fn tell_blocked(&self, reason: Option<&str>) {
        let log = self.cursor.log().as_str();
        if let Some(reason) = reason {
            tracing::warn!(
                relay.log = log,
                broker.reason = reason,
                "the broker blocks the relay; it waits"
            );
        } else {
            tracing::info!(relay.log = log, "the broker takes the relay's events again");
        }
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits, unless the relay is stopped.
    async fn rest(&mut self, time: Duration) {
        tokio::select! {
            () = sleep(time) => {}
            _ = self.stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    fn report(&self, broker: Check, relay: Check) {
        let confirmed = self.cursor.confirmed();
        self.state.send_if_modified(|state| {
            let before = *state;
            (state.broker, state.relay, state.confirmed) = (broker, relay, confirmed);
            *state != before
        });
    }
}

fn check(is_well: bool) -> Check {
    if is_well { Check::Ok } else { Check::Failed }
}
