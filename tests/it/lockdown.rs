//! `rekey lockdown`: no value leaves and no change is made until it is off.

use crate::support::document::event_faults;
use crate::support::envelope::assert_error;
use crate::support::events::all;
use crate::support::fixture::{World, batch};
use crate::support::metrics::{sample, scrape};
use crate::support::service::Answer;
use serde_json::{Value, json};

const PRESET: &str = "/api/v1/user/secrets/preset";

fn assert_locked(answer: Result<Answer, reqwest::Error>) {
    let detail = "The service is locked down";
    assert_error(&answer.unwrap(), 403, "permission_error", detail, &[]);
}

/// The names of the events of a log, oldest first.
async fn kinds(world: &World, query: &str) -> Vec<String> {
    let events = all(&world.auditor, query).await;
    events
        .iter()
        .map(|event| event.text("type").to_owned())
        .collect()
}

/// Whatever changes a secret or hands a value out is refused.
async fn assert_all_locked(world: &World, id: &str) {
    let (alice, names) = (&world.alice, json!({"names": ["A"]}));
    assert_locked(alice.resolve(&names).await);
    assert_locked(alice.put(id, "two").await);
    assert_locked(alice.create("B", "one").await);
    let preset = json!({"provider": "openai", "value": "x"});
    assert_locked(alice.post(PRESET, &preset).await);
    assert_eq!(batch(alice, &[(id, "two".to_owned())]).await, 403);
    assert_locked(alice.delete(id).await);
    // What shows no value still answers.
    alice.list().await.unwrap().expect(200);
    alice.get(id).await.unwrap().expect(200);
    alice.events("limit=1").await.unwrap().expect(200);
    let ready = world.anonymous().fetch("/ready").await;
    ready.unwrap().expect(200);
}

#[tokio::test]
async fn in_a_lockdown_no_value_leaves_and_no_change_is_made_on_any_replica() {
    for world in World::both() {
        let deployment = &world.deployment;
        let id = world
            .alice
            .create("A", "one")
            .await
            .unwrap()
            .expect(201)
            .id();
        let (replica, names) = (deployment.serve(), json!({"names": ["A"]}));
        let other = replica.client(&world.token);
        // Both replicas have their connections, and have read and written.
        other.put(&id, "two").await.unwrap().expect(200);
        other.resolve(&names).await.unwrap().expect(200);
        world.alice.resolve(&names).await.unwrap().expect(200);
        let before = kinds(&world, "log=changes").await;
        deployment.run(&["lockdown", "on"]);
        // At once.
        assert_all_locked(&world, &id).await;
        assert_locked(other.put(&id, "three").await);
        assert_locked(other.resolve(&names).await);
        assert_eq!(kinds(&world, "log=changes").await, before);
        assert_eq!(
            kinds(&world, "log=activity&type=secret.accessed")
                .await
                .len(),
            2
        );
        let text = scrape(&world.anonymous()).await;
        assert_eq!(sample(&text, "rekey_lockdown"), Some(1));
        // A replica that starts meanwhile is no way around it.
        let late = deployment.serve();
        assert_locked(late.client(&world.token).resolve(&names).await);
        deployment.run(&["lockdown", "off"]);
        for client in [&world.alice, &other, &late.client(&world.token)] {
            client.put(&id, "four").await.unwrap().expect(200);
            let answer = client.resolve(&names).await.unwrap().expect(200);
            assert_eq!(answer.json()["secrets"][0]["value"], "four");
        }
        let text = scrape(&world.anonymous()).await;
        assert_eq!(sample(&text, "rekey_lockdown"), Some(0));
    }
}

#[tokio::test]
async fn each_lockdown_is_two_events_however_often_it_is_asked_for() {
    for world in World::both() {
        let deployment = &world.deployment;
        for (word, talk) in [
            ("off", "is not locked down"),
            ("on", ""),
            ("on", "is locked down already"),
            ("off", ""),
            ("off", "is not locked down"),
        ] {
            let output = deployment.try_run(&["lockdown", word]);
            assert!(output.status.success());
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(said.contains("locked down"), !talk.is_empty(), "{said}");
            assert!(said.contains(talk), "{said}");
        }
        let query = "log=activity&type=lockdown.on&type=lockdown.off";
        let events = all(&world.auditor, query).await;
        assert_eq!(kinds(&world, query).await, ["lockdown.on", "lockdown.off"]);
        for event in &events {
            assert_eq!(event_faults(&event.event), Vec::<String>::new());
            assert_eq!(
                event.event["actor"],
                json!({"id": null, "kind": "operator"})
            );
            assert_eq!(event.event["owner"], Value::Null);
        }
        // They are nobody's but the auditor's.
        assert!(all(&world.alice, query).await.is_empty());
    }
}

#[tokio::test]
async fn a_lockdown_holds_for_reads_that_are_not_recorded_and_for_imports() {
    for record in ["async", "off"] {
        let world = World::with(&[("ACTIVITY__RECORD", record)]);
        world.alice.create("A", "one").await.unwrap().expect(201);
        world.deployment.run(&["lockdown", "on"]);
        let names = json!({"names": ["A"]});
        assert_locked(world.alice.resolve(&names).await);
        let file = world.deployment.folder().join("more.env");
        std::fs::write(&file, "A=two\nB=one\n").unwrap();
        let import = ["import", file.to_str().unwrap(), "--owner", "alice"];
        let output = world.deployment.try_run(&import);
        assert_eq!(output.status.code(), Some(1));
        let talk = String::from_utf8(output.stderr).unwrap();
        assert!(
            talk.contains("the service is locked down; nothing was imported"),
            "{talk}"
        );
        // Tokens can be created and revoked all the same: that is what a lockdown gives time for.
        let token = world.deployment.token("alice", &["secrets:resolve"]);
        assert_locked(world.replica.client(&token).resolve(&names).await);
        world
            .deployment
            .run(&["token", "revoke", token.get(6..22).unwrap()]);
        world.deployment.run(&["lockdown", "off"]);
        let answer = world.alice.resolve(&names).await.unwrap().expect(200);
        assert_eq!(answer.json()["secrets"][0]["value"], "one");
    }
}
