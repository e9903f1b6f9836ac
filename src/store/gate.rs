//! Who decides: about a command its caller or the committer, about a batch the watchdog or COMMIT.

use std::sync::atomic::{AtomicU8, Ordering};

/// One atomic: open → passed or shut, whichever comes first.
///
/// A command passes when the committer takes it, and is shut when its caller gives up. A batch passes when
/// COMMIT may have been sent, and is shut when the watchdog has answered "not applied".
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicU8);

impl Gate {
    const OPEN: u8 = 0;
    const PASSED: u8 = 1;
    const SHUT: u8 = 2;

    fn swap(&self, to: u8) -> bool {
        self.0
            .compare_exchange(Self::OPEN, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Passes the gate: false when it was shut before (or passed, which happens once).
    pub(super) fn pass(&self) -> bool {
        self.swap(Self::PASSED)
    }

    /// Shuts the gate for good: false when something has passed it.
    pub(super) fn shut(&self) -> bool {
        self.swap(Self::SHUT)
    }

    /// Whether it was shut, so that work can be spared.
    pub(super) fn is_shut(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::SHUT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_decides() {
        let gate = Gate::default();
        assert!(gate.shut());
        assert!(!gate.pass() && !gate.shut() && gate.is_shut());
        let gate = Gate::default();
        assert!(gate.pass());
        assert!(!gate.shut() && !gate.pass() && !gate.is_shut());
    }
}
