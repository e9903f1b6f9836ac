//! The committer: one task that owns the one writing connection of the process.
//!
//! It takes all that queued while the last commit ran and commits it as one transaction. It answers each
//! command itself, and only after COMMIT. What it answers is true also when the connection breaks, the
//! database falls silent, or the transaction panics. No timer delays a lone write.

mod own;

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use chrono::Utc;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, yield_now},
    time::{Instant, sleep, timeout_at},
};

use super::{
    StoreError,
    admission::{Reply, Submission},
    chain::Heads,
    commit::{Batch, Decided, Start, commit, lock_first, logs, look_up},
    committer::{CommitterSettings, Shared},
    connection::Target,
    gate::Gate,
    wal,
    writer::{Opener, Writer},
};
use crate::crypto::MacKey;
use crate::domain::{ErrorChain, Failure, Log, Timestamp, Work};

/// A batch takes no more once it holds this many bytes (4 MiB).
const BATCH_BYTES: usize = 4 << 20;

/// The pause between two attempts to find out what came of a COMMIT.
const LOOK_UP_PAUSE: Duration = Duration::from_millis(100);

/// What came of an attempt to commit a batch.
enum Ending {
    Committed(Box<Decided>),
    /// Refused before COMMIT for something that one of the changes may be to blame for.
    Blamed,
    Failed(Failure),
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedReceiver<Submission>,
    /// What came out of the queue and is in no batch yet.
    next: Option<Submission>,
    opener: Opener,
    settings: CommitterSettings,
    /// The key of the codes of the requests that are made once.
    records: Arc<MacKey>,
    /// The writing connection, while nothing runs on it.
    writer: Option<Writer>,
    /// The last heads that were seen under the lock.
    seen: Heads,
    /// Between the last two batches another process wrote.
    others_write: bool,
    /// The last batch, and whom it concerns: they are answered beside the next BEGIN.
    unanswered: Option<(Ending, Vec<Reply>)>,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        queue: mpsc::UnboundedReceiver<Submission>,
        target: Target,
        (settings, records): (CommitterSettings, Arc<MacKey>),
    ) -> Self {
        Self {
            shared,
            queue,
            next: None,
            opener: Opener::new(target),
            settings,
            records,
            writer: None,
            seen: Heads::default(),
            others_write: false,
            unanswered: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut stopping = self.shared.stopping.subscribe();
        let moving = self.opener.is_sqlite().then(|| {
            let moving = wal::keep_short(self.opener.clone(), Arc::clone(&self.shared));
            tokio::spawn(moving)
        });
        loop {
            if self.unanswered.is_none() && self.next.is_none() {
                tokio::select! {
                    biased;
                    () = self.shared.slots_filled.notified() => {}
                    submission = self.queue.recv() => self.next = submission,
                    _ = stopping.wait_for(|stopping| *stopping) => break,
                }
            }
            let slots = self.shared.take_slots();
            let (mut works, mut replies) = (Vec::new(), Vec::new());
            self.take(&mut works, &mut replies, &Log::ALL);
            if works.is_empty() || !slots.is_empty() {
                self.answer_last();
            }
            self.own(slots).await;
            if !works.is_empty() {
                self.serve(works, replies).await;
            }
        }
        if let Some(writer) = self.writer.take() {
            let deadline = Instant::now() + self.settings.watchdog;
            // Nothing uses it any more. One that does not close in time ends with the process.
            let _ = timeout_at(deadline, writer.connection.close()).await;
        }
        if let Some(moving) = moving {
            // Whatever it has not moved stays in the write-ahead log.
            let _ = moving.await;
        }
    }

    /// Adds what is queued to a batch, up to its limits and to the first work for another log, except what its
    /// caller has abandoned.
    fn take(&mut self, works: &mut Vec<Work>, replies: &mut Vec<Reply>, logs: &[Log]) {
        let mut changes: usize = works.iter().map(Work::count).sum();
        let mut bytes: usize = works.iter().map(Work::bytes).sum();
        while changes < self.settings.max_batch && bytes < BATCH_BYTES {
            let next = self.next.take();
            let Some(submission) = next.or_else(|| self.queue.try_recv().ok()) else {
                break;
            };
            if !logs.contains(&submission.work.log()) {
                self.next = Some(submission);
                break;
            }
            let Submission { work, reply } = submission;
            if reply.take() {
                changes += work.count();
                bytes += work.bytes();
                works.push(work);
                replies.push(reply);
            }
        }
    }

    fn answer_last(&mut self) {
        if let Some((ending, replies)) = self.unanswered.take() {
            self.answer(ending, replies);
        }
    }

    /// Answers each caller with its own outcome. Then the rest of the process learns what was committed.
    fn answer(&self, ending: Ending, replies: Vec<Reply>) {
        let failure = match ending {
            Ending::Committed(decided) => {
                for (reply, outcome) in replies.into_iter().zip(decided.outcomes) {
                    reply.answer(outcome.map_err(Failure::from));
                }
                return self.shared.tell(decided.events);
            }
            Ending::Blamed => Failure::Internal,
            Ending::Failed(failure) => failure,
        };
        for reply in replies {
            reply.answer(Err(failure.clone()));
        }
    }

    /// Answers the last batch when the task that was just spawned has sent its BEGIN: the database is at it
    /// meanwhile.
    async fn answer_beside(&mut self) {
        if self.unanswered.is_some() {
            yield_now().await;
            self.answer_last();
        }
    }

    /// A batch of this work.
    fn batch(&self, works: Vec<Work>) -> Batch {
        Batch {
            works: works.into(),
            only: None,
            seen: self.seen,
            limits: self.settings.limits,
            records: Arc::clone(&self.records),
            now: Timestamp::from(Utc::now()),
            gate: Gate::default(),
            decided: Mutex::default(),
        }
    }

    /// Commits a batch and answers everybody in it.
    async fn serve(&mut self, mut works: Vec<Work>, mut replies: Vec<Reply>) {
        if self.shared.log_broken.load(Ordering::Relaxed) {
            return self.answer(Ending::Failed(Failure::Unavailable), replies);
        }
        let began = Instant::now();
        let start = self.start(&mut works, &mut replies, began).await;
        let batch = Arc::new(self.batch(works));
        let ending = match start {
            Ok(start) => self.commit(&batch, start, began).await,
            Err(error) => self.failed(&batch, &error),
        };
        if !matches!(ending, Ending::Blamed) || replies.len() == 1 {
            self.unanswered = Some((ending, replies));
            return;
        }
        // One of them is to blame: each gets a transaction of its own, until the database itself fails.
        let mut replies = replies.into_iter().enumerate();
        for (index, reply) in replies.by_ref() {
            let alone = Arc::new(batch.alone(index, self.seen));
            let start = Start::Idle(self.writer.take());
            let ending = self.commit(&alone, start, Instant::now()).await;
            let broken = matches!(ending, Ending::Failed(_));
            self.answer(ending, vec![reply]);
            if broken {
                let rest = replies.map(|(_, reply)| reply).collect();
                return self.answer(Ending::Failed(Failure::Unavailable), rest);
            }
        }
    }

    /// Where other processes write, too, the locks come first: what queues while another one holds them joins the
    /// batch.
    async fn start(
        &mut self,
        works: &mut Vec<Work>,
        replies: &mut Vec<Reply>,
        began: Instant,
    ) -> Result<Start, StoreError> {
        let held = self.writer.take();
        if !self.others_write {
            return Ok(Start::Idle(held));
        }
        let logs = logs(works);
        let work = lock_first(held, self.opener.clone(), logs.clone());
        let task = tokio::spawn(work);
        self.answer_beside().await;
        let locked = watched(began + self.settings.watchdog, task).await?;
        self.take(works, replies, &logs);
        Ok(Start::Locked(locked))
    }

    /// One transaction, watched.
    async fn commit(&mut self, batch: &Arc<Batch>, start: Start, began: Instant) -> Ending {
        let work = commit(start, self.opener.clone(), Arc::clone(batch));
        let task = tokio::spawn(work);
        self.answer_beside().await;
        let error = match watched(began + self.settings.watchdog, task).await {
            Ok(writer) => {
                self.writer = Some(writer);
                return self.committed(batch, began);
            }
            Err(error) => error,
        };
        // A batch whose gate can be shut has not sent COMMIT, and never will.
        if !batch.gate.shut() {
            tracing::warn!(error = %ErrorChain(&error), "the outcome of a COMMIT is in doubt");
            return self.look_up(batch, began).await;
        }
        self.failed(batch, &error)
    }

    /// What a batch whose COMMIT was never sent comes to.
    fn failed(&self, batch: &Batch, error: &StoreError) -> Ending {
        match error {
            StoreError::Statement(_)
            | StoreError::Corrupt(_)
            | StoreError::RowCount
            | StoreError::Disagrees(_)
            | StoreError::Altered(_, _)
            | StoreError::Lost => {
                tracing::error!(
                    error = %ErrorChain(error),
                    batch.works = batch.works().len(),
                    "a batch was refused"
                );
                Ending::Blamed
            }
            StoreError::LogBroken(log) => {
                tracing::error!(
                    log.name = log.as_str(),
                    "the log does not hold the last event that was seen in it: nothing more is written or \
                     signed until a restart"
                );
                self.shared.log_broken.store(true, Ordering::Relaxed);
                Ending::Failed(Failure::Unavailable)
            }
            StoreError::Unavailable(_) | StoreError::TimedOut(_) | StoreError::Deadline => {
                tracing::error!(error = %ErrorChain(error), "a batch failed before COMMIT");
                Ending::Failed(Failure::from(error))
            }
        }
    }

    /// Finds out what came of a COMMIT, on connections of its own, until the deadline.
    async fn look_up(&mut self, batch: &Arc<Batch>, began: Instant) -> Ending {
        let deadline = began + self.settings.queue.total;
        let Some(first) = batch.first_event() else {
            // Nothing of the log is in doubt: refusals are asked again.
            return Ending::Failed(Failure::Unavailable);
        };
        while Instant::now() < deadline {
            let work = look_up(self.opener.clone(), first.clone());
            let task = tokio::spawn(work);
            match watched(deadline, task).await {
                Ok((writer, found)) => {
                    self.writer = Some(writer);
                    return if found {
                        self.committed(batch, began)
                    } else {
                        Ending::Failed(Failure::Unavailable)
                    };
                }
                Err(error) => {
                    tracing::warn!(
                        error = %ErrorChain(&error),
                        "a look-up after a COMMIT in doubt failed"
                    );
                }
            }
            sleep(LOOK_UP_PAUSE).await;
        }
        tracing::error!(
            batch.works = batch.works().len(),
            "the outcome of a COMMIT stays unknown"
        );
        Ending::Failed(Failure::Unknown)
    }

    /// Notes what a commit says of the logs and of the primary key.
    fn committed(&mut self, batch: &Batch, began: Instant) -> Ending {
        let size: usize = batch.works().iter().map(Work::count).sum();
        // A batch holds a few hundred changes.
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        metrics::histogram!("rekey_commit_batch_size").record(size);
        metrics::histogram!("rekey_commit_duration_seconds").record(began.elapsed());
        let decided = batch.take_decided();
        self.seen = decided.seen;
        self.others_write = decided.others_wrote;
        if let Some(primary) = &decided.primary {
            self.shared.primary.send_if_modified(|held| {
                let new = held != primary;
                if new {
                    held.clone_from(primary);
                }
                new
            });
        }
        Ending::Committed(Box::new(decided))
    }
}

/// Waits for a task until the deadline. Then the task is ended, and what it owns with it.
async fn watched<T>(
    deadline: Instant,
    mut task: JoinHandle<Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match timeout_at(deadline, &mut task).await {
        Ok(Ok(result)) => result,
        Ok(Err(_panicked)) => Err(StoreError::Lost),
        Err(_elapsed) => {
            task.abort();
            Err(StoreError::Deadline)
        }
    }
}

/// What a caller hears of an error before COMMIT.
impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::LogBroken(_) => Self::Unavailable,
            StoreError::TimedOut(_) | StoreError::Deadline => Self::TimedOut,
            StoreError::Statement(_)
            | StoreError::Corrupt(_)
            | StoreError::RowCount
            | StoreError::Disagrees(_)
            | StoreError::Altered(_, _)
            | StoreError::Lost => Self::Internal,
        }
    }
}
