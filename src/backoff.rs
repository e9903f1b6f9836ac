//! Back-off: pauses between attempts that double, with jitter, up to a longest.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// The shortest pause, before jitter.
const SHORTEST: Duration = Duration::from_millis(100);

/// Pauses between attempts. Each is up to twice as long as it would be without jitter, so that clients of
/// something that comes back do not come all at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    longest: Duration,
    pauses: ExponentialBackoff,
    is_failing: bool,
}

impl Backoff {
    /// Pauses from 0.1 s up to `longest`.
    pub(crate) fn new(longest: Duration) -> Self {
        let pauses = ExponentialBuilder::new()
            .with_min_delay(SHORTEST)
            .with_max_delay(longest / 2)
            .without_max_times()
            .with_jitter()
            .build();
        Self {
            longest,
            pauses,
            is_failing: false,
        }
    }

    /// The pause before the next attempt.
    pub(crate) fn next_pause(&mut self) -> Duration {
        self.is_failing = true;
        // Without a number of times there is always another.
        self.pauses.next().unwrap_or(self.longest)
    }

    /// Pauses before the next attempt.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.next_pause()).await;
    }

    /// Whether no attempt has succeeded since one failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.is_failing
    }

    /// Starts again with the shortest, after an attempt that succeeded.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_start_again() {
        let longest = Duration::from_secs(5);
        let mut backoff = Backoff::new(longest);
        assert!(!backoff.is_failing());
        for n in 0..12 {
            let pause = backoff.next_pause();
            let least = (SHORTEST * (1 << n.min(5))).min(longest / 2);
            assert!(pause >= least && pause <= longest, "{n}: {pause:?}");
        }
        assert!(backoff.is_failing());
        backoff.reset();
        assert!(!backoff.is_failing());
        assert!(backoff.next_pause() <= SHORTEST * 2);
    }
}
