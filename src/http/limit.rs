//! Token buckets, per process: one for each caller, and one for each address that presents credentials
//! which fail.
//!
//! `governor` keeps the buckets; it does not forget a key by itself, so each limiter sweeps out the full
//! buckets once a minute, on some caller's way.

use std::{
    collections::HashMap,
    hash::Hash,
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DefaultKeyedStateStore,
};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::caller::Network;

/// How often full buckets are swept out.
const SWEEP: Duration = Duration::from_mins(1);

/// How full a bucket is: the `RateLimit` and `RateLimit-Policy` of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Level {
    policy: &'static str,
    quota: Quota,
    left: u32,
}

impl Level {
    /// `"<policy>";q=<the bucket's size>;w=<seconds in which an empty one fills>`
    pub(super) fn policy(&self) -> String {
        let window = whole_seconds(self.quota.burst_size_replenished_in()).max(1);
        format!(
            "\"{}\";q={};w={window}",
            self.policy,
            self.quota.burst_size()
        )
    }

    /// `"<policy>";r=<what is left>;t=<seconds until it is full>`
    pub(super) fn state(&self) -> String {
        let missing = self.quota.burst_size().get().saturating_sub(self.left);
        let reset = whole_seconds(self.quota.replenish_interval().saturating_mul(missing));
        format!("\"{}\";r={};t={reset}", self.policy, self.left)
    }
}

/// Rounded up.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// A bucket for each key.
pub(super) struct Buckets<K: Clone + Hash + Eq> {
    policy: &'static str,
    quota: Quota,
    limiter: RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock, StateInformationMiddleware>,
    swept: Mutex<Instant>,
}

impl<K: Clone + Hash + Eq> Buckets<K> {
    /// Buckets of `burst` tokens, into which one comes back each `interval`.
    pub(super) fn new(policy: &'static str, interval: Duration, burst: NonZeroU32) -> Self {
        let one = Duration::from_nanos(1);
        let quota = Quota::with_period(interval.max(one))
            .unwrap_or(Quota::per_second(NonZeroU32::MIN))
            .allow_burst(burst);
        Self {
            policy,
            quota,
            limiter: RateLimiter::keyed(quota).with_middleware(),
            swept: Mutex::new(Instant::now()),
        }
    }

    /// Takes a token, and says how many are left; or in how many seconds to come again.
    pub(super) fn take(&self, key: &K) -> (Level, Result<(), u64>) {
        self.sweep();
        match self.limiter.check_key(key) {
            Ok(state) => (self.level(state.remaining_burst_capacity()), Ok(())),
            Err(not_until) => {
                let wait = not_until.wait_time_from(self.limiter.clock().now());
                (self.level(0), Err(whole_seconds(wait).max(1)))
            }
        }
    }

    /// Takes what a call costs that has paid for some of its tokens, and says the same. A call that costs more than a
    /// bucket holds costs a whole one. Nothing when it has paid for all.
    pub(super) fn take_rest(
        &self,
        key: &K,
        (paid, cost): (usize, usize),
    ) -> Option<(Level, Result<(), u64>)> {
        let burst = self.quota.burst_size().get();
        let of_burst = |tokens: usize| u32::try_from(tokens).unwrap_or(burst).min(burst);
        let paid = of_burst(paid);
        let rest = NonZeroU32::new(of_burst(cost).saturating_sub(paid))?;
        // Within the burst, so a bucket can hold it.
        let not_until = match self.limiter.check_key_n(key, rest).ok()? {
            Ok(state) => return Some((self.level(state.remaining_burst_capacity()), Ok(()))),
            Err(not_until) => not_until,
        };
        let interval = self.quota.replenish_interval();
        let wait = not_until.wait_time_from(self.limiter.clock().now());
        let missing = wait.as_nanos().div_ceil(interval.as_nanos().max(1));
        let missing = u32::try_from(missing).unwrap_or(burst);
        // The next attempt pays for all of it again.
        let again = wait.saturating_add(interval.saturating_mul(paid));
        let left = self.level(rest.get().saturating_sub(missing));
        Some((left, Err(whole_seconds(again).max(1))))
    }

    fn level(&self, left: u32) -> Level {
        Level {
            policy: self.policy,
            quota: self.quota,
            left,
        }
    }

    fn sweep(&self) {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.elapsed() < SWEEP {
            return;
        }
        *swept = Instant::now();
        drop(swept);
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

/// Failed credentials, counted by the network that they came from.
///
/// A bucket of `governor` can't be looked at without taking from it, and a good credential takes
/// nothing: so a network whose bucket has run empty is closed until a token is back.
pub(super) struct FailedCredentials {
    buckets: Buckets<Network>,
    closed: Mutex<HashMap<Network, Instant>>,
    turns: Semaphore,
}

impl FailedCredentials {
    /// Room for so many failures in a minute.
    pub(super) fn new(per_minute: NonZeroU32) -> Self {
        let interval = Duration::from_mins(1) / per_minute.get();
        Self {
            buckets: Buckets::new("failed-credentials", interval, per_minute),
            closed: Mutex::new(HashMap::new()),
            turns: Semaphore::new(1),
        }
    }

    /// Waits until no other look-up of a closed network is under way, and holds the place.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes the semaphore.
        self.turns.acquire().await.ok()
    }

    /// Whether a network has failures left; if not, the bucket and in how many seconds to come again.
    pub(super) fn check(&self, network: Network) -> Result<(), (Level, u64)> {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(until) = closed.get(&network) else {
            return Ok(());
        };
        let wait = until.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            closed.remove(&network);
            return Ok(());
        }
        Err((self.buckets.level(0), whole_seconds(wait).max(1)))
    }

    /// Counts a failure.
    pub(super) fn record(&self, network: Network) {
        let (level, verdict) = self.buckets.take(&network);
        if level.left > 0 {
            return;
        }
        let wait = verdict
            .err()
            .map_or(self.buckets.quota.replenish_interval(), Duration::from_secs);
        let now = Instant::now();
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.retain(|_, until| *until > now);
        closed.insert(network, now + wait);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn count(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    #[test]
    fn a_caller_has_a_burst_and_is_told_what_is_left() {
        let buckets = Buckets::new("caller", Duration::from_millis(500), count(2));
        let (level, verdict) = buckets.take(&"alice");
        assert_eq!(verdict, Ok(()));
        assert_eq!(level.policy(), "\"caller\";q=2;w=1");
        assert_eq!(level.state(), "\"caller\";r=1;t=1");
        assert_eq!(buckets.take(&"alice").1, Ok(()));
        let (level, verdict) = buckets.take(&"alice");
        assert_eq!(verdict, Err(1));
        assert_eq!(level.state(), "\"caller\";r=0;t=1");
        assert_eq!(buckets.take(&"bob").1, Ok(()));
    }

    #[test]
    fn a_call_pays_the_rest_of_its_cost_and_at_most_a_whole_bucket() {
        let buckets = Buckets::new("caller", Duration::from_secs(1), count(10));
        buckets.take(&"alice").1.unwrap();
        assert!(buckets.take_rest(&"alice", (1, 1)).is_none());
        let (level, verdict) = buckets.take_rest(&"alice", (1, 4)).unwrap();
        assert_eq!((level.left, verdict), (6, Ok(())));
        let (level, verdict) = buckets.take_rest(&"alice", (4, 1000)).unwrap();
        assert_eq!((level.left, verdict), (0, Ok(())));
        assert!(buckets.take_rest(&"alice", (1000, 2000)).is_none());
        buckets.take(&"bob").1.unwrap();
        let (_, verdict) = buckets.take_rest(&"bob", (1, 6)).unwrap();
        assert_eq!(verdict, Ok(()));
        let (level, verdict) = buckets.take_rest(&"bob", (2, 8)).unwrap();
        assert_eq!((level.left, verdict), (4, Err(4)));
    }

    #[test]
    fn the_default_policy_reads_as_documented() {
        let buckets = Buckets::new("caller", Duration::from_secs(1) / 200, count(400));
        let (level, _) = buckets.take(&1);
        assert_eq!(level.policy(), "\"caller\";q=400;w=2");
        assert_eq!(level.state(), "\"caller\";r=399;t=1");
    }

    #[test]
    fn a_network_is_closed_when_its_failures_are_used_up() {
        let failed = FailedCredentials::new(count(3));
        let network = |n| Network::of(Ipv4Addr::new(192, 0, 2, n).into());
        for _ in 0..3 {
            assert_eq!(failed.check(network(1)), Ok(()));
            failed.record(network(1));
        }
        let (level, wait_seconds) = failed.check(network(1)).unwrap_err();
        assert_eq!(level.policy(), "\"failed-credentials\";q=3;w=60");
        assert!((19..=20).contains(&wait_seconds));
        assert_eq!(failed.check(network(2)), Ok(()));
    }

    #[test]
    fn a_closed_network_opens_again() {
        let failed = FailedCredentials::new(count(6000));
        let network = Network::of(Ipv4Addr::LOCALHOST.into());
        while failed.check(network).is_ok() {
            failed.record(network);
        }
        std::thread::sleep(Duration::from_millis(1100));
        assert_eq!(failed.check(network), Ok(()));
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let buckets = Buckets::new("caller", Duration::from_nanos(1), count(1));
        for n in 0..1000 {
            buckets.take(&n).1.unwrap();
        }
        *buckets.swept.lock().unwrap() = Instant::now().checked_sub(SWEEP).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        buckets.sweep();
        assert_eq!(buckets.limiter.len(), 0);
    }
}
