//! Converts rows into our types.

use sea_orm::FromQueryResult;

use super::Checked;
use crate::{
    audit::{
        chain::Bad,
        entity::events,
        event::{AuditEvent, Link},
    },
    domain::{Checkpoint, Cursor, HASH_BYTES, Log, Timestamp},
    store::StoreError,
};

pub(super) fn event_row(event: AuditEvent) -> events::Model {
    // Every field by name: a new one does not compile until someone decides.
    let AuditEvent {
        log,
        link,
        kind,
        owner,
        secret_id,
        sequence,
        version,
        occurred_at,
        prev_hash,
        body,
        traceparent,
    } = event;
    events::Model {
        log: log.as_str().to_owned(),
        epoch: signed(link.cursor.epoch),
        position: signed(link.cursor.position),
        r#type: kind,
        owner,
        secret_id,
        sequence: sequence.map(signed),
        version: version.map(signed),
        occurred_at: occurred_at.micros(),
        hash: link.hash.to_vec(),
        prev_hash: prev_hash.to_vec(),
        body,
        traceparent,
    }
}

/// A stored event: its columns, and the body that they must agree with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredEvent(pub(super) events::Model);

impl StoredEvent {
    /// The exact bytes.
    pub(crate) fn body(&self) -> &[u8] {
        &self.0.body
    }

    /// What happened, by its column.
    pub(in crate::audit) fn kind(&self) -> &str {
        &self.0.r#type
    }

    /// When it happened, by its column.
    pub(in crate::audit) fn occurred_at(&self) -> Timestamp {
        Timestamp::from_micros(self.0.occurred_at)
    }

    /// The cursor after it, by its columns.
    pub(crate) fn cursor(&self) -> Result<Cursor, StoreError> {
        cursor_of((self.0.epoch, self.0.position))
    }

    /// Checks that every column agrees with the body; `event` is the parsed body.
    pub(in crate::audit) fn check(&self, mut event: AuditEvent) -> Result<(), Bad> {
        let position = event.link.cursor.position;
        event.traceparent.clone_from(&self.0.traceparent);
        if event_row(event) == self.0 {
            Ok(())
        } else {
            Err(Bad::new(position, "a column differs from the event"))
        }
    }
}

#[derive(FromQueryResult)]
pub(super) struct CheckedRow {
    log: String,
    epoch: i64,
    position: i64,
    hash: Vec<u8>,
    signature: String,
    event_hash: Option<Vec<u8>>,
}

impl CheckedRow {
    pub(super) fn read(self) -> Result<Checked, StoreError> {
        let checkpoint = Checkpoint {
            // A row is not what somebody typed: the parser's text would not help.
            log: Log::parse(&self.log).or(Err(StoreError::Corrupt("audit_checkpoints")))?,
            epoch: unsigned(self.epoch)?,
            position: unsigned(self.position)?,
            // A hash of another length becomes one that no event has, so that the proof names its position.
            hash: self.hash.try_into().unwrap_or_default(),
            signature: self.signature,
        };
        Ok(Checked {
            checkpoint,
            event: self.event_hash,
        })
    }
}

pub(super) fn cursor_of((epoch, position): (i64, i64)) -> Result<Cursor, StoreError> {
    Ok(Cursor {
        epoch: unsigned(epoch)?,
        position: unsigned(position)?,
    })
}

pub(super) fn link_of(epoch: i64, position: i64, hash: Vec<u8>) -> Result<Link, StoreError> {
    Ok(Link {
        cursor: cursor_of((epoch, position))?,
        hash: hash_of(hash)?,
    })
}

pub(super) fn hash_of(bytes: Vec<u8>) -> Result<[u8; HASH_BYTES], StoreError> {
    // The error of a slice says only that its length is another one.
    bytes
        .try_into()
        .or(Err(StoreError::Corrupt("audit_events")))
}

pub(super) fn unsigned(number: i64) -> Result<u64, StoreError> {
    // The error of an integer says only that it is out of range.
    u64::try_from(number).or(Err(StoreError::Corrupt("audit_events")))
}

/// The number as the databases hold it.
#[expect(
    clippy::expect_used,
    reason = "`AuditEvent::parse`, `Cursor::parse` and `Checkpoint` refuse larger numbers"
)]
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("a number that the databases can hold")
}
