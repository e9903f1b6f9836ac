//! Rows of secrets and versions that are not as the log says: the value does not leave.

use crate::support::fixture::World;
use crate::support::metrics;
use serde_json::json;

/// The last value of Alice's secret A, which has three, and the only one of her secret B.
const LAST: &str = "sk-a-3";
const OTHER: &str = "sk-b-1";

/// What somebody may do to the tables to have an older or another value handed out. `{a}` and `{b}` stand for the
/// IDs of A and B; the rows of A as they were with its second value are in `old_secrets` and `old_versions`.
const ATTACKS: [&[&str]; 12] = [
    &["UPDATE secrets SET version = version - 1 WHERE id = {a}"],
    &["UPDATE secrets SET version = 1, sequence = 1 WHERE id = {a}"],
    &[
        "UPDATE secret_versions SET version = 90 WHERE secret_id = {a} AND version = 2",
        "UPDATE secret_versions SET version = 2 WHERE secret_id = {a} AND version = 3",
        "UPDATE secret_versions SET version = 3 WHERE secret_id = {a} AND version = 90",
    ],
    &[
        "UPDATE secrets SET name = 'C' WHERE id = {a}",
        "UPDATE secrets SET name = 'A' WHERE id = {b}",
        "UPDATE secrets SET name = 'B' WHERE id = {a}",
    ],
    &["UPDATE secrets SET name = 'C' WHERE id = {a}"],
    &["UPDATE secrets SET provider = 'github' WHERE id = {a}"],
    &["UPDATE secrets SET sequence = sequence + 1 WHERE id = {a}"],
    &["UPDATE secrets SET updated_at = updated_at + 1 WHERE id = {a}"],
    &["UPDATE secret_versions SET version_id = {b} WHERE secret_id = {a} AND version = 3"],
    &[
        "DELETE FROM secrets WHERE id = {a}",
        "INSERT INTO secrets SELECT * FROM old_secrets",
    ],
    &[
        "DELETE FROM secrets WHERE id = {a}",
        "DELETE FROM secret_versions WHERE secret_id = {a}",
        "INSERT INTO secrets SELECT * FROM old_secrets",
        "INSERT INTO secret_versions SELECT * FROM old_versions",
    ],
    &["DELETE FROM events WHERE log = 'changes' AND secret_id = {a}"],
];

/// Runs statements with the IDs of A and B in their places.
fn attack(world: &World, statements: &[&str], a: &str, b: &str) {
    for statement in statements {
        let sql = statement
            .replace("{a}", &world.id_literal(a))
            .replace("{b}", &world.id_literal(b));
        world.deployment.sql(&sql);
    }
}

/// A world with A and B, and a copy of A's rows as they were with its second value.
async fn world_with_secrets(world: &World) -> (String, String) {
    let create = async |name, value| {
        let created = world.alice.create(name, value).await;
        created.unwrap().expect(201).id()
    };
    let (a, b) = (create("A", "sk-a-1").await, create("B", OTHER).await);
    world.alice.put(&a, "sk-a-2").await.unwrap().expect(200);
    attack(
        world,
        &[
            "CREATE TABLE old_secrets AS SELECT * FROM secrets WHERE id = {a}",
            "CREATE TABLE old_versions AS SELECT * FROM secret_versions WHERE secret_id = {a}",
        ],
        &a,
        &b,
    );
    world.alice.put(&a, LAST).await.unwrap().expect(200);
    (a, b)
}

#[tokio::test]
async fn no_value_leaves_that_is_not_the_last_one_of_its_name() {
    for statements in ATTACKS {
        for world in World::both() {
            let (a, b) = world_with_secrets(&world).await;
            let asked = json!({"names": ["A"]});
            world.alice.resolve(&asked).await.unwrap().expect(200);
            attack(&world, statements, &a, &b);
            for (asked, value) in [
                (json!({"names": ["A"]}), LAST),
                (json!({"names": ["B"]}), OTHER),
                (json!({"names": ["C"]}), ""),
                (json!({"ids": [a]}), LAST),
                (json!({"ids": [b]}), OTHER),
            ] {
                let answer = world.alice.resolve(&asked).await.unwrap();
                match answer.status {
                    200 => {
                        let handed_out = &answer.json()["secrets"][0];
                        assert_eq!(handed_out["value"], value, "{statements:?} {asked}");
                    }
                    404 | 500 => {}
                    other => panic!("{statements:?} {asked}: {other}"),
                }
            }
            let answer = world.alice.resolve(&json!({"ids": [a]})).await;
            answer.unwrap().expect(500);
        }
    }
}

#[tokio::test]
async fn a_deleted_secret_whose_rows_come_back_stays_deleted() {
    for world in World::both() {
        let (a, b) = world_with_secrets(&world).await;
        world.alice.delete(&a).await.unwrap().expect(204);
        let back = [
            "INSERT INTO secrets SELECT * FROM old_secrets",
            "INSERT INTO secret_versions SELECT * FROM old_versions",
        ];
        attack(&world, &back, &a, &b);
        let answer = world.alice.resolve(&json!({"names": ["A"]})).await;
        answer.unwrap().expect(500);
    }
}

#[tokio::test]
async fn a_disagreement_is_one_line_and_one_count_and_hands_nothing_else_out() {
    let world = World::sqlite();
    let (a, b) = world_with_secrets(&world).await;
    attack(&world, ATTACKS[0], &a, &b);
    let answer = world.alice.resolve(&json!({"names": ["B", "A"]})).await;
    answer.unwrap().expect(500);
    let log = world.replica.stderr();
    let line = format!("the row of secret {a} is not as the log says");
    assert_eq!(log.matches(&line).count(), 1, "{log}");
    let text = metrics::scrape(&world.anonymous()).await;
    let counted: Option<u64> = metrics::sample(&text, "rekey_disagreeing_secrets_total");
    assert_eq!(counted, Some(1));
    // Nothing was recorded as handed out.
    let accessed = "log=activity&type=secret.accessed";
    let events = world.auditor.events(accessed).await.unwrap().json();
    assert_eq!(events["events"], json!([]));
}
