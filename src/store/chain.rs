//! The hash chain of a log: `hash = BLAKE2b-256(prev_hash ‖ canonical body without both hashes)`.

use super::log::Gone;
use crate::{
    crypto::blake2b_256,
    domain::{Cursor, Event, HASH_BYTES, TraceParent},
};

/// A log's last event, or what stands in its place before the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
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
}

/// An event with its place in the chain, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) event: Event,
    pub(super) traceparent: Option<TraceParent>,
    /// The exact RFC 8785 bytes, both hashes included.
    pub(super) body: Vec<u8>,
    pub(super) hash: [u8; HASH_BYTES],
}

impl Head {
    /// The cursor of the last event.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.last_epoch,
            position: self.position,
        }
    }

    /// What is said of a cursor that is not good.
    #[must_use]
    pub fn gone(&self) -> Gone {
        Gone {
            first: self.cut,
            head: self.cursor(),
        }
    }

    /// Puts an event behind the head and moves the head to it. Epoch, position and hashes of `event`
    /// are set here.
    pub(super) fn append(&mut self, mut event: Event, traceparent: Option<TraceParent>) -> Entry {
        (self.last_epoch, self.position) = (self.epoch, self.position + 1);
        event.place(self.last_epoch, self.position);
        event.link(None);
        let hash = blake2b_256(&[&self.hash, &canonical(&event)]);
        event.link(Some((hex::encode(self.hash), hex::encode(hash))));
        self.hash = hash;
        Entry {
            body: canonical(&event),
            event,
            traceparent,
            hash,
        }
    }
}

/// The event in RFC 8785 form: `serde_json` writes the struct's fields in their (sorted) order, escapes
/// strings as section 3.2.2.2 wants it, and all numbers are whole and
/// small.
fn canonical(event: &Event) -> Vec<u8> {
    // It can't fail: the type holds nothing but strings, numbers and null, and the sink is memory.
    serde_json::to_vec(event).unwrap_or_default()
}
