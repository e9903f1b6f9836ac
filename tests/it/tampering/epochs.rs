//! Raised epochs: the operator raises one after a restore, and the auditor lets nobody else do so.

use crate::support::events::{all_after, positions};
use crate::support::fixture::{self, ALL};
use crate::support::postgres;
use crate::support::process::Process;
use crate::support::rabbitmq::RabbitMq;
use crate::support::service::{Client, Deployment, Replica};
use rustix::process::Signal;
use serde_json::Value;
use std::process::Output;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_mins(1);

/// A service on a broker, its audit consumer, and an owner with a secret.
struct Audited {
    consumer: Option<Process>,
    replica: Replica,
    token: String,
    audit_token: String,
    secret: String,
    deployment: Deployment,
}

impl Audited {
    async fn start(deployment: Deployment) -> Self {
        let url = RabbitMq::shared().vhost();
        let deployment = deployment
            .broker(&url, "secrets.events")
            .set("AUDIT__COMPARE_SECONDS", "1");
        let token = deployment.token("alice", &ALL);
        let audit_token = deployment.service_token("audit", &["*"], &["events:read"]);
        let mut this = Self {
            consumer: None,
            replica: deployment.serve(),
            token,
            audit_token,
            secret: String::new(),
            deployment,
        };
        this.consume();
        let created = this.client().create("A", "sk-1").await;
        this.secret = created.unwrap().expect(201).id();
        this
    }

    fn client(&self) -> Client {
        self.replica.client(&self.token)
    }

    async fn change(&self, times: usize) {
        for number in 0..times {
            let value = format!("sk-{number}");
            let changed = self.client().put(&self.secret, &value).await;
            changed.unwrap().expect(200);
        }
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.deployment.command(arguments);
        command
            .env("REKEY__AUDIT__URL", self.replica.base())
            .env("REKEY__AUDIT__TOKEN", &self.audit_token);
        command
    }

    fn consume(&mut self) {
        let mut command = self.command(&["audit", "serve"]);
        command.stderr(std::process::Stdio::null());
        self.consumer = Some(Process::spawn(&mut command));
    }

    fn verify(&self) -> Output {
        self.command(&["audit", "verify"]).output().unwrap()
    }

    /// Waits until `verify` says that.
    async fn verifies(&self, wanted: &str) {
        let end = Instant::now() + SOON;
        loop {
            let output = self.verify();
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8(said).unwrap();
            if said.contains(wanted) {
                return;
            }
            assert!(Instant::now() < end, "{wanted:?} is not in:\n{said}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Ends service and consumer, does that, and starts them again.
    fn meanwhile(&mut self, work: impl FnOnce(&Deployment)) {
        assert_eq!(self.replica.terminate(), Some(0));
        if let Some(mut consumer) = self.consumer.take() {
            consumer.signal(Signal::TERM);
            consumer.wait(SOON).unwrap();
        }
        work(&self.deployment);
        self.replica = self.deployment.serve();
        self.consume();
    }
}

/// Takes the database back to the state before its last three changes of `changes`.
fn roll_back(deployment: &Deployment) {
    for sql in [
        "DELETE FROM events WHERE log = 'changes' AND position > 5",
        "DELETE FROM secret_versions WHERE version > 5",
        "UPDATE secrets SET version = 5, sequence = 5, updated_at = \
         (SELECT occurred_at FROM events WHERE log = 'changes' AND position = 5)",
        // The relay had published what is gone.
        "UPDATE relay_cursors SET position = 5 WHERE log = 'changes'",
    ] {
        deployment.sql(sql);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_epoch_is_announced_in_both_logs_and_accepted_by_hand() {
    for deployment in fixture::both() {
        let mut audited = Audited::start(deployment).await;
        audited.change(7).await;
        audited
            .verifies("changes: verified: events after 0-0 through 1-8")
            .await;
        let mut epoch = String::new();
        audited.meanwhile(|deployment| {
            roll_back(deployment);
            epoch = deployment.run(&["events", "bump-epoch"]).trim().to_owned();
        });
        audited.change(2).await;
        let said = format!("epoch {epoch} follows epoch 1 after position 5 and abandons 3 events");
        audited.verifies(&said).await;
        let auditor = audited.replica.client(&audited.audit_token);
        for log in ["changes", "activity"] {
            let events = all_after(&auditor, "0-0", &format!("&log={log}")).await;
            assert_eq!(
                positions(&events),
                (1..=events.len() as u64).collect::<Vec<_>>()
            );
            let raised = events
                .iter()
                .find(|event| event.event["type"] == "epoch.raised");
            let raised = &raised.unwrap().event;
            assert_eq!(raised["previous_epoch"], 1);
            assert_eq!(raised["epoch"].to_string(), epoch);
            assert_eq!(raised["actor"]["kind"], "operator");
            let output = audited
                .command(&["audit", "accept-epoch", log, &epoch])
                .output();
            assert!(output.unwrap().status.success());
        }
        audited
            .verifies(&format!(
                "changes: verified: events after 0-0 through {epoch}-8"
            ))
            .await;
        // Its value is the last one again, and so is each that follows.
        let resolved = audited
            .client()
            .resolve(&serde_json::json!({"names": ["A"]}))
            .await;
        let resolved = resolved.unwrap().expect(200).json();
        assert_eq!(resolved["secrets"][0]["value"], "sk-1");
        // A second restore of the same backup is another epoch.
        let head = || -> Value {
            let text = audited.deployment.run(&["events", "head", "--json"]);
            serde_json::from_str(&text).unwrap()
        };
        let again = audited.deployment.run(&["events", "bump-epoch"]);
        assert!(again.trim().parse::<u64>().unwrap() > epoch.parse().unwrap());
        assert_eq!(head()["epoch"].to_string(), again.trim());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_somebody_raises_in_the_database_is_never_accepted() {
    for deployment in fixture::both() {
        let mut audited = Audited::start(deployment).await;
        audited.change(7).await;
        audited
            .verifies("changes: verified: events after 0-0 through 1-8")
            .await;
        audited.meanwhile(|deployment| {
            roll_back(deployment);
            deployment.sql("UPDATE log_head SET epoch = epoch + 1");
        });
        // The service goes on as if nothing had been, and signs.
        audited.change(4).await;
        audited.verifies("nobody raised it").await;
        let accept = ["audit", "accept-epoch", "changes", "2"];
        let output = audited.command(&accept).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("nobody raised it"), "{said}");
        assert_eq!(audited.verify().status.code(), Some(1));
    }
}

/// Copies the database while the service runs.
fn back_up(deployment: &Deployment) {
    let Some(url) = deployment.database().strip_prefix("postgres://") else {
        deployment.run(&["backup", "backup.db"]);
        return;
    };
    let url = format!("postgres://{url}");
    let dump = ["--format=custom", "--file=backup.dump", "--dbname", &url];
    let mut program = deployment.program(postgres::find("pg_dump").to_str().unwrap());
    assert!(program.args(dump).status().unwrap().success());
}

/// Puts that copy in the database's place.
fn restore(deployment: &Deployment) {
    let Some(path) = deployment.database().strip_prefix("sqlite://") else {
        let into = ["--dbname", deployment.database(), "backup.dump"];
        let mut program = deployment.program(postgres::find("pg_restore").to_str().unwrap());
        let program = program.args(["--clean", "--if-exists", "--exit-on-error"]);
        assert!(program.args(into).status().unwrap().success());
        return;
    };
    for ending in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{path}{ending}"));
    }
    std::fs::copy(deployment.folder().join("backup.db"), path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_backup_restored_twice_raises_two_epochs_and_each_is_accepted_by_hand() {
    for deployment in fixture::both() {
        let mut audited = Audited::start(deployment).await;
        audited.change(5).await;
        back_up(&audited.deployment);
        audited.change(2).await;
        audited
            .verifies("changes: verified: events after 0-0 through 1-8")
            .await;
        let mut epochs = vec![1];
        for _ in 0..2 {
            let mut raised = String::new();
            audited.meanwhile(|deployment| {
                restore(deployment);
                raised = deployment.run(&["events", "bump-epoch"]).trim().to_owned();
            });
            let epoch: u64 = raised.parse().unwrap();
            assert!(epochs.iter().all(|earlier| *earlier < epoch), "{epochs:?}");
            epochs.push(epoch);
            audited.change(3).await;
            audited.verifies(&format!("epoch {epoch} follows")).await;
            // Time alone changes nothing.
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(audited.verify().status.code(), Some(1));
            for log in ["changes", "activity"] {
                let accept = ["audit", "accept-epoch", log, &raised];
                let output = audited.command(&accept).output().unwrap();
                assert!(output.status.success());
            }
            let through = format!("changes: verified: events after 0-0 through {epoch}-10");
            audited.verifies(&through).await;
        }
    }
}
