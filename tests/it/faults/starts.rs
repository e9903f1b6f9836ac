//! Starts that must not succeed on `PostgreSQL` (`cli.rs` has them on `SQLite`), and what a refused one leaves.

use crate::support::fixture::{self, SCOPES};
use crate::support::ledger;
use crate::support::service::Deployment;
use serde_json::Value;

fn refused(deployment: &Deployment) -> String {
    let output = deployment.try_run(&["serve"]);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_a_wrong_or_missing_key_is_refused_by_its_id_and_changes_nothing() {
    for deployment in fixture::both() {
        let token = deployment.token("alice", SCOPES);
        let mut replica = deployment.serve();
        let client = replica.client(&token);
        let secrets = ledger::create(&client, 1).await;
        let attempts = [ledger::put(&client, &secrets[0]).await];
        assert_eq!(replica.terminate(), Some(0));
        let good = std::fs::read_to_string(deployment.keyring()).unwrap();
        let ring: Value = serde_json::from_str(&good).unwrap();
        let id = ring["keys"][0]["id"].as_str().unwrap();
        for (field, wrong) in [
            ("key", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            ("id", "another"),
        ] {
            let mut ring = ring.clone();
            ring["keys"][0][field] = Value::from(wrong);
            std::fs::write(deployment.keyring(), ring.to_string()).unwrap();
            let talk = refused(&deployment);
            assert!(talk.contains(id), "{field}: {talk}");
        }
        std::fs::write(deployment.keyring(), good).unwrap();
        let replica = deployment.serve();
        let client = replica.client(&token);
        ledger::settle(&client, &secrets, &attempts).await;
    }
}
