//! Appending to a log.

use sea_orm::prelude::Uuid;

use crate::{
    domain::{Event, Owner, TraceParent},
    store::{
        chain::LogEntry,
        dialect::{Bulk, Rows},
        rows::signed,
    },
};

/// The write that appends the entries.
pub(in crate::store) fn insert(entries: &[LogEntry]) -> Bulk<'_> {
    let placed = || entries.iter().map(|entry| &entry.placed);
    let events = || placed().map(|placed| &placed.event);
    let subjects = || events().map(Subject::of);
    let rows = Rows::default()
        .texts("log", events().map(|event| event.log().as_str()))
        .numbers("position", placed().map(|placed| signed(placed.position)))
        .numbers("epoch", placed().map(|placed| signed(placed.epoch)))
        .uuids("id", events().map(|event| event.id().get()))
        .texts("type", events().map(|event| event.kind().as_str()))
        .texts(
            "owner",
            events().map(|event| event.owner().map_or("", Owner::as_str)),
        )
        .uuids("secret_id", subjects().map(|subject| subject.secret_id))
        .numbers("sequence", subjects().map(|s| signed(s.sequence)))
        .numbers("version", subjects().map(|s| signed(s.version)))
        .uuids("version_id", subjects().map(|subject| subject.version_id))
        .numbers("occurred_at", events().map(|e| e.occurred_at().micros()))
        .bytes("body", placed().map(|placed| placed.body.as_slice()))
        .bytes("hash", placed().map(|placed| placed.hash.as_slice()))
        .texts(
            "traceparent",
            entries.iter().map(|entry| {
                let traceparent = entry.traceparent.as_ref();
                traceparent.map_or("", TraceParent::as_str)
            }),
        );
    // What an event is not about comes as '' or 0, which no real one is.
    let sql = "INSERT INTO events \
               (log, position, epoch, id, type, owner, secret_id, sequence, version, version_id, \
                occurred_at, body, hash, traceparent) \
               SELECT r.log, r.position, r.epoch, r.id, r.type, NULLIF(r.owner, ''), \
               CASE WHEN r.version > 0 THEN r.secret_id END, NULLIF(r.sequence, 0), \
               NULLIF(r.version, 0), CASE WHEN r.version > 0 THEN r.version_id END, \
               r.occurred_at, r.body, r.hash, NULLIF(r.traceparent, '') FROM {rows}";
    Bulk::of_all(rows, sql)
}

/// Which version of which secret an event is about, for its row.
#[derive(Default)]
struct Subject {
    secret_id: Uuid,
    sequence: u64,
    version: u64,
    version_id: Uuid,
}

impl Subject {
    fn of(event: &Event) -> Self {
        match event {
            Event::Change(event) => Self {
                secret_id: event.secret_id.get(),
                sequence: event.sequence,
                version: event.version,
                version_id: event.version_id.get(),
            },
            Event::Access(event) => Self {
                secret_id: event.secret_id.get(),
                sequence: 0,
                version: event.version,
                version_id: event.version_id.get(),
            },
            Event::Token(_)
            | Event::Key(_)
            | Event::Epoch(_)
            | Event::Denied(_)
            | Event::Lockdown(_) => Self::default(),
        }
    }
}
