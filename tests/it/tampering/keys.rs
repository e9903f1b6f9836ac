//! The service's own keys: a missing one is never made anew in silence.

use crate::support::fixture::{self, World};
use crate::support::service::Deployment;
use serde_json::Value;

fn refused(deployment: &Deployment, arguments: &[&str]) -> String {
    let output = deployment.try_run(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn public_key(deployment: &Deployment) -> Value {
    let list: Value = serde_json::from_str(&deployment.run(&["keys", "list", "--json"])).unwrap();
    list["checkpoint_public_key"].clone()
}

#[tokio::test]
async fn a_missing_key_stops_the_start_and_names_the_remedy() {
    for (name, command) in [
        ("checkpoint-signing", "new-signing-key"),
        ("token-mac", "new-token-key"),
        ("idempotency", "new-idempotency-key"),
    ] {
        for deployment in fixture::both() {
            let alice = deployment.token("alice", &["secrets:write"]);
            let replica = deployment.serve();
            let once = replica.client(&alice).with("idempotency-key", "k");
            once.create("A", "sk-a").await.unwrap().expect(201);
            drop(replica);
            let before = public_key(&deployment);
            deployment.sql(&format!("DELETE FROM service_keys WHERE name = '{name}'"));
            for arguments in [&["serve"][..], &["migrate", "up"]] {
                let talk = refused(&deployment, arguments);
                assert!(talk.contains(name) && talk.contains(command), "{talk}");
            }
            deployment.run(&["keys", command]);
            let talk = refused(&deployment, &["keys", command]);
            assert!(talk.contains("is there"), "{talk}");
            let after = public_key(&deployment);
            assert_eq!(after == before, name != "checkpoint-signing");
            let replica = deployment.serve();
            let token = deployment.service_token("audit", &["*"], &["events:read"]);
            let auditor = replica.client(&token);
            let events = auditor.events("log=activity&type=key.added").await;
            let events = events.unwrap().expect(200).json();
            assert_eq!(events["events"][0]["key_id"], name);
            assert_eq!(events["events"].as_array().unwrap().len(), 1);
        }
    }
}

#[tokio::test]
async fn a_new_key_of_requests_forgets_the_answers_that_were_kept() {
    let world = World::sqlite();
    let once = world.alice.with("idempotency-key", "k");
    once.create("A", "sk-a").await.unwrap().expect(201);
    let World {
        replica,
        deployment,
        token,
        ..
    } = world;
    drop(replica);
    deployment.sql("DELETE FROM service_keys WHERE name = 'idempotency'");
    deployment.run(&["keys", "new-idempotency-key"]);
    let replica = deployment.serve();
    let once = replica.client(&token).with("idempotency-key", "k");
    once.create("A", "sk-a").await.unwrap().expect(409);
    once.create("B", "sk-b").await.unwrap().expect(201);
}

#[tokio::test]
async fn a_new_key_of_tokens_leaves_no_old_token_good() {
    let deployment = fixture::sqlite();
    let old = deployment.token("alice", &["events:read"]);
    deployment.sql("DELETE FROM service_keys WHERE name = 'token-mac'");
    deployment.run(&["keys", "new-token-key"]);
    let new = deployment.token("alice", &["events:read"]);
    let replica = deployment.serve();
    for (token, status) in [(old, 401), (new, 200)] {
        let answer = replica.client(&token).events("limit=1").await;
        answer.unwrap().expect(status);
    }
}

#[test]
fn a_key_of_another_name_or_database_does_not_open() {
    for deployment in fixture::both() {
        deployment.token("alice", &["events:read"]);
        deployment.sql(
            "UPDATE service_keys SET sealed = (SELECT sealed FROM service_keys WHERE name = 'token-mac') \
             WHERE name = 'checkpoint-signing'",
        );
        let talk = refused(&deployment, &["serve"]);
        assert!(talk.contains("checkpoint-signing does not open"), "{talk}");
    }
}

#[test]
fn a_keyring_that_does_not_fit_changes_nothing() {
    for deployment in fixture::both() {
        deployment.run(&["migrate", "down", "1"]);
        let status = deployment.run(&["migrate", "status"]);
        let file = deployment.keyring();
        let good = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        deployment.run(&["keys", "generate"]);
        let talk = refused(&deployment, &["migrate", "up"]);
        assert!(talk.contains("is not in the keyring"), "{talk}");
        assert_eq!(deployment.run(&["migrate", "status"]), status);
        std::fs::write(&file, good).unwrap();
        deployment.run(&["migrate", "up"]);
    }
}
