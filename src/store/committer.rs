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
    pending::{Deadlines, Pending},
    retention::Retention,
};
use crate::domain::{Failure, KeyId, Log, Outcome, Timestamp, Work};

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

/// Sealed work on its way into a batch.
#[derive(Debug)]
pub struct Submission {
    /// What to do.
    pub work: Work,
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
struct RetentionJob {
    retention: Retention,
    answer: oneshot::Sender<Result<u64, Failure>>,
}

/// The process's own items: a slot for each log's relay, and one for retention.
#[derive(Debug, Default)]
struct Slots {
    cursors: [Option<CursorJob>; Log::ALL.len()],
    retention: Option<RetentionJob>,
}

impl Slots {
    fn is_empty(&self) -> bool {
        self.cursors.iter().all(Option::is_none) && self.retention.is_none()
    }

    /// Answers all of them.
    fn answer(self, ending: &Ending) {
        let failure = match ending {
            Ending::Committed(_) | Ending::Refused(_) => Failure::Internal,
            Ending::Failed(failure) => *failure,
        };
        let decided = match ending {
            Ending::Committed(batch) => batch.decided.get(),
            Ending::Refused(_) | Ending::Failed(_) => None,
        };
        let mut states = decided.map_or(&[][..], |decided| &decided.cursors).iter();
        for job in self.cursors.into_iter().flatten() {
            let _ = job.answer.send(states.next().copied().ok_or(failure));
        }
        if let Some(job) = self.retention {
            let removed = decided.map(|decided| decided.removed);
            let _ = job.answer.send(removed.ok_or(failure));
        }
    }
}

#[derive(Debug)]
struct Shared {
    queue: mpsc::UnboundedSender<Submission>,
    slots: Mutex<Slots>,
    slots_wait: Notify,
    count: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    capacity: usize,
    committed: [watch::Sender<u64>; Log::ALL.len()],
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
            slots: Mutex::default(),
            slots_wait: Notify::new(),
            count: Arc::new(Semaphore::new(settings.queue)),
            bytes: Arc::new(Semaphore::new(settings.queue_bytes)),
            capacity: settings.queue,
            committed: Log::ALL.map(|_| watch::Sender::new(0)),
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

    /// Queues work that nothing else has to be done to.
    pub fn submit(&self, work: Work, permit: Permit, deadlines: Deadlines) -> Pending {
        let gate = Arc::new(Gate::default());
        let (answer, receiver) = oneshot::channel();
        self.enqueue(Submission {
            work,
            gate: Arc::clone(&gate),
            answer,
            permit,
        });
        Pending::new(gate, receiver, deadlines)
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
        self.shared.fill(|slots| {
            let [changes, activity] = &mut slots.cursors;
            let slot = match step.cursor.log {
                Log::Changes => changes,
                Log::Activity => activity,
            };
            *slot = Some(CursorJob { step, answer });
        });
        receiver.await.unwrap_or(Err(Failure::Internal))
    }

    /// Removes a batch of old events, in a slot of its own; how many went.
    ///
    /// # Errors
    /// [`Failure`] when the transaction failed; the next batch begins where this one would have.
    ///
    /// # Cancel safety
    /// A batch that was dropped may still be removed.
    pub async fn retain(&self, retention: Retention) -> Result<u64, Failure> {
        let (answer, receiver) = oneshot::channel();
        let job = RetentionJob { retention, answer };
        self.shared.fill(|slots| slots.retention = Some(job));
        receiver.await.unwrap_or(Err(Failure::Internal))
    }

    /// The last position of a log that this process committed; it changes with each commit that has
    /// events of that log.
    #[must_use]
    pub fn committed(&self, log: Log) -> watch::Receiver<u64> {
        self.shared.committed(log).subscribe()
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

impl Shared {
    /// Puts a job into its slot, and wakes the worker.
    fn fill(&self, put: impl FnOnce(&mut Slots)) {
        put(&mut self.slots.lock().unwrap_or_else(PoisonError::into_inner));
        self.slots_wait.notify_one();
    }

    fn committed(&self, log: Log) -> &watch::Sender<u64> {
        let [changes, activity] = &self.committed;
        match log {
            Log::Changes => changes,
            Log::Activity => activity,
        }
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
                () = self.shared.slots_wait.notified() => None,
                submission = self.queue.recv() => submission,
                _ = stopping.wait_for(|stopping| *stopping) => break,
            };
            let (works, waiting) = self.take(first);
            let slots = &self.shared.slots;
            let own = std::mem::take(&mut *slots.lock().unwrap_or_else(PoisonError::into_inner));
            if !works.is_empty() || !own.is_empty() {
                self.serve(works, waiting, own).await;
            }
        }
        if let Some(pool) = self.pool.take() {
            pool.close(self.target.timeout).await;
        }
    }

    /// Takes what is queued, up to the batch's limits, and of that what nobody abandoned.
    fn take(&mut self, first: Option<Submission>) -> (Vec<Work>, Vec<Waiting>) {
        let (mut works, mut waiting) = (Vec::new(), Vec::new());
        let (mut changes, mut bytes) = (0, 0);
        let mut next = first;
        loop {
            if changes >= self.settings.max_batch || bytes >= BATCH_BYTES {
                // Only reached without a submission in hand: nothing is lost.
                break;
            }
            let Some(submission) = next.take().or_else(|| self.queue.try_recv().ok()) else {
                break;
            };
            if submission.gate.take() {
                changes += submission.work.len();
                bytes += submission.work.bytes();
                works.push(submission.work);
                waiting.push((submission.answer, submission.permit));
            }
        }
        (works, waiting)
    }

    async fn serve(&mut self, works: Vec<Work>, waiting: Vec<Waiting>, own: Slots) {
        let ending = self.commit(works, &own).await;
        own.answer(&ending);
        match ending {
            Ending::Committed(batch) => answer(&batch, waiting),
            Ending::Failed(failure) => {
                for (sender, _permit) in waiting {
                    let _ = sender.send(Err(failure));
                }
            }
            Ending::Refused(batch) if batch.works.len() > 1 => {
                // One of them is to blame: each gets a transaction of its own.
                for (work, waiting) in batch.works.iter().zip(waiting) {
                    match self.commit(vec![work.clone()], &Slots::default()).await {
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
    async fn commit(&mut self, works: Vec<Work>, own: &Slots) -> Ending {
        let began = Instant::now();
        let batch = Arc::new(Batch {
            works,
            cursors: own
                .cursors
                .iter()
                .flatten()
                .map(|job| job.step.clone())
                .collect(),
            retention: own.retention.as_ref().map(|job| job.retention.clone()),
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
                self.note(&batch, began);
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
                    batch.works = batch.works.len(),
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
                    self.note(&batch, began);
                    return Ending::Committed(batch);
                }
                Ok(Ok(Ok(false))) => return Ending::Failed(Failure::Unavailable),
                Ok(Ok(Err(_)) | Err(_)) | Err(_) => self.give_up(),
            }
            sleep(LOOK_UP_PAUSE).await;
        }
        tracing::error!(
            batch.works = batch.works.len(),
            "the outcome of a COMMIT stays unknown"
        );
        self.give_up();
        Ending::Failed(Failure::Unknown)
    }

    /// What the rest of the process learns of a commit.
    fn note(&self, batch: &Batch, began: Instant) {
        let size: usize = batch.works.iter().map(Work::len).sum();
        if size > 0 {
            let size = u32::try_from(size).unwrap_or(u32::MAX);
            metrics::histogram!("rekey_commit_batch_size").record(size);
            metrics::histogram!("rekey_commit_duration_seconds").record(began.elapsed());
        }
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
        for log in Log::ALL {
            let mut events = decided.plan.writes.events.iter().rev();
            if let Some(last) = events.find(|entry| entry.event.log() == log) {
                let position = last.event.position();
                self.shared.committed(log).send_replace(position);
            }
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
