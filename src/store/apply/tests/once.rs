//! Requests that are made once.

use std::time::Duration;

use super::*;
use crate::domain::{Answer, IdempotencyKey, Once, OnceName};
use crate::store::idempotency::{Record, StoredRecord};

fn once(key: &str, request: u8) -> Once {
    let key = IdempotencyKey::parse(key).unwrap();
    Once {
        name: OnceName::new(owner("alice"), &context().agent, key),
        request: [request; HASH_BYTES],
    }
}

fn named(change: Change, key: &str, request: u8) -> Work {
    Work::Change(Change {
        once: Some(once(key, request)),
        ..change
    })
}

/// A record of an update of secret 1 that expires so many microseconds after now.
fn recorded(expires_in: i64) -> Present {
    let Once { name, request } = once("k", 1);
    let record = Record {
        request,
        answer: Answer {
            change_set: None,
            applied: vec![Applied::Updated(stored(1, "A", 6))],
        },
        expires_at: Timestamp::from_micros(NOW.micros() + expires_in),
    };
    Present {
        records: [(name, StoredRecord::Good(record))].into(),
        ..given(vec![stored(1, "A", 7)])
    }
}

fn refusal(plan: &Plan<'_>, index: usize) -> Refusal {
    plan.outcomes[index].clone().unwrap_err().refusal
}

#[test]
fn a_request_that_is_made_leaves_its_answer() {
    let works = [named(update(1, 20, None), "k", 1)];
    let plan = when(given(vec![stored(1, "A", 7)]), &works);
    let [record] = &plan.writes.records[..] else {
        panic!("{plan:?}");
    };
    let Ok(Outcome::Changed(applied)) = &plan.outcomes[0] else {
        panic!("{plan:?}");
    };
    assert_eq!(record.answer.applied, std::slice::from_ref(applied));
    assert_eq!((record.answer.change_set, record.created_at), (None, NOW));
    let kept = record.expires_at.apart(NOW);
    assert_eq!(kept, Duration::from_hours(24));
    assert_eq!(*record.once, once("k", 1));
}

#[test]
fn a_request_that_was_made_is_answered_again_and_nothing_is_written() {
    let works = [named(update(1, 20, None), "k", 1)];
    let plan = when(recorded(1), &works);
    let Ok(Outcome::Replayed(answer)) = &plan.outcomes[0] else {
        panic!("{plan:?}");
    };
    assert_eq!(answer.applied, [Applied::Updated(stored(1, "A", 6))]);
    assert_eq!(plan.writes, Writes::default());
}

#[test]
fn a_key_means_one_request_and_one_caller() {
    let works = [
        named(update(1, 20, None), "k", 2),
        named(update(1, 21, None), "other", 2),
    ];
    let plan = when(recorded(1), &works);
    assert_eq!(refusal(&plan, 0), Refusal::KeyReused);
    assert!(matches!(plan.outcomes[1], Ok(Outcome::Changed(_))));
    // The same key of another token.
    let mut change = update(1, 20, None);
    change.context.agent.id = Some("t2".to_owned());
    let name = OnceName::new(owner("alice"), &change.context.agent, once("k", 2).name.key);
    change.once = Some(Once {
        name,
        request: [2; HASH_BYTES],
    });
    let works = [Work::Change(change)];
    let plan = when(recorded(1), &works);
    assert!(matches!(plan.outcomes[0], Ok(Outcome::Changed(_))));
}

#[test]
fn an_expired_record_is_written_anew() {
    let works = [named(update(1, 20, None), "k", 2)];
    let plan = when(recorded(0), &works);
    assert!(matches!(plan.outcomes[0], Ok(Outcome::Changed(_))));
    assert_eq!(plan.writes.records.len(), 1);
}

#[test]
fn of_two_in_one_batch_the_second_is_answered_as_the_first_was() {
    let works = [
        named(update(1, 20, None), "k", 1),
        named(update(1, 21, None), "k", 1),
        named(update(1, 22, None), "k", 2),
    ];
    let plan = when(given(vec![stored(1, "A", 7)]), &works);
    let (Ok(Outcome::Changed(made)), Ok(Outcome::Replayed(again))) =
        (&plan.outcomes[0], &plan.outcomes[1])
    else {
        panic!("{plan:?}");
    };
    assert_eq!(again.applied, std::slice::from_ref(made));
    assert_eq!(refusal(&plan, 2), Refusal::KeyReused);
    assert_eq!(plan.writes.events.len(), 1);
    assert_eq!(plan.writes.records.len(), 1);
}

#[test]
fn a_refusal_leaves_no_record_and_the_record_comes_before_the_secret() {
    let stale = Some(IfMatch::Versions(vec![6]));
    let works = [
        named(update(1, 20, stale), "k", 1),
        named(update(1, 21, None), "k", 2),
    ];
    let plan = when(given(vec![stored(1, "A", 7)]), &works);
    assert_eq!(
        refusal(&plan, 0),
        Refusal::PreconditionFailed { version: 7 }
    );
    assert!(matches!(plan.outcomes[1], Ok(Outcome::Changed(_))));
    // The secret is gone meanwhile, and the answer stands.
    let deleted = Present {
        secrets: HashMap::new(),
        ..recorded(1)
    };
    let works = [named(update(1, 20, None), "k", 1)];
    let plan = when(deleted, &works);
    assert!(matches!(plan.outcomes[0], Ok(Outcome::Replayed(_))));
}

#[test]
fn a_set_is_answered_again_with_its_own_id() {
    let id = ChangeSetId::new(Uuid::from_u128(77));
    let set = |id| {
        Work::Set(ChangeSet {
            id,
            changes: vec![update(1, 20, None), update(2, 21, None)],
            once: Some(once("k", 1)),
        })
    };
    let works = [set(id), set(ChangeSetId::new(Uuid::from_u128(78)))];
    let present = given(vec![stored(1, "A", 7), stored(2, "B", 3)]);
    let plan = when(present, &works);
    let Ok(Outcome::Replayed(answer)) = &plan.outcomes[1] else {
        panic!("{plan:?}");
    };
    assert_eq!((answer.change_set, answer.applied.len()), (Some(id), 2));
    // One that is refused leaves nothing.
    let works = [set(id)];
    let plan = when(given(vec![stored(1, "A", 7)]), &works);
    assert_eq!(refusal(&plan, 0), Refusal::NotFound);
    assert!(plan.writes.records.is_empty());
}

#[test]
fn a_record_that_somebody_changed_refuses_its_request_alone() {
    let present = Present {
        records: [(once("k", 1).name, StoredRecord::Altered)].into(),
        ..given(vec![stored(1, "A", 7)])
    };
    let works = [
        named(update(1, 20, None), "k", 1),
        named(update(1, 21, None), "other", 1),
    ];
    let plan = when(present, &works);
    assert_eq!(refusal(&plan, 0), Refusal::RecordAltered);
    assert!(matches!(plan.outcomes[1], Ok(Outcome::Changed(_))));
}
