//! The hash chain of a log: `hash = BLAKE2b-256(prev_hash ‖ canonical body without both hashes)`.

use super::log::Gone;
use crate::{
    crypto::blake2b_256,
    domain::{Cursor, Event, HASH_BYTES, Log, PlacedEvent, TraceParent},
};

/// A log's last event, or zeros in its place before the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The epoch that the next event gets.
    pub epoch: u64,
    /// The epoch of the last event; 0 in an empty log.
    pub last_epoch: u64,
    /// The position of the last event; 0 in an empty log.
    pub position: u64,
    /// Its hash; zeros in an empty log.
    pub hash: [u8; HASH_BYTES],
    /// The cursor before the first event that is kept: where retention has cut.
    pub cut: Cursor,
    /// No value leaves and no change is made.
    pub locked_down: bool,
}

/// An event in its place, with the trace that it is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogEntry {
    pub(super) placed: PlacedEvent,
    pub(super) traceparent: Option<TraceParent>,
}

/// The heads of the logs that a batch is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Heads {
    /// That of the log `changes`.
    pub(super) changes: Option<Head>,
    /// That of the log `activity`.
    pub(super) activity: Option<Head>,
}

impl Heads {
    /// The head of one log.
    pub(super) fn of(&self, log: Log) -> Option<Head> {
        match log {
            Log::Changes => self.changes,
            Log::Activity => self.activity,
        }
    }

    /// These heads, and those of `older` where this has none.
    pub(super) fn or(self, older: Self) -> Self {
        Self {
            changes: self.changes.or(older.changes),
            activity: self.activity.or(older.activity),
        }
    }

    /// Whether a log has grown since another look at it.
    pub(super) fn have_grown_since(&self, earlier: Self) -> bool {
        let position = |heads: &Self, log| heads.of(log).map(|head| head.position);
        let grown = |log| match (position(self, log), position(&earlier, log)) {
            (Some(now), Some(then)) => now > then,
            _ => false,
        };
        Log::ALL.into_iter().any(grown)
    }
}

impl Head {
    /// The cursor of the last event.
    #[must_use]
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.last_epoch,
            position: self.position,
        }
    }

    /// What the log holds, for a caller whose cursor it does not hold.
    #[must_use]
    pub(crate) fn gone(&self) -> Gone {
        Gone {
            first: self.cut,
            head: self.cursor(),
        }
    }

    /// Appends an event after the head, and moves the head to it.
    pub(super) fn append(&mut self, event: Event, traceparent: Option<TraceParent>) -> LogEntry {
        let placed = event.place(self.epoch, self.position + 1, &self.hash, blake2b_256);
        (self.last_epoch, self.position) = (placed.epoch, placed.position);
        self.hash = placed.hash;
        LogEntry {
            placed,
            traceparent,
        }
    }
}
