//! The command line and the first start, as an operator sees them.

use std::{
    process::Output,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    postgres::{self, Postgres},
    process::program,
    service::Deployment,
};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn refused(deployment: &Deployment, arguments: &[&str]) -> String {
    let output = deployment.try_run(arguments);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
    stderr(&output)
}

#[tokio::test]
async fn the_first_start_makes_everything_and_its_two_lines_work_as_pasted() {
    let deployment = Deployment::embedded();
    let mut replica = deployment.serve();
    let talk = replica.stderr();
    let line = |name: &str| {
        let found = talk.lines().find_map(|line| line.strip_prefix(name));
        found
            .unwrap_or_else(|| panic!("{name} in {talk}"))
            .to_owned()
    };
    let script = format!("{}\n{}\n", line("create: "), line("update: "));
    let output = program("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["name"], "OPENAI_API_KEY");
    let client = replica.client(&deployment.embedded_token());
    let id = answer["id"].as_str().unwrap();
    let got = client.get(id).await.unwrap().expect(200);
    assert_eq!(got.header("etag"), Some("\"2\""));
    assert_eq!(replica.terminate(), Some(0));
    // The next start finds everything, and makes nothing anew.
    let token = deployment.embedded_token();
    let replica = deployment.serve();
    assert_eq!(deployment.embedded_token(), token);
    replica.client(&token).get(id).await.unwrap().expect(200);
}

#[test]
fn a_database_without_its_key_stops_the_embedded_start() {
    let deployment = Deployment::embedded();
    drop(deployment.serve());
    std::fs::remove_file(deployment.folder().join("data/keyring.json")).unwrap();
    let talk = refused(&deployment, &["serve"]);
    assert!(talk.contains("its key is not"), "{talk}");
    assert!(!deployment.folder().join("data/keyring.json").exists());
}

#[test]
fn other_commands_make_no_embedded_database() {
    let deployment = Deployment::embedded();
    for arguments in [
        &["token", "list"][..],
        &["migrate", "up"],
        &["keys", "list"],
        &["events", "head"],
    ] {
        let talk = refused(&deployment, arguments);
        let path = deployment.folder().join("data/rekey.db");
        assert!(
            talk.contains(&format!("no database at {}", path.display())),
            "{talk}"
        );
        assert!(!path.exists());
    }
}

#[test]
fn migrate_makes_the_key_of_checkpoints_and_nothing_changes_it() {
    for deployment in [
        Deployment::sqlite(),
        Deployment::postgres(&Postgres::shared().database()),
    ] {
        let deployment = deployment.prepare();
        let listed = || -> Value {
            serde_json::from_str(&deployment.run(&["keys", "list", "--json"])).unwrap()
        };
        let key = listed()["checkpoint_public_key"].clone();
        assert!(key.as_str().unwrap().starts_with("ed25519:"), "{key}");
        deployment.run(&["migrate", "up"]);
        drop(deployment.serve());
        assert_eq!(listed()["checkpoint_public_key"], key);
        let text = deployment.run(&["keys", "list"]);
        let line = format!("checkpoint public key: {}\n", key.as_str().unwrap());
        assert!(text.ends_with(&line), "{text}");
    }
}

#[test]
fn a_start_without_keys_names_the_command_that_makes_them() {
    let deployment = Deployment::sqlite().prepare();
    deployment.sql("DELETE FROM keys");
    let talk = refused(&deployment, &["serve"]);
    assert!(talk.contains("run `rekey migrate up`"), "{talk}");
}

#[test]
fn a_start_without_the_schema_names_the_migration() {
    for deployment in [
        Deployment::sqlite(),
        Deployment::postgres(&Postgres::shared().database()),
    ] {
        deployment.run(&["keys", "generate"]);
        deployment.run(&["migrate", "up"]);
        deployment.run(&["migrate", "down", "8"]);
        let talk = refused(&deployment, &["serve"]);
        assert!(
            talk.contains("m20261124_000009_create_api_tokens"),
            "{talk}"
        );
        let states: Value =
            serde_json::from_str(&deployment.run(&["migrate", "status", "--json"])).unwrap();
        let applied = states["migrations"].as_array().unwrap().iter();
        assert_eq!(applied.filter(|state| state["applied"] == true).count(), 8);
        deployment.run(&["migrate", "up"]);
        deployment.run(&["migrate", "down", "16"]);
        deployment.run(&["migrate", "up"]);
        drop(deployment.serve());
    }
}

#[test]
fn a_schema_that_a_newer_binary_has_migrated_is_good_enough() {
    let url = Postgres::shared().database();
    let deployment = Deployment::postgres(&url).prepare();
    let newer = "INSERT INTO seaql_migrations VALUES ('m20990101_000001_newer', 0)";
    postgres::psql(&url, newer);
    deployment.run(&["migrate", "up"]);
    drop(deployment.serve());
}

#[test]
fn a_wrong_or_missing_key_stops_the_start_by_its_id() {
    let deployment = Deployment::sqlite().prepare();
    drop(deployment.serve());
    let id = deployment.run(&["keys", "list", "--json"]);
    let keys: Value = serde_json::from_str(&id).unwrap();
    let id = keys["keys"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(keys["keys"][0]["primary"], true);
    let good = std::fs::read_to_string(deployment.keyring()).unwrap();
    let ring: Value = serde_json::from_str(&good).unwrap();
    // Another key under the same ID.
    let mut wrong = ring.clone();
    wrong["keys"][0]["key"] = Value::from("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    std::fs::write(deployment.keyring(), wrong.to_string()).unwrap();
    let talk = refused(&deployment, &["serve"]);
    assert!(talk.contains(&id), "{talk}");
    // A keyring without it.
    let mut other = ring;
    other["keys"][0]["id"] = Value::from("other");
    std::fs::write(deployment.keyring(), other.to_string()).unwrap();
    let talk = refused(&deployment, &["serve"]);
    assert!(
        talk.contains(&format!("key {id} is not in the keyring")),
        "{talk}"
    );
    std::fs::write(deployment.keyring(), good).unwrap();
    drop(deployment.serve());
}

#[test]
fn an_unsafe_database_stops_the_start() {
    let url = Postgres::shared().database();
    let deployment = Deployment::postgres(&url).prepare();
    drop(deployment.serve());
    let private = Postgres::start_private_with(&["fsync=off"]);
    let deployment = Deployment::postgres(&private.database()).prepare();
    let talk = refused(&deployment, &["serve"]);
    assert!(talk.contains("fsync"), "{talk}");
}

#[tokio::test]
async fn a_revoked_token_is_refused_within_five_seconds() {
    let deployment = Deployment::sqlite().prepare();
    let replica = deployment.serve();
    let token = deployment.token("alice", &["secrets:read"]);
    let client = replica.client(&token);
    client.list().await.unwrap().expect(200);
    let id = token.get(6..22).unwrap();
    deployment.run(&["token", "revoke", id]);
    let began = Instant::now();
    while client.list().await.unwrap().status != 401 {
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    refused(&deployment, &["token", "revoke", id]);
    let list: Value = serde_json::from_str(&deployment.run(&["token", "list", "--json"])).unwrap();
    assert!(list["tokens"][0]["revoked_at"].is_string());
    assert!(!list.to_string().contains(&token));
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let deployment = Deployment::sqlite().prepare();
    let replica = deployment.serve();
    let arguments = [
        "token",
        "create",
        "--owner",
        "alice",
        "--scope",
        "secrets:read",
        "--expires-in",
        "2s",
    ];
    let token = deployment.run(&arguments);
    let client = replica.client(token.trim_end());
    client.list().await.unwrap().expect(200);
    let began = Instant::now();
    while client.list().await.unwrap().status != 401 {
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_head_of_the_log_is_that_of_its_last_event() {
    let deployment = Deployment::postgres(&Postgres::shared().database()).prepare();
    let head = || -> Value {
        serde_json::from_str(&deployment.run(&["events", "head", "--json"])).unwrap()
    };
    assert_eq!(head()["cursor"], "0-0");
    let replica = deployment.serve();
    let client = replica.client(&deployment.token("alice", &["secrets:write", "events:read"]));
    let id = client
        .create("A", "first value")
        .await
        .unwrap()
        .expect(201)
        .id();
    client.put(&id, "second value").await.unwrap().expect(200);
    let events = client
        .fetch(&format!("/api/v1/user/secrets/{id}/events"))
        .await
        .unwrap();
    let head = head();
    assert_eq!(head["cursor"], "1-2");
    assert_eq!(head["hash"], events.json()["events"][0]["hash"]);
}

#[tokio::test]
async fn the_health_check_tells_ready_from_not_ready() {
    let deployment = Deployment::sqlite().prepare();
    let mut replica = deployment.serve();
    let base = replica.base().to_owned();
    let ready: Value = serde_json::from_str(&deployment.run(&["healthcheck", &base])).unwrap();
    assert_eq!(ready["status"], "ready");
    assert_eq!(ready["checks"]["broker"], "off");
    replica.kill_9();
    assert_eq!(
        deployment.try_run(&["healthcheck", &base]).status.code(),
        Some(1)
    );
}

#[test]
fn all_faults_of_the_settings_are_named_together_and_no_value_is_shown() {
    let deployment = Deployment::sqlite()
        .set("SERVER__PORT", "canary-port")
        .set("COMMIT__NONSENSE", "canary-unknown")
        .set("BROKER__URL", "canary-url");
    let talk = refused(&deployment, &["serve"]);
    for name in ["server.port", "commit.nonsense", "broker.url"] {
        assert!(talk.contains(name), "{talk}");
    }
    assert!(!talk.contains("canary"), "{talk}");
}

#[test]
fn wrong_usage_is_exit_code_two_and_every_command_has_help_with_an_example() {
    let deployment = Deployment::sqlite();
    for wrong in [
        &["nonsense"][..],
        &["token", "create"],
        &["migrate", "down", "0"],
    ] {
        assert_eq!(
            deployment.try_run(wrong).status.code(),
            Some(2),
            "{wrong:?}"
        );
    }
    let mut seen = Vec::new();
    help_has_an_example(&deployment, &[], &mut seen);
    for command in ["serve", "migrate", "token", "keys", "events", "healthcheck"] {
        assert!(seen.iter().any(|name| name == command), "{seen:?}");
    }
    assert!(seen.contains(&"token revoke".to_owned()), "{seen:?}");
    assert!(deployment.run(&["--version"]).contains("commit"));
}

/// Checks the help of a command and of all commands below it.
fn help_has_an_example(deployment: &Deployment, command: &[&str], seen: &mut Vec<String>) {
    let name = command.join(" ");
    let help = deployment.run(&[command, &["--help"]].concat());
    let example = help.split_once("Example:\n").map(|(_, example)| example);
    let example = example.unwrap_or_else(|| panic!("rekey {name} --help has no example:\n{help}"));
    let first = example.lines().next().unwrap_or_default().trim_start();
    assert!(first.starts_with(&format!("rekey {name}")), "{help}");
    if !name.is_empty() {
        seen.push(name);
    }
    let commands = help.split_once("Commands:\n").map_or("", |(_, list)| list);
    for line in commands.lines().take_while(|line| !line.is_empty()) {
        match line.split_whitespace().next() {
            Some("help") | None => {}
            Some(below) => help_has_an_example(deployment, &[command, &[below]].concat(), seen),
        }
    }
}

#[test]
fn a_secret_setting_is_read_from_a_file() {
    let url = Postgres::shared().database();
    let deployment = Deployment::sqlite();
    deployment.run(&["keys", "generate"]);
    let file = deployment.folder().join("url");
    std::fs::write(&file, format!("{url}\n")).unwrap();
    let output = deployment
        .command(&["migrate", "up"])
        .env_remove("REKEY__DATABASE__URL")
        .env("REKEY__DATABASE__URL__FILE", &file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(
        postgres::psql(&url, "SELECT count(*) FROM secrets").trim(),
        "0"
    );
}
