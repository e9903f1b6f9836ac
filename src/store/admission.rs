//! The way into the committer: a share of the queue, and the two ends of a command.
//!
//! [`Admission::reserve`] gives a [`Ticket`], which hands the work in or fails it, and a [`Pending`], which
//! waits for what comes of it. Between the two stands a gate, so that each command is either applied or
//! abandoned whole.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::gate::Gate;
use crate::{
    domain::{Caller, Failure, Outcome, Work},
    shares::{Amount, Full, Portion, Stock},
};

/// How much may be under way, and how long a caller waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    /// Commands that may be under way, and bytes that they may hold together.
    pub all: Amount,
    /// How much of that is one caller's at most.
    pub share: Amount,
    /// How long a command waits in the queue: then it is abandoned, if the committer has not taken it.
    pub wait: Duration,
    /// How long its caller waits in all: then the outcome is unknown.
    pub total: Duration,
}

/// What the queue holds for the committer.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) work: Work,
    pub(super) reply: Reply,
}

/// The committer's end of a command: where its outcome goes. Dropped without one, the caller sees a closed
/// channel, and the gate tells it what that means.
#[derive(Debug)]
pub(super) struct Reply {
    gate: Arc<Gate>,
    answer: oneshot::Sender<Result<Outcome, Failure>>,
    // Held until the command is answered.
    share: Share,
}

impl Reply {
    /// Takes the command into a batch: false when its caller has abandoned it.
    pub(super) fn take(&self) -> bool {
        self.gate.pass()
    }

    /// Answers the caller.
    pub(super) fn answer(self, outcome: Result<Outcome, Failure>) {
        // A caller that has hung up hears nothing: what was applied stays applied.
        let _ = self.answer.send(outcome);
    }
}

/// A command's share of what may be under way. It is given back when its last clone is dropped: whatever holds
/// a part of the command in memory holds one.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    _portion: Arc<Portion>,
}

/// The queue, seen from those who hand work in. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    queue: mpsc::UnboundedSender<Submission>,
    stock: Stock,
    limits: QueueLimits,
}

impl Admission {
    /// An empty queue, and its other end.
    pub(super) fn new(limits: QueueLimits) -> (Self, mpsc::UnboundedReceiver<Submission>) {
        // Not bounded itself: the shares bound it, in commands and in bytes.
        let (queue, receiver) = mpsc::unbounded_channel();
        let admission = Self {
            queue,
            stock: Stock::new(limits.all, limits.share),
            limits,
        };
        (admission, receiver)
    }

    /// A share of the queue for a command of `bytes`, whose caller waits from now on.
    pub(super) fn reserve(
        &self,
        caller: Option<&Caller>,
        bytes: usize,
    ) -> Result<(Ticket, Pending), Failure> {
        let portion = self.stock.take(caller, Amount { count: 1, bytes });
        let portion = portion.map_err(|full| match full {
            Full::All => Failure::Overloaded,
            Full::Share => Failure::ShareTaken,
        })?;
        let gate = Arc::new(Gate::default());
        let (answer, receiver) = oneshot::channel();
        let ticket = Ticket {
            queue: self.queue.clone(),
            reply: Reply {
                gate: Arc::clone(&gate),
                answer,
                share: Share {
                    _portion: Arc::new(portion),
                },
            },
        };
        let now = Instant::now();
        let pending = Pending {
            gate: Abandon(gate),
            answer: receiver,
            queue_deadline: now + self.limits.wait,
            deadline: now + self.limits.total,
        };
        Ok((ticket, pending))
    }

    /// How many commands are under way.
    pub(super) fn under_way(&self) -> usize {
        self.stock.held().count
    }
}

/// The right to hand one command in. Dropped unused, the command fails as internal.
#[derive(Debug)]
#[must_use = "dropping it fails the command"]
pub(crate) struct Ticket {
    queue: mpsc::UnboundedSender<Submission>,
    reply: Reply,
}

impl Ticket {
    /// Whether the caller has given the command up, so that work for it can be spared.
    #[must_use]
    pub(crate) fn is_abandoned(&self) -> bool {
        self.reply.gate.is_shut()
    }

    /// The command's share, for a part of it that may outlive the ticket.
    #[must_use]
    pub(crate) fn share(&self) -> Share {
        self.reply.share.clone()
    }

    /// Queues the work, in the order of the calls.
    pub(crate) fn commit(self, work: Work) {
        let reply = self.reply;
        // Without a worker the submission is dropped, and with it the answer channel: the caller sees it
        // closed, and shuts the gate.
        let _ = self.queue.send(Submission { work, reply });
    }

    /// Answers the caller: the command is not applied.
    pub(crate) fn fail(self, failure: Failure) {
        self.reply.answer(Err(failure));
    }
}

/// The caller's end of a command. Dropping it abandons the command while it is queued; what the committer
/// has taken runs to its end.
#[derive(Debug)]
#[must_use = "dropping it abandons the command"]
pub(crate) struct Pending {
    gate: Abandon,
    answer: oneshot::Receiver<Result<Outcome, Failure>>,
    queue_deadline: Instant,
    deadline: Instant,
}

/// Shuts the gate when it is dropped.
#[derive(Debug)]
struct Abandon(Arc<Gate>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.shut();
    }
}

impl Pending {
    /// Lets the command run without its caller: it is not abandoned, and its outcome is not reported.
    pub(crate) fn forget(mut self) {
        self.gate.0 = Arc::default();
    }

    /// Waits for the outcome.
    ///
    /// # Errors
    /// [`Failure::TimedOut`] and [`Failure::Internal`]: abandoned, not applied. [`Failure::Unknown`]: the
    /// committer had taken the command, and no answer came within the total deadline. Others are the
    /// committer's own.
    ///
    /// # Cancel safety
    /// As for dropping the value.
    pub(crate) async fn outcome(mut self) -> Result<Outcome, Failure> {
        let gate = &self.gate.0;
        // Never begun, or an actor or the committer panicked: the gate knows which.
        let closed = |_closed| {
            Err(if gate.shut() {
                Failure::Internal
            } else {
                Failure::Unknown
            })
        };
        match timeout_at(self.queue_deadline, &mut self.answer).await {
            Ok(answered) => answered.unwrap_or_else(closed),
            Err(_elapsed) if gate.shut() => Err(Failure::TimedOut),
            Err(_elapsed) => match timeout_at(self.deadline, &mut self.answer).await {
                Ok(answered) => answered.unwrap_or_else(closed),
                Err(_elapsed) => Err(Failure::Unknown),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Applied;

    const ALL: Amount = Amount {
        count: 2,
        bytes: 10,
    };
    const LIMITS: QueueLimits = QueueLimits {
        all: ALL,
        share: ALL,
        wait: Duration::from_millis(20),
        total: Duration::from_millis(60),
    };

    fn reserve() -> (Ticket, Pending) {
        let (admission, _) = Admission::new(LIMITS);
        admission.reserve(None, 1).unwrap()
    }

    #[tokio::test]
    async fn an_answer_is_passed_on() {
        let (ticket, pending) = reserve();
        let outcome = Outcome::Changed(Applied::Deleted);
        ticket.reply.answer(Ok(outcome.clone()));
        assert_eq!(pending.outcome().await, Ok(outcome));
    }

    #[tokio::test]
    async fn a_command_that_waits_too_long_is_abandoned() {
        let (ticket, pending) = reserve();
        assert_eq!(pending.outcome().await, Err(Failure::TimedOut));
        assert!(!ticket.reply.take());
    }

    #[tokio::test]
    async fn a_command_that_was_taken_is_unknown_in_the_end() {
        let (ticket, pending) = reserve();
        assert!(ticket.reply.take());
        assert_eq!(pending.outcome().await, Err(Failure::Unknown));
    }

    #[tokio::test]
    async fn a_closed_channel_is_a_bug_before_the_commit_or_unknown() {
        let (ticket, before) = reserve();
        drop(ticket);
        assert_eq!(before.outcome().await, Err(Failure::Internal));
        let (ticket, after) = reserve();
        assert!(ticket.reply.take());
        drop(ticket);
        assert_eq!(after.outcome().await, Err(Failure::Unknown));
    }

    #[test]
    fn dropping_abandons() {
        let (ticket, pending) = reserve();
        drop(pending);
        assert!(ticket.is_abandoned());
    }

    #[test]
    fn commands_and_bytes_under_way_are_bounded() {
        let (admission, _) = Admission::new(LIMITS);
        let first = admission.reserve(None, 8).unwrap();
        assert!(matches!(
            admission.reserve(None, 3),
            Err(Failure::Overloaded)
        ));
        let second = admission.reserve(None, 2).unwrap();
        assert!(matches!(
            admission.reserve(None, 0),
            Err(Failure::Overloaded)
        ));
        assert_eq!(admission.under_way(), 2);
        drop((first, second));
        assert!(admission.reserve(None, 10).is_ok());
    }
}
