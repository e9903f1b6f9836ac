//! Which versions are written, and which are pushed out.

use std::ops::RangeInclusive;

use uuid::Uuid;

use super::{
    super::writes::{Overwritten, PushedOut, Surplus},
    *,
};

fn pushed_out(secret: u128, versions: RangeInclusive<u64>) -> PushedOut {
    PushedOut {
        secret_id: id(secret),
        versions,
    }
}

fn versions_written(plan: &Plan<'_>) -> Vec<u64> {
    plan.writes
        .versions
        .iter()
        .map(|version| version.version)
        .collect()
}

#[test]
fn more_updates_than_are_kept_write_the_last_and_push_out_the_rest() {
    let updates: Vec<Change> = (0..5).map(|n| update(1, 20 + n, None)).collect();
    let works = singles(updates);
    let plan = when(given(vec![stored(1, "A", 2)]), &works);
    assert_eq!(versions_written(&plan), [5, 6, 7]);
    assert_eq!(plan.writes.pushed_out, [pushed_out(1, 1..=2)]);
    assert_eq!(plan.writes.updated[0].version, 7);
    assert_eq!(plan.writes.events.len(), 5);
}

#[test]
fn versions_that_a_higher_limit_kept_are_pushed_out_too() {
    let works = singles((0..5).map(|n| update(1, 20 + n, None)).collect());
    let present = given(vec![stored(1, "A", 5_000)]);
    let plan = when(present.clone(), &works);
    assert_eq!(plan.writes.pushed_out, [pushed_out(1, 4_998..=5_000)]);
    let present = Present {
        versions: [(id(1), StoredVersions::More)].into(),
        ..present
    };
    // However many there are.
    let plan = when(present, &works);
    assert_eq!(plan.writes.pushed_out, []);
    let surplus = Surplus {
        secret_id: id(1),
        highest: 5_000,
    };
    assert_eq!(plan.writes.surplus, [surplus]);
}

#[test]
fn the_oldest_version_is_overwritten_where_its_key_is_the_same() {
    let present = |key: &str| Present {
        versions: [(id(1), StoredVersions::AsMany(KeyId::parse(key).unwrap()))].into(),
        ..given(vec![stored(1, "A", 7)])
    };
    let one = singles(vec![update(1, 20, None)]);
    let plan = when(present("k"), &one);
    let [Overwritten { old: 5, new }] = plan.writes.overwritten[..] else {
        panic!("{plan:?}");
    };
    assert_eq!((new.version, new.secret_id), (8, id(1)));
    assert_eq!(new.sealed.version_id.get(), Uuid::from_u128(20));
    assert!(plan.writes.versions.is_empty() && plan.writes.pushed_out.is_empty());
    // Under another key it is a row of its own.
    let plan = when(present("old"), &one);
    assert_eq!(plan.writes.overwritten, []);
    assert_eq!(versions_written(&plan), [8]);
    assert_eq!(plan.writes.pushed_out, [pushed_out(1, 5..=5)]);
    // Of several one is overwritten: the keys of the others were not read.
    let several = singles((0..5).map(|n| update(1, 20 + n, None)).collect());
    let plan = when(present("k"), &several);
    let pairs: Vec<_> = plan
        .writes
        .overwritten
        .iter()
        .map(|o| (o.old, o.new.version))
        .collect();
    assert_eq!(pairs, [(5, 10)]);
    assert_eq!(versions_written(&plan), [11, 12]);
    assert_eq!(plan.writes.pushed_out, [pushed_out(1, 6..=7)]);
}

#[test]
fn a_secret_that_is_deleted_overwrites_nothing() {
    let present = Present {
        versions: [(id(1), StoredVersions::AsMany(KeyId::parse("k").unwrap()))].into(),
        ..given(vec![stored(1, "A", 7)])
    };
    let works = singles(vec![update(1, 20, None), delete(1)]);
    let plan = when(present, &works);
    assert_eq!(plan.writes.overwritten, []);
    assert_eq!(plan.writes.deleted, [id(1)]);
}

fn name(version: u64) -> VersionName {
    VersionName {
        version,
        version_id: VersionId::new(Uuid::from_u128(version.into())),
    }
}

fn restore(version: u64, source: VersionName, if_match: Option<IfMatch>) -> Change {
    let action = Action::Update {
        sealed: sealed(version.into()),
        restored_from: Some(source),
        if_match,
    };
    change("alice", 1, action)
}

#[test]
fn a_restored_value_is_a_new_version_that_names_its_source() {
    let present = Present {
        sources: [(id(1), name(5))].into(),
        ..given(vec![stored(1, "A", 7)])
    };
    let works = singles(vec![restore(20, name(5), None)]);
    let plan = when(present, &works);
    assert_eq!(versions_written(&plan), [8]);
    let event = change_event(&plan.writes.events[0]);
    assert_eq!((event.version, event.restored_from), (8, Some(5)));
    assert_eq!(event.kind, EventKind::Updated);
}

#[test]
fn a_version_that_is_not_there_any_more_is_not_restored() {
    let there = || Present {
        sources: [(id(1), name(5))].into(),
        ..given(vec![stored(1, "A", 7)])
    };
    let gone = Err(Refusal::VersionGone);
    // Never there, or another one of that number.
    let other = VersionName {
        version: 5,
        ..name(9)
    };
    for source in [name(4), other] {
        let works = singles(vec![restore(20, source, None)]);
        assert_eq!(single(&when(there(), &works))[0], gone, "{source:?}");
    }
    // Pushed out by what comes before it in the batch: three are kept.
    let works = singles(vec![update(1, 20, None), restore(21, name(5), None)]);
    let plan = when(there(), &works);
    assert_eq!(single(&plan)[1], gone);
    assert_eq!(versions_written(&plan), [8]);
    let works = singles(vec![delete(1), restore(21, name(5), None)]);
    assert_eq!(single(&when(there(), &works))[1], Err(Refusal::NotFound));
    // The precondition comes first.
    let works = singles(vec![restore(20, name(4), Some(IfMatch::Versions(vec![6])))]);
    let failed = Err(Refusal::PreconditionFailed { version: 7 });
    assert_eq!(single(&when(there(), &works))[0], failed);
}
