//! Who decides about a command: whoever waits for it, or the committer.

use std::sync::atomic::{AtomicU8, Ordering};

/// One atomic: open → abandoned (by the waiter) or taken (by the committer), whoever comes first.
#[derive(Debug, Default)]
pub struct Gate(AtomicU8);

impl Gate {
    const OPEN: u8 = 0;
    const ABANDONED: u8 = 1;
    const TAKEN: u8 = 2;

    fn swap(&self, to: u8) -> bool {
        self.0
            .compare_exchange(Self::OPEN, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Abandons the command: true when it will never be applied, false when the committer has it.
    pub fn abandon(&self) -> bool {
        self.swap(Self::ABANDONED)
    }

    /// Takes the command into a batch: false when it was abandoned.
    pub fn take(&self) -> bool {
        self.swap(Self::TAKEN)
    }

    /// Whether the command was abandoned, so that work for it can be spared.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::ABANDONED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_decides() {
        let gate = Gate::default();
        assert!(gate.abandon());
        assert!(!gate.take() && !gate.abandon() && gate.is_abandoned());
        let gate = Gate::default();
        assert!(gate.take());
        assert!(!gate.abandon() && !gate.take() && !gate.is_abandoned());
    }
}
