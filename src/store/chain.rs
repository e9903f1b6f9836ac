//! The hash chain of a log: `hash = BLAKE2b-256(prev_hash ‖ canonical body without both hashes)`.

use crate::{
    crypto::blake2b_256,
    domain::{Event, HASH_BYTES},
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
}

/// An event with its place in the chain, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) event: Event,
    /// The exact RFC 8785 bytes, both hashes included.
    pub(super) body: Vec<u8>,
    pub(super) hash: [u8; HASH_BYTES],
}

impl Head {
    /// Puts an event behind the head and moves the head to it. Epoch, position and hashes of `event`
    /// are set here.
    pub(super) fn append(&mut self, mut event: Event) -> Entry {
        event.epoch = self.epoch;
        event.position = self.position + 1;
        (event.hash, event.prev_hash) = (None, None);
        let hash = blake2b_256(&[&self.hash, &canonical(&event)]);
        event.prev_hash = Some(hex::encode(self.hash));
        event.hash = Some(hex::encode(hash));
        let body = canonical(&event);
        (self.last_epoch, self.position, self.hash) = (event.epoch, event.position, hash);
        Entry { event, body, hash }
    }
}

/// The event in RFC 8785 form: `serde_json` writes the struct's fields in their (sorted) order, escapes
/// strings as section 3.2.2.2 wants it, and all numbers are whole and small.
fn canonical(event: &Event) -> Vec<u8> {
    // It can't fail: the type holds nothing but strings, numbers and null, and the sink is memory.
    serde_json::to_vec(event).unwrap_or_default()
}
