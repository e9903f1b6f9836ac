//! What a batch writes, each list for one statement.

use std::ops::RangeInclusive;

use super::{LogEntry, NewRecord, State};
use crate::domain::{Agent, KeyId, SealedVersion, Secret, SecretId, Timestamp, TokenChange};

/// A version that is to be written. Its sealed parts stay where the batch holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct NewVersion<'a> {
    pub(in crate::store) secret_id: SecretId,
    pub(in crate::store) version: u64,
    pub(in crate::store) sealed: &'a SealedVersion,
    pub(in crate::store) created_by: &'a Agent,
    pub(in crate::store) created_at: Timestamp,
}

/// A version whose row a new version of the same secret takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Overwritten<'a> {
    /// The number of the version that is pushed out.
    pub(in crate::store) old: u64,
    /// What takes its place. Both are sealed under the same key, so that the index of keys stays as it is.
    pub(in crate::store) new: NewVersion<'a>,
}

/// Versions of a secret that are no longer kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct PushedOut {
    pub(in crate::store) secret_id: SecretId,
    /// Their numbers: each is looked for by itself, so that the database does not walk through all that it
    /// has deleted before.
    pub(in crate::store) versions: RangeInclusive<u64>,
}

/// Versions that a secret has beyond those that are kept, because the limit was higher before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Surplus {
    pub(in crate::store) secret_id: SecretId,
    /// The number of the newest of them.
    pub(in crate::store) highest: u64,
}

/// How many versions a secret has, against how many are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum StoredVersions {
    /// Fewer: the secret is young, or fewer were kept before. (On PostgreSQL also as many: nothing is overwritten there.)
    Fewer,
    /// As many. The oldest of them is sealed under this key.
    AsMany(KeyId),
    /// More: more were kept before.
    More,
}

/// What is to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::store) struct Writes<'a> {
    /// Secrets that are deleted, with all their versions.
    pub(in crate::store) deleted: Vec<SecretId>,
    /// Versions that are deleted.
    pub(in crate::store) pushed_out: Vec<PushedOut>,
    /// Versions that are deleted, as many as there are.
    pub(in crate::store) surplus: Vec<Surplus>,
    /// Versions that are overwritten in place: a database has less to do than for a deletion and an insert.
    pub(in crate::store) overwritten: Vec<Overwritten<'a>>,
    /// Secrets that were there and changed.
    pub(in crate::store) updated: Vec<Secret>,
    /// Secrets that are new.
    pub(in crate::store) created: Vec<Secret>,
    /// Versions that are new.
    pub(in crate::store) versions: Vec<NewVersion<'a>>,
    /// The events of everything that was applied, in order.
    pub(in crate::store) events: Vec<LogEntry>,
    /// The answers of requests that are made once.
    pub(in crate::store) records: Vec<NewRecord<'a>>,
    /// Tokens that are made or revoked.
    pub(in crate::store) tokens: Vec<&'a TokenChange>,
}

impl<'a> From<State<'a>> for Writes<'a> {
    fn from(state: State<'a>) -> Self {
        let mut writes = Self {
            events: state.events,
            records: state.new_records,
            tokens: state.token_changes,
            ..Self::default()
        };
        for id in state.touched {
            match (state.living.get(&id), state.stored.contains_key(&id)) {
                (Some(secret), true) => writes.updated.push(secret.clone()),
                (Some(secret), false) => writes.created.push(secret.clone()),
                (None, true) => writes.deleted.push(id),
                // Created and deleted in this batch: its events are all that is left.
                (None, false) => {}
            }
        }
        let kept = state.limits.versions.max(1);
        for (id, versions) in state.versions {
            writes.add_versions(&versions, state.stored.get(&id), kept);
        }
        writes
    }
}

impl<'a> Writes<'a> {
    /// Adds the new versions of one secret, and what they push out of those that are stored.
    fn add_versions(&mut self, new: &[NewVersion<'a>], stored: Option<&StoredVersions>, kept: u64) {
        let (Some(first), Some(newest)) = (new.first(), new.last()) else {
            return;
        };
        let secret_id = newest.secret_id;
        // Of the new versions those that the batch pushes out itself are never written.
        let floor = newest.version.saturating_sub(kept);
        let mut written = new.iter().copied().filter(|v| v.version > floor).peekable();
        let highest = floor.min(first.version - 1);
        let oldest = first.version.saturating_sub(kept).max(1);
        let mut lowest = oldest;
        match stored {
            Some(StoredVersions::More) => {
                self.surplus.push(Surplus { secret_id, highest });
                lowest = highest + 1;
            }
            Some(StoredVersions::AsMany(key)) => {
                if let Some(new) = written.next_if(|v| v.sealed.kek_id == *key) {
                    self.overwritten.push(Overwritten { old: oldest, new });
                    lowest += 1;
                }
            }
            Some(StoredVersions::Fewer) => {}
            None => lowest = highest + 1,
        }
        if lowest <= highest {
            self.pushed_out.push(PushedOut {
                secret_id,
                versions: lowest..=highest,
            });
        }
        self.versions.extend(written);
    }
}
