//! Finds or starts the actor of a secret. One router per arbiter, so that finding and stopping can't race.

use std::{collections::HashMap, sync::Arc};

use actix::{Actor, Context, Handler, WeakAddr};

use super::{messages::Seal, secret_actor::SecretActor};
use crate::{crypto::Sealer, domain::SecretId, store::Committer};

/// Dead entries are pruned when the map has grown to twice what was alive the last time, and not below
/// this many entries.
const PRUNE_FROM: usize = 1024;

/// The router of one arbiter.
#[derive(Debug)]
pub(super) struct Router {
    sealer: Arc<Sealer>,
    committer: Committer,
    actors: HashMap<SecretId, WeakAddr<SecretActor>>,
    prune_at: usize,
}

impl Router {
    pub(super) fn new(sealer: Arc<Sealer>, committer: Committer) -> Self {
        Self {
            sealer,
            committer,
            actors: HashMap::new(),
            prune_at: PRUNE_FROM,
        }
    }

    fn prune(&mut self) {
        if self.actors.len() >= self.prune_at {
            self.actors.retain(|_, actor| actor.upgrade().is_some());
            self.prune_at = (self.actors.len() * 2).max(PRUNE_FROM);
        }
    }
}

impl Actor for Router {
    type Context = Context<Self>;
}

impl Handler<Seal> for Router {
    type Result = ();

    fn handle(&mut self, mut seal: Seal, _: &mut Self::Context) {
        self.prune();
        let id = seal.request.secret_id;
        let found = self.actors.get(&id).and_then(WeakAddr::upgrade);
        let actor = found.unwrap_or_else(|| {
            let actor = SecretActor::new(Arc::clone(&self.sealer), self.committer.clone()).start();
            self.actors.insert(id, actor.downgrade());
            actor
        });
        seal.actor = Some(actor.clone());
        actor.do_send(seal);
    }
}
