//! The backup and the restore of `docs/operate.md`: its commands, taken out of the page as they stand.

use super::manual::sql_blocks;
use crate::support::fixture::ALL;
use crate::support::postgres::{self, Postgres};
use crate::support::service::{BINARY, Client, Deployment};
use serde_json::json;
use std::path::Path;

const PAGE: &str = include_str!("../../../docs/operate.md");

/// The block of shell commands that begins with this comment.
fn block(title: &str) -> &'static str {
    let start = format!("```sh\n# {title}\n");
    let (_, rest) = PAGE.split_once(&start).expect("a block of that title");
    rest.split_once("```").expect("the end of a block").0
}

/// Runs a block in the deployment's folder, as a shell that stops at the first failure.
fn run(deployment: &Deployment, title: &str, variables: &[(&str, &str)]) {
    let folder = |program: &Path| program.parent().unwrap().to_str().unwrap().to_owned();
    let (rekey, server) = (
        folder(Path::new(BINARY)),
        folder(&postgres::find("pg_restore")),
    );
    let path = format!("{rekey}:{server}:{}", std::env::var("PATH").unwrap());
    let mut shell = deployment.program("sh");
    shell
        .args(["-e", "-u", "-c", block(title)])
        .env("PATH", path)
        .envs(variables.iter().copied());
    let output = shell.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{title}: {said}");
}

async fn value(client: &Client) -> String {
    let resolved = client.resolve(&json!({"names": ["A"]})).await.unwrap();
    let resolved = resolved.expect(200).json();
    resolved["secrets"][0]["value"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_backs_a_file_up_and_restores_it() {
    let deployment = Deployment::embedded().raised_limits();
    let mut replica = deployment.serve();
    let token = deployment.embedded_token();
    let client = replica.client(&token);
    let id = client.create("A", "sk-1").await.unwrap().expect(201).id();
    run(&deployment, "SQLite: back up, while the service runs", &[]);
    client.put(&id, "sk-2").await.unwrap().expect(200);
    // It leaves its write-ahead log.
    replica.kill_9();
    run(
        &deployment,
        "SQLite: restore, with the service stopped",
        &[],
    );
    let replica = deployment.serve();
    let client = replica.client(&token);
    assert_eq!(value(&client).await, "sk-1");
    client.put(&id, "sk-3").await.unwrap().expect(200);
    assert_eq!(value(&client).await, "sk-3");
    let head = deployment.run(&["events", "head"]);
    assert!(!head.contains("epoch 1 "), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_dumps_a_server_and_restores_it_with_owner_and_grants() {
    let server = Postgres::start_private();
    let url = |role: &str| {
        let url = server.url("rekey");
        url.replace("//postgres@", &format!("//{role}@"))
    };
    let mut blocks = sql_blocks(PAGE);
    let after_migration = blocks.remove(2);
    for block in blocks {
        block.run(&server);
    }
    let (owner, service) = (url("rekey_migrate"), url("rekey"));
    let deployment = Deployment::postgres(&owner).raised_limits().prepare();
    after_migration.run(&server);
    let token = deployment.token("alice", &ALL);
    let as_service = [("REKEY__DATABASE__URL", service.as_str())];
    let port = server.address().port().to_string();
    let variables = [("PGHOST", "127.0.0.1"), ("PGPORT", port.as_str())];
    let mut replica = deployment.serve_with(&as_service);
    let client = replica.client(&token);
    let id = client.create("A", "sk-1").await.unwrap().expect(201).id();
    run(
        &deployment,
        "PostgreSQL: back up, while the service runs",
        &variables,
    );
    client.put(&id, "sk-2").await.unwrap().expect(200);
    assert_eq!(replica.terminate(), Some(0));
    run(
        &deployment,
        "PostgreSQL: restore, with every replica stopped",
        &variables,
    );
    let replica = deployment.serve_with(&as_service);
    let client = replica.client(&token);
    assert_eq!(value(&client).await, "sk-1");
    client.put(&id, "sk-3").await.unwrap().expect(200);
    assert_eq!(value(&client).await, "sk-3");
    // Still no more than the page says.
    let forbidden = postgres::try_psql(&service, "DELETE FROM api_tokens").unwrap_err();
    assert!(forbidden.contains("permission denied"), "{forbidden}");
    let strangers = postgres::psql(
        &server.url("rekey"),
        "SELECT has_database_privilege('public', 'rekey', 'CONNECT')",
    );
    assert_eq!(strangers, "f");
    // What was before is there until somebody drops it.
    let before = "SELECT count(*) FROM pg_database WHERE datname = 'rekey_before'";
    assert_eq!(postgres::psql(&server.url("postgres"), before), "1");
}
