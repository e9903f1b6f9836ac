//! The state of all relays of the process together.

use tokio::sync::watch;

use super::RelayState;
use crate::{domain::Log, store::Check};

/// The state of the relays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelayHealth {
    /// The connections to the broker.
    pub(crate) broker: Check,
    /// The relays: each publishes, or another replica's does.
    pub(crate) relay: Check,
    /// The last position of each log that the broker confirmed, where this process holds the lease.
    pub(crate) confirmed: Vec<(Log, Option<u64>)>,
    /// Messages that no queue took, since the start.
    pub(crate) unroutable: u64,
}

impl RelayHealth {
    /// The health of these relays; everything is off where there are none.
    pub(crate) fn of(relays: &[watch::Receiver<RelayState>]) -> Self {
        let states: Vec<RelayState> = relays.iter().map(|state| *state.borrow()).collect();
        let all = |check: fn(&RelayState) -> Check| {
            if states.is_empty() {
                Check::Off
            } else if states.iter().all(|state| check(state) == Check::Ok) {
                Check::Ok
            } else {
                Check::Failed
            }
        };
        Self {
            broker: all(|state| state.broker),
            relay: all(|state| state.relay),
            confirmed: states.iter().map(|s| (s.log, s.confirmed)).collect(),
            unroutable: states.iter().map(|state| state.unroutable).sum(),
        }
    }
}
