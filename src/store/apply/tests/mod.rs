//! Given a present state, when changes are applied, then these outcomes and rows follow.

mod expiry;
mod once;
mod sets;
mod tokens;
mod versions;

use uuid::Uuid;

use super::*;
use crate::store::chain::Head;
use crate::{
    crypto::blake2b_256,
    domain::{
        Access, Agent, AgentKind, ChangeSet, ChangeSetId, Cursor, Denial, EventId, HASH_BYTES, Log,
        NamedSecrets, Origin, RequestContext, RequestId, VersionId,
    },
};

const NOW: Timestamp = Timestamp::from_micros(1_000_000);
const LIMITS: Limits = Limits {
    secrets_per_owner: 3,
    versions: 3,
};
const HEAD: Head = Head {
    epoch: 3,
    last_epoch: 3,
    position: 10,
    hash: [9; HASH_BYTES],
    cut: Cursor::START,
    locked_down: false,
};

fn owner(name: &str) -> Owner {
    Owner::parse(name).unwrap()
}

fn id(number: u128) -> SecretId {
    SecretId::new(Uuid::from_u128(number))
}

fn sealed(version: u128) -> SealedVersion {
    SealedVersion {
        version_id: VersionId::new(Uuid::from_u128(version)),
        kek_id: KeyId::parse("k").unwrap(),
        wrapped_key: vec![1],
        sealed_value: vec![2],
        sealed_mask: vec![3],
    }
}

fn change(owner_name: &str, secret: u128, action: Action) -> Change {
    Change {
        owner: owner(owner_name),
        secret_id: id(secret),
        action,
        event_id: EventId::new(Uuid::from_u128(secret)),
        context: context(),
        once: None,
    }
}

fn context() -> RequestContext {
    RequestContext {
        agent: Agent {
            id: Some("t".to_owned()),
            kind: AgentKind::Token,
        },
        secrets: NamedSecrets::ALL,
        origin: Origin::default(),
        request_id: Some(RequestId::parse("r").unwrap()),
        traceparent: None,
    }
}

fn create(secret: u128, name: &str) -> Change {
    let name = SecretName::parse(name).unwrap();
    change(
        "alice",
        secret,
        Action::Create {
            name,
            provider: None,
            sealed: sealed(secret * 100),
        },
    )
}

fn update(secret: u128, version: u128, if_match: Option<IfMatch>) -> Change {
    change(
        "alice",
        secret,
        Action::Update {
            sealed: sealed(version),
            restored_from: None,
            if_match,
        },
    )
}

fn delete(secret: u128) -> Change {
    change("alice", secret, Action::Delete { if_match: None })
}

/// A stored secret of alice at a version, with as many changes.
fn stored(secret: u128, name: &str, version: u64) -> Secret {
    Secret {
        id: id(secret),
        owner: owner("alice"),
        name: SecretName::parse(name).unwrap(),
        provider: None,
        version,
        version_id: VersionId::new(Uuid::from_u128(7)),
        sequence: version,
        created_at: Timestamp::from_micros(1),
        updated_at: Timestamp::from_micros(2),
        expiry: None,
    }
}

fn given(secrets: Vec<Secret>) -> Present {
    let count = u64::try_from(secrets.len()).unwrap();
    Present {
        heads: Heads {
            changes: Some(HEAD),
            activity: None,
        },
        versions: secrets
            .iter()
            .map(|s| (s.id, StoredVersions::Fewer))
            .collect(),
        sources: HashSet::new(),
        records: Records::new(),
        active_keys: [KeyId::parse("k").unwrap()].into(),
        names: secrets
            .iter()
            .map(|s| (s.owner.clone(), s.name.clone()))
            .collect(),
        counts: [(owner("alice"), count)].into(),
        secrets: secrets
            .into_iter()
            .map(|secret| (secret.id, secret))
            .collect(),
        tokens: HashMap::new(),
    }
}

/// Pieces of work of one change each.
fn singles(changes: Vec<Change>) -> Vec<Work> {
    changes.into_iter().map(Work::Change).collect()
}

/// What came of the changes that came alone.
fn single(plan: &Plan<'_>) -> Vec<Result<Applied, Refusal>> {
    let single = |outcome: &Result<Outcome, Refused>| match outcome {
        Ok(Outcome::Changed(applied)) => Ok(applied.clone()),
        Ok(other) => panic!("{other:?}"),
        Err(Refused { index, refusal }) => {
            assert_eq!(*index, 0);
            Err(refusal.clone())
        }
    };
    plan.outcomes.iter().map(single).collect()
}

fn when(present: Present, works: &[Work]) -> Plan<'_> {
    apply(present, works, LIMITS, NOW)
}

fn set(number: u128, changes: Vec<Change>) -> Work {
    let id = ChangeSetId::new(Uuid::from_u128(number));
    Work::Set(ChangeSet {
        id,
        changes,
        once: None,
    })
}

fn change_event(entry: &LogEntry) -> &ChangeEvent {
    match &entry.placed.event {
        Event::Change(event) => event,
        Event::Access(_)
        | Event::Token(_)
        | Event::Key(_)
        | Event::Epoch(_)
        | Event::Denied(_)
        | Event::Lockdown(_) => {
            panic!("{entry:?}")
        }
    }
}

/// (position, sequence, version, previous) of each event.
fn events(plan: &Plan<'_>) -> Vec<(u64, u64, u64, Option<u64>)> {
    let events = plan.writes.events.iter();
    events
        .map(|entry| (entry.placed.position, change_event(entry)))
        .map(|(position, e)| (position, e.sequence, e.version, e.previous_version))
        .collect()
}

#[test]
fn a_new_secret_is_version_one_and_follows_the_head() {
    let works = singles(vec![create(1, "A")]);
    let plan = when(given(vec![]), &works);
    assert!(matches!(&single(&plan)[0], Ok(Applied::Created(s)) if s.version == 1));
    assert_eq!(plan.writes.created.len(), 1);
    assert_eq!(events(&plan), [(11, 1, 1, None)]);
    assert_eq!(plan.writes.events[0].placed.epoch, 3);
}

#[test]
fn events_form_a_chain_over_their_canonical_bodies() {
    let works = singles(vec![update(1, 8, None), update(1, 9, None)]);
    let plan = when(given(vec![stored(1, "A", 1)]), &works);
    let mut previous = [9; HASH_BYTES];
    for entry in &plan.writes.events {
        let entry = &entry.placed;
        let mut body: serde_json::Value = serde_json::from_slice(&entry.body).unwrap();
        let object = body.as_object_mut().unwrap();
        assert_eq!(object.remove("prev_hash").unwrap(), hex::encode(previous));
        assert_eq!(object.remove("hash").unwrap(), hex::encode(entry.hash));
        // serde_json's map is sorted, and so are the struct's fields: both forms are RFC 8785.
        let canonical = serde_json::to_vec(&body).unwrap();
        assert_eq!(blake2b_256(&[&previous, &canonical]), entry.hash);
        previous = entry.hash;
    }
}

#[test]
fn of_two_writers_with_the_same_precondition_one_wins() {
    let expected = || Some(IfMatch::Versions(vec![4]));
    let works = singles(vec![update(1, 8, expected()), update(1, 9, expected())]);
    let plan = when(given(vec![stored(1, "A", 4)]), &works);
    assert!(matches!(&single(&plan)[0], Ok(Applied::Updated(s)) if s.version == 5));
    assert_eq!(
        single(&plan)[1],
        Err(Refusal::PreconditionFailed { version: 5 })
    );
    assert_eq!(events(&plan), [(11, 5, 5, Some(4))]);
}

#[test]
fn a_name_is_created_once() {
    let works = singles(vec![create(1, "A"), create(2, "a")]);
    let plan = when(given(vec![]), &works);
    assert!(single(&plan)[0].is_ok());
    assert_eq!(single(&plan)[1], Err(Refusal::NameTaken));
    assert_eq!(plan.writes.created.len(), 1);
}

#[test]
fn a_deleted_name_is_free_in_the_same_batch() {
    let works = singles(vec![delete(1), create(2, "A"), update(1, 9, None)]);
    let plan = when(given(vec![stored(1, "A", 2)]), &works);
    assert_eq!(single(&plan)[0], Ok(Applied::Deleted));
    assert!(matches!(single(&plan)[1], Ok(Applied::Created(_))));
    assert_eq!(single(&plan)[2], Err(Refusal::NotFound));
    assert_eq!(plan.writes.deleted, [id(1)]);
    assert_eq!(plan.writes.created[0].id, id(2));
    // A deletion keeps the version and its ID, and counts as a change.
    assert_eq!(events(&plan), [(11, 3, 2, Some(2)), (12, 1, 1, None)]);
    assert_eq!(
        change_event(&plan.writes.events[0]).version_id.get(),
        Uuid::from_u128(7)
    );
}

#[test]
fn a_secret_created_and_deleted_in_one_batch_leaves_only_its_events() {
    let works = singles(vec![create(1, "A"), update(1, 8, None), delete(1)]);
    let plan = when(given(vec![]), &works);
    assert!(single(&plan).iter().all(Result::is_ok));
    assert_eq!(
        events(&plan),
        [(11, 1, 1, None), (12, 2, 2, Some(1)), (13, 3, 2, Some(2))]
    );
    let rest = Writes {
        events: plan.writes.events.clone(),
        ..Writes::default()
    };
    assert_eq!(plan.writes, rest);
}

#[test]
fn a_refusal_does_not_affect_other_changes_of_the_batch() {
    let foreign = change("bob", 1, Action::Delete { if_match: None });
    let works = singles(vec![foreign, update(2, 8, None), update(1, 9, None)]);
    let plan = when(given(vec![stored(1, "A", 1)]), &works);
    assert_eq!(single(&plan)[0], Err(Refusal::NotFound));
    assert_eq!(single(&plan)[1], Err(Refusal::NotFound));
    assert!(single(&plan)[2].is_ok());
    assert_eq!(events(&plan), [(11, 2, 2, Some(1))]);
}

#[test]
fn updated_at_strictly_rises_whatever_the_clock_says() {
    let ahead = Secret {
        updated_at: Timestamp::from_micros(5_000_000),
        ..stored(1, "A", 1)
    };
    let works = singles(vec![update(1, 8, None), update(1, 9, None)]);
    let plan = when(given(vec![ahead]), &works);
    let times: Vec<i64> = plan
        .writes
        .events
        .iter()
        .map(|e| e.placed.event.occurred_at().micros())
        .collect();
    assert_eq!(times, [5_000_001, 5_000_002]);
}

#[test]
fn the_limit_of_an_owner_holds_inside_a_batch() {
    let present = given(vec![stored(1, "A", 1), stored(2, "B", 1)]);
    let works = singles(vec![
        create(3, "C"),
        create(4, "D"),
        delete(1),
        create(5, "E"),
    ]);
    let plan = when(present, &works);
    assert!(single(&plan)[0].is_ok());
    assert_eq!(single(&plan)[1], Err(Refusal::LimitReached));
    assert!(single(&plan)[2].is_ok() && single(&plan)[3].is_ok());
}

#[test]
fn a_key_that_is_not_active_seals_nothing() {
    let mut present = given(vec![stored(1, "A", 1)]);
    present.active_keys.clear();
    let works = singles(vec![update(1, 8, None), delete(1)]);
    let plan = when(present, &works);
    assert_eq!(
        single(&plan)[0],
        Err(Refusal::KeyNotActive(KeyId::parse("k").unwrap()))
    );
    assert_eq!(single(&plan)[1], Ok(Applied::Deleted));
}

fn access() -> Access {
    Access {
        event_id: EventId::new(Uuid::from_u128(5)),
        context: context(),
        owner: owner("alice"),
        secret_id: id(1),
        name: SecretName::parse("A").unwrap(),
        provider: None,
        version: 4,
        version_id: VersionId::new(Uuid::from_u128(6)),
    }
}

#[test]
fn accesses_go_to_their_own_log_with_its_own_chain() {
    let access = access();
    let activity = Head {
        position: 70,
        ..HEAD
    };
    let present = Present {
        heads: Heads {
            changes: Some(HEAD),
            activity: Some(activity),
        },
        ..given(vec![stored(1, "A", 4)])
    };
    let works = [
        Work::Accesses(vec![access.clone(), access]),
        set(1, vec![update(1, 8, None)]),
    ];
    let plan = apply(present, &works, LIMITS, NOW);
    assert_eq!(plan.outcomes[0], Ok(Outcome::Recorded));
    let places: Vec<_> = plan
        .writes
        .events
        .iter()
        .map(|entry| (entry.placed.event.log(), entry.placed.position))
        .collect();
    let wanted = [(Log::Activity, 71), (Log::Activity, 72), (Log::Changes, 11)];
    assert_eq!(places, wanted);
    let body: serde_json::Value =
        serde_json::from_slice(&plan.writes.events[1].placed.body).unwrap();
    assert_eq!(
        body["prev_hash"],
        hex::encode(plan.writes.events[0].placed.hash)
    );
    let keys: Vec<_> = body.as_object().unwrap().keys().cloned().collect();
    let mut sorted = keys.clone();
    sorted.sort();
    assert_eq!(keys, sorted);
    assert!(!keys.contains(&"sequence".to_owned()));
}

fn denial() -> Denial {
    Denial {
        event_id: EventId::new(Uuid::from_u128(7)),
        agent: None,
        owner: None,
        token_id: None,
        origin: Origin::default(),
        request_id: None,
        method: Some("GET"),
        route: None,
        status: 403,
        left_out: 0,
    }
}

#[test]
fn nothing_is_applied_to_a_log_that_is_locked_down_but_denials_are_recorded() {
    let locked = Some(Head {
        locked_down: true,
        ..HEAD
    });
    let access = access();
    let works = [
        Work::Change(create(2, "B")),
        set(1, vec![update(1, 8, None)]),
        Work::Change(delete(1)),
        Work::Accesses(vec![access]),
        Work::Denials(vec![denial()]),
    ];
    let present = |changes, activity| Present {
        heads: Heads { changes, activity },
        ..given(vec![stored(1, "A", 4)])
    };
    let plan = apply(present(locked, locked), &works, LIMITS, NOW);
    let refused = Err(Refused {
        index: 0,
        refusal: Refusal::LockedDown,
    });
    let (denied, others) = plan.outcomes.split_last().unwrap();
    assert_eq!(*denied, Ok(Outcome::Recorded));
    assert!(others.iter().all(|outcome| *outcome == refused));
    assert_eq!(plan.writes.events.len(), 1);
    let plan = apply(present(Some(HEAD), Some(HEAD)), &works, LIMITS, NOW);
    assert!(
        plan.outcomes.iter().all(Result::is_ok),
        "{:?}",
        plan.outcomes
    );
}
