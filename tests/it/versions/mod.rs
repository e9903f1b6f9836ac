//! The versions of a secret: those that are kept are listed, and one of them can be restored.

use crate::support::events::all;
use crate::support::fixture::{self, World};
use crate::support::service::{Answer, Client};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const LIST: &str = "/api/v1/user/secrets";

fn value(number: usize) -> String {
    format!("sk-of-the-version-number-{number:03}")
}

fn mask(number: usize) -> String {
    format!("sk-of-••••{number:03}")
}

async fn versions(client: &Client, id: &str) -> Value {
    let path = format!("{LIST}/{id}/versions");
    client.fetch(&path).await.unwrap().expect(200).json()
}

async fn restore(client: &Client, id: &str, version: Value) -> Answer {
    let path = format!("{LIST}/{id}/restore");
    client
        .post(&path, &json!({"version": version}))
        .await
        .unwrap()
}

/// A secret with so many versions.
async fn secret(client: &Client, count: usize) -> String {
    let created = client.create("KEY", &value(1)).await.unwrap();
    let id = created.expect(201).id();
    for number in 2..=count {
        client.put(&id, &value(number)).await.unwrap().expect(200);
    }
    id
}

async fn current(client: &Client, id: &str) -> Value {
    let answer = client.resolve(&json!({"ids": [id]})).await.unwrap();
    answer.expect(200).json()["secrets"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_versions_that_are_kept_are_listed_newest_first() {
    for world in World::both() {
        let alice = &world.alice;
        let id = secret(alice, 12).await;
        let list = versions(alice, &id).await;
        assert_eq!(list["total"], 10);
        assert_eq!(list["expires_at"], Value::Null);
        let history = alice.fetch(&format!("{LIST}/{id}/events")).await.unwrap();
        let history = history.expect(200).json();
        let events = history["events"].as_array().unwrap();
        let listed = list["versions"].as_array().unwrap();
        assert_eq!(listed.len(), 10);
        for (number, (version, event)) in (3..=12).rev().zip(listed.iter().zip(events)) {
            let expected = json!({
                "version": number, "masked_value": mask(number), "created_at": event["occurred_at"],
                "created_by": event["actor"], "state": if number == 12 { "current" } else { "previous" },
            });
            assert_eq!(*version, expected);
        }
        world
            .bob
            .fetch(&format!("{LIST}/{id}/versions"))
            .await
            .unwrap()
            .expect(404);
        alice.delete(&id).await.unwrap().expect(204);
        alice
            .fetch(&format!("{LIST}/{id}/versions"))
            .await
            .unwrap()
            .expect(404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_value_is_a_new_version_with_an_event_that_names_its_source() {
    for world in World::both() {
        let alice = &world.alice;
        let id = secret(alice, 3).await;
        let restored = restore(alice, &id, json!(1)).await.expect(200);
        assert_eq!(restored.header("etag"), Some("\"4\""));
        let shown = restored.json();
        assert_eq!(shown["masked_value"], mask(1));
        let got = alice.get(&id).await.unwrap().expect(200);
        assert_eq!(shown, got.json());
        let resolved = current(alice, &id).await;
        assert_eq!(resolved["value"], value(1));
        assert_eq!(
            (&resolved["version"], &resolved["sequence"]),
            (&json!(4), &json!(4))
        );
        let log = all(alice, "").await;
        let last = &log.last().unwrap().event;
        assert_eq!(last["type"], "secret.updated");
        assert_eq!(
            (&last["version"], &last["restored_from"]),
            (&json!(4), &json!(1))
        );
        assert_eq!(log[2].event["restored_from"], Value::Null);
        // The current version, too: it is a new version all the same.
        restore(alice, &id, json!(4)).await.expect(200);
        assert_eq!(current(alice, &id).await["version"], 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_restored_is_refused_and_nothing_changes() {
    for world in World::both() {
        let alice = &world.alice;
        let id = secret(alice, 12).await;
        for (version, kind) in [
            (json!(2), "not_found"),
            (json!(0), "not_found"),
            (json!(13), "not_found"),
            (json!(u64::MAX), "not_found"),
            (json!("3"), "int_type"),
            (json!(3.0), "int_type"),
            (json!(-3), "int_type"),
            (Value::Null, "int_type"),
            (json!([3]), "int_type"),
        ] {
            let refused = restore(alice, &id, version.clone())
                .await
                .expect(422)
                .json();
            let expected = json!({"loc": ["body", "version"], "type": kind});
            let item = &refused["errors"][0];
            assert_eq!(
                json!({"loc": item["loc"], "type": item["type"]}),
                expected,
                "{version}"
            );
        }
        let path = format!("{LIST}/{id}/restore");
        let missing = alice.post(&path, &json!({})).await.unwrap().expect(422);
        assert_eq!(missing.json()["errors"][0]["type"], "missing");
        restore(&world.bob, &id, json!(12)).await.expect(404);
        let unknown = uuid::Uuid::now_v7().to_string();
        restore(alice, &unknown, json!(1)).await.expect(404);
        // The precondition comes before the version.
        for (tag, version, status) in [
            ("\"11\"", 2, 412),
            ("\"12\"", 2, 422),
            ("\"11\"", 5, 412),
            ("\"12\"", 5, 200),
        ] {
            let conditional = alice.with("if-match", tag);
            restore(&conditional, &id, json!(version))
                .await
                .expect(status);
        }
        assert_eq!(current(alice, &id).await["version"], 13);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restores_and_updates_that_race_keep_one_order_and_restore_only_what_is_kept() {
    for deployment in fixture::both() {
        let world = World::of(deployment.set("LIMITS__VERSIONS", "2").raised_limits());
        let alice = &world.alice;
        let id = secret(alice, 2).await;
        let mut tasks = JoinSet::new();
        for task in 0..8 {
            let (alice, id) = (alice.clone(), id.clone());
            tasks.spawn(async move {
                let mut restored = 0;
                for turn in 0..20 {
                    if (task + turn) % 2 == 0 {
                        let answer = alice.put(&id, &value(100 + task)).await.unwrap();
                        answer.expect(200);
                    } else {
                        let listed = versions(&alice, &id).await;
                        let oldest = listed["versions"].as_array().unwrap().last().unwrap();
                        let answer = restore(&alice, &id, oldest["version"].clone()).await;
                        assert!([200, 422].contains(&answer.status), "{}", answer.status);
                        restored += usize::from(answer.status == 200);
                    }
                }
                restored
            });
        }
        let restored: usize = tasks.join_all().await.into_iter().sum();
        assert!(restored > 0);
        let log = all(alice, "").await;
        let sources = log
            .iter()
            .filter(|l| l.event["restored_from"] != Value::Null);
        let mut count = 0;
        for logged in sources {
            let version = logged.event["version"].as_u64().unwrap();
            let source = logged.event["restored_from"].as_u64().unwrap();
            assert!(
                source < version && version - source <= 2,
                "{}",
                logged.event
            );
            count += 1;
        }
        assert_eq!(count, restored);
        assert_eq!(log.len(), 2 + 80 + restored);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_row_was_moved_or_changed_is_neither_shown_nor_restored() {
    for world in World::both() {
        let alice = &world.alice;
        let id = secret(alice, 3).await;
        let literal = world.id_literal(&id);
        let row = |version: usize| format!("secret_id = {literal} AND version = {version}");
        let swap = |from: usize, to: usize| {
            format!(
                "UPDATE secret_versions SET version = {to} WHERE {}",
                row(from)
            )
        };
        let swapped = [swap(1, 900), swap(2, 1), swap(900, 2)];
        let back = [swap(1, 900), swap(2, 1), swap(900, 2)];
        let text = |column: &str, value: &str| {
            [format!(
                "UPDATE secret_versions SET {column} = {value} WHERE {}",
                row(1)
            )]
        };
        let was = world.deployment.sql(&format!(
            "SELECT created_by FROM secret_versions WHERE {}",
            row(1)
        ));
        let was = format!("'{}'", was.trim());
        let by = text("created_by", "'{\"id\":null,\"kind\":\"system\"}'");
        let at = text("created_at", "created_at + 1");
        let cases: [(&[String], &[String]); 3] = [
            (&swapped, &back),
            (&by, &text("created_by", &was)),
            (&at, &text("created_at", "created_at - 1")),
        ];
        for (change, undo) in cases {
            for sql in change {
                world.deployment.sql(sql);
            }
            let path = format!("{LIST}/{id}/versions");
            alice.fetch(&path).await.unwrap().expect(500);
            restore(alice, &id, json!(1)).await.expect(500);
            for sql in undo {
                world.deployment.sql(sql);
            }
            assert_eq!(versions(alice, &id).await["total"], 3);
        }
        assert_eq!(current(alice, &id).await["version"], 3);
    }
}
