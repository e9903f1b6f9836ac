//! Which events mean new values for a workload, and when to fetch them.
//!
//! In come events and the time; out goes a moment and the cursor that the next `resolve` must reach.
//! Promise: changes that follow each other within the debounce are one; a change set is waited for
//! whole; what an earlier `resolve` has already seen is none; and a stream of changes without a pause
//! delays no longer than [`LONGEST`] debounces. No I/O, no clock.

use std::{collections::HashSet, time::Duration};

use serde::Deserialize;
use tokio::time::Instant;

use crate::domain::{Cursor, Owner, SecretName};

/// How many debounces a change waits at most.
const LONGEST: u32 = 10;

/// What an event says, as far as a workload asks.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Fact {
    r#type: String,
    owner: Option<String>,
    name: Option<String>,
    change_set: Option<ChangeSet>,
}

#[derive(Debug, Clone, Deserialize)]
struct ChangeSet {
    id: String,
    size: usize,
    index: usize,
}

impl Fact {
    /// `None`: not an event.
    pub(super) fn read(body: &str) -> Option<Self> {
        serde_json::from_str(body).ok()
    }
}

/// What an event was for the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Not one of its secrets, or no new value.
    Nothing,
    /// A new value: there will be something to do.
    Change,
    /// A secret of its is gone.
    Deletion,
}

/// Watches the (owner, name)s of one workload.
#[derive(Debug)]
pub(super) struct Changes {
    owner: Owner,
    names: Vec<SecretName>,
    debounce: Duration,
    /// Everything up to here is in the values that were fetched last.
    covered: Cursor,
    pending: Option<Pending>,
    /// The change set whose events are coming in, and which have come.
    set: Option<(ChangeSet, HashSet<usize>)>,
}

/// Changes that nobody has acted on.
#[derive(Debug, Clone, Copy)]
struct Pending {
    cursor: Cursor,
    quiet: Instant,
    latest: Instant,
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

    /// Values were fetched, as of this cursor or newer.
    pub(super) fn cover(&mut self, cursor: Cursor) {
        self.covered = cursor;
        if self.pending.is_some_and(|p| !newer(p.cursor, cursor)) {
            self.pending = None;
        }
    }

    /// Forgets everything but what is watched: the log has lost the cursor.
    pub(super) fn begin_anew(&mut self) {
        self.covered = Cursor::START;
        self.pending = None;
        self.set = None;
    }

    /// Takes the next event of the log.
    pub(super) fn see(&mut self, cursor: Cursor, fact: &Fact, now: Instant) -> Seen {
        if !newer(cursor, self.covered) || fact.owner.as_deref() != Some(self.owner.as_str()) {
            return Seen::Nothing;
        }
        self.count(fact.change_set.as_ref());
        let name = fact.name.as_deref();
        let watched = self.names.iter().any(|own| name == Some(own.as_str()));
        let seen = match fact.r#type.as_str() {
            "secret.created" | "secret.updated" if watched => Seen::Change,
            "secret.deleted" if watched => Seen::Deletion,
            _ => Seen::Nothing,
        };
        match (&mut self.pending, seen) {
            (Some(pending), Seen::Change) => {
                pending.cursor = cursor;
                pending.quiet = now + self.debounce;
            }
            (None, Seen::Change) => {
                self.pending = Some(Pending {
                    cursor,
                    quiet: now + self.debounce,
                    latest: now + self.debounce * LONGEST,
                });
            }
            // The set's other events: its last one is what the values must reach.
            (Some(pending), Seen::Nothing) if fact.change_set.is_some() => pending.cursor = cursor,
            (_, Seen::Nothing | Seen::Deletion) => {}
        }
        seen
    }

    fn count(&mut self, part: Option<&ChangeSet>) {
        let Some(part) = part else {
            self.set = None;
            return;
        };
        match &mut self.set {
            Some((set, come)) if set.id == part.id => {
                come.insert(part.index);
            }
            _ => self.set = Some((part.clone(), HashSet::from([part.index]))),
        }
        if self
            .set
            .as_ref()
            .is_some_and(|(set, come)| come.len() >= set.size)
        {
            self.set = None;
        }
    }

    /// When there will be something to do, as far as is known now.
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

/// A higher epoch is a new start, whatever the position.
fn newer(cursor: Cursor, than: Cursor) -> bool {
    (cursor.epoch, cursor.position) > (than.epoch, than.position)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBOUNCE: Duration = Duration::from_millis(500);

    struct Given {
        changes: Changes,
        start: Instant,
    }

    fn watching(names: &[&str]) -> Given {
        let names = names.iter().map(|n| SecretName::parse(n).unwrap());
        let owner = Owner::parse("alice").unwrap();
        let mut changes = Changes::new(owner, names.collect(), DEBOUNCE);
        changes.cover(at(1, 10));
        let start = Instant::now();
        Given { changes, start }
    }

    fn at(epoch: u64, position: u64) -> Cursor {
        Cursor { epoch, position }
    }

    impl Given {
        fn after(&self, millis: u64) -> Instant {
            self.start + Duration::from_millis(millis)
        }

        fn see(&mut self, millis: u64, position: u64, kind: &str, name: &str) -> Seen {
            let body = format!(r#"{{"type":"secret.{kind}","owner":"alice","name":"{name}"}}"#);
            self.body(millis, position, &body)
        }

        fn part(&mut self, position: u64, name: &str, index: usize, size: usize) -> Seen {
            let body = format!(
                r#"{{"type":"secret.updated","owner":"alice","name":"{name}","change_set":{{"id":"s","size":{size},"index":{index}}}}}"#
            );
            self.body(0, position, &body)
        }

        fn body(&mut self, millis: u64, position: u64, body: &str) -> Seen {
            let fact = Fact::read(body).unwrap();
            let now = self.after(millis);
            self.changes.see(at(1, position), &fact, now)
        }

        fn due(&self) -> Option<u128> {
            let due = self.changes.due()?;
            Some(due.duration_since(self.start).as_millis())
        }
    }

    #[test]
    fn a_new_value_is_due_after_the_debounce() {
        let mut given = watching(&["A"]);
        assert_eq!(given.see(0, 11, "updated", "A"), Seen::Change);
        assert_eq!(given.due(), Some(500));
        assert_eq!(given.changes.take(), Some(at(1, 11)));
        assert_eq!(given.due(), None);
    }

    #[test]
    fn changes_within_the_debounce_are_one_and_the_last_cursor_counts() {
        let mut given = watching(&["A", "B"]);
        given.see(0, 11, "updated", "A");
        given.see(300, 12, "updated", "B");
        assert_eq!(given.due(), Some(800));
        assert_eq!(given.changes.take(), Some(at(1, 12)));
    }

    #[test]
    fn changes_without_a_pause_are_not_waited_for_without_end() {
        let mut given = watching(&["A"]);
        for n in 0..40 {
            given.see(n * 200, 11 + n, "updated", "A");
        }
        assert_eq!(given.due(), Some(5000));
    }

    #[test]
    fn other_secrets_other_owners_and_other_events_are_nothing() {
        let mut given = watching(&["A"]);
        assert_eq!(given.see(0, 11, "updated", "B"), Seen::Nothing);
        assert_eq!(given.see(0, 12, "expiring", "A"), Seen::Nothing);
        let bob = r#"{"type":"secret.updated","owner":"bob","name":"A"}"#;
        assert_eq!(given.body(0, 13, bob), Seen::Nothing);
        assert_eq!(given.due(), None);
    }

    #[test]
    fn a_deletion_is_told_and_only_a_creation_is_acted_on() {
        let mut given = watching(&["A"]);
        assert_eq!(given.see(0, 11, "deleted", "A"), Seen::Deletion);
        assert_eq!(given.due(), None);
        assert_eq!(given.see(9000, 12, "created", "A"), Seen::Change);
        assert_eq!(given.due(), Some(9500));
    }

    #[test]
    fn what_the_values_have_is_not_due_again() {
        let mut given = watching(&["A"]);
        assert_eq!(given.see(0, 10, "updated", "A"), Seen::Nothing);
        given.see(0, 11, "updated", "A");
        given.see(0, 12, "updated", "A");
        given.changes.take();
        given.see(600, 13, "updated", "A");
        given.changes.cover(at(1, 13));
        assert_eq!(given.due(), None);
        given.see(700, 14, "updated", "A");
        given.changes.cover(at(1, 13));
        assert_eq!(given.due(), Some(1200));
    }

    #[test]
    fn a_higher_epoch_is_newer_at_any_position() {
        let mut given = watching(&["A"]);
        let body = r#"{"type":"secret.updated","owner":"alice","name":"A"}"#;
        let fact = Fact::read(body).unwrap();
        let now = given.start;
        assert_eq!(given.changes.see(at(2, 3), &fact, now), Seen::Change);
    }

    #[test]
    fn a_change_set_is_waited_for_whole_also_its_parts_that_are_not_watched() {
        let mut given = watching(&["A"]);
        assert_eq!(given.part(11, "A", 0, 3), Seen::Change);
        assert_eq!(given.due(), Some(5000));
        given.part(12, "B", 1, 3);
        given.part(12, "B", 1, 3);
        assert_eq!(given.due(), Some(5000));
        given.part(13, "C", 2, 3);
        assert_eq!(given.due(), Some(500));
        assert_eq!(given.changes.take(), Some(at(1, 13)));
    }

    #[test]
    fn a_set_that_never_ends_is_given_up_with_the_next_event_outside_it() {
        let mut given = watching(&["A"]);
        given.part(11, "A", 0, 3);
        given.see(100, 12, "updated", "A");
        assert_eq!(given.due(), Some(600));
    }
}
