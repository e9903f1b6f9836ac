//! Change sets: all changes of a set are applied, or those that were are taken back.

use std::collections::btree_map;

use super::{NewVersion, State};
use crate::domain::{Applied, ChangeSet, ChangeSetMember, Refused, Secret, SecretId};

/// How to take a change back. (Its event is cut off with those of its whole set.)
pub(super) struct Undo<'a> {
    pub(super) secret_id: SecretId,
    /// The secret had not changed in this batch before.
    pub(super) first: bool,
    pub(super) before: Before<'a>,
}

/// What was there before a change.
pub(super) enum Before<'a> {
    /// No secret of this ID.
    Absent,
    /// The secret; the change added a version.
    Version(Secret),
    /// The same: nothing was done.
    Same,
    /// The secret; the change added no version.
    Expiry(Secret),
    /// The secret, and the versions that this batch had added; the change deleted both.
    Living(Secret, Vec<NewVersion<'a>>),
}

impl<'a> State<'a> {
    /// Applies all changes of a set, or none.
    pub(super) fn set(&mut self, set: &'a ChangeSet) -> Result<Vec<Applied>, Refused> {
        let size = set.changes.len();
        let (heads, events) = (self.heads, self.events.len());
        let mut undo = Vec::with_capacity(size);
        let mut applied = Vec::with_capacity(size);
        for (index, change) in set.changes.iter().enumerate() {
            let id = set.id;
            match self.apply(change, Some(ChangeSetMember { id, index, size })) {
                Ok(step) => {
                    applied.push(step.applied);
                    undo.push(step.undo);
                }
                // A refusal changes nothing itself.
                Err(refusal) => {
                    for step in undo.into_iter().rev() {
                        self.undo(step);
                    }
                    self.events.truncate(events);
                    self.heads = heads;
                    return Err(Refused { index, refusal });
                }
            }
        }
        Ok(applied)
    }

    fn undo(&mut self, undo: Undo<'a>) {
        let id = undo.secret_id;
        match undo.before {
            Before::Absent => {
                self.versions.remove(&id);
                if let Some(Secret { owner, name, .. }) = self.living.remove(&id) {
                    self.release(owner, name);
                }
            }
            Before::Same => {}
            Before::Expiry(secret) => {
                self.living.insert(id, secret);
            }
            Before::Version(secret) => {
                self.living.insert(id, secret);
                if let btree_map::Entry::Occupied(mut versions) = self.versions.entry(id) {
                    versions.get_mut().pop();
                    if versions.get().is_empty() {
                        versions.remove();
                    }
                }
            }
            Before::Living(secret, versions) => {
                *self.counts.entry(secret.owner.clone()).or_default() += 1;
                self.names
                    .insert((secret.owner.clone(), secret.name.clone()));
                self.living.insert(id, secret);
                if !versions.is_empty() {
                    self.versions.insert(id, versions);
                }
            }
        }
        if undo.first {
            self.touched.remove(&id);
        }
    }
}
