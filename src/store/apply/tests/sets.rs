//! The same for change sets.

use super::*;

#[test]
fn a_change_set_is_applied_whole_and_its_events_say_so() {
    let given = given(vec![stored(1, "A", 1), stored(2, "B", 4)]);
    let works = [set(77, vec![update(2, 8, None), update(1, 9, None)])];
    let plan = apply(given, &works, LIMITS, NOW);
    let Ok(Outcome::Set(_, applied)) = &plan.outcomes[0] else {
        panic!("{plan:?}");
    };
    assert!(
        matches!(&applied[..], [Applied::Updated(b), Applied::Updated(a)]
        if (b.version, a.version) == (5, 2))
    );
    let sets: Vec<_> = plan
        .writes
        .events
        .iter()
        .map(|entry| change_event(entry).change_set.unwrap())
        .map(|set| (set.id.get().as_u128(), set.index, set.size))
        .collect();
    assert_eq!(sets, [(77, 0, 2), (77, 1, 2)]);
}

#[test]
fn a_change_set_with_one_refusal_changes_nothing_and_other_changes_are_applied() {
    let given = given(vec![stored(1, "A", 1), stored(2, "B", 4)]);
    let works = [
        set(
            77,
            vec![update(1, 8, None), create(5, "C"), update(9, 9, None)],
        ),
        set(78, vec![update(2, 10, None), create(6, "C")]),
    ];
    let plan = apply(given, &works, LIMITS, NOW);
    let refused = Refused {
        index: 2,
        refusal: Refusal::NotFound,
    };
    assert_eq!(plan.outcomes[0], Err(refused));
    assert!(plan.outcomes[1].is_ok());
    let positions: Vec<_> = plan
        .writes
        .events
        .iter()
        .map(|e| e.placed.position)
        .collect();
    assert_eq!(positions, [11, 12]);
    assert_eq!(plan.writes.updated.len(), 1);
    assert_eq!(plan.writes.created.len(), 1);
}

#[test]
fn a_refused_set_takes_back_all_that_it_changed() {
    let present = || given(vec![stored(1, "A", 4), stored(2, "B", 1)]);
    // Everything that a set can do to a secret, once more to one that has changed before in this batch.
    let refused = || {
        vec![
            update(1, 20, None),
            delete(2),
            create(3, "B"),
            update(3, 21, None),
            delete(1),
            create(4, "A"),
            update(9, 22, None),
        ]
    };
    let around = |works: Vec<Work>| {
        let mut all = singles(vec![update(1, 8, None)]);
        all.extend(works);
        all.extend(singles(vec![
            update(1, 9, None),
            create(5, "C"),
            create(6, "D"),
            create(7, "A"),
        ]));
        all
    };
    let works = around(vec![set(77, refused())]);
    let with = when(present(), &works);
    let works = around(vec![]);
    let without = when(present(), &works);
    assert_eq!(
        with.outcomes[1],
        Err(Refused {
            index: 6,
            refusal: Refusal::NotFound,
        })
    );
    let rest: Vec<_> = with
        .outcomes
        .iter()
        .take(1)
        .chain(&with.outcomes[2..])
        .collect();
    assert_eq!(rest, without.outcomes.iter().collect::<Vec<_>>());
    assert_eq!(with.writes, without.writes);
}
