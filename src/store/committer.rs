//! Handles of the committer, for all rooms that write.
//!
//! Everything that the process writes goes through its one committer: the changes and records that callers
//! wait for, in a bounded queue, and the process's own items, which have a slot each and are never refused.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::Builder,
    sync::{Notify, oneshot, watch},
};

use super::{
    admission::{Admission, Pending, QueueLimits, Ticket},
    apply::Limits,
    chain::LogEntry,
    connection::Target,
    cursor::{CursorState, CursorStep},
    log::LoggedEvent,
    reader::Check,
    retention::Removal,
    tail::LogTail,
    worker::Worker,
};
use crate::crypto::MacKey;
use crate::domain::{Caller, Change, Denial, Failure, KeyId, Log, Timestamp};

/// How much the committer takes, and how long it waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommitterSettings {
    /// What the owners may have.
    pub limits: Limits,
    /// The most changes in a batch.
    pub max_batch: usize,
    /// The queue.
    pub queue: QueueLimits,
    /// How long after it began a batch is given up.
    pub watchdog: Duration,
}

/// What the committer needs of the keys.
#[derive(Debug)]
pub(crate) struct CommitterKeys {
    /// The key-encryption key that the database names.
    pub primary: KeyId,
    /// The key of the codes of requests that are made once.
    pub records: Arc<MacKey>,
}

/// The metric that counts refused requests without an event.
pub(crate) const DENIALS_LEFT_OUT: &str = "rekey_refusals_left_out_total";

/// A step of a relay's cursor, and the channel for its result.
#[derive(Debug)]
pub(super) struct CursorItem {
    pub(super) step: CursorStep,
    pub(super) answer: oneshot::Sender<Result<CursorState, Failure>>,
}

/// A batch of old rows to remove, and the channel for their number.
#[derive(Debug)]
pub(super) struct RetentionItem {
    pub(super) removal: Removal,
    pub(super) answer: oneshot::Sender<Result<u64, Failure>>,
}

/// The most refused requests that wait to be recorded: as many as a batch holds by default.
const DENIALS: usize = 256;

/// The process's own items: a slot for each log's relay, and one each for retention, refused requests and uses of tokens.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pub(super) cursors: [Option<CursorItem>; Log::ALL.len()],
    pub(super) retention: Option<RetentionItem>,
    pub(super) denials: Vec<Denial>,
    /// What is to be told of expiries, and the channel for the end.
    pub(super) announcements: Option<(Vec<Change>, oneshot::Sender<()>)>,
    /// When tokens were used, by ID.
    pub(super) token_uses: HashMap<String, Timestamp>,
}

impl Slots {
    pub(super) fn is_empty(&self) -> bool {
        self.cursors.iter().all(Option::is_none)
            && self.retention.is_none()
            && self.denials.is_empty()
            && self.announcements.is_none()
            && self.token_uses.is_empty()
    }
}

/// What the committer's handles and its worker share.
#[derive(Debug)]
pub(super) struct Shared {
    slots: Mutex<Slots>,
    /// Wakes the worker for the slots.
    pub(super) slots_filled: Notify,
    committed: [watch::Sender<u64>; Log::ALL.len()],
    pub(super) primary: watch::Sender<KeyId>,
    /// How many refused requests have no event, and were not told of in another one yet.
    denials_left_out: AtomicU64,
    /// A log lost an event that this process had seen in it.
    pub(super) log_broken: AtomicBool,
    pub(super) stopping: watch::Sender<bool>,
    /// The tailers, `changes` first, once they run.
    tails: OnceLock<[LogTail; Log::ALL.len()]>,
}

impl Shared {
    /// Puts an item into its slot, and wakes the worker.
    fn fill(&self, put: impl FnOnce(&mut Slots)) {
        put(&mut self.slots.lock().unwrap_or_else(PoisonError::into_inner));
        self.slots_filled.notify_one();
    }

    /// Leaves refused requests out of the log: the next one that is recorded tells how many.
    pub(super) fn leave_out(&self, denials: &[Denial]) {
        let before: u64 = denials.iter().map(|denial| denial.left_out).sum();
        let own = denials.len() as u64;
        self.denials_left_out
            .fetch_add(own + before, Ordering::Relaxed);
        metrics::counter!(DENIALS_LEFT_OUT).increment(own);
    }

    /// Takes all items out of their slots.
    pub(super) fn take_slots(&self) -> Slots {
        std::mem::take(&mut *self.slots.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives the committed events to the tailers, and wakes those who wait for a commit.
    pub(super) fn tell(&self, events: Vec<LogEntry>) {
        let mut logs = Log::ALL.map(|_| Vec::new());
        for entry in events {
            let [changes, activity] = &mut logs;
            match entry.placed.event.log() {
                Log::Changes => changes.push(LoggedEvent::from(entry)),
                Log::Activity => activity.push(LoggedEvent::from(entry)),
            }
        }
        for (index, (log, events)) in Log::ALL.into_iter().zip(logs).enumerate() {
            let Some(last) = events.last().map(|event| event.position) else {
                continue;
            };
            if let Some(tail) = self.tails.get().and_then(|tails| tails.get(index)) {
                tail.feed(events);
            }
            self.committed(log).send_replace(last);
        }
    }

    /// The last position of a log that this process committed.
    pub(super) fn committed(&self, log: Log) -> &watch::Sender<u64> {
        let [changes, activity] = &self.committed;
        match log {
            Log::Changes => changes,
            Log::Activity => activity,
        }
    }
}

/// A handle of the committer. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Committer {
    admission: Admission,
    shared: Arc<Shared>,
}

impl Committer {
    /// Starts the committer on a thread of its own: a batch passes from one step to the next without waking
    /// another thread. The receiver hears of its end.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub(crate) fn start(
        target: Target,
        settings: CommitterSettings,
        keys: CommitterKeys,
    ) -> io::Result<(Self, oneshot::Receiver<()>)> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (admission, queue) = Admission::new(settings.queue);
        let shared = Arc::new(Shared {
            slots: Mutex::default(),
            slots_filled: Notify::new(),
            committed: Log::ALL.map(|_| watch::Sender::new(0)),
            primary: watch::Sender::new(keys.primary),
            denials_left_out: AtomicU64::new(0),
            log_broken: AtomicBool::new(false),
            stopping: watch::Sender::new(false),
            tails: OnceLock::new(),
        });
        let worker = Worker::new(Arc::clone(&shared), queue, target, (settings, keys.records));
        let (ended, end) = oneshot::channel();
        thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || {
                runtime.block_on(worker.run());
                runtime.shutdown_background();
                // Nobody waits any more where the process ends without a drain.
                let _ = ended.send(());
            })?;
        Ok((Self { admission, shared }, end))
    }

    /// Reserves a share of the queue for a command of `bytes`. Its caller's deadlines begin now. The command line
    /// is no caller: it has the queue to itself.
    ///
    /// # Errors
    /// At once: [`Failure::Overloaded`] when too many commands or bytes are under way, [`Failure::ShareTaken`] when
    /// too many of them are this caller's.
    pub(crate) fn reserve(
        &self,
        caller: Option<&Caller>,
        bytes: usize,
    ) -> Result<(Ticket, Pending), Failure> {
        self.admission.reserve(caller, bytes)
    }

    /// Runs a step of the relay's cursor: it has a slot of its own, is taken first and is never refused.
    ///
    /// # Errors
    /// [`Failure`] when the transaction failed; the row is then read again by the next step.
    ///
    /// # Cancel safety
    /// A step that was dropped may still be applied.
    pub(crate) async fn cursor(&self, step: CursorStep) -> Result<CursorState, Failure> {
        let (answer, receiver) = oneshot::channel();
        self.shared.fill(|slots| {
            let [changes, activity] = &mut slots.cursors;
            let slot = match step.cursor.log {
                Log::Changes => changes,
                Log::Activity => activity,
            };
            *slot = Some(CursorItem { step, answer });
        });
        // Closed without an answer: the worker panicked, or is stopping.
        receiver.await.unwrap_or(Err(Failure::Internal))
    }

    /// Removes a batch of what is kept no longer, in a slot of its own, and returns how many rows it removed.
    ///
    /// # Errors
    /// [`Failure`] when the transaction failed; the next batch begins where this one would have.
    ///
    /// # Cancel safety
    /// A batch that was dropped may still be removed.
    pub(crate) async fn remove(&self, removal: Removal) -> Result<u64, Failure> {
        let (answer, receiver) = oneshot::channel();
        let item = RetentionItem { removal, answer };
        self.shared.fill(|slots| slots.retention = Some(item));
        // As for a cursor.
        receiver.await.unwrap_or(Err(Failure::Internal))
    }

    /// Records a refused request, in a slot of its own and soon. It takes no share of the queue and delays no caller;
    /// where too many wait, or the commit fails, the next one tells how many were left out.
    pub(crate) fn record_denial(&self, mut denial: Denial) {
        self.shared.fill(|slots| {
            if slots.denials.len() < DENIALS {
                denial.left_out += self.shared.denials_left_out.swap(0, Ordering::Relaxed);
                slots.denials.push(denial);
            } else {
                self.shared.leave_out(&[denial]);
            }
        });
    }

    /// Notes when tokens were used, in a slot of its own and soon. Where the commit fails, a later use is noted.
    pub(crate) fn record_token_uses(&self, uses: HashMap<String, Timestamp>) {
        self.shared.fill(|slots| slots.token_uses.extend(uses));
    }

    /// Tells of expiries, in a slot and a batch of their own, and waits until that is done or has failed.
    pub(crate) async fn announce(&self, changes: Vec<Change>) {
        let (done, end) = oneshot::channel();
        self.shared
            .fill(|slots| slots.announcements = Some((changes, done)));
        // Closed: the worker is stopping. What was not told is told by the next one.
        let _ = end.await;
    }

    /// From now on these tailers, `changes` first, are given what this process commits.
    pub(crate) fn feed(&self, tails: [LogTail; Log::ALL.len()]) {
        // It is called once; were it called again, the first tailers would stay.
        let _ = self.shared.tails.set(tails);
    }

    /// The last position of a log that this process committed. It changes with each commit that has events
    /// of that log.
    #[must_use]
    pub(crate) fn committed(&self, log: Log) -> watch::Receiver<u64> {
        self.shared.committed(log).subscribe()
    }

    /// The key that new versions are sealed under.
    #[must_use]
    pub(crate) fn primary_key(&self) -> KeyId {
        self.shared.primary.borrow().clone()
    }

    /// Whether the logs still hold what this process saw in them. Once one does not, the process writes and
    /// signs nothing until it is restarted.
    #[must_use]
    pub(crate) fn log_check(&self) -> Check {
        if self.shared.log_broken.load(Ordering::Relaxed) {
            Check::Failed
        } else {
            Check::Ok
        }
    }

    /// How many commands are under way.
    #[must_use]
    pub(crate) fn under_way(&self) -> usize {
        self.admission.under_way()
    }

    /// Ends the worker after the batch that it is at.
    pub(crate) fn stop(&self) {
        self.shared.stopping.send_replace(true);
    }
}
