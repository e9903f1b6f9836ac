//! When secrets expire, and who is told.

use std::time::Duration;

use super::*;
use crate::domain::{Announcement, Expiry};

const LEAD: Duration = Duration::from_secs(1);
const EXPIRING: Announcement = Announcement::Expiring { lead: LEAD };

fn at(micros_after_now: i64) -> Timestamp {
    Timestamp::from_micros(NOW.micros() + micros_after_now)
}

fn expiring_at(expiry: Expiry) -> Present {
    let secret = Secret {
        expiry: Some(expiry),
        ..stored(1, "A", 7)
    };
    given(vec![secret])
}

fn set(expires_at: Option<Timestamp>, if_match: Option<IfMatch>) -> Change {
    let action = Action::SetExpiry {
        expires_at,
        if_match,
    };
    change("alice", 1, action)
}

fn announce(announcement: Announcement) -> Change {
    change("alice", 1, Action::Announce(announcement))
}

fn kinds(plan: &Plan<'_>) -> Vec<EventKind> {
    let events = plan.writes.events.iter();
    events.map(|entry| change_event(entry).kind).collect()
}

#[test]
fn an_expiry_is_set_and_taken_back_with_an_event_each_and_the_value_stays() {
    let works = singles(vec![set(Some(at(5)), None), set(None, None)]);
    let plan = when(given(vec![stored(1, "A", 7)]), &works);
    assert_eq!(kinds(&plan), [EventKind::ExpiryChanged; 2]);
    let [first, second] = [0, 1].map(|index: usize| change_event(&plan.writes.events[index]));
    assert_eq!((first.expires_at, second.expires_at), (Some(at(5)), None));
    assert_eq!((first.version, first.previous_version), (7, Some(7)));
    assert_eq!((first.sequence, second.sequence), (8, 9));
    assert_eq!(plan.writes.updated[0].expiry, None);
    assert!(plan.writes.versions.is_empty());
}

#[test]
fn a_time_that_has_passed_is_refused_and_the_same_time_changes_nothing() {
    for passed in [at(0), at(-1)] {
        let works = singles(vec![set(Some(passed), None)]);
        let plan = when(given(vec![stored(1, "A", 7)]), &works);
        assert_eq!(single(&plan)[0], Err(Refusal::Passed));
    }
    let works = singles(vec![set(Some(at(5)), None)]);
    let plan = when(expiring_at(Expiry::new(at(5))), &works);
    assert!(matches!(single(&plan)[0], Ok(Applied::ExpirySet(_))));
    assert_eq!(plan.writes, Writes::default());
    let stale = Some(IfMatch::Versions(vec![6]));
    let works = singles(vec![set(Some(at(-1)), stale)]);
    let plan = when(given(vec![stored(1, "A", 7)]), &works);
    let failed = Err(Refusal::PreconditionFailed { version: 7 });
    assert_eq!(single(&plan)[0], failed);
}

#[test]
fn each_expiry_is_told_of_once_and_in_order() {
    let all = [
        EXPIRING,
        Announcement::Expired,
        EXPIRING,
        Announcement::Expired,
    ];
    let works = singles(all.map(announce).into());
    let plan = when(expiring_at(Expiry::new(at(0))), &works);
    assert_eq!(kinds(&plan), [EventKind::Expiring, EventKind::Expired]);
    assert_eq!(
        single(&plan)[2..],
        [Err(Refusal::NotDue), Err(Refusal::NotDue)]
    );
    let expiry = plan.writes.updated[0].expiry.unwrap();
    assert_eq!(
        expiry.expiring_at,
        Some(plan.writes.updated[0].updated_at.min(NOW))
    );
    assert!(expiry.expired_at > expiry.expiring_at);
    // Not yet: `secret.expired` never comes first.
    for (expiry, announcement) in [
        (Expiry::new(at(1_000_001)), EXPIRING),
        (Expiry::new(at(0)), Announcement::Expired),
        (Expiry::new(at(1)), Announcement::Expired),
    ] {
        let works = singles(vec![announce(announcement)]);
        let plan = when(expiring_at(expiry), &works);
        assert_eq!(single(&plan)[0], Err(Refusal::NotDue));
    }
    let works = singles(vec![announce(EXPIRING)]);
    assert_eq!(
        single(&when(given(vec![stored(1, "A", 7)]), &works))[0],
        Err(Refusal::NotDue)
    );
}

#[test]
fn a_new_value_or_another_time_begins_anew() {
    let told = Expiry {
        at: at(0),
        expiring_at: Some(at(-9)),
        expired_at: Some(at(-8)),
    };
    let works = singles(vec![update(1, 20, None)]);
    let plan = when(expiring_at(told), &works);
    assert_eq!(plan.writes.updated[0].expiry, None);
    assert_eq!(change_event(&plan.writes.events[0]).expires_at, None);
    let works = singles(vec![set(Some(at(5)), None), announce(EXPIRING)]);
    let plan = when(expiring_at(told), &works);
    assert_eq!(
        kinds(&plan),
        [EventKind::ExpiryChanged, EventKind::Expiring]
    );
}
