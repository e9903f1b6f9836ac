//! Migrations expand before they contract: a replica of the last version works on the schema of the next one.

use crate::support::fixture::{self, ALL};
use crate::support::service::Client;
use serde_json::json;

/// What a next version could add: columns that may be empty, and a table, none of which this binary knows.
const NEXT: [&str; 8] = [
    "ALTER TABLE secrets ADD COLUMN next_note TEXT",
    "ALTER TABLE secret_versions ADD COLUMN next_note TEXT",
    "ALTER TABLE events ADD COLUMN next_note TEXT",
    "ALTER TABLE log_head ADD COLUMN next_number BIGINT",
    "ALTER TABLE api_tokens ADD COLUMN next_note TEXT",
    "ALTER TABLE keys ADD COLUMN next_note TEXT",
    "CREATE TABLE next_things (id BIGINT PRIMARY KEY, note TEXT)",
    "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20991231_000001_next', 0)",
];

/// Creates, changes, reads, resolves and deletes.
async fn works(client: &Client, name: &str) {
    let id = client.create(name, "sk-1").await.unwrap().expect(201).id();
    client.put(&id, "sk-2").await.unwrap().expect(200);
    client.get(&id).await.unwrap().expect(200);
    let resolved = client.resolve(&json!({"names": [name]})).await.unwrap();
    let resolved = resolved.expect(200).json();
    let secret = &resolved["secrets"][0];
    assert_eq!(
        (&secret["version"], &secret["value"]),
        (&json!(2), &json!("sk-2"))
    );
    client.list().await.unwrap().expect(200);
    let events = client.events("after=0-0").await.unwrap().expect(200);
    assert!(events.text().contains(&id));
    client.delete(&id).await.unwrap().expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_the_last_version_runs_on_the_schema_of_the_next() {
    for deployment in fixture::both() {
        let token = deployment.token("alice", &ALL);
        let running = deployment.serve();
        works(&running.client(&token), "BEFORE").await;
        for sql in NEXT {
            deployment.sql(sql);
        }
        // It runs already, with statements that it prepared before.
        for _ in 0..3 {
            works(&running.client(&token), "MEANWHILE").await;
        }
        // One starts, beside it or after it.
        let mut started = deployment.serve();
        works(&started.client(&token), "AFTER").await;
        assert_eq!(started.terminate(), Some(0));
        // So do its commands; an `up` of the last version changes nothing and fails at nothing.
        deployment.run(&["migrate", "up"]);
        let status = deployment.run(&["migrate", "status"]);
        assert!(!status.contains("missing"), "{status}");
        let bob = deployment.token("bob", &ALL);
        works(&running.client(&bob), "BOB").await;
        deployment.run(&["keys", "list"]);
        let there = deployment.sql("SELECT version FROM seaql_migrations ORDER BY version DESC");
        assert_eq!(there.lines().next(), Some("m20991231_000001_next"));
    }
}
