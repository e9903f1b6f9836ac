//! The consumer: what the broker delivers is stored, then acknowledged.
//!
//! A message is acknowledged after the COMMIT that holds it, so a crash at any point brings it again, and a
//! repeat is dropped by its key. A message that is not an event of rekey is refused for good: the broker moves it to a
//! second queue, and the gap that it leaves is filled from the service's log.

use std::time::Duration;

use chrono::Utc;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    event::AuditEvent,
    gaps::Gaps,
    store::{AuditStore, PrepareError},
};
use crate::{
    backoff::Backoff,
    broker::{BrokerError, BrokerTarget, Consumer, Delivery},
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
        let gaps = Gaps::new(
            self.store.clone(),
            self.client.clone(),
            self.key.clone(),
            self.compare,
        );
        // What it has handed to the database runs to its end; it does not wait for an answer of the service.
        let mut stopping = self.stopping.clone();
        let gaps = async {
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stop| *stop) => {}
                () = gaps.run() => {}
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
        let mut stopping = self.stopping.clone();
        let mut consumer = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
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
        let mut stopping = self.stopping.clone();
        loop {
            let batch = tokio::select! {
                biased;
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                batch = consumer.batch() => batch?,
            };
            let Sorted {
                events,
                good,
                refused,
            } = sort(batch);
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
        let mut stopping = self.stopping.clone();
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => {}
            () = sleep(pause) => {}
        }
    }
}

/// A batch, sorted by what becomes of it.
struct Sorted {
    events: Vec<AuditEvent>,
    good: Vec<Delivery>,
    refused: Vec<Delivery>,
}

fn sort(batch: Vec<Delivery>) -> Sorted {
    let mut sorted = Sorted {
        events: Vec::with_capacity(batch.len()),
        good: Vec::with_capacity(batch.len()),
        refused: Vec::new(),
    };
    for mut delivery in batch {
        match AuditEvent::parse(std::mem::take(&mut delivery.body)) {
            Ok(mut event) => {
                event.traceparent = delivery.traceparent.take();
                sorted.events.push(event);
                sorted.good.push(delivery);
            }
            Err(error) => {
                tracing::error!(%error, "a message is not an event of rekey: it is refused");
                sorted.refused.push(delivery);
            }
        }
    }
    sorted
}
