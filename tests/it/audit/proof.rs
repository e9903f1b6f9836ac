//! `rekey audit verify` and `export`: what was changed is found, and its position named.

use super::{
    Consumer, SOON, first_bad, stores,
    twin::{Log, Twin, public_key},
};
use crate::support::{
    broker::publish,
    postgres::{Postgres, psql},
    process::closed_pipe,
    rabbitmq::RabbitMq,
    service::Deployment,
};
use rustix::process::Signal;
use std::process::Output;

const COUNT: u64 = 8;

/// A consumer that has stored a log of [`COUNT`] events in a database of PostgreSQL.
struct Audited {
    deployment: Deployment,
    database: String,
    twin: Twin,
    log: Log,
    consumer: Consumer,
}

impl Audited {
    async fn new() -> Self {
        let url = RabbitMq::shared().vhost();
        let log = Log::of(COUNT);
        let twin = Twin::start(&log).await;
        let database = Postgres::shared().database();
        let deployment = Deployment::embedded()
            .broker(&url, "secrets.events")
            .set("AUDIT__DATABASE_URL", &database)
            .set("AUDIT__URL", &twin.base)
            .set("AUDIT__TOKEN", "rekey_x")
            .set("AUDIT__PUBLIC_KEY", &public_key());
        let consumer = Consumer::start(&deployment, &[]).await;
        publish(&url, "secrets.events", &log.bodies()).await;
        stores(&deployment, log.0.len()).await;
        Self {
            deployment,
            database,
            twin,
            log,
            consumer,
        }
    }

    fn verify(&self) -> Output {
        self.deployment.try_run(&["audit", "verify"])
    }

    /// What `verify` says of a database that was changed by hand, with the service at hand and without.
    fn after(&self, change: &str) -> [Vec<u64>; 2] {
        psql(
            &self.database,
            &format!("BEGIN; CREATE TABLE kept AS TABLE audit_events; {change}; COMMIT"),
        );
        let with = first_bad(&self.verify());
        let mut command = self.deployment.command(&["audit", "verify"]);
        let without = first_bad(&command.env("REKEY__AUDIT__URL", "").output().unwrap());
        psql(
            &self.database,
            "BEGIN; DELETE FROM audit_events; INSERT INTO audit_events TABLE kept; DROP TABLE kept; COMMIT",
        );
        [with, without]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_changed_in_the_database_is_found() {
    let mut audited = Audited::new().await;
    assert_eq!(first_bad(&audited.verify()), [0; 0]);
    // It would fetch the last event again.
    assert_eq!(audited.consumer.terminate(), Some(0));
    for (change, position) in [
        ("DELETE FROM audit_events WHERE position = 1", 1),
        ("DELETE FROM audit_events WHERE position = 5", 5),
        (
            "UPDATE audit_events SET body = set_byte(body, 40, get_byte(body, 40) # 1) WHERE position = 3",
            3,
        ),
        (
            "UPDATE audit_events SET body = body || '\\x20' WHERE position = 3",
            3,
        ),
        (
            "UPDATE audit_events SET owner = 'mallory' WHERE position = 4",
            4,
        ),
        (
            "UPDATE audit_events SET hash = '\\x00' WHERE position = 8",
            8,
        ),
        (
            "UPDATE audit_events a SET body = b.body FROM audit_events b WHERE a.position IN (2, 6) AND b.position = 8 - a.position",
            2,
        ),
    ] {
        assert_eq!(audited.after(change), [[position], [position]], "{change}");
    }
    // The last event: the head of the service's log, or a checkpoint of it, still speaks of it.
    let change = "DELETE FROM audit_events WHERE position = 8; UPDATE audit_marks SET position = 7";
    assert_eq!(audited.after(change)[0], [8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_output_ends_quietly_and_a_failed_proof_is_still_one() {
    let mut audited = Audited::new().await;
    let unread = |arguments: &[&str]| {
        let mut command = audited.deployment.command(arguments);
        let output = command.stdout(closed_pipe()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    for arguments in [
        &["audit", "export"][..],
        &["audit", "tail"],
        &["audit", "tail", "--follow"],
    ] {
        let (code, said) = unread(arguments);
        assert_eq!(code, Some(0), "{arguments:?}");
        assert!(!said.contains("pipe") && !said.contains("closed"), "{said}");
    }
    audited.twin.set(&Log(audited.log.0[..6].to_vec()));
    assert_eq!(unread(&["audit", "verify"]).0, Some(1));
    audited.consumer.process.signal(Signal::HUP);
    let status = audited.consumer.process.wait(SOON);
    assert_eq!(status.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_differs_from_the_services_is_found() {
    let audited = Audited::new().await;
    let mut other = Log(audited.log.0[..3].to_vec());
    other.grow(1, COUNT - 3, "mallory");
    audited.twin.set(&other);
    assert_eq!(first_bad(&audited.verify()), [4]);
    // A service that has lost its end.
    audited.twin.set(&Log(audited.log.0[..6].to_vec()));
    assert_eq!(first_bad(&audited.verify()), [7]);
    audited.twin.set(&audited.log);
    assert_eq!(first_bad(&audited.verify()), [0; 0]);
    let json = audited.deployment.run(&["audit", "verify", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["logs"][0]["cursor"], "1-8");
    assert_eq!(json["logs"][1]["cursor"], "0-0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_verified_with_the_file_and_the_key_alone() {
    let audited = Audited::new().await;
    let deployment = &audited.deployment;
    let talk = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let output = deployment.try_run(&["audit", "export"]);
    assert!(talk(&output).contains("changes: 8 of 8 events\n"));
    let printed = String::from_utf8(output.stdout).unwrap();
    let path = deployment.folder().join("changes.ndjson");
    deployment.run(&["audit", "export", "--output", path.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), printed);
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines.len(), audited.log.0.len() + 1);
    // Elsewhere, with settings that are no good.
    let elsewhere = Deployment::embedded().set("NOTHING", "x");
    let verify = |text: &str| {
        let file = elsewhere.folder().join("export.ndjson");
        std::fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let key = public_key();
        elsewhere.try_run(&["audit", "verify", "--offline", file, "--public-key", &key])
    };
    let output = verify(&printed);
    assert_eq!(first_bad(&output), [0; 0]);
    let size = printed.len();
    assert!(talk(&output).contains(&format!("{size} of {size} bytes\n")));
    assert_eq!(
        first_bad(&verify(&printed.replacen("alice", "malice", 1))),
        [1]
    );
    let without = |line: usize| {
        let mut lines = lines.clone();
        lines.remove(line);
        lines.join("\n") + "\n"
    };
    assert_eq!(first_bad(&verify(&without(4))), [5]);
    assert_eq!(first_bad(&verify(&without(8))), [9]);
    let missing = elsewhere.try_run(&["audit", "verify", "--offline", "x"]);
    assert_eq!(missing.status.code(), Some(2));
}
