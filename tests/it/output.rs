//! Output that nobody reads any more: a command ends quietly, with its own code.

use crate::support::{
    fixture::{self, ALL, World},
    port,
    process::{Process, closed_pipe},
    service::{Client, Deployment},
};
use rustix::process::Signal;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs a command whose reader is gone. Returns its code, and what it said.
fn unread(command: &mut Command) -> (Option<i32>, String) {
    let output = command.stdout(closed_pipe()).output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_enough_is_no_failure() {
    let world = World::sqlite();
    for number in 0..30 {
        let name = format!("KEY_{number}");
        world
            .alice
            .create(&name, "value")
            .await
            .unwrap()
            .expect(201);
    }
    let deployment = &world.deployment;
    std::fs::write(deployment.folder().join("import.env"), "A=1\n").unwrap();
    let base = world.replica.base();
    for line in [
        "--help",
        "help token create",
        "run --help",
        "--version",
        "token list",
        "token list --json",
        "token create --owner carol --scope secrets:read",
        "keys list",
        "keys generate",
        "migrate status",
        "events head",
        "events tail",
        "events tail --json",
        // It would go on for ever.
        "events tail --follow",
        "import import.env --owner carol --dry-run",
        "import import.env --owner carol",
        &format!("healthcheck {base}"),
    ] {
        let words: Vec<_> = line.split(' ').collect();
        let mut command = deployment.command(&words);
        command
            .env("REKEY_URL", base)
            .env("REKEY_TOKEN", &world.token);
        let (code, said) = unread(&mut command);
        let said = said.replace("rekey: sealed: 1 of 1 secrets\n", "");
        assert_eq!((code, said.as_str()), (Some(0), ""), "{line}");
    }
    assert!(deployment.run(&["token", "list"]).contains("carol"));
}

#[test]
fn a_code_that_says_something_stays_what_it_is() {
    // Nobody listens there.
    let deployment = Deployment::embedded();
    let address = ["healthcheck", "http://127.0.0.1:1"];
    assert_eq!(unread(&mut deployment.command(&address)).0, Some(1));
    assert_eq!(unread(&mut deployment.command(&["nothing"])).0, Some(2));
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let deployment = Deployment::embedded();
    drop(deployment.serve());
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = deployment.command(&["token", "list"]);
    let output = command.stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn a_service_goes_on_when_nobody_reads_its_line() {
    let deployment = fixture::sqlite();
    let token = deployment.token("alice", &ALL);
    let port = port::free();
    let mut command = deployment.command(&["serve"]);
    command
        .env("REKEY__SERVER__PORT", port.to_string())
        .stdout(closed_pipe());
    let mut process = Process::spawn(&mut command);
    let client = Client::new(&format!("http://127.0.0.1:{port}"), &token);
    let end = Instant::now() + Duration::from_secs(30);
    while client.create("A", "one").await.is_err() {
        assert!(Instant::now() < end, "it does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    process.signal(Signal::TERM);
    let status = process.wait(Duration::from_secs(30)).unwrap();
    assert_eq!(status.code(), Some(0));
}
