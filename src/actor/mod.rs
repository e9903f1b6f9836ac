//! One actor per secret: it orders the changes of its secret and seals their values.
//!
//! In come requests with values in the clear; out go sealed changes to the committer, in the order in which
//! the requests arrived. What an actor knows is in the database: an idle secret costs nothing. The committer
//! answers the caller, so a client that hangs up leaves nothing half done.

mod expiry;
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

pub(crate) use expiry::ExpirySweep;
pub(crate) use messages::{ChangeRequest, RequestedChange};

use crate::{
    crypto::Sealer,
    domain::{Caller, ChangeSet, ChangeSetId, Failure, Once, Work},
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
    /// [`Failure::Overloaded`] or [`Failure::ShareTaken`] at once when too much is under way; nothing was queued.
    pub(crate) fn submit(
        &self,
        caller: &Caller,
        request: ChangeRequest,
    ) -> Result<Pending, Failure> {
        let (ticket, pending) = self.committer.reserve(Some(caller), request.bytes())?;
        self.seal(request, Destination::Commit(ticket));
        Ok(pending)
    }

    /// Sends a change set on its way, once each secret's actor has sealed its part.
    ///
    /// # Errors
    /// [`Failure::Overloaded`] or [`Failure::ShareTaken`] at once when too much is under way,
    /// [`Failure::Internal`] when a part could not be sealed; nothing was queued.
    ///
    /// # Cancel safety
    /// If it is dropped while parts are sealed, nothing is queued. The set's share comes back when none of its
    /// values waits for its actor any more.
    pub(crate) async fn submit_set(
        &self,
        caller: &Caller,
        requests: Vec<ChangeRequest>,
        (id, once): (ChangeSetId, Option<Once>),
    ) -> Result<Pending, Failure> {
        let bytes = requests.iter().map(ChangeRequest::bytes).sum();
        let (ticket, pending) = self.committer.reserve(Some(caller), bytes)?;
        let mut parts = Vec::with_capacity(requests.len());
        for request in requests {
            let (part, sealed) = oneshot::channel();
            let share = ticket.share();
            self.seal(request, Destination::ChangeSet { part, share });
            parts.push(sealed);
        }
        let mut changes = Vec::with_capacity(parts.len());
        for part in parts {
            // Closed: its actor panicked.
            changes.push(part.await.unwrap_or(Err(Failure::Internal))?);
        }
        ticket.commit(Work::Set(ChangeSet { id, changes, once }));
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

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc,
        task::{Context, Poll, Waker},
        time::Instant,
    };

    use actix::System;
    use base64::{Engine, engine::general_purpose::STANDARD};
    use tokio::runtime::Builder;
    use uuid::Uuid;

    use super::*;
    use crate::{
        crypto::Keyring,
        domain::{
            Agent, Grantee, KeyId, Mask, NamedSecrets, Origin, Owner, RequestContext, SecretId,
            SecretValue, ServiceKeyName,
        },
        shares::Amount,
        store::{CommitterKeys, CommitterSettings, Limits, Missing, QueueLimits, Target},
    };

    const BYTES: usize = 1 << 20;

    /// A committer that nothing gets to.
    fn committer(sealer: &Sealer) -> Committer {
        let target = Target {
            url: "sqlite:///nowhere".to_owned().into(),
            sqlite_path: Some("/nowhere".into()),
            missing: Missing::Refuse,
            max_connections: 1,
            timeout: Duration::from_secs(1),
            idle_in_transaction: Duration::from_secs(1),
        };
        let all = Amount {
            count: 2,
            bytes: BYTES,
        };
        let settings = CommitterSettings {
            limits: Limits {
                secrets_per_owner: 1,
                versions: 1,
            },
            max_batch: 1,
            queue: QueueLimits {
                all,
                share: all,
                wait: Duration::from_secs(1),
                total: Duration::from_secs(1),
            },
            watchdog: Duration::from_secs(1),
        };
        let primary = KeyId::parse("a").unwrap();
        let name = ServiceKeyName::Idempotency;
        let bytes = sealer.generate_service_key(&primary, name).unwrap();
        let records = sealer.mac_key(&primary, name, &bytes).unwrap();
        let keys = CommitterKeys {
            primary,
            records: Arc::new(records),
        };
        Committer::start(target, settings, keys).unwrap().0
    }

    fn update(number: u128) -> ChangeRequest {
        let value = SecretValue::parse("v".repeat(1000).into()).unwrap();
        ChangeRequest {
            owner: Owner::parse("alice").unwrap(),
            secret_id: SecretId::new(Uuid::from_u128(number)),
            context: RequestContext {
                agent: Agent::OPERATOR,
                secrets: NamedSecrets::ALL,
                origin: Origin::default(),
                request_id: None,
                traceparent: None,
            },
            change: RequestedChange::Update {
                mask: Mask::of(&value),
                value,
                restored_from: None,
                if_match: None,
            },
            once: None,
        }
    }

    async fn until(what: &str, holds: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < end, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn a_set_that_was_given_up_keeps_its_share_as_long_as_its_values_wait() {
        let runtime = || Builder::new_multi_thread().enable_all().build().unwrap();
        System::with_tokio_rt(runtime).block_on(async {
            let key = format!("a:{}", STANDARD.encode([1; 32]));
            let keyring = Keyring::from_list([key.as_str()]).unwrap();
            let sealer = Arc::new(Sealer::new(keyring));
            let committer = committer(&sealer);
            let (secrets, arbiters) = Secrets::start(1, &sealer, &committer);
            // The actors' only thread is held.
            let (release, held) = mpsc::channel::<()>();
            arbiters.0[0].spawn_fn(move || {
                let _ = held.recv();
            });
            let id = ChangeSetId::new(Uuid::from_u128(9));
            let updates = (0..10).map(update).collect();
            let caller = Caller::from(&Grantee::Owner(Owner::parse("alice").unwrap()));
            let mut set = Box::pin(secrets.submit_set(&caller, updates, (id, None)));
            let polled = set.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(polled, Poll::Pending));
            drop(set);
            assert_eq!(committer.under_way(), 1);
            let rest = committer.reserve(None, BYTES - 1000);
            assert!(matches!(rest, Err(Failure::Overloaded)));
            drop(release);
            until("the share comes back", || committer.under_way() == 0).await;
            assert!(committer.reserve(None, BYTES).is_ok());
            arbiters.stop(Duration::from_secs(5));
        });
    }
}
