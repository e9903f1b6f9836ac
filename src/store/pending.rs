//! The other end of a command: whoever waits for its outcome.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{Answer, Gate};
use crate::domain::{Failure, Outcome};

/// How long a caller waits.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// In the queue: after that the command is abandoned, if the committer has not taken it.
    pub queue: Duration,
    /// In all: after that the outcome is unknown.
    pub total: Duration,
}

/// A command that was submitted. Dropping it abandons what is still queued; what the committer has taken
/// runs to its end.
#[derive(Debug)]
#[must_use = "dropping it abandons the command"]
pub struct Pending {
    gate: Arc<Gate>,
    answer: oneshot::Receiver<Answer>,
    submitted: Instant,
    deadlines: Deadlines,
}

impl Pending {
    /// The waiting end of a command with that gate and that answer channel, submitted now.
    pub fn new(gate: Arc<Gate>, answer: oneshot::Receiver<Answer>, deadlines: Deadlines) -> Self {
        Self {
            gate,
            answer,
            submitted: Instant::now(),
            deadlines,
        }
    }

    /// Leaves the command to itself: it is not abandoned, and nobody hears of its outcome.
    pub fn forget(mut self) {
        self.gate = Arc::default();
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
    pub async fn outcome(mut self) -> Result<Outcome, Failure> {
        let queue = self.submitted + self.deadlines.queue;
        let total = self.submitted + self.deadlines.total;
        match timeout_at(queue, &mut self.answer).await {
            Ok(Ok(answer)) => return answer,
            // Closed: never begun, or an actor or the committer panicked. The gate knows.
            Ok(Err(_closed)) if self.gate.abandon() => return Err(Failure::Internal),
            Ok(Err(_closed)) => return Err(Failure::Unknown),
            Err(_elapsed) if self.gate.abandon() => return Err(Failure::TimedOut),
            Err(_elapsed) => {}
        }
        match timeout_at(total, &mut self.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Failure::Unknown),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.gate.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Applied;

    fn pending() -> (Arc<Gate>, oneshot::Sender<Answer>, Pending) {
        let gate = Arc::new(Gate::default());
        let (answer, receiver) = oneshot::channel();
        let deadlines = Deadlines {
            queue: Duration::from_millis(20),
            total: Duration::from_millis(60),
        };
        let pending = Pending::new(Arc::clone(&gate), receiver, deadlines);
        (gate, answer, pending)
    }

    #[tokio::test]
    async fn an_answer_is_passed_on() {
        let (_, answer, pending) = pending();
        answer.send(Ok(Ok(vec![Applied::Deleted]))).unwrap();
        assert_eq!(pending.outcome().await, Ok(Ok(vec![Applied::Deleted])));
    }

    #[tokio::test]
    async fn a_command_that_waits_too_long_is_abandoned() {
        let (gate, _answer, pending) = pending();
        assert_eq!(pending.outcome().await, Err(Failure::TimedOut));
        assert!(!gate.take());
    }

    #[tokio::test]
    async fn a_command_that_was_taken_is_unknown_in_the_end() {
        let (gate, _answer, pending) = pending();
        assert!(gate.take());
        assert_eq!(pending.outcome().await, Err(Failure::Unknown));
    }

    #[tokio::test]
    async fn a_closed_channel_is_a_bug_before_the_commit_or_unknown() {
        let (_, answer, before) = pending();
        drop(answer);
        assert_eq!(before.outcome().await, Err(Failure::Internal));
        let (gate, answer, after) = pending();
        assert!(gate.take());
        drop(answer);
        assert_eq!(after.outcome().await, Err(Failure::Unknown));
    }

    #[test]
    fn dropping_abandons() {
        let (gate, _answer, pending) = pending();
        drop(pending);
        assert!(gate.is_abandoned());
    }
}
