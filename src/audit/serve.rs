//! The consumer: what the broker delivers is stored, then acknowledged.
//!
//! A message is acknowledged after the COMMIT that holds it, so a crash at any point brings it again, and a
//! repeat is dropped by its key. A message that is not an event of rekey is refused for good: the broker moves it to a
//! second queue, and the gap that it leaves is filled from the service's log.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use chrono::Utc;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    event::AuditEvent,
    store::{AuditStore, PrepareError},
};
use crate::{
    backoff::Backoff,
    broker::{BrokerError, BrokerTarget, Consumer},
    client::ApiClient,
    crypto::CheckpointKey,
    domain::{ErrorChain, Timestamp},
    faults,
};

/// The longest pause between two attempts at the broker or the database.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that lasted this long resets the back-off.
const LASTED: Duration = Duration::from_secs(10);

/// The audit consumer.
#[derive(Debug)]
pub(crate) struct Auditor {
    /// Its own database.
    pub store: AuditStore,
    /// The broker that delivers events.
    pub broker: BrokerTarget,
    /// The service, which fills gaps.
    pub client: ApiClient,
    /// The key that verifies checkpoints, if it is known.
    pub key: Option<CheckpointKey>,
    /// How often it compares itself with the service.
    pub compare: Duration,
    /// Events wait for a checkpoint: the next one is asked for at once.
    pub ahead: AtomicBool,
    /// It runs until this is true.
    pub stopping: watch::Receiver<bool>,
}

impl Auditor {
    /// Prepares the database, then stores events until it is stopped, and finishes what it has begun.
    ///
    /// # Errors
    /// [`PrepareError`]: the database can't be used at the start. Later, the consumer waits for it.
    pub(crate) async fn run(self) -> Result<(), PrepareError> {
        self.store.prepare().await?;
        // What it has handed to the database runs to its end; it does not wait for an answer of the service.
        let gaps = async {
            tokio::select! {
                biased;
                () = self.stopped() => {}
                () = self.fill_gaps() => {}
            }
        };
        tokio::join!(self.consume(), gaps);
        self.store.close(LONGEST_PAUSE).await;
        Ok(())
    }

    async fn consume(&self) {
        let mut backoff = Backoff::new(LONGEST_PAUSE);
        while !*self.stopping.borrow() {
            let began = Instant::now();
            if let Err(error) = self.connection().await {
                tracing::warn!(error = %ErrorChain(&error), "cannot connect to the broker; trying again");
            }
            if began.elapsed() > LASTED {
                backoff.reset();
            }
            self.rest(backoff.next_pause()).await;
        }
    }

    async fn connection(&self) -> Result<(), BrokerError> {
        let mut consumer = tokio::select! {
            biased;
            () = self.stopped() => return Ok(()),
            connected = Consumer::connect(&self.broker) => connected?,
        };
        tracing::info!("consuming");
        let ended = self.deliveries(&mut consumer).await;
        // What was not acknowledged goes back to its queue.
        consumer.close().await;
        ended
    }

    /// Takes batches until the connection breaks or the consumer is stopped.
    async fn deliveries(&self, consumer: &mut Consumer) -> Result<(), BrokerError> {
        loop {
            let batch = tokio::select! {
                biased;
                () = self.stopped() => return Ok(()),
                batch = consumer.batch() => batch?,
            };
            let (mut events, mut good, mut refused) = (Vec::new(), Vec::new(), Vec::new());
            for mut delivery in batch {
                match AuditEvent::parse(std::mem::take(&mut delivery.body)) {
                    Ok(mut event) => {
                        event.traceparent = delivery.traceparent.take();
                        events.push(event);
                        good.push(delivery);
                    }
                    Err(error) => {
                        tracing::error!(error = %ErrorChain(&error), "a message is not an event of rekey: it is refused");
                        refused.push(delivery);
                    }
                }
            }
            faults::point("audit.received").await;
            if !self.store_all(events).await {
                return Ok(());
            }
            faults::point("audit.committed").await;
            consumer.refuse(&refused).await?;
            consumer.acknowledge(&good).await?;
        }
    }

    /// Stores the events, however long the database takes; false when the consumer was stopped first.
    async fn store_all(&self, events: Vec<AuditEvent>) -> bool {
        let mut backoff = Backoff::new(LONGEST_PAUSE);
        while !events.is_empty() {
            let now = Timestamp::from(Utc::now());
            match self.store.add(events.clone(), now).await {
                Ok(stored) => {
                    tracing::debug!(
                        stored.new,
                        stored.repeats,
                        stored.alarms,
                        "stored what the broker delivered"
                    );
                    if stored.waiting + stored.dropped > 0 {
                        tracing::warn!(
                            stored.waiting,
                            stored.dropped,
                            "messages claim to be events that the service has not signed yet: they wait for a \
                             checkpoint, or are dropped where too many do"
                        );
                        self.ahead.store(true, Ordering::Relaxed);
                    }
                    break;
                }
                Err(error) => {
                    tracing::warn!(error = %ErrorChain(&error), "cannot store events; trying again");
                }
            }
            if *self.stopping.borrow() {
                return false;
            }
            self.rest(backoff.next_pause()).await;
        }
        true
    }

    /// Pauses, unless the consumer is stopped.
    async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = self.stopped() => {}
            () = sleep(pause) => {}
        }
    }

    /// Waits until the consumer is stopped.
    async fn stopped(&self) {
        // An error means that nobody can stop it any more, and stops it too.
        let _ = self.stopping.clone().wait_for(|stop| *stop).await;
    }
}
