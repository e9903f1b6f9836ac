//! Refused requests, as `access.denied` in the log `activity`.
//!
//! In comes a request that was refused for its credential; out goes at most one record of what was asked, never in the
//! caller's own words. Each owner or service, and each network without a good credential, has so many a minute, and all
//! such networks together ten times as many: whoever floods the service fills neither the log nor its memory. What is
//! left out is counted, and the next record tells how many.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use actix_web::HttpRequest;
use uuid::Uuid;

use super::{
    caller::Network,
    error::ApiError,
    routes::Verb,
    serve::{Edge, RequestState},
};
use crate::{
    domain::{AgentKind, Denial, EventId, Origin},
    store::DENIALS_LEFT_OUT,
};

const WINDOW: Duration = Duration::from_mins(1);

/// How many times as many as one network's all networks may have together.
const NETWORKS: u32 = 10;

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Party {
    /// A known caller, by kind and name.
    Caller(&'static str, String),
    /// Somebody unknown, by network; none where the connection has no address.
    Stranger(Option<Network>),
}

/// How many refusals were recorded in this minute.
pub(super) struct Denials {
    per_minute: u32,
    counts: Mutex<Counts>,
}

struct Counts {
    began: Instant,
    /// The records of all strangers.
    strangers: u32,
    /// Nobody is in it without a record in this minute or the one before.
    parties: HashMap<Party, Count>,
    /// What was left out of those who are not in it.
    left_out: u64,
}

#[derive(Default)]
struct Count {
    recorded: u32,
    left_out: u64,
}

impl Denials {
    /// Room for so many records of each party in a minute.
    pub(super) fn new(per_minute: u32) -> Self {
        Self {
            per_minute,
            counts: Mutex::new(Counts {
                began: Instant::now(),
                strangers: 0,
                parties: HashMap::new(),
                left_out: 0,
            }),
        }
    }

    /// Whether another refusal of this party is recorded: then how many were left out before it.
    fn admit(&self, party: Party, now: Instant) -> Option<u64> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &mut *counts;
        if now.saturating_duration_since(counts.began) >= WINDOW {
            counts.begin(now);
        }
        let all = self.per_minute.saturating_mul(NETWORKS);
        let stranger = matches!(party, Party::Stranger(_));
        let may_enter = self.per_minute > 0 && !(stranger && counts.strangers >= all);
        if !may_enter {
            match counts.parties.get_mut(&party) {
                Some(count) => count.left_out += 1,
                None => counts.left_out += 1,
            }
            return None;
        }
        let count = counts.parties.entry(party).or_default();
        if count.recorded >= self.per_minute {
            count.left_out += 1;
            return None;
        }
        count.recorded += 1;
        counts.strangers += u32::from(stranger);
        Some(std::mem::take(&mut count.left_out) + std::mem::take(&mut counts.left_out))
    }
}

impl Counts {
    /// Begins another minute. Whoever was not recorded in the last one is forgotten.
    fn begin(&mut self, now: Instant) {
        (self.began, self.strangers) = (now, 0);
        let left_out = &mut self.left_out;
        self.parties.retain(|_, count| {
            let stays = count.recorded > 0 && count.left_out > 0;
            if !stays {
                *left_out += count.left_out;
            }
            count.recorded = 0;
            stays
        });
    }
}

/// Records a request that was refused for its credential.
pub(super) fn note(edge: &Edge, request: &HttpRequest, progress: &RequestState, error: &ApiError) {
    let caller = progress.caller.get();
    let refused = matches!(
        error,
        ApiError::Unauthenticated | ApiError::Forbidden | ApiError::LockedDown
    );
    // That of a known caller is no matter of its credential.
    let throttled = caller.is_none() && matches!(error, ApiError::RateLimited { .. });
    if !refused && !throttled {
        return;
    }
    let party = match caller {
        Some(caller) => Party::Caller(caller.grantee.kind(), caller.grantee.name().to_owned()),
        None => Party::Stranger(progress.client.map(Network::of)),
    };
    let Some(left_out) = edge.denials.admit(party, Instant::now()) else {
        metrics::counter!(DENIALS_LEFT_OUT).increment(1);
        return;
    };
    let shown = progress.shown.get();
    let (owner, token_id) = match caller {
        Some(caller) => {
            let id = caller.agent.id.clone();
            // A subject is no token's ID.
            let id = id.filter(|_| caller.agent.kind != AgentKind::Jwt);
            (caller.grantee.owner(), id)
        }
        None => (
            shown.and_then(|shown| shown.owner.as_ref()),
            shown.map(|shown| shown.id.clone()),
        ),
    };
    edge.state.committer.record_denial(Denial {
        event_id: EventId::new(Uuid::now_v7()),
        agent: caller.map(|caller| caller.agent.clone()),
        owner: owner.cloned(),
        token_id,
        origin: Origin {
            client: progress.client,
            server_request_id: Some(progress.server_request_id),
        },
        // A stranger's is a text of its own choice.
        request_id: caller.map(|_| progress.request_id.clone()),
        method: Verb::of(request.method()).map(Verb::name),
        route: Some(progress.route.get()).filter(|route| !route.is_empty()),
        status: error.row().0.as_u16(),
        left_out,
    });
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn stranger(number: u32) -> Party {
        Party::Stranger(Some(Network::of(Ipv4Addr::from_bits(number).into())))
    }

    fn alice() -> Party {
        Party::Caller("owner", "alice".to_owned())
    }

    #[test]
    fn each_party_has_its_own_records_and_the_next_one_tells_what_was_left_out() {
        let denials = Denials::new(2);
        let now = Instant::now();
        for party in [stranger(1), stranger(2), alice()] {
            let admitted = (0..5).map(|_| denials.admit(party.clone(), now));
            let admitted: Vec<_> = admitted.collect();
            assert_eq!(admitted, [Some(0), Some(0), None, None, None]);
        }
        let later = now + WINDOW;
        assert_eq!(denials.admit(alice(), later), Some(3));
        assert_eq!(denials.admit(alice(), later), Some(0));
        // Those who did not come back are told of with somebody else's.
        let latest = later + WINDOW;
        assert_eq!(denials.admit(stranger(3), latest), Some(6));
    }

    #[test]
    fn a_flood_from_everywhere_is_bounded_in_records_and_in_memory() {
        let denials = Denials::new(3);
        let mut now = Instant::now();
        let (mut recorded, mut told) = (0, 0);
        for minute in 0..5 {
            for number in 0..1000 {
                let party = stranger(number + minute * 500);
                if let Some(left_out) = denials.admit(party, now) {
                    recorded += 1;
                    told += left_out;
                }
            }
            // A known caller has its own records, whatever strangers do.
            let left_out = denials.admit(alice(), now).unwrap();
            told += left_out;
            assert!(denials.counts.lock().unwrap().parties.len() <= 62);
            now += WINDOW;
        }
        assert_eq!(recorded, 5 * 30);
        assert_eq!(recorded + told, 5 * 1000);
    }

    #[test]
    fn none_are_recorded_where_none_may_be() {
        let denials = Denials::new(0);
        assert_eq!(denials.admit(alice(), Instant::now()), None);
        assert!(denials.counts.lock().unwrap().parties.is_empty());
    }
}
