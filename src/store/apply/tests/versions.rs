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
