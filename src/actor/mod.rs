//! One actor per secret: it orders the changes of its secret and seals their values.
//!
//! In come requests with values in the clear; out go sealed changes to the committer, in the order in which
//! the requests arrived. What an actor knows is in the database: an idle secret costs nothing. The committer
//! answers the caller, so a client that hangs up leaves nothing half done.

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

pub(crate) use messages::{ChangeRequest, RequestedChange};

use crate::{
    crypto::Sealer,
    domain::{ChangeSet, ChangeSetId, Failure, Work},
    store::{Committer, Pending},
};
use messages::{Destination, Seal};
use router::Router;

/// A handle of the actors, for all HTTP workers.
#[derive(Debug, Clone)]
pub(crate) struct Secrets {
    routers: Arc<[Addr<Router>]>,
    committer: Committer,
}

/// The threads that the actors live on.
#[derive(Debug)]
pub(crate) struct Arbiters(Vec<Arbiter>);

impl Secrets {
    /// Starts one router on each of `count` arbiters (at least one). An ID always goes to the same one.
    #[must_use]
    pub(crate) fn start(
        count: usize,
        sealer: &Arc<Sealer>,
        committer: &Committer,
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
        };
        (secrets, Arbiters(arbiters))
    }

    /// Sends a request on its way. The returned [`Pending`] tells what comes of it.
    ///
    /// # Errors
    /// [`Failure::Overloaded`] at once when too much is under way; nothing was queued.
    pub(crate) fn submit(&self, request: ChangeRequest) -> Result<Pending, Failure> {
        let (ticket, pending) = self.committer.reserve(request.bytes())?;
        self.seal(request, Destination::Commit(ticket));
        Ok(pending)
    }

    /// Sends a change set on its way, once each secret's actor has sealed its part.
    ///
    /// # Errors
    /// [`Failure::Overloaded`] at once when too much is under way, [`Failure::Internal`] when a part could
    /// not be sealed; nothing was queued.
    ///
    /// # Cancel safety
    /// If it is dropped while parts are sealed, nothing is queued.
    pub(crate) async fn submit_set(
        &self,
        requests: Vec<ChangeRequest>,
        id: ChangeSetId,
    ) -> Result<Pending, Failure> {
        let bytes = requests.iter().map(ChangeRequest::bytes).sum();
        let (ticket, pending) = self.committer.reserve(bytes)?;
        let mut parts = Vec::with_capacity(requests.len());
        for request in requests {
            let (part, sealed) = oneshot::channel();
            self.seal(request, Destination::ChangeSet(part));
            parts.push(sealed);
        }
        let mut changes = Vec::with_capacity(parts.len());
        for part in parts {
            // Closed: its actor panicked.
            changes.push(part.await.unwrap_or(Err(Failure::Internal))?);
        }
        ticket.commit(Work::Set(ChangeSet { id, changes }));
        Ok(pending)
    }

    /// Hands a request to the router that its secret's ID hashes to.
    fn seal(&self, request: ChangeRequest, destination: Destination) {
        let mut hasher = DefaultHasher::new();
        request.secret_id.hash(&mut hasher);
        let routers = self.routers.len() as u64;
        let index = hasher.finish() % routers;
        #[expect(
            clippy::expect_used,
            reason = "there is at least one router, and the index is below their number"
        )]
        let router = usize::try_from(index)
            .ok()
            .and_then(|index| self.routers.get(index))
            .expect("a router for every hash");
        // Never refused: the ticket, not the mailbox, bounds what is under way.
        router.do_send(Seal {
            request,
            destination,
            actor: None,
        });
    }
}

impl Arbiters {
    /// Stops the threads, and waits for their end at most until the deadline. Call it only when nothing is
    /// under way: what is queued would be lost.
    pub(crate) fn stop(self, deadline: Duration) {
        for arbiter in &self.0 {
            arbiter.stop();
        }
        let joiner = thread::spawn(move || {
            for arbiter in self.0 {
                // A thread that panicked has stopped, too.
                let _ = arbiter.join();
            }
        });
        let until = std::time::Instant::now() + deadline;
        while !joiner.is_finished() && std::time::Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }
}
