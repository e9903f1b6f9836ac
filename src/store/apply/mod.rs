//! The heart of the commit, as a pure function: present state and changes in, outcomes and rows out.
//!
//! Each change gets its own outcome, and none fails its neighbours. What a batch makes and destroys again
//! is never written, but the events of all changes are. The caller holds the lock of the log's head, so
//! nothing here can be overtaken.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::RangeInclusive,
};

use super::chain::{Entry, Head};
use crate::domain::{
    Action, Agent, Applied, Change, Event, EventKind, IfMatch, KeyId, Log, MOST_VERSIONS, Outcome,
    Owner, Provider, Refusal, SealedVersion, Secret, SecretId, SecretName, Timestamp,
};

/// What the database holds of what a batch is about, as read under the lock.
#[derive(Debug, Clone)]
pub(super) struct Present {
    /// The end of the log `changes`.
    pub(super) head: Head,
    /// The keys that may seal.
    pub(super) active_keys: HashSet<KeyId>,
    /// The secrets that the batch names (with the right owner), by ID.
    pub(super) secrets: HashMap<SecretId, Secret>,
    /// Which of the names that the batch would create are taken.
    pub(super) names: HashSet<(Owner, SecretName)>,
    /// How many secrets the owners who create something have.
    pub(super) counts: HashMap<Owner, u64>,
}

/// What an operator allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Secrets that an owner may have.
    pub secrets_per_owner: u64,
    /// Versions of a secret that are kept; at least 1.
    pub versions: u64,
}

/// A version that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewVersion {
    pub(super) secret_id: SecretId,
    pub(super) version: u64,
    pub(super) sealed: SealedVersion,
    pub(super) created_by: Agent,
    pub(super) created_at: Timestamp,
}

/// What is to be written, each list for one statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Writes {
    /// Secrets that go, with all their versions.
    pub(super) deleted: Vec<SecretId>,
    /// Secrets with the version numbers that go. Their start is known too, so that the database does not
    /// walk through all that it has deleted before.
    pub(super) pushed_out: Vec<(SecretId, RangeInclusive<u64>)>,
    /// Secrets that stay and changed.
    pub(super) updated: Vec<Secret>,
    /// Secrets that are new.
    pub(super) created: Vec<Secret>,
    /// Versions that are new.
    pub(super) versions: Vec<NewVersion>,
    /// The events of all changes that were applied, in order.
    pub(super) events: Vec<Entry>,
}

/// Outcomes, one for each change in order, and what they write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) writes: Writes,
}

/// Applies the changes in order.
pub(super) fn apply(present: Present, changes: &[Change], limits: Limits, now: Timestamp) -> Plan {
    let mut state = State {
        stored: present.secrets.keys().copied().collect(),
        living: present.secrets,
        head: present.head,
        active_keys: present.active_keys,
        names: present.names,
        counts: present.counts,
        touched: BTreeSet::new(),
        versions: BTreeMap::new(),
        events: Vec::new(),
        limits,
        now,
    };
    let outcomes = changes.iter().map(|change| state.apply(change)).collect();
    Plan {
        outcomes,
        writes: state.into_writes(),
    }
}

struct State {
    head: Head,
    active_keys: HashSet<KeyId>,
    living: HashMap<SecretId, Secret>,
    /// The secrets that have a row.
    stored: HashSet<SecretId>,
    names: HashSet<(Owner, SecretName)>,
    counts: HashMap<Owner, u64>,
    /// The secrets that changed, in the order of their IDs.
    touched: BTreeSet<SecretId>,
    versions: BTreeMap<SecretId, Vec<NewVersion>>,
    events: Vec<Entry>,
    limits: Limits,
    now: Timestamp,
}

impl State {
    fn apply(&mut self, change: &Change) -> Outcome {
        match &change.action {
            Action::Create {
                name,
                provider,
                sealed,
            } => self.create(change, (name, provider.as_ref()), sealed),
            Action::Update { sealed, if_match } => self.update(change, sealed, if_match.as_ref()),
            Action::Delete { if_match } => self.delete(change, if_match.as_ref()),
        }
    }

    fn create(
        &mut self,
        change: &Change,
        (name, provider): (&SecretName, Option<&Provider>),
        sealed: &SealedVersion,
    ) -> Outcome {
        self.check_key(sealed)?;
        let key = (change.owner.clone(), name.clone());
        if self.names.contains(&key) {
            return Err(Refusal::NameTaken);
        }
        let count = self.counts.entry(change.owner.clone()).or_default();
        if *count >= self.limits.secrets_per_owner {
            return Err(Refusal::LimitReached);
        }
        *count += 1;
        self.names.insert(key);
        let secret = Secret {
            id: change.secret_id,
            owner: change.owner.clone(),
            name: name.clone(),
            provider: provider.cloned(),
            version: 1,
            version_id: sealed.version_id,
            sequence: 1,
            created_at: self.now,
            updated_at: self.now,
        };
        self.record(change, &secret, EventKind::Created);
        self.add_version(change, &secret, sealed);
        self.living.insert(secret.id, secret.clone());
        Ok(Applied::Created(secret))
    }

    fn update(
        &mut self,
        change: &Change,
        sealed: &SealedVersion,
        if_match: Option<&IfMatch>,
    ) -> Outcome {
        let present = self.find(change, if_match)?;
        self.check_key(sealed)?;
        let secret = Secret {
            version: present.version + 1,
            version_id: sealed.version_id,
            ..self.changed(present)
        };
        self.record(change, &secret, EventKind::Updated);
        self.add_version(change, &secret, sealed);
        self.living.insert(secret.id, secret.clone());
        Ok(Applied::Updated(secret))
    }

    fn delete(&mut self, change: &Change, if_match: Option<&IfMatch>) -> Outcome {
        let present = self.find(change, if_match)?;
        let secret = self.changed(present);
        self.record(change, &secret, EventKind::Deleted);
        self.living.remove(&secret.id);
        self.versions.remove(&secret.id);
        self.names
            .remove(&(secret.owner.clone(), secret.name.clone()));
        // An owner whose count was not read creates nothing in this batch.
        if let Some(count) = self.counts.get_mut(&secret.owner) {
            *count = count.saturating_sub(1);
        }
        Ok(Applied::Deleted)
    }

    /// The living secret of the change's owner, if its precondition holds.
    fn find(&self, change: &Change, if_match: Option<&IfMatch>) -> Result<Secret, Refusal> {
        let secret = self
            .living
            .get(&change.secret_id)
            .filter(|secret| secret.owner == change.owner)
            .ok_or(Refusal::NotFound)?;
        match if_match {
            Some(precondition) if !precondition.holds(secret.version) => {
                Err(Refusal::PreconditionFailed {
                    version: secret.version,
                })
            }
            _ => Ok(secret.clone()),
        }
    }

    fn check_key(&self, sealed: &SealedVersion) -> Result<(), Refusal> {
        if self.active_keys.contains(&sealed.kek_id) {
            Ok(())
        } else {
            Err(Refusal::KeyNotActive(sealed.kek_id.clone()))
        }
    }

    /// The secret after one more change: `updated_at` strictly rises, whatever the clocks say.
    fn changed(&self, secret: Secret) -> Secret {
        Secret {
            sequence: secret.sequence + 1,
            updated_at: self.now.max(secret.updated_at.next()),
            ..secret
        }
    }

    fn add_version(&mut self, change: &Change, secret: &Secret, sealed: &SealedVersion) {
        self.versions
            .entry(secret.id)
            .or_default()
            .push(NewVersion {
                secret_id: secret.id,
                version: secret.version,
                sealed: sealed.clone(),
                created_by: change.agent.clone(),
                created_at: secret.updated_at,
            });
    }

    /// Appends the event of a change that leaves the secret as given.
    fn record(&mut self, change: &Change, secret: &Secret, kind: EventKind) {
        self.touched.insert(secret.id);
        let previous_version = match kind {
            EventKind::Created => None,
            EventKind::Updated => Some(secret.version - 1),
            EventKind::Deleted => Some(secret.version),
        };
        let link = self.head.append(Event {
            actor: change.agent.clone(),
            change_set: (),
            epoch: 0,
            expires_at: (),
            hash: None,
            id: change.event_id,
            log: Log::Changes,
            name: secret.name.clone(),
            occurred_at: secret.updated_at,
            owner: secret.owner.clone(),
            position: 0,
            prev_hash: None,
            previous_version,
            provider: secret.provider.clone(),
            request_id: change.request_id.clone(),
            restored_from: (),
            secret_id: secret.id,
            sequence: secret.sequence,
            r#type: kind,
            version: secret.version,
            version_id: secret.version_id,
        });
        self.events.push(link);
    }

    fn into_writes(self) -> Writes {
        let mut writes = Writes {
            events: self.events,
            ..Writes::default()
        };
        for id in self.touched {
            match (self.living.get(&id), self.stored.contains(&id)) {
                (Some(secret), true) => writes.updated.push(secret.clone()),
                (Some(secret), false) => writes.created.push(secret.clone()),
                (None, true) => writes.deleted.push(id),
                // Made and destroyed in this batch: its events are all that is left.
                (None, false) => {}
            }
        }
        let kept = self.limits.versions.max(1);
        for (id, versions) in self.versions {
            let newest = versions.last().map_or(0, |v| v.version);
            let floor = newest.saturating_sub(kept);
            if floor > 0 && self.stored.contains(&id) {
                let written = versions.first().map_or(0, |v| v.version);
                let lowest = written.saturating_sub(MOST_VERSIONS);
                writes.pushed_out.push((id, lowest..=floor));
            }
            writes
                .versions
                .extend(versions.into_iter().filter(|v| v.version > floor));
        }
        writes
    }
}

#[cfg(test)]
mod tests;
