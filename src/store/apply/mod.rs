//! The heart of the commit, as a pure function: present state and work in, outcomes and rows out.
//!
//! Each piece of work gets its own outcome, and none fails its neighbours; the changes of one command are
//! applied together or not at all. What a batch makes and destroys again is never written, but the events
//! of all changes are. The caller holds the lock of the log's head, so
//! nothing here can be overtaken.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::RangeInclusive,
};

use super::chain::{Entry, Head};
use crate::domain::{
    Access, AccessEvent, Action, Agent, Applied, Change, ChangeEvent, ChangeSet, Command, Event,
    EventKind, IfMatch, KeyId, Log, MOST_VERSIONS, Outcome, Owner, Provider, Refusal, Refused,
    SealedVersion, Secret, SecretId, SecretName, Timestamp, Work,
};

/// What the database holds of what a batch is about, as read under the lock.
#[derive(Debug, Clone)]
pub(super) struct Present {
    /// The end of the log `changes`.
    pub(super) changes: Head,
    /// The end of the log `activity`, if the batch appends to it.
    pub(super) activity: Option<Head>,
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
    /// The events of all that was applied, in order.
    pub(super) events: Vec<Entry>,
}

/// Outcomes, one for each piece of work in order, and what they write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) writes: Writes,
}

/// Applies the work in order.
pub(super) fn apply(present: Present, works: &[Work], limits: Limits, now: Timestamp) -> Plan {
    let mut state = State {
        stored: present.secrets.keys().copied().collect(),
        living: present.secrets,
        changes: present.changes,
        activity: present.activity,
        active_keys: present.active_keys,
        names: present.names,
        counts: present.counts,
        touched: BTreeSet::new(),
        versions: BTreeMap::new(),
        events: Vec::new(),
        limits,
        now,
    };
    let outcomes = works
        .iter()
        .map(|work| match work {
            Work::Command(command) => state.command(command),
            Work::Accesses(accesses) => {
                for access in accesses {
                    state.access(access);
                }
                Ok(Vec::new())
            }
        })
        .collect();
    Plan {
        outcomes,
        writes: state.into_writes(),
    }
}

#[derive(Clone)]
struct State {
    changes: Head,
    activity: Option<Head>,
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

/// What came of one change.
type Single = Result<Applied, Refusal>;

/// A change, and its place in its change set.
type Placed<'a> = (&'a Change, Option<ChangeSet>);

impl State {
    /// Applies all changes of a command, or none.
    fn command(&mut self, command: &Command) -> Outcome {
        let size = command.changes.len();
        let before = (size > 1).then(|| self.clone());
        let mut applied = Vec::with_capacity(size);
        for (index, change) in command.changes.iter().enumerate() {
            let set = command.change_set.map(|id| ChangeSet { id, index, size });
            match self.apply((change, set)) {
                Ok(one) => applied.push(one),
                // A refusal changes nothing itself.
                Err(refusal) => {
                    if let Some(before) = before {
                        *self = before;
                    }
                    return Err(Refused { index, refusal });
                }
            }
        }
        Ok(applied)
    }

    fn access(&mut self, access: &Access) {
        // A batch with accesses has read that head.
        let Some(head) = &mut self.activity else {
            return;
        };
        let event = Event::Access(AccessEvent {
            actor: access.origin.agent.clone(),
            epoch: 0,
            hash: None,
            id: access.event_id,
            log: Log::Activity,
            name: access.name.clone(),
            occurred_at: self.now,
            owner: access.owner.clone(),
            position: 0,
            prev_hash: None,
            provider: access.provider.clone(),
            request_id: access.origin.request_id.clone(),
            secret_id: access.secret_id,
            r#type: EventKind::Accessed,
            version: access.version,
            version_id: access.version_id,
        });
        let entry = head.append(event, access.origin.traceparent.clone());
        self.events.push(entry);
    }

    fn apply(&mut self, placed: Placed<'_>) -> Single {
        match &placed.0.action {
            Action::Create {
                name,
                provider,
                sealed,
            } => self.create(placed, (name, provider.as_ref()), sealed),
            Action::Update { sealed, if_match } => self.update(placed, sealed, if_match.as_ref()),
            Action::Delete { if_match } => self.delete(placed, if_match.as_ref()),
        }
    }

    fn create(
        &mut self,
        (change, set): Placed<'_>,
        (name, provider): (&SecretName, Option<&Provider>),
        sealed: &SealedVersion,
    ) -> Single {
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
        self.record((change, set), &secret, (EventKind::Created, None));
        self.add_version(change, &secret, sealed);
        self.living.insert(secret.id, secret.clone());
        Ok(Applied::Created(secret))
    }

    fn update(
        &mut self,
        (change, set): Placed<'_>,
        sealed: &SealedVersion,
        if_match: Option<&IfMatch>,
    ) -> Single {
        let present = self.find(change, if_match)?;
        self.check_key(sealed)?;
        let secret = Secret {
            version: present.version + 1,
            version_id: sealed.version_id,
            ..self.changed(present)
        };
        self.record(
            (change, set),
            &secret,
            (EventKind::Updated, Some(secret.version - 1)),
        );
        self.add_version(change, &secret, sealed);
        self.living.insert(secret.id, secret.clone());
        Ok(Applied::Updated(secret))
    }

    fn delete(&mut self, (change, set): Placed<'_>, if_match: Option<&IfMatch>) -> Single {
        let present = self.find(change, if_match)?;
        let secret = self.changed(present);
        self.record(
            (change, set),
            &secret,
            (EventKind::Deleted, Some(secret.version)),
        );
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
                created_by: change.origin.agent.clone(),
                created_at: secret.updated_at,
            });
    }

    /// Appends the event of a change that leaves the secret as given.
    fn record(
        &mut self,
        (change, change_set): Placed<'_>,
        secret: &Secret,
        (kind, previous_version): (EventKind, Option<u64>),
    ) {
        self.touched.insert(secret.id);
        let event = Event::Change(ChangeEvent {
            actor: change.origin.agent.clone(),
            change_set,
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
            request_id: change.origin.request_id.clone(),
            restored_from: (),
            secret_id: secret.id,
            sequence: secret.sequence,
            r#type: kind,
            version: secret.version,
            version_id: secret.version_id,
        });
        let entry = self
            .changes
            .append(event, change.origin.traceparent.clone());
        self.events.push(entry);
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
