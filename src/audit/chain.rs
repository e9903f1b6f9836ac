//! Verifies one log: each event must follow the one before it.
//!
//! In go the exact bytes in position order, from the log's first event; out comes the first position that
//! does not hold. Pure: it reads no database and no file.

use std::{collections::HashMap, fmt};

use uuid::Uuid;

use super::event::{AuditEvent, Link};
use crate::domain::{Checkpoint, HASH_BYTES, Log};

/// The first position of a log that does not verify, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bad {
    /// The position that was expected there.
    pub position: u64,
    /// What is wrong, in words.
    pub reason: String,
}

impl Bad {
    pub(super) fn new(position: u64, reason: impl Into<String>) -> Self {
        Self {
            position,
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "position {}: {}", self.position, self.reason)
    }
}

impl std::error::Error for Bad {}

/// The first event of every epoch but a log's first.
pub(super) const EPOCH_RAISED: &str = "epoch.raised";

/// What stands before an abandoned event in an export; after it stands a `}`.
pub(super) const ABANDONED: &[u8] = b"{\"abandoned\":";

/// The part of a log that was proved.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    log: Option<Log>,
    last: Link,
    /// Each secret's last sequence.
    sequences: HashMap<Uuid, u64>,
    /// The positions of the abandoned events, by their hashes.
    abandoned: HashMap<[u8; HASH_BYTES], u64>,
    /// It does not begin with the log's first event: what came before is not known.
    headless: bool,
}

impl Chain {
    /// After an event that was removed, or before the first. Without a log, the first event names it.
    pub(super) fn after(log: Option<Log>, last: Link) -> Self {
        Self {
            log,
            last,
            sequences: HashMap::new(),
            abandoned: HashMap::new(),
            headless: last.cursor.position > 0,
        }
    }

    /// The position that comes next.
    pub(super) fn next(&self) -> u64 {
        self.last.cursor.position + 1
    }

    /// The last event that was proved.
    pub(super) fn last(&self) -> Link {
        self.last
    }

    /// Takes the next event, from its bytes.
    pub(super) fn push(&mut self, body: &[u8]) -> Result<AuditEvent, Bad> {
        let next = self.next();
        let bad = |reason: String| Bad::new(next, reason);
        let event = AuditEvent::parse(body.to_vec()).map_err(|error| bad(error.to_string()))?;
        let log = *self.log.get_or_insert(event.log);
        if event.log != log {
            return Err(bad(format!(
                "it is an event of the log {}",
                event.log.as_str()
            )));
        }
        let position = event.link.cursor.position;
        if position != next {
            return Err(bad(format!("the event there has position {position}")));
        }
        if event.prev_hash != self.last.hash {
            return Err(bad("it does not follow the event before it".to_owned()));
        }
        let (epoch, last) = (event.link.cursor.epoch, self.last.cursor.epoch);
        // A log's first epoch is 1.
        if epoch > last.max(1) && event.kind != EPOCH_RAISED {
            return Err(bad(format!(
                "epoch {epoch} begins with another event than {EPOCH_RAISED}: nobody raised it"
            )));
        }
        if epoch < last {
            return Err(bad("its epoch is lower than the one before it".to_owned()));
        }
        if let (Some(secret), Some(sequence)) = (event.secret_id, event.sequence) {
            // A chain without its first events does not know where a secret's sequence was.
            let before = if self.headless {
                sequence.saturating_sub(1)
            } else {
                0
            };
            let last = self.sequences.entry(secret).or_insert(before);
            if sequence != *last + 1 {
                let reason = format!("a secret's sequence goes from {last} to {sequence}");
                return Err(bad(reason));
            }
            *last = sequence;
        }
        self.last = event.link;
        Ok(event)
    }

    /// Takes an event of a branch that the log has abandoned: it follows the last event, or an abandoned one.
    pub(super) fn push_abandoned(&mut self, body: &[u8]) -> Result<(), Bad> {
        let next = self.next();
        let bad = |reason: String| Bad::new(next, format!("an abandoned event: {reason}"));
        let event = AuditEvent::parse(body.to_vec()).map_err(|error| bad(error.to_string()))?;
        if self.log.is_some_and(|log| log != event.log) {
            let name = event.log.as_str();
            return Err(bad(format!("it is an event of the log {name}")));
        }
        let position = event.link.cursor.position;
        let follows = (event.prev_hash == self.last.hash && position == next)
            || self.abandoned.get(&event.prev_hash) == Some(&(position - 1));
        if !follows {
            return Err(bad("it does not follow an event before it".to_owned()));
        }
        self.abandoned.insert(event.link.hash, position);
        Ok(())
    }

    /// Checks that the checkpoint is one of exactly this chain, all of it. (The caller checks its signature.)
    pub(super) fn ends_at(&self, checkpoint: &Checkpoint) -> Result<(), Bad> {
        if self.log.is_some_and(|log| log != checkpoint.log) {
            let reason = format!("it is a checkpoint of the log {}", checkpoint.log.as_str());
            return Err(Bad::new(self.next(), reason));
        }
        let last = self.last.cursor;
        if checkpoint.position > last.position {
            let reason = format!("missing: the checkpoint covers {}", checkpoint.position);
            return Err(Bad::new(self.next(), reason));
        }
        if checkpoint.position < last.position {
            let reason = format!("the checkpoint ends at {}", checkpoint.position);
            return Err(Bad::new(checkpoint.position + 1, reason));
        }
        if checkpoint.cursor() != last || checkpoint.hash != self.last.hash {
            let reason = "the service signed a different event there";
            return Err(Bad::new(last.position, reason));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::event::tests::event, *};
    use crate::domain::Cursor;

    fn push(chain: &mut Chain, at: (&str, u64, u64), prev: [u8; 32]) -> Result<[u8; 32], Bad> {
        let (log, epoch, position) = at;
        // The first one of a higher epoch is what it must be.
        let raised = epoch > chain.last().cursor.epoch.max(1);
        let kind = if raised {
            EPOCH_RAISED
        } else {
            "secret.updated"
        };
        let event = event(log, epoch, position, prev, &json!({"type": kind}));
        chain.push(&event.body).map(|event| event.link.hash)
    }

    #[test]
    fn a_chain_continues_in_a_higher_epoch_and_never_in_a_lower_one() {
        let mut chain = Chain::after(Some(Log::Changes), Link::START);
        let one = push(&mut chain, ("changes", 1, 1), [0; 32]).unwrap();
        let two = push(&mut chain, ("changes", 1_764_000_000, 2), one).unwrap();
        let bad = push(&mut chain, ("changes", 1, 3), two).unwrap_err();
        assert_eq!(bad.position, 3);
        let unannounced = event("changes", 1_764_000_001, 3, two, &json!({}));
        let bad = chain.push(&unannounced.body).unwrap_err();
        assert!(bad.reason.contains("nobody raised it"), "{bad}");
        assert_eq!(chain.last().cursor.to_string(), "1764000000-2");
        assert_eq!(chain.last().hash, two);
    }

    #[test]
    fn what_does_not_follow_is_named_by_the_position_that_was_expected() {
        for at in [("changes", 1, 3), ("changes", 1, 1), ("activity", 1, 2)] {
            let mut chain = Chain::after(Some(Log::Changes), Link::START);
            let one = push(&mut chain, ("changes", 1, 1), [0; 32]).unwrap();
            assert_eq!(push(&mut chain, at, one).unwrap_err().position, 2, "{at:?}");
        }
        let mut chain = Chain::after(Some(Log::Changes), Link::START);
        push(&mut chain, ("changes", 1, 1), [0; 32]).unwrap();
        let bad = push(&mut chain, ("changes", 1, 2), [0; 32]).unwrap_err();
        assert_eq!(
            bad.to_string(),
            "position 2: it does not follow the event before it"
        );
    }

    #[test]
    fn the_changes_of_each_secret_are_contiguous() {
        let [a, b] = [
            "0198f3c2-7a10-7cc0-8000-00000000000a",
            "0198f3c2-7a10-7cc0-8000-00000000000b",
        ];
        let good = [(a, 1), (b, 1), (a, 2), (a, 3), (b, 2)];
        for (at, sequence) in [(0, 2), (1, 0), (2, 1), (3, 4), (4, 3), (9, 0)] {
            let mut chain = Chain::after(Some(Log::Changes), Link::START);
            let mut result = Ok(());
            for (index, (secret, right)) in good.iter().enumerate() {
                let sequence = if index == at { sequence } else { *right };
                let more = json!({"secret_id": secret, "sequence": sequence});
                let event = event("changes", 1, chain.next(), chain.last().hash, &more);
                result = chain.push(&event.body).map(|_| ());
                if result.is_err() {
                    break;
                }
            }
            let bad = result.err().map(|bad| bad.position);
            assert_eq!(bad, (at < good.len()).then_some(at as u64 + 1));
        }
    }

    #[test]
    fn after_a_cut_the_first_change_of_a_secret_may_have_any_sequence() {
        let id = "0198f3c2-7a10-7cc0-8000-00000000000a";
        let cut = Link {
            cursor: Cursor::parse("1-7").unwrap(),
            hash: [7; 32],
        };
        for (second, good) in [(5, true), (6, false), (1, false)] {
            let mut chain = Chain::after(Some(Log::Changes), cut);
            for (sequence, good) in [(4, true), (second, good)] {
                let more = json!({"secret_id": id, "sequence": sequence});
                let event = event("changes", 1, chain.next(), chain.last().hash, &more);
                assert_eq!(chain.push(&event.body).is_ok(), good);
            }
        }
    }

    #[test]
    fn a_checkpoint_ends_a_chain_exactly() {
        let mut chain = Chain::after(Some(Log::Changes), Link::START);
        let one = push(&mut chain, ("changes", 1, 1), [0; 32]).unwrap();
        let two = push(&mut chain, ("changes", 1, 2), one).unwrap();
        let good = Checkpoint {
            log: Log::Changes,
            epoch: 1,
            position: 2,
            hash: two,
            signature: String::new(),
        };
        assert_eq!(chain.ends_at(&good), Ok(()));
        let with = |change: fn(&mut Checkpoint)| {
            let mut other = good.clone();
            change(&mut other);
            chain.ends_at(&other).unwrap_err().position
        };
        assert_eq!(with(|c| c.position = 5), 3);
        assert_eq!(with(|c| c.position = 1), 2);
        assert_eq!(with(|c| c.epoch = 2), 2);
        assert_eq!(with(|c| c.hash = [0; 32]), 2);
        assert_eq!(with(|c| c.log = Log::Activity), 3);
    }
}
