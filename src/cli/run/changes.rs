//! Which events mean new values for a workload, and when to fetch them.
//!
//! In come events and the time; out come a moment and the cursor that the next `resolve` must reach.
//! Promise: changes that follow each other within the debounce count as one; a change set is awaited whole;
//! a change that an earlier `resolve` has seen does not count; and changes without a pause delay no longer
//! than [`LONGEST`] debounces. No I/O, no clock.

use std::{collections::HashSet, time::Duration};

use serde::Deserialize;
use tokio::time::Instant;

use crate::domain::{Cursor, Owner, SecretName};

/// How many debounces a change waits at most.
const LONGEST: u32 = 10;

/// The fields of an event that matter to a workload.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct EventSummary {
    r#type: String,
    owner: Option<String>,
    name: Option<String>,
    change_set: Option<SetPart>,
}

/// An event's place in its change set.
#[derive(Debug, Clone, Deserialize)]
struct SetPart {
    id: String,
    size: usize,
    index: usize,
}

impl EventSummary {
    /// Reads an event's body; `None` when it is not an event.
    pub(super) fn read(body: &str) -> Option<Self> {
        serde_json::from_str(body).ok()
    }
}

/// What an event means for the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relevance {
    /// It is about another secret, or brings no new value.
    Irrelevant,
    /// A new value: there will be something to do.
    NewValue,
    /// One of the workload's secrets was deleted.
    Deletion,
}

/// Watches the secrets of one workload.
#[derive(Debug)]
pub(super) struct Changes {
    owner: Owner,
    names: Vec<SecretName>,
    debounce: Duration,
    /// The values that were fetched last hold everything through here.
    covered: Cursor,
    pending: Option<PendingChange>,
    /// The change set whose events are arriving.
    set: Option<ArrivingSet>,
}

/// Changes that nobody has acted on.
#[derive(Debug, Clone, Copy)]
struct PendingChange {
    cursor: Cursor,
    quiet: Instant,
    latest: Instant,
}

#[derive(Debug)]
struct ArrivingSet {
    id: String,
    size: usize,
    arrived: HashSet<usize>,
}

impl Changes {
    pub(super) fn new(owner: Owner, names: Vec<SecretName>, debounce: Duration) -> Self {
        Self {
            owner,
            names,
            debounce,
            covered: Cursor::START,
            pending: None,
            set: None,
        }
    }

    /// Values were fetched that are as new as this cursor.
    pub(super) fn cover(&mut self, cursor: Cursor) {
        self.covered = cursor;
        if self.pending.is_some_and(|p| p.cursor <= cursor) {
            self.pending = None;
        }
    }

    /// Forgets all events: the log has lost the cursor.
    pub(super) fn start_over(&mut self) {
        self.covered = Cursor::START;
        self.pending = None;
        self.set = None;
    }

    /// Takes the next event of the log.
    pub(super) fn see(&mut self, cursor: Cursor, event: &EventSummary, now: Instant) -> Relevance {
        if cursor <= self.covered || event.owner.as_deref() != Some(self.owner.as_str()) {
            return Relevance::Irrelevant;
        }
        self.count(event.change_set.as_ref());
        let name = event.name.as_deref();
        let watched = self.names.iter().any(|own| name == Some(own.as_str()));
        let relevance = match event.r#type.as_str() {
            "secret.created" | "secret.updated" if watched => Relevance::NewValue,
            "secret.deleted" if watched => Relevance::Deletion,
            _ => Relevance::Irrelevant,
        };
        if relevance == Relevance::NewValue {
            let latest = self.pending.map(|pending| pending.latest);
            self.pending = Some(PendingChange {
                cursor,
                quiet: now + self.debounce,
                latest: latest.unwrap_or(now + self.debounce * LONGEST),
            });
        } else if relevance == Relevance::Irrelevant
            && event.change_set.is_some()
            && let Some(pending) = &mut self.pending
        {
            // The set's other events: the values must reach its last one.
            pending.cursor = cursor;
        }
        relevance
    }

    /// Keeps the change set that the event is part of until it is whole. An event outside the set ends the
    /// waiting for it.
    fn count(&mut self, part: Option<&SetPart>) {
        let Some(part) = part else {
            self.set = None;
            return;
        };
        let mut set = match self.set.take() {
            Some(set) if set.id == part.id => set,
            Some(_) | None => ArrivingSet {
                id: part.id.clone(),
                size: part.size,
                arrived: HashSet::new(),
            },
        };
        set.arrived.insert(part.index);
        self.set = (set.arrived.len() < set.size).then_some(set);
    }

    /// When there will be something to do, by what is known now.
    pub(super) fn due(&self) -> Option<Instant> {
        let pending = self.pending?;
        Some(match self.set {
            Some(_) => pending.latest,
            None => pending.quiet.min(pending.latest),
        })
    }

    /// Takes what is due: the cursor that the values must reach.
    pub(super) fn take(&mut self) -> Option<Cursor> {
        self.pending.take().map(|pending| pending.cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBOUNCE: Duration = Duration::from_millis(500);

    struct Fixture {
        changes: Changes,
        start: Instant,
    }

    fn watching(names: &[&str]) -> Fixture {
        let names = names.iter().map(|n| SecretName::parse(n).unwrap());
        let owner = Owner::parse("alice").unwrap();
        let mut changes = Changes::new(owner, names.collect(), DEBOUNCE);
        changes.cover(at(1, 10));
        let start = Instant::now();
        Fixture { changes, start }
    }

    fn at(epoch: u64, position: u64) -> Cursor {
        Cursor { epoch, position }
    }

    impl Fixture {
        fn after(&self, millis: u64) -> Instant {
            self.start + Duration::from_millis(millis)
        }

        fn see(&mut self, millis: u64, position: u64, kind: &str, name: &str) -> Relevance {
            let body = format!(r#"{{"type":"secret.{kind}","owner":"alice","name":"{name}"}}"#);
            self.body(millis, position, &body)
        }

        fn part(&mut self, position: u64, name: &str, index: usize, size: usize) -> Relevance {
            let body = format!(
                r#"{{"type":"secret.updated","owner":"alice","name":"{name}","change_set":{{"id":"s","size":{size},"index":{index}}}}}"#
            );
            self.body(0, position, &body)
        }

        fn body(&mut self, millis: u64, position: u64, body: &str) -> Relevance {
            let event = EventSummary::read(body).unwrap();
            let now = self.after(millis);
            self.changes.see(at(1, position), &event, now)
        }

        fn due(&self) -> Option<u128> {
            let due = self.changes.due()?;
            Some(due.duration_since(self.start).as_millis())
        }
    }

    #[test]
    fn a_new_value_is_due_after_the_debounce() {
        let mut fixture = watching(&["A"]);
        assert_eq!(fixture.see(0, 11, "updated", "A"), Relevance::NewValue);
        assert_eq!(fixture.due(), Some(500));
        assert_eq!(fixture.changes.take(), Some(at(1, 11)));
        assert_eq!(fixture.due(), None);
    }

    #[test]
    fn changes_within_the_debounce_are_one_and_the_last_cursor_counts() {
        let mut fixture = watching(&["A", "B"]);
        fixture.see(0, 11, "updated", "A");
        fixture.see(300, 12, "updated", "B");
        assert_eq!(fixture.due(), Some(800));
        assert_eq!(fixture.changes.take(), Some(at(1, 12)));
    }

    #[test]
    fn changes_without_a_pause_are_acted_on_after_ten_debounces() {
        let mut fixture = watching(&["A"]);
        for n in 0..40 {
            fixture.see(n * 200, 11 + n, "updated", "A");
        }
        assert_eq!(fixture.due(), Some(5000));
    }

    #[test]
    fn other_secrets_other_owners_and_other_events_do_not_count() {
        let mut fixture = watching(&["A"]);
        assert_eq!(fixture.see(0, 11, "updated", "B"), Relevance::Irrelevant);
        assert_eq!(fixture.see(0, 12, "expiring", "A"), Relevance::Irrelevant);
        let bob = r#"{"type":"secret.updated","owner":"bob","name":"A"}"#;
        assert_eq!(fixture.body(0, 13, bob), Relevance::Irrelevant);
        assert_eq!(fixture.due(), None);
    }

    #[test]
    fn a_deletion_is_reported_and_only_a_creation_is_acted_on() {
        let mut fixture = watching(&["A"]);
        assert_eq!(fixture.see(0, 11, "deleted", "A"), Relevance::Deletion);
        assert_eq!(fixture.due(), None);
        assert_eq!(fixture.see(9000, 12, "created", "A"), Relevance::NewValue);
        assert_eq!(fixture.due(), Some(9500));
    }

    #[test]
    fn a_change_that_the_values_hold_is_not_due_again() {
        let mut fixture = watching(&["A"]);
        assert_eq!(fixture.see(0, 10, "updated", "A"), Relevance::Irrelevant);
        fixture.see(0, 11, "updated", "A");
        fixture.see(0, 12, "updated", "A");
        fixture.changes.take();
        fixture.see(600, 13, "updated", "A");
        fixture.changes.cover(at(1, 13));
        assert_eq!(fixture.due(), None);
        fixture.see(700, 14, "updated", "A");
        fixture.changes.cover(at(1, 13));
        assert_eq!(fixture.due(), Some(1200));
    }

    #[test]
    fn a_higher_epoch_is_newer_at_any_position() {
        let mut fixture = watching(&["A"]);
        let body = r#"{"type":"secret.updated","owner":"alice","name":"A"}"#;
        let event = EventSummary::read(body).unwrap();
        let relevance = fixture.changes.see(at(2, 3), &event, fixture.start);
        assert_eq!(relevance, Relevance::NewValue);
    }

    #[test]
    fn a_change_set_is_awaited_whole_with_its_parts_that_are_not_watched() {
        let mut fixture = watching(&["A"]);
        assert_eq!(fixture.part(11, "A", 0, 3), Relevance::NewValue);
        assert_eq!(fixture.due(), Some(5000));
        fixture.part(12, "B", 1, 3);
        fixture.part(12, "B", 1, 3);
        assert_eq!(fixture.due(), Some(5000));
        fixture.part(13, "C", 2, 3);
        assert_eq!(fixture.due(), Some(500));
        assert_eq!(fixture.changes.take(), Some(at(1, 13)));
    }

    #[test]
    fn a_set_that_stays_incomplete_is_given_up_with_the_next_event_outside_it() {
        let mut fixture = watching(&["A"]);
        fixture.part(11, "A", 0, 3);
        fixture.see(100, 12, "updated", "A");
        assert_eq!(fixture.due(), Some(600));
    }
}
