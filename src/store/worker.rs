//! The committer: one task that owns the one writing connection of the process.
//!
//! It takes all that queued while the last commit ran and commits it as one transaction. It answers each
//! command itself, and only after COMMIT. What it answers is true also when the connection breaks, the
//! database falls silent, or the transaction panics. No timer delays a lone write.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::Utc;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    StoreError,
    admission::{Reply, Submission},
    commit::{Batch, Decided, commit, look_up},
    committer::{CommitterSettings, Shared, Slots},
    connection::{Pool, Target},
    gate::Gate,
};
use crate::domain::{Failure, Log, Timestamp, Work};

/// A batch takes no more once it holds this many bytes (4 MiB).
const BATCH_BYTES: usize = 4 << 20;

/// The pause between two attempts to find out what came of a COMMIT.
const LOOK_UP_PAUSE: Duration = Duration::from_millis(100);

/// What came of an attempt to commit a batch.
enum Ending {
    Committed(Decided),
    /// Refused before COMMIT for something that one of the changes may be to blame for.
    Blamed,
    Failed(Failure),
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedReceiver<Submission>,
    target: Target,
    runtime: Handle,
    settings: CommitterSettings,
    pool: Option<Arc<Pool>>,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        queue: mpsc::UnboundedReceiver<Submission>,
        target: Target,
        runtime: Handle,
        settings: CommitterSettings,
    ) -> Self {
        Self {
            shared,
            queue,
            target,
            runtime,
            settings,
            pool: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut stopping = self.shared.stopping.subscribe();
        loop {
            let first = tokio::select! {
                biased;
                () = self.shared.slots_filled.notified() => None,
                submission = self.queue.recv() => submission,
                _ = stopping.wait_for(|stopping| *stopping) => break,
            };
            let (works, replies) = self.take(first);
            let slots = self.shared.take_slots();
            if !works.is_empty() || !slots.is_empty() {
                self.serve(works, replies, slots).await;
            }
        }
        if let Some(pool) = self.pool.take() {
            pool.close(self.target.timeout).await;
        }
    }

    /// Takes what is queued, up to the batch's limits, except what its caller has abandoned.
    fn take(&mut self, first: Option<Submission>) -> (Vec<Work>, Vec<Reply>) {
        let (mut works, mut replies) = (Vec::new(), Vec::new());
        let (mut changes, mut bytes) = (0, 0);
        let mut next = first;
        loop {
            if changes >= self.settings.max_batch || bytes >= BATCH_BYTES {
                // Only reached without a submission in hand: nothing is lost.
                break;
            }
            let Some(Submission { work, reply }) =
                next.take().or_else(|| self.queue.try_recv().ok())
            else {
                break;
            };
            if reply.take() {
                changes += work.count();
                bytes += work.bytes();
                works.push(work);
                replies.push(reply);
            }
        }
        (works, replies)
    }

    /// Commits a batch and answers everybody in it.
    async fn serve(&mut self, works: Vec<Work>, replies: Vec<Reply>, slots: Slots) {
        let batch = self.batch(works, &slots);
        let ending = self.commit(&batch).await;
        answer_slots(slots, &ending);
        match ending {
            Ending::Blamed if replies.len() > 1 => {
                // One of them is to blame: each gets a transaction of its own.
                for (index, reply) in replies.into_iter().enumerate() {
                    let alone = Arc::new(batch.alone(index));
                    let ending = self.commit(&alone).await;
                    answer(ending, vec![reply]);
                }
            }
            ending @ (Ending::Committed(_) | Ending::Blamed | Ending::Failed(_)) => {
                answer(ending, replies);
            }
        }
    }

    fn batch(&self, works: Vec<Work>, slots: &Slots) -> Arc<Batch> {
        let cursors = slots.cursors.iter().flatten();
        Arc::new(Batch {
            works: works.into(),
            only: None,
            cursors: cursors.map(|item| item.step.clone()).collect(),
            retention: slots.retention.as_ref().map(|item| item.retention.clone()),
            limits: self.settings.limits,
            now: Timestamp::from(Utc::now()),
            gate: Gate::default(),
            decided: Mutex::default(),
        })
    }

    /// One transaction, watched.
    async fn commit(&mut self, batch: &Arc<Batch>) -> Ending {
        let began = Instant::now();
        let pool = match self.pool().await {
            Ok(pool) => pool,
            Err(error) => return self.failed(&error),
        };
        let task = pool.spawn(|db| commit(db, Arc::clone(batch)));
        let error = match task.within(began + self.settings.watchdog).await {
            Ok(()) => return self.committed(batch, began),
            Err(error) => error,
        };
        // A batch whose gate can be shut has not sent COMMIT, and never will.
        if !batch.gate.shut() {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the outcome of a COMMIT is in doubt"
            );
            return self.look_up(batch, began).await;
        }
        match error {
            StoreError::Statement(_) | StoreError::Corrupt(_) | StoreError::Lost => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    batch.works = batch.works().len(),
                    "a batch was refused"
                );
                self.give_up();
                Ending::Blamed
            }
            StoreError::Unavailable(_) | StoreError::TimedOut(_) | StoreError::Deadline => {
                self.failed(&error)
            }
        }
    }

    fn failed(&mut self, error: &StoreError) -> Ending {
        tracing::error!(
            error = error as &dyn std::error::Error,
            "a batch failed before COMMIT"
        );
        self.give_up();
        Ending::Failed(Failure::from(error))
    }

    /// Finds out what came of a COMMIT, on connections of its own, until the deadline.
    async fn look_up(&mut self, batch: &Arc<Batch>, began: Instant) -> Ending {
        self.give_up();
        let deadline = began + self.settings.queue.total;
        let Some(first) = batch.first_event() else {
            // Nothing of the log is in doubt: refusals are asked again, a cursor is read again.
            return Ending::Failed(Failure::Unavailable);
        };
        while Instant::now() < deadline {
            let Ok(pool) = self.pool().await else { break };
            let first = first.clone();
            match pool.spawn(|db| look_up(db, first)).within(deadline).await {
                Ok(true) => return self.committed(batch, began),
                Ok(false) => return Ending::Failed(Failure::Unavailable),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a look-up after a COMMIT in doubt failed"
                    );
                    self.give_up();
                }
            }
            sleep(LOOK_UP_PAUSE).await;
        }
        tracing::error!(
            batch.works = batch.works().len(),
            "the outcome of a COMMIT stays unknown"
        );
        self.give_up();
        Ending::Failed(Failure::Unknown)
    }

    /// What the rest of the process learns of a commit.
    fn committed(&self, batch: &Batch, began: Instant) -> Ending {
        let size: usize = batch.works().iter().map(Work::count).sum();
        if size > 0 {
            // A batch holds a few hundred changes.
            let size = u32::try_from(size).unwrap_or(u32::MAX);
            metrics::histogram!("rekey_commit_batch_size").record(size);
            metrics::histogram!("rekey_commit_duration_seconds").record(began.elapsed());
        }
        let decided = batch.take_decided();
        if let Some(primary) = &decided.primary {
            self.shared.primary.send_if_modified(|held| {
                let new = held != primary;
                if new {
                    held.clone_from(primary);
                }
                new
            });
        }
        for log in Log::ALL {
            let mut events = decided.events.iter().map(|entry| &entry.placed).rev();
            if let Some(last) = events.find(|placed| placed.event.log() == log) {
                self.shared.committed(log).send_replace(last.position);
            }
        }
        Ending::Committed(decided)
    }

    /// The pool of one that holds the writing connection.
    async fn pool(&mut self) -> Result<Arc<Pool>, StoreError> {
        if let Some(pool) = &self.pool {
            return Ok(Arc::clone(pool));
        }
        let pool = Arc::new(Pool::open(&self.target, 1, &self.runtime).await?);
        self.pool = Some(Arc::clone(&pool));
        Ok(pool)
    }

    /// Gives up the writing connection: the next batch opens a new one.
    fn give_up(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.condemn();
        }
    }
}

/// Answers each caller with its own outcome.
fn answer(ending: Ending, replies: Vec<Reply>) {
    let failure = match ending {
        Ending::Committed(decided) => {
            for (reply, outcome) in replies.into_iter().zip(decided.outcomes) {
                reply.answer(outcome.map_err(Failure::from));
            }
            return;
        }
        Ending::Blamed => Failure::Internal,
        Ending::Failed(failure) => failure,
    };
    for reply in replies {
        reply.answer(Err(failure.clone()));
    }
}

/// Answers the process's own items.
fn answer_slots(slots: Slots, ending: &Ending) {
    let decided = match ending {
        Ending::Committed(decided) => Ok(decided),
        Ending::Blamed => Err(Failure::Internal),
        Ending::Failed(failure) => Err(failure.clone()),
    };
    // A task that no longer waits for its result hears nothing.
    for (item, index) in slots.cursors.into_iter().flatten().zip(0..) {
        let state = decided
            .clone()
            .map(|decided| decided.cursors.get(index).copied());
        let _ = item
            .answer
            .send(state.and_then(|state| state.ok_or(Failure::Internal)));
    }
    if let Some(item) = slots.retention {
        let _ = item.answer.send(decided.map(|decided| decided.removed));
    }
}

/// What a caller hears of an error before COMMIT.
impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Unavailable,
            StoreError::TimedOut(_) | StoreError::Deadline => Self::TimedOut,
            StoreError::Statement(_) | StoreError::Corrupt(_) | StoreError::Lost => Self::Internal,
        }
    }
}
