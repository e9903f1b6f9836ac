//! `rekey backup`: a copy of the database while the service writes.

use crate::support::fixture;
use crate::support::python;
use crate::support::service::{Client, Deployment};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Puts one value after another until it is told to stop, and counts those that were acknowledged.
async fn write(client: Client, id: String, acknowledged: &AtomicU64, stop: &AtomicBool) {
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        let put = client.put(&id, &format!("sk-{number}")).await;
        put.unwrap().expect(200);
        acknowledged.store(number, Ordering::SeqCst);
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Starts on a copy that takes the place of the database, with the same keyring.
fn restored(original: &Deployment, backup: &str) -> Deployment {
    let restored = Deployment::sqlite()
        .raised_limits()
        .set("KEYRING__PATH", original.keyring().to_str().unwrap());
    let from = original.folder().join(backup);
    std::fs::copy(from, restored.folder().join("rekey.db")).unwrap();
    restored
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_holds_every_write_that_was_acknowledged_before_it_and_none_by_half() {
    let deployment = fixture::sqlite();
    let token = deployment.token("alice", &fixture::ALL);
    let replica = deployment.serve();
    let client = replica.client(&token);
    let id = client.create("A", "sk-0").await.unwrap().expect(201).id();
    let (acknowledged, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let backups = async {
        let mut floors = Vec::new();
        for number in 0..5 {
            while acknowledged.load(Ordering::SeqCst) < 20 * (number + 1) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            let floor = acknowledged.load(Ordering::SeqCst);
            let file = format!("backup-{number}.db");
            let command = deployment.command(&["backup", &file, "--json"]).output();
            let output = command.unwrap();
            assert!(output.status.success(), "{}", said(&output));
            let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
            floors.push((file, floor, shown));
        }
        stop.store(true, Ordering::SeqCst);
        floors
    };
    let (floors, ()) = tokio::join!(
        backups,
        write(client.clone(), id.clone(), &acknowledged, &stop)
    );
    for (file, floor, shown) in floors {
        let path = deployment.folder().join(&file);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let copy = restored(&deployment, &file);
        let head: Value = serde_json::from_str(&copy.run(&["events", "head", "--json"])).unwrap();
        let changes = &shown["logs"][0];
        assert_eq!(changes["cursor"], head["cursor"]);
        assert_eq!(changes["hash"], head["hash"]);
        let restored = copy.serve();
        let client = restored.client(&token);
        let resolved = client.resolve(&json!({"names": ["A"]})).await.unwrap();
        let secret = resolved.expect(200).json()["secrets"][0].clone();
        let version = secret["version"].as_u64().unwrap();
        assert!(version > floor, "{version} does not hold {floor}");
        // One event a version: the row, its version and its event are of the same commit.
        assert_eq!(head["cursor"], format!("1-{version}"));
        assert_eq!(secret["value"], format!("sk-{}", version - 1));
        client.put(&id, "sk-next").await.unwrap().expect(200);
    }
    // Neither a temporary file nor a journal is left.
    let names = std::fs::read_dir(deployment.folder()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<_> = names
        .filter(|name| name.starts_with(".rekey-") || name.ends_with("-journal"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_backup_holds_nothing_that_was_deleted_and_no_key_and_says_so() {
    let deployment = fixture::sqlite();
    deployment.sql("CREATE TABLE scrap (text TEXT)");
    deployment.sql("INSERT INTO scrap VALUES ('canary-of-a-deleted-row')");
    deployment.sql("DROP TABLE scrap");
    let output = deployment.try_run(&["backup", "copy.db"]);
    assert!(output.status.success(), "{}", said(&output));
    let keyring = deployment.keyring();
    let words = said(&output);
    assert!(
        words.contains(keyring.to_str().unwrap()) && words.contains("is not in the backup"),
        "{words}"
    );
    let copy = std::fs::read(deployment.folder().join("copy.db")).unwrap();
    let holds = |text: &[u8]| copy.windows(text.len()).any(|window| window == text);
    assert!(holds(b"seaql_migrations"), "the search finds what is there");
    assert!(!holds(b"canary-of-a-deleted-row"));
    let ring: Value = serde_json::from_slice(&std::fs::read(&keyring).unwrap()).unwrap();
    let key = ring["keys"][0]["key"].as_str().unwrap();
    assert!(!holds(key.as_bytes()));
}

#[test]
fn a_backup_replaces_no_file_and_makes_no_database() {
    let deployment = fixture::sqlite();
    for (name, content) in [("taken.db", Some("mine")), ("link.db", None)] {
        let path = deployment.folder().join(name);
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::os::unix::fs::symlink("nowhere.db", &path).unwrap(),
        }
        let output = deployment.try_run(&["backup", name]);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            said(&output).contains("is there already"),
            "{}",
            said(&output)
        );
    }
    let taken = std::fs::read(deployment.folder().join("taken.db")).unwrap();
    assert_eq!(taken, b"mine");
    assert!(!deployment.folder().join("nowhere.db").exists());
    let output = deployment.try_run(&["backup", "no/such/folder.db"]);
    assert_eq!(output.status.code(), Some(1));
    let absent = Deployment::sqlite();
    let output = absent.try_run(&["backup", "copy.db"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("no database at"),
        "{}",
        said(&output)
    );
    assert!(!absent.folder().join("copy.db").exists());
}

#[test]
fn a_backup_of_a_damaged_database_is_refused_and_leaves_no_file() {
    let deployment = fixture::sqlite();
    // A row that its own table forbids: nothing but a check of the copy sees it.
    let damage = "import sqlite3, sys\n\
                  with sqlite3.connect(sys.stdin.read()) as db:\n \
                  db.execute('CREATE TABLE scrap (number INTEGER CHECK (number > 1))')\n \
                  db.execute('PRAGMA ignore_check_constraints = ON')\n \
                  db.execute('INSERT INTO scrap VALUES (1)')";
    let path = deployment.folder().join("rekey.db");
    python::try_run(damage, path.to_str().unwrap().as_bytes()).unwrap();
    let output = deployment.try_run(&["backup", "copy.db"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("damaged"), "{}", said(&output));
    assert!(!deployment.folder().join("copy.db").exists());
}

#[test]
fn a_backup_of_a_server_is_refused_with_the_command_that_makes_one() {
    let deployment = fixture::postgres();
    let output = deployment.try_run(&["backup", "copy.db"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("pg_dump"), "{}", said(&output));
    assert!(!deployment.folder().join("copy.db").exists());
}
