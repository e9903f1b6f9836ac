//! The process's own items: nobody waits for a share of the queue for them, and nothing that is refused in one
//! concerns a caller.

use std::sync::{Arc, atomic::Ordering};

use tokio::{task::JoinHandle, time::Instant};

use super::{Ending, Worker, watched};
use crate::{
    domain::{Change, Denial, ErrorChain, Failure, Work},
    store::{
        StoreError, commit::Start, committer::Slots, cursor, retention, token_uses, writer::Writer,
    },
};

impl Worker {
    /// Runs the process's own items, each in a transaction of its own: what is refused in one concerns nobody
    /// else. A task that no longer waits for its item hears nothing.
    pub(super) async fn own(&mut self, slots: Slots) {
        for item in slots.cursors.into_iter().flatten() {
            let work = cursor::run(self.writer.take(), self.opener.clone(), item.step);
            let task = tokio::spawn(work);
            let state = self.alone(task).await;
            // The relay tells what fails, once.
            let _ = item
                .answer
                .send(state.map_err(|error| Failure::from(&error)));
        }
        if let Some(item) = slots.retention {
            let work = retention::run(self.writer.take(), self.opener.clone(), item.removal);
            let task = tokio::spawn(work);
            let removed = self.alone(task).await.map_err(|error| {
                tracing::warn!(error = %ErrorChain(&error), "old events or records could not be removed");
                Failure::from(&error)
            });
            let _ = item.answer.send(removed);
        }
        if !slots.denials.is_empty() {
            self.record(slots.denials).await;
        }
        if let Some((changes, done)) = slots.announcements {
            self.announce(changes).await;
            // The sweep may have ended.
            let _ = done.send(());
        }
        if !slots.token_uses.is_empty() {
            let work = token_uses::run(self.writer.take(), self.opener.clone(), slots.token_uses);
            let task = tokio::spawn(work);
            if let Err(error) = self.alone(task).await {
                tracing::warn!(error = %ErrorChain(&error), "when tokens were used could not be noted");
            }
        }
    }

    /// Records refused requests, in a batch of their own: what is refused in it concerns no caller.
    async fn record(&mut self, denials: Vec<Denial>) {
        let batch = Arc::new(self.batch(vec![Work::Denials(denials)]));
        let mut ending = Ending::Failed(Failure::Unavailable);
        if !self.shared.log_broken.load(Ordering::Relaxed) {
            let start = Start::Idle(self.writer.take());
            ending = self.commit(&batch, start, Instant::now()).await;
        }
        match ending {
            Ending::Committed(decided) => self.shared.tell(decided.events),
            Ending::Blamed | Ending::Failed(_) => {
                for work in batch.works() {
                    if let Work::Denials(denials) = work {
                        self.shared.leave_out(denials);
                    }
                }
            }
        }
    }

    /// Tells of expiries, in a batch of their own. What can't be told now is told by the next sweep.
    async fn announce(&mut self, changes: Vec<Change>) {
        if self.shared.log_broken.load(Ordering::Relaxed) {
            return;
        }
        let works = changes.into_iter().map(Work::Change).collect();
        let batch = Arc::new(self.batch(works));
        let start = Start::Idle(self.writer.take());
        if let Ending::Committed(decided) = self.commit(&batch, start, Instant::now()).await {
            self.shared.tell(decided.events);
        }
    }

    /// Waits for the end of such an item.
    async fn alone<T>(
        &mut self,
        task: JoinHandle<Result<(Writer, T), StoreError>>,
    ) -> Result<T, StoreError> {
        let (writer, result) = watched(Instant::now() + self.settings.watchdog, task).await?;
        self.writer = Some(writer);
        Ok(result)
    }
}
