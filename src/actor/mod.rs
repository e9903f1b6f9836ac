//! One actor per secret: it orders the commands of its secret and seals what they carry.
//!
//! In come requests with values in the clear; out go sealed commands to the committer, in the order in
//! which they arrived. What an actor knows is in the database: an idle secret costs nothing. The committer
//! answers whoever waits, so a client that hangs up leaves nothing half done.

mod messages;
mod router;
mod secret_actor;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    thread,
    time::Duration,
};

use actix::{Actor, Addr, Arbiter};
use tokio::sync::oneshot;

pub use messages::{Request, Wanted};

use crate::{
    crypto::Sealer,
    domain::{self, ChangeSetId, Failure, Work},
    store::{Committer, Deadlines, Gate, Pending},
};
use messages::{Command, Then};
use router::Router;

/// The way to the actors, for all HTTP workers.
#[derive(Debug, Clone)]
pub struct Secrets {
    routers: Arc<[Addr<Router>]>,
    committer: Committer,
    deadlines: Deadlines,
}

/// The threads that the actors live on.
#[derive(Debug)]
pub struct Arbiters(Vec<Arbiter>);

impl Secrets {
    /// Starts one router on each of `count` arbiters (at least one). An ID always goes to the same one.
    #[must_use]
    pub fn start(
        count: usize,
        sealer: &Arc<Sealer>,
        committer: &Committer,
        deadlines: Deadlines,
    ) -> (Self, Arbiters) {
        let arbiters: Vec<Arbiter> = (0..count.max(1)).map(|_| Arbiter::new()).collect();
        let routers = arbiters
            .iter()
            .map(|arbiter| {
                let router = Router::new(Arc::clone(sealer), committer.clone());
                Router::start_in_arbiter(&arbiter.handle(), |_| router)
            })
            .collect();
        let secrets = Self {
            routers,
            committer: committer.clone(),
            deadlines,
        };
        (secrets, Arbiters(arbiters))
    }

    /// Sends a request on its way. What comes of it the returned [`Pending`] tells.
    ///
    /// # Errors
    /// [`Failure::Overloaded`] at once when too much is under way; nothing was queued.
    pub fn submit(&self, request: Request) -> Result<Pending, Failure> {
        let permit = self.committer.admit(request.bytes())?;
        let gate = Arc::new(Gate::default());
        let (answer, receiver) = oneshot::channel();
        let pending = Pending::new(Arc::clone(&gate), receiver, self.deadlines);
        let then = Then::Commit {
            gate,
            answer,
            permit,
        };
        self.send(Command { request, then });
        Ok(pending)
    }

    /// Sends a change set on its way, once each secret's actor has sealed its part.
    ///
    /// # Errors
    /// [`Failure::Overloaded`] at once when too much is under way, [`Failure::Internal`] when a part could
    /// not be sealed; nothing was queued.
    ///
    /// # Cancel safety
    /// Dropped while parts are sealed, nothing is queued.
    pub async fn submit_set(
        &self,
        requests: Vec<Request>,
        id: ChangeSetId,
    ) -> Result<Pending, Failure> {
        let permit = self
            .committer
            .admit(requests.iter().map(Request::bytes).sum())?;
        let parts: Vec<_> = requests
            .into_iter()
            .map(|request| {
                let (part, sealed) = oneshot::channel();
                let then = Then::Return(part);
                self.send(Command { request, then });
                sealed
            })
            .collect();
        let mut changes = Vec::with_capacity(parts.len());
        for part in parts {
            changes.push(part.await.or(Err(Failure::Internal))??);
        }
        let work = Work::Command(domain::Command {
            changes,
            change_set: Some(id),
        });
        Ok(self.committer.submit(work, permit, self.deadlines))
    }

    /// Hands over what is to be recorded; nothing has to be sealed for it.
    ///
    /// # Errors
    /// [`Failure::Overloaded`] at once when too much is under way; nothing was queued.
    pub fn record(&self, work: Work) -> Result<Pending, Failure> {
        let permit = self.committer.admit(work.bytes())?;
        Ok(self.committer.submit(work, permit, self.deadlines))
    }

    /// How many commands are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.committer.under_way()
    }

    fn send(&self, command: Command) {
        let mut hasher = DefaultHasher::new();
        command.request.secret_id.hash(&mut hasher);
        let routers = u64::try_from(self.routers.len()).unwrap_or(1).max(1);
        let index = usize::try_from(hasher.finish() % routers).unwrap_or(0);
        if let Some(router) = self.routers.get(index) {
            // Never refused: the permit, not the mailbox, bounds what is under way.
            router.do_send(command);
        }
    }
}

impl Arbiters {
    /// Stops the threads. Only when nothing is under way: what is queued would be lost.
    pub fn stop(self, deadline: Duration) {
        for arbiter in &self.0 {
            arbiter.stop();
        }
        let joiner = thread::spawn(move || {
            for arbiter in self.0 {
                let _ = arbiter.join();
            }
        });
        let until = std::time::Instant::now() + deadline;
        while !joiner.is_finished() && std::time::Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }
}
