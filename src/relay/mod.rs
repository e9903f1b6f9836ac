//! The relay: follows a committed log with a cursor and publishes it in position order.
//!
//! The log is the outbox: there is no flag on an event, only the cursor, which moves over what the broker
//! confirmed. At most one relay holds the cursor's lease. Delivery is at least once; the first delivery of
//! position n + 1 always follows that of n, because each connection publishes a contiguous stretch that
//! begins at or before the first unconfirmed event.

mod health;
mod session;

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::{
    backoff::Backoff,
    broker::{BrokerTarget, Publisher},
    domain::{ErrorChain, Log},
    store::{Check, Committer, CursorAction, CursorName, CursorState, CursorStep, Reader},
};
pub(crate) use health::RelayHealth;
use session::{Ended, PublishSession};

/// How long a relay without a broker keeps its lease.
const WITHOUT_BROKER: Duration = Duration::from_secs(5);
/// How long it then waits before it asks for the lease again, so that a replica with a broker gets it.
const STAND_BACK: Duration = Duration::from_secs(10);
/// How often a relay without the lease asks for it.
const ASK: Duration = Duration::from_secs(1);
/// The longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

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

/// The lease of the cursor, and the last position that was confirmed under it.
#[derive(Debug, Clone, Copy)]
struct Lease {
    number: u64,
    confirmed: u64,
    renewed: Instant,
}

/// The relay of one log.
#[derive(Debug)]
pub(crate) struct Relay {
    reader: Reader,
    committer: Committer,
    target: BrokerTarget,
    cursor: CursorName,
    holder: Uuid,
    lease: Option<Lease>,
    /// Publishes one event at a time up to this position, because a window before it was refused or timed out.
    careful_until: u64,
    state: watch::Sender<RelayState>,
    stopping: watch::Receiver<bool>,
}

impl Relay {
    /// A relay of `log` that runs until `stopping` is true.
    #[must_use]
    pub(crate) fn new(
        log: Log,
        reader: Reader,
        committer: Committer,
        target: BrokerTarget,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let cursor = CursorName {
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
            reader,
            committer,
            target,
            cursor,
            holder: Uuid::now_v7(),
            lease: None,
            careful_until: 0,
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
        let mut lost_at = Instant::now();
        let mut backoff = Backoff::new(LONGEST_PAUSE);
        while !*self.stopping.borrow() {
            match Publisher::connect(&self.target).await {
                Ok(publisher) => {
                    backoff.reset();
                    self.set(Check::Ok);
                    self.serve(publisher).await;
                    lost_at = Instant::now();
                }
                Err(error) => {
                    tracing::warn!(
                        error = %ErrorChain(&error),
                        "cannot connect to the broker"
                    );
                    self.set(Check::Failed);
                    if self.lease.is_some() && lost_at.elapsed() >= WITHOUT_BROKER {
                        self.release().await;
                        self.rest(STAND_BACK).await;
                    }
                    self.rest(backoff.next_pause()).await;
                }
            }
        }
        self.release().await;
    }

    /// Publishes on one connection until it breaks, or the relay is stopped.
    async fn serve(&mut self, publisher: Publisher) {
        while !*self.stopping.borrow() {
            let Some(lease) = self.acquire().await else {
                self.rest(ASK).await;
                continue;
            };
            let cursor = self.cursor.clone();
            let mut session = PublishSession::new(&publisher, &cursor, lease, self.careful_until);
            let ended = loop {
                if *self.stopping.borrow() {
                    break Ended::Stopped;
                }
                if let Err(ended) = session
                    .step(&self.reader, &self.committer, &mut self.stopping)
                    .await
                {
                    break ended;
                }
                self.note(&mut session);
            };
            self.lease = Some(session.lease());
            self.careful_until = session.careful_until(&ended);
            match ended {
                Ended::Stopped => {}
                Ended::LeaseLost => {
                    self.lease = None;
                    self.state.send_modify(|state| state.confirmed = None);
                }
                Ended::BrokerLost(error) => {
                    tracing::warn!(
                        error = %ErrorChain(&error),
                        "the connection to the broker is lost"
                    );
                    self.set(Check::Failed);
                    break;
                }
            }
        }
        publisher.close().await;
    }

    /// The lease that the relay holds, or takes now.
    async fn acquire(&mut self) -> Option<Lease> {
        if self.lease.is_none() {
            let holder = self.holder;
            let step = self.step(CursorAction::Acquire { holder });
            match self.committer.cursor(step).await {
                Ok(CursorState::Held {
                    lease_number,
                    position,
                }) => {
                    tracing::info!(
                        relay.log = self.cursor.log.as_str(),
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
                Ok(CursorState::Lost) => {}
                Err(error) => {
                    tracing::warn!(
                        relay.log = self.cursor.log.as_str(),
                        error = %ErrorChain(&error),
                        "cannot ask for the relay's lease; trying again"
                    );
                }
            }
        }
        self.lease
    }

    fn step(&self, action: CursorAction) -> CursorStep {
        CursorStep {
            cursor: self.cursor.clone(),
            action,
        }
    }

    async fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            let step = self.step(CursorAction::Release {
                lease_number: lease.number,
                position: lease.confirmed,
            });
            if let Err(error) = self.committer.cursor(step).await {
                tracing::warn!(
                    relay.log = self.cursor.log.as_str(),
                    error = %ErrorChain(&error),
                    "cannot release the relay's lease: it ends by itself"
                );
            }
        }
    }

    /// Waits, unless the relay is stopped.
    async fn rest(&mut self, time: Duration) {
        tokio::select! {
            () = sleep(time) => {}
            _ = self.stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    fn set(&self, broker: Check) {
        self.state.send_modify(|state| {
            state.broker = broker;
            state.relay = broker;
        });
    }

    fn note(&self, session: &mut PublishSession<'_>) {
        let (unroutable, confirmed) = (session.take_unroutable(), session.lease().confirmed);
        self.state.send_if_modified(|state| {
            let news = unroutable > 0 || state.confirmed != Some(confirmed);
            state.unroutable += unroutable;
            state.confirmed = Some(confirmed);
            news
        });
    }
}
