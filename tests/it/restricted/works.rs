//! Under its restricted accounts everything works.

use super::account::Account;
use super::manual::{Installation, broker_url, url};
use crate::support::fixture::{SCOPES, batch};
use crate::support::ledger::{self, Told};
use crate::support::postgres::{Postgres, psql};
use crate::support::process::Process;
use crate::support::proxy::{Fault, Moment, Proxy, Reach, Trigger};
use crate::support::service::{Client, Deployment};
use rustix::process::Signal;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::File;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

const SOON: Duration = Duration::from_secs(30);
/// One test makes every event old, so that retention removes what another one would look for.
static ALONE: Mutex<()> = Mutex::const_new(());

/// One of each kind of change and read.
async fn everything(client: &Client) -> Vec<String> {
    let secrets = ledger::create(client, 3).await;
    for secret in &secrets {
        client.put(secret, "sk-next").await.unwrap().expect(200);
    }
    // Twice: the second is answered from its record.
    let once = client.with("idempotency-key", "the-key");
    for _ in 0..2 {
        once.put(&secrets[1], "sk-once").await.unwrap().expect(200);
    }
    assert_eq!(
        batch(client, &[(&secrets[0], "sk-set".to_owned())]).await,
        200
    );
    let names = client.list().await.unwrap().expect(200).json();
    let name = names["secrets"][0]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    let resolved = client.resolve(&json!({"names": [name]})).await.unwrap();
    resolved.expect(200);
    client.delete(&secrets[2]).await.unwrap().expect(204);
    client
        .fetch("/api/v1/events/head")
        .await
        .unwrap()
        .expect(200);
    secrets
}

/// The audit consumer's settings.
fn audit(installation: &Installation, service: &str) -> [(&'static str, String); 5] {
    let vhost = &installation.vhost;
    [
        ("REKEY__BROKER__URL", broker_url("rekey_audit", vhost)),
        (
            "REKEY__AUDIT__DATABASE_URL",
            url("rekey_audit", "rekey_audit"),
        ),
        ("REKEY__AUDIT__URL", service.to_owned()),
        ("REKEY__AUDIT__TOKEN", installation.auditor.clone()),
        ("REKEY__AUDIT__PUBLIC_KEY", installation.public_key.clone()),
    ]
}

/// Waits until the audit consumer's copy is proved to be the service's log.
async fn verifies(deployment: &Deployment, audit: &[(&'static str, String)]) {
    let end = Instant::now() + SOON;
    loop {
        let mut verify = deployment.command(&["audit", "verify"]);
        let output = verify.envs(audit.iter().cloned()).output().unwrap();
        if output.status.success() {
            return;
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(Instant::now() < end, "{text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until this many changes of Alice's have come to her queue, repeats left out.
async fn arrive(subscriber: &Account, count: usize) {
    let end = Instant::now() + SOON;
    let mut positions = BTreeSet::new();
    while positions.len() < count {
        assert!(Instant::now() < end, "{positions:?}");
        if let Some(event) = subscriber.gets("alice.one").await.unwrap() {
            assert_eq!(event["owner"], "alice");
            positions.insert(event["position"].as_u64());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn service_relay_audit_consumer_and_subscriber_work_under_their_accounts() {
    let _alone = ALONE.lock().await;
    let installation = Installation::get();
    let deployment = &installation.deployment;
    let mut replica = installation.serve(&url("rekey", "rekey"));
    let client = replica.client(&installation.alice);
    let audit = audit(installation, replica.base());
    let errors = deployment.folder().join("restricted-audit.log");
    let mut command = deployment.command(&["audit", "serve"]);
    command
        .envs(audit.iter().cloned())
        .stderr(File::create(&errors).unwrap());
    let mut consumer = Process::spawn(&mut command);
    // It may be first, and then waits until the service has declared the exchange.
    said(&errors, "consuming").await;

    let subscriber = Account::connect(&broker_url("alice", &installation.vhost)).await;
    subscriber.declares("alice.one").await.unwrap();
    let bound = subscriber.binds("alice.one", "secret.*.alice.*").await;
    bound.unwrap();
    let secrets = everything(&client).await;
    replica.ready(SOON).await;
    // Three created, three updated, one in a set, one deleted.
    arrive(&subscriber, 8).await;
    verifies(deployment, &audit).await;
    consumer.signal(Signal::TERM);
    let code = consumer.wait(SOON).and_then(|status| status.code());
    assert_eq!(code, Some(0));
    assert_eq!(replica.terminate(), Some(0));

    // Retention, at the next start: what is there is old, and goes.
    let database = Postgres::shared().url("rekey");
    let age = "UPDATE events SET occurred_at = occurred_at - 8640000000000 WHERE log = 'changes'";
    psql(&database, age);
    let last = psql(
        &database,
        "SELECT max(position) FROM events WHERE log = 'changes'",
    );
    let replica = installation.serve(&url("rekey", "rekey"));
    kept_after(&database, last.parse().unwrap()).await;
    let client = replica.client(&installation.alice);
    let put = client.put(&secrets[0], "sk-after").await.unwrap();
    put.expect(200);
    for trouble in ["ERROR", "permission denied"] {
        assert!(!replica.stderr().contains(trouble), "{}", replica.stderr());
    }
}

#[test]
fn an_operators_commands_work_with_the_roles_that_the_page_names() {
    let installation = Installation::get();
    let deployment = &installation.deployment;
    let file = deployment.folder().join("restricted.env");
    std::fs::write(&file, "IMPORTED_KEY=sk-imported\n").unwrap();
    for arguments in [
        &["import", file.to_str().unwrap(), "--owner", "bob"][..],
        &["keys", "list"],
        &["token", "list"],
        &["events", "head"],
        &["migrate", "status"],
    ] {
        let mut command = deployment.command(arguments);
        let command = command.env("REKEY__DATABASE__URL", url("rekey", "rekey"));
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}");
    }
    // The service's role makes and revokes tokens: it does so for owners.
    let token = deployment.token("carol", &["secrets:read"]);
    let id = token.split('_').nth(1).unwrap();
    for arguments in [
        &[
            "token",
            "create",
            "--owner",
            "eve",
            "--scope",
            "secrets:read",
        ][..],
        &["token", "revoke", id],
    ] {
        let mut command = deployment.command(arguments);
        let command = command.env("REKEY__DATABASE__URL", url("rekey", "rekey"));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
}

/// Waits until retention has removed everything before this position. (Other tests may append.)
async fn kept_after(database: &str, position: u64) {
    let sql = "SELECT min(position) FROM events WHERE log = 'changes'";
    let end = Instant::now() + SOON;
    while psql(database, sql).parse::<u64>().unwrap() < position {
        assert!(Instant::now() < end, "retention does not get to {position}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn said(log: &std::path::Path, text: &str) {
    let end = Instant::now() + SOON;
    loop {
        let lines = std::fs::read_to_string(log).unwrap_or_default();
        if lines.contains(text) {
            return;
        }
        assert!(Instant::now() < end, "{text} in:\n{lines}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_finds_out_whether_a_lost_commit_stands_under_its_own_account() {
    let _alone = ALONE.lock().await;
    let installation = Installation::get();
    let proxy = Proxy::start(Postgres::shared().address());
    // Nothing but its changes is committed.
    let replica = installation.deployment.serve_with(&[
        ("REKEY__DATABASE__URL", &proxy.url(&url("rekey", "rekey"))),
        ("REKEY__BROKER__URL", ""),
        ("REKEY__EVENTS__RETAIN_DAYS", "0"),
    ]);
    let token = installation.deployment.token("dave", SCOPES);
    let client = replica.client(&token);
    let secret = ledger::create(&client, 1).await.remove(0);
    // The answer to COMMIT is held back; the old session is ended by the service itself.
    let mut fired = proxy.arm(Trigger {
        text: "COMMIT",
        moment: Moment::Answered,
        fault: Fault::Stall,
        reach: Reach::Link,
    });
    let attempt = ledger::put(&client, &secret).await;
    assert!(fired.wait(SOON).await);
    assert!(
        matches!(attempt.told, Told::Applied(_)),
        "{attempt:?}\n{}",
        replica.stderr()
    );
    assert!(
        !replica.stderr().contains("permission denied"),
        "{}",
        replica.stderr()
    );
}
