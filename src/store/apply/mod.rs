//! The heart of the commit, as a pure function: present state and work in, outcomes and rows out.
//!
//! Each piece of work gets its own outcome, and none fails its neighbours; the changes of a set are applied
//! together or not at all. What a batch creates and deletes again is never written, but the events of all
//! changes are. The caller holds the lock of the log's head, so no other writer can come in between.

mod activity;
mod expiry;
mod once;
mod set;
mod tokens;
mod writes;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use self::set::{Before, Undo};
pub(super) use self::writes::{NewVersion, StoredVersions, Writes};
use super::{
    chain::{Heads, LogEntry},
    idempotency::{NewRecord, Records},
    present::Present,
};
use crate::domain::{
    Action, Applied, Change, ChangeEvent, ChangeSetMember, Event, EventKind, IfMatch, KeyId, Log,
    Outcome, Owner, Provider, Refusal, Refused, SealedVersion, Secret, SecretId, SecretName,
    Timestamp, TokenAction, TokenChange, TraceParent, VersionName, Work,
};

/// What an operator allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Secrets that an owner may have.
    pub secrets_per_owner: u64,
    /// Versions of a secret that are kept; at least 1.
    pub versions: u64,
}

/// What came of each piece of work, in order, and what is to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan<'a> {
    pub(super) outcomes: Vec<Result<Outcome, Refused>>,
    pub(super) writes: Writes<'a>,
    /// The end of each log after that.
    pub(super) heads: Heads,
}

/// Applies the work in order.
pub(super) fn apply(present: Present, works: &[Work], limits: Limits, now: Timestamp) -> Plan<'_> {
    let mut state = State {
        stored: present.versions,
        living: present.secrets,
        heads: present.heads,
        active_keys: present.active_keys,
        sources: present.sources,
        names: present.names,
        records: present.records,
        new_records: Vec::new(),
        counts: present.counts,
        touched: BTreeSet::new(),
        versions: BTreeMap::new(),
        events: Vec::new(),
        tokens: present.tokens,
        token_changes: Vec::new(),
        limits,
        now,
    };
    let outcomes = works
        .iter()
        .map(|work| match work {
            // What is refused is recorded all the same.
            Work::Denials(denials) => {
                for denial in denials {
                    state.deny(denial);
                }
                Ok(Outcome::Recorded)
            }
            // A revocation takes, and gives nothing.
            Work::Token(change) if matches!(change.action, TokenAction::Revoke { .. }) => {
                state.token(change)
            }
            work if state.is_locked_down(work.log()) => Err(refused(Refusal::LockedDown)),
            Work::Change(change) => state.once(change.once.as_ref(), |state| {
                let step = state.apply(change, None).map_err(refused)?;
                Ok(Outcome::Changed(step.applied))
            }),
            Work::Set(set) => state.once(set.once.as_ref(), |state| {
                state.set(set).map(|applied| Outcome::Set(set.id, applied))
            }),
            Work::Token(change) => state.token(change),
            Work::Accesses(accesses) => {
                for access in accesses {
                    state.access(access);
                }
                Ok(Outcome::Recorded)
            }
        })
        .collect();
    Plan {
        outcomes,
        heads: state.heads,
        writes: state.into(),
    }
}

/// The refusal of work that is no set.
fn refused(refusal: Refusal) -> Refused {
    Refused { index: 0, refusal }
}

struct State<'a> {
    heads: Heads,
    active_keys: HashSet<KeyId>,
    /// The versions that are to be restored, as far as the database has them.
    sources: HashSet<(SecretId, VersionName)>,
    living: HashMap<SecretId, Secret>,
    /// The secrets that have a row, and how many versions each has.
    stored: HashMap<SecretId, StoredVersions>,
    names: HashSet<(Owner, SecretName)>,
    /// What became of requests that were made before, those of this batch included.
    records: Records,
    new_records: Vec<NewRecord<'a>>,
    counts: HashMap<Owner, u64>,
    /// The secrets that changed, in the order of their IDs.
    touched: BTreeSet<SecretId>,
    versions: BTreeMap<SecretId, Vec<NewVersion<'a>>>,
    events: Vec<LogEntry>,
    /// The codes of the tokens that the batch would revoke.
    tokens: HashMap<String, Vec<u8>>,
    token_changes: Vec<&'a TokenChange>,
    limits: Limits,
    now: Timestamp,
}

/// A change that was applied.
struct Step<'a> {
    applied: Applied,
    undo: Undo<'a>,
}

impl<'a> State<'a> {
    fn is_locked_down(&self, log: Log) -> bool {
        self.heads.of(log).is_some_and(|head| head.locked_down)
    }

    /// Frees a name of an owner.
    fn release(&mut self, owner: Owner, name: SecretName) {
        // The count of an owner who creates nothing in this batch was not read, and is not needed.
        if let Some(count) = self.counts.get_mut(&owner) {
            *count = count.saturating_sub(1);
        }
        self.names.remove(&(owner, name));
    }

    fn append_activity(&mut self, event: Event, traceparent: Option<TraceParent>) {
        #[expect(
            clippy::expect_used,
            reason = "the look of the commit reads that head for every batch with activity"
        )]
        let head = self
            .heads
            .activity
            .as_mut()
            .expect("the head of `activity`");
        let entry = head.append(event, traceparent);
        self.events.push(entry);
    }

    fn apply(
        &mut self,
        change: &'a Change,
        member: Option<ChangeSetMember>,
    ) -> Result<Step<'a>, Refusal> {
        match &change.action {
            Action::Create {
                name,
                provider,
                sealed,
            } => {
                let secret = self.new_secret(change, name, provider.as_ref(), sealed)?;
                Ok(self.create(change, member, secret, sealed))
            }
            Action::Update {
                sealed,
                restored_from,
                if_match,
            } => {
                let secret = self.find(change, if_match.as_ref())?;
                if let Some(source) = restored_from {
                    self.check_kept(secret, *source)?;
                }
                self.check_key(sealed)?;
                let secret = Secret {
                    version: secret.version + 1,
                    version_id: sealed.version_id,
                    // It was the old value that would have expired.
                    expiry: None,
                    ..self.changed(secret)
                };
                Ok(self.update(change, member, secret, sealed))
            }
            Action::SetExpiry {
                expires_at,
                if_match,
            } => self.set_expiry(change, *expires_at, if_match.as_ref()),
            Action::Announce(announcement) => self.announce(change, *announcement),
            Action::Delete { if_match } => {
                let secret = self.changed(self.find(change, if_match.as_ref())?);
                Ok(self.delete(change, member, &secret))
            }
        }
    }

    /// The secret that a change creates, if it may.
    fn new_secret(
        &self,
        change: &Change,
        name: &SecretName,
        provider: Option<&Provider>,
        sealed: &SealedVersion,
    ) -> Result<Secret, Refusal> {
        // It would be absent as soon as it was there.
        if !change.context.secrets.covers(name) {
            return Err(Refusal::NotFound);
        }
        self.check_key(sealed)?;
        if self.names.contains(&(change.owner.clone(), name.clone())) {
            return Err(Refusal::NameTaken);
        }
        // An owner without a count has no secrets.
        let count = self.counts.get(&change.owner).copied().unwrap_or(0);
        if count >= self.limits.secrets_per_owner {
            return Err(Refusal::LimitReached);
        }
        Ok(Secret {
            id: change.secret_id,
            owner: change.owner.clone(),
            name: name.clone(),
            provider: provider.cloned(),
            version: 1,
            version_id: sealed.version_id,
            sequence: 1,
            created_at: self.now,
            updated_at: self.now,
            expiry: None,
        })
    }

    fn create(
        &mut self,
        change: &'a Change,
        member: Option<ChangeSetMember>,
        secret: Secret,
        sealed: &'a SealedVersion,
    ) -> Step<'a> {
        *self.counts.entry(secret.owner.clone()).or_default() += 1;
        self.names
            .insert((secret.owner.clone(), secret.name.clone()));
        let first = self.record(change, member, &secret, EventKind::Created);
        self.add_version(change, &secret, sealed);
        self.living.insert(secret.id, secret.clone());
        Step {
            undo: Undo {
                secret_id: secret.id,
                first,
                before: Before::Absent,
            },
            applied: Applied::Created(secret),
        }
    }

    fn update(
        &mut self,
        change: &'a Change,
        member: Option<ChangeSetMember>,
        secret: Secret,
        sealed: &'a SealedVersion,
    ) -> Step<'a> {
        let first = self.record(change, member, &secret, EventKind::Updated);
        self.add_version(change, &secret, sealed);
        let before = match self.living.insert(secret.id, secret.clone()) {
            Some(before) => Before::Version(before),
            None => Before::Absent,
        };
        Step {
            undo: Undo {
                secret_id: secret.id,
                first,
                before,
            },
            applied: Applied::Updated(secret),
        }
    }

    fn delete(
        &mut self,
        change: &'a Change,
        member: Option<ChangeSetMember>,
        secret: &Secret,
    ) -> Step<'a> {
        let first = self.record(change, member, secret, EventKind::Deleted);
        self.release(secret.owner.clone(), secret.name.clone());
        // A secret that has no new value in this batch has no versions here.
        let versions = self.versions.remove(&secret.id).unwrap_or_default();
        let before = match self.living.remove(&secret.id) {
            Some(before) => Before::Living(before, versions),
            None => Before::Absent,
        };
        Step {
            undo: Undo {
                secret_id: secret.id,
                first,
                before,
            },
            applied: Applied::Deleted,
        }
    }

    /// The living secret of the change's owner, if its precondition holds.
    fn find(&self, change: &Change, if_match: Option<&IfMatch>) -> Result<&Secret, Refusal> {
        let secret = self
            .living
            .get(&change.secret_id)
            .filter(|secret| secret.owner == change.owner)
            .filter(|secret| change.context.secrets.covers(&secret.name))
            .ok_or(Refusal::NotFound)?;
        match if_match {
            Some(precondition) if !precondition.holds(secret.version) => {
                Err(Refusal::PreconditionFailed {
                    version: secret.version,
                })
            }
            _ => Ok(secret),
        }
    }

    /// Whether a version is still there: the database had it under the lock, and this batch has not pushed it out.
    fn check_kept(&self, secret: &Secret, source: VersionName) -> Result<(), Refusal> {
        let stored = self.sources.contains(&(secret.id, source));
        if stored && secret.version < source.version.saturating_add(self.limits.versions.max(1)) {
            Ok(())
        } else {
            Err(Refusal::VersionGone)
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
    fn changed(&self, secret: &Secret) -> Secret {
        Secret {
            sequence: secret.sequence + 1,
            updated_at: self.now.max(secret.updated_at.next()),
            ..secret.clone()
        }
    }

    fn add_version(&mut self, change: &'a Change, secret: &Secret, sealed: &'a SealedVersion) {
        self.versions
            .entry(secret.id)
            .or_default()
            .push(NewVersion {
                secret_id: secret.id,
                version: secret.version,
                sealed,
                created_by: &change.context.agent,
                created_at: secret.updated_at,
            });
    }

    /// Appends the event of a change that leaves the secret as given. True when it is the secret's first
    /// change in this batch.
    fn record(
        &mut self,
        change: &Change,
        member: Option<ChangeSetMember>,
        secret: &Secret,
        kind: EventKind,
    ) -> bool {
        let previous_version = match kind {
            EventKind::Created => None,
            EventKind::Updated => Some(secret.version - 1),
            EventKind::Deleted
            | EventKind::ExpiryChanged
            | EventKind::Expiring
            | EventKind::Expired
            | EventKind::Accessed
            | EventKind::TokenCreated
            | EventKind::TokenRevoked
            | EventKind::KeyAdded
            | EventKind::EpochRaised
            | EventKind::AccessDenied
            | EventKind::LockdownOn
            | EventKind::LockdownOff => Some(secret.version),
        };
        let event = Event::Change(ChangeEvent {
            actor: change.context.agent.clone(),
            change_set: member,
            expires_at: secret.expires_at(),
            id: change.event_id,
            kind,
            name: secret.name.clone(),
            occurred_at: secret.updated_at,
            origin: change.context.origin,
            owner: secret.owner.clone(),
            previous_version,
            provider: secret.provider.clone(),
            request_id: change.context.request_id.clone(),
            restored_from: change.action.restored_from().map(|source| source.version),
            secret_id: secret.id,
            sequence: secret.sequence,
            version: secret.version,
            version_id: secret.version_id,
        });
        #[expect(
            clippy::expect_used,
            reason = "step 2 of the commit reads that head for every batch with changes"
        )]
        let head = self.heads.changes.as_mut().expect("the head of `changes`");
        let entry = head.append(event, change.context.traceparent.clone());
        self.events.push(entry);
        self.touched.insert(secret.id)
    }
}

#[cfg(test)]
mod tests;
