//! The committer: one task that owns the one writing connection of the process.
//!
//! It takes all that queued while the last commit ran and commits it as one transaction. It answers each
//! command itself, and only after COMMIT; what it answers is true also when the database breaks off, is
//! black-holed, or the transaction panics. No timer delays a lone write.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::Utc;
use tokio::{
    runtime::Handle,
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use super::{
    StoreError,
    apply::Limits,
    commit::{Batch, Phase, commit, look_up},
    connection::{Pool, Target},
    cursor::{CursorState, CursorStep},
    gate::Gate,
};
use crate::domain::{Change, Failure, KeyId, Outcome, Timestamp};

/// A batch takes no more once it holds this many bytes (4 MiB).
const BATCH_BYTES: usize = 4 << 20;

/// The pause between two attempts to find out what came of a COMMIT.
const LOOK_UP_PAUSE: Duration = Duration::from_millis(100);

/// What the answer channel of a command carries.
pub type Answer = Result<Outcome, Failure>;

/// How much the committer takes, and how long it waits.
#[derive(Debug, Clone, Copy)]
pub struct CommitterSettings {
    /// Limits of the domain.
    pub limits: Limits,
    /// Changes in a batch.
    pub max_batch: usize,
    /// Commands that may be under way.
    pub queue: usize,
    /// Bytes that the commands under way may hold together.
    pub queue_bytes: usize,
    /// How long after its begin a batch is condemned.
    pub watchdog: Duration,
    /// How long after its begin a batch whose COMMIT is in doubt is answered as unknown.
    pub give_up: Duration,
}

/// A command's share of what may be under way; dropping it gives the share back.
#[derive(Debug)]
pub struct Permit {
    _count: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// A sealed command on its way into a batch.
#[derive(Debug)]
pub struct Submission {
    /// What to do.
    pub change: Change,
    /// Taken by the committer, or abandoned by whoever waits.
    pub gate: Arc<Gate>,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
    /// Its share of the queue.
    pub permit: Permit,
}

#[derive(Debug)]
struct CursorJob {
    step: CursorStep,
    answer: oneshot::Sender<Result<CursorState, Failure>>,
}

#[derive(Debug)]
struct Shared {
    queue: mpsc::UnboundedSender<Submission>,
    cursor: Mutex<Option<CursorJob>>,
    cursor_waits: Notify,
    count: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    capacity: usize,
    committed: watch::Sender<u64>,
    primary: watch::Sender<KeyId>,
    stopping: watch::Sender<bool>,
}

/// The way to the committer, for all rooms that write.
#[derive(Debug, Clone)]
pub struct Committer {
    shared: Arc<Shared>,
}

impl Committer {
    /// Starts the committer on `runtime`. `primary` is the key that the database names.
    #[must_use]
    pub fn start(
        target: Target,
        runtime: &Handle,
        settings: CommitterSettings,
        primary: KeyId,
    ) -> (Self, JoinHandle<()>) {
        let (queue, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            queue,
            cursor: Mutex::new(None),
            cursor_waits: Notify::new(),
            count: Arc::new(Semaphore::new(settings.queue)),
            bytes: Arc::new(Semaphore::new(settings.queue_bytes)),
            capacity: settings.queue,
            committed: watch::Sender::new(0),
            primary: watch::Sender::new(primary),
            stopping: watch::Sender::new(false),
        });
        let worker = Worker {
            shared: Arc::clone(&shared),
            queue: receiver,
            target,
            runtime: runtime.clone(),
            settings,
            pool: None,
        };
        (Self { shared }, runtime.spawn(worker.run()))
    }

    /// A share of the queue for a command of `bytes`.
    ///
    /// # Errors
    /// [`Failure::Overloaded`] at once when too many commands or bytes are under way.
    pub fn admit(&self, bytes: usize) -> Result<Permit, Failure> {
        let bytes = u32::try_from(bytes).or(Err(Failure::Overloaded))?;
        let count = Arc::clone(&self.shared.count).try_acquire_owned();
        let bytes = Arc::clone(&self.shared.bytes).try_acquire_many_owned(bytes);
        match (count, bytes) {
            (Ok(count), Ok(bytes)) => Ok(Permit {
                _count: count,
                _bytes: bytes,
            }),
            _ => Err(Failure::Overloaded),
        }
    }

    /// Queues a command, in order of the calls. Its permit bounds the queue.
    pub fn enqueue(&self, submission: Submission) {
        // Without a worker the submission is dropped, and with it the answer channel: whoever waits sees
        // it closed and abandons the gate.
        let _ = self.shared.queue.send(submission);
    }

    /// Runs a step of the relay's cursor: it has a slot of its own, is taken first and is never refused.
    ///
    /// # Errors
    /// [`Failure`] when the transaction failed; the row is then read again by the next step.
    ///
    /// # Cancel safety
    /// A step that was dropped may still be applied.
    pub async fn cursor(&self, step: CursorStep) -> Result<CursorState, Failure> {
        let (answer, receiver) = oneshot::channel();
        let job = CursorJob { step, answer };
        *self
            .shared
            .cursor
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(job);
        self.shared.cursor_waits.notify_one();
        receiver.await.unwrap_or(Err(Failure::Internal))
    }

    /// The last position that this process committed; it changes with each commit that has events.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.shared.committed.subscribe()
    }

    /// The key that new versions are sealed under.
    #[must_use]
    pub fn primary_key(&self) -> KeyId {
        self.shared.primary.borrow().clone()
    }

    /// How many commands are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.shared.capacity - self.shared.count.available_permits()
    }

    /// Ends the worker after the batch that it is at.
    pub fn stop(&self) {
        self.shared.stopping.send_replace(true);
    }
}

/// What came of an attempt to commit a batch.
enum Ending {
    Committed(Arc<Batch>),
    /// Refused before COMMIT for something that one of the changes may be to blame for.
    Refused(Arc<Batch>),
    Failed(Failure),
}

struct Worker {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedReceiver<Submission>,
    target: Target,
    runtime: Handle,
    settings: CommitterSettings,
    pool: Option<Arc<Pool>>,
}

/// Whoever waits for a command, apart from the command itself.
type Waiting = (oneshot::Sender<Answer>, Permit);

impl Worker {
    async fn run(mut self) {
        let mut stopping = self.shared.stopping.subscribe();
        loop {
            let first = tokio::select! {
                biased;
                () = self.shared.cursor_waits.notified() => None,
                submission = self.queue.recv() => submission,
                _ = stopping.wait_for(|stopping| *stopping) => break,
            };
            let (changes, waiting) = self.take(first);
            let job = self
                .shared
                .cursor
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if !changes.is_empty() || job.is_some() {
                self.serve(changes, waiting, job).await;
            }
        }
        if let Some(pool) = self.pool.take() {
            pool.close(self.target.timeout).await;
        }
    }

    /// Takes what is queued, up to the batch's limits, and of that what nobody abandoned.
    fn take(&mut self, first: Option<Submission>) -> (Vec<Change>, Vec<Waiting>) {
        let (mut changes, mut waiting) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        let mut next = first;
        loop {
            if changes.len() >= self.settings.max_batch || bytes >= BATCH_BYTES {
                // Only reached without a submission in hand: nothing is lost.
                break;
            }
            let Some(submission) = next.take().or_else(|| self.queue.try_recv().ok()) else {
                break;
            };
            if submission.gate.take() {
                bytes += submission.change.bytes();
                changes.push(submission.change);
                waiting.push((submission.answer, submission.permit));
            }
        }
        (changes, waiting)
    }

    async fn serve(&mut self, changes: Vec<Change>, waiting: Vec<Waiting>, job: Option<CursorJob>) {
        let (step, cursor_answer) = job.map(|job| (job.step, job.answer)).unzip();
        let ending = self.commit(changes, step).await;
        if let Some(answer) = cursor_answer {
            let _ = answer.send(match &ending {
                Ending::Committed(batch) => {
                    let state = batch.decided.get().and_then(|decided| decided.cursor);
                    state.ok_or(Failure::Internal)
                }
                Ending::Refused(_) => Err(Failure::Internal),
                Ending::Failed(failure) => Err(*failure),
            });
        }
        match ending {
            Ending::Committed(batch) => answer(&batch, waiting),
            Ending::Failed(failure) => {
                for (sender, _permit) in waiting {
                    let _ = sender.send(Err(failure));
                }
            }
            Ending::Refused(batch) if batch.changes.len() > 1 => {
                // One of them is to blame: each gets a transaction of its own.
                for (change, waiting) in batch.changes.iter().zip(waiting) {
                    match self.commit(vec![change.clone()], None).await {
                        Ending::Committed(batch) => answer(&batch, vec![waiting]),
                        Ending::Refused(_) => drop(waiting.0.send(Err(Failure::Internal))),
                        Ending::Failed(failure) => drop(waiting.0.send(Err(failure))),
                    }
                }
            }
            Ending::Refused(_) => {
                for (sender, _permit) in waiting {
                    let _ = sender.send(Err(Failure::Internal));
                }
            }
        }
    }

    /// One transaction, watched.
    async fn commit(&mut self, changes: Vec<Change>, cursor: Option<CursorStep>) -> Ending {
        let began = Instant::now();
        let batch = Arc::new(Batch {
            changes,
            cursor,
            limits: self.settings.limits,
            now: Timestamp::from(Utc::now()),
            phase: Phase::default(),
            decided: std::sync::OnceLock::new(),
        });
        let pool = match self.pool().await {
            Ok(pool) => pool,
            Err(error) => return self.failed(&error),
        };
        let mut task = pool.spawn(|db| commit(db, Arc::clone(&batch)));
        let ended = timeout_at(began + self.settings.watchdog, &mut task).await;
        let error = match ended {
            Ok(Ok(Ok(()))) => {
                self.note(&batch);
                return Ending::Committed(batch);
            }
            Ok(Ok(Err(error))) => error,
            Ok(Err(_panicked)) => StoreError::Lost,
            Err(_elapsed) => StoreError::Deadline,
        };
        // A batch that can be condemned has not sent COMMIT, and never will.
        if !batch.phase.condemn() {
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
                    batch.changes = batch.changes.len(),
                    "a batch was refused"
                );
                self.give_up();
                Ending::Refused(batch)
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
    async fn look_up(&mut self, batch: Arc<Batch>, began: Instant) -> Ending {
        self.give_up();
        let deadline = began + self.settings.give_up;
        let has_events = |batch: &Batch| {
            batch
                .decided
                .get()
                .is_some_and(|decided| !decided.plan.writes.events.is_empty())
        };
        if !has_events(&batch) {
            // Nothing of the log is in doubt: refusals are asked again, a cursor is read again.
            return Ending::Failed(Failure::Unavailable);
        }
        while Instant::now() < deadline {
            let Ok(pool) = self.pool().await else { break };
            let mut task = pool.spawn(|db| look_up(db, Arc::clone(&batch)));
            match timeout_at(deadline, &mut task).await {
                Ok(Ok(Ok(true))) => {
                    self.note(&batch);
                    return Ending::Committed(batch);
                }
                Ok(Ok(Ok(false))) => return Ending::Failed(Failure::Unavailable),
                Ok(Ok(Err(_)) | Err(_)) | Err(_) => self.give_up(),
            }
            sleep(LOOK_UP_PAUSE).await;
        }
        tracing::error!(
            batch.changes = batch.changes.len(),
            "the outcome of a COMMIT stays unknown"
        );
        self.give_up();
        Ending::Failed(Failure::Unknown)
    }

    /// What the rest of the process learns of a commit.
    fn note(&self, batch: &Batch) {
        let Some(decided) = batch.decided.get() else {
            return;
        };
        if let Some(primary) = &decided.primary {
            self.shared.primary.send_if_modified(|held| {
                let new = held != primary;
                if new {
                    held.clone_from(primary);
                }
                new
            });
        }
        if let Some(last) = decided.plan.writes.events.last() {
            self.shared.committed.send_replace(last.event.position);
        }
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

    /// Gives up the writing connection: the next batch makes a new one.
    fn give_up(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.condemn();
        }
    }
}

/// Hands each command its own outcome.
fn answer(batch: &Batch, waiting: Vec<Waiting>) {
    let outcomes = batch
        .decided
        .get()
        .map(|decided| decided.plan.outcomes.as_slice());
    for ((sender, _permit), outcome) in waiting.into_iter().zip(outcomes.unwrap_or_default()) {
        let _ = sender.send(Ok(outcome.clone()));
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
