//! A checkpoint: a log's state at one moment, signed by the service.

use serde::{Deserialize, Serialize};

use super::{Cursor, HASH_BYTES, Log, ParseError};

/// A log's state, and the service's signature of it (`crypto` signs and verifies).
///
/// As JSON it is `{cursor, epoch, hash, log, position, signature}`, the hash in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CheckpointFields", into = "CheckpointFields")]
pub(crate) struct Checkpoint {
    /// The log.
    pub log: Log,
    /// The epoch of its last event; 0 when it is empty.
    pub epoch: u64,
    /// The position of its last event; 0 when it is empty.
    pub position: u64,
    /// The hash of its last event; zeros when it is empty.
    pub hash: [u8; HASH_BYTES],
    /// Padded standard base64 of 64 bytes.
    pub signature: String,
}

impl Checkpoint {
    /// Its canonical JSON (RFC 8785).
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "strings and numbers, written to memory, can't fail to serialise"
    )]
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a checkpoint is always serialisable")
    }

    /// The cursor of the last event that it covers.
    #[must_use]
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.epoch,
            position: self.position,
        }
    }
}

/// The fields in the order of RFC 8785: `serde_json` writes it in canonical form.
#[derive(Serialize, Deserialize)]
struct CheckpointFields {
    cursor: String,
    epoch: u64,
    hash: String,
    log: Log,
    position: u64,
    signature: String,
}

impl From<Checkpoint> for CheckpointFields {
    fn from(checkpoint: Checkpoint) -> Self {
        Self {
            cursor: checkpoint.cursor().to_string(),
            epoch: checkpoint.epoch,
            hash: hex::encode(checkpoint.hash),
            log: checkpoint.log,
            position: checkpoint.position,
            signature: checkpoint.signature,
        }
    }
}

impl TryFrom<CheckpointFields> for Checkpoint {
    type Error = ParseError;

    fn try_from(fields: CheckpointFields) -> Result<Self, ParseError> {
        let mut hash = [0; HASH_BYTES];
        hex::decode_to_slice(&fields.hash, &mut hash).or(Err(ParseError::Pattern))?;
        let checkpoint = Self {
            log: fields.log,
            epoch: fields.epoch,
            position: fields.position,
            hash,
            signature: fields.signature,
        };
        // A cursor holds only numbers that the databases can hold.
        if checkpoint.cursor() == Cursor::parse(&fields.cursor)? {
            Ok(checkpoint)
        } else {
            Err(ParseError::NotAllowed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_json_is_canonical_and_reads_back() {
        let checkpoint = Checkpoint {
            log: Log::Activity,
            epoch: 1,
            position: 2,
            hash: [10; HASH_BYTES],
            signature: "AA==".to_owned(),
        };
        let text = serde_json::to_string(&checkpoint).unwrap();
        let hash = "0a".repeat(32);
        assert_eq!(
            text,
            format!(
                r#"{{"cursor":"1-2","epoch":1,"hash":"{hash}","log":"activity","position":2,"signature":"AA=="}}"#
            )
        );
        assert_eq!(
            serde_json::from_str::<Checkpoint>(&text).unwrap(),
            checkpoint
        );
        for (from, to) in [("1-2", "1-3"), ("0a", "zz"), ("activity", "other")] {
            let other = text.replace(from, to);
            assert!(
                serde_json::from_str::<Checkpoint>(&other).is_err(),
                "{other}"
            );
        }
    }
}
