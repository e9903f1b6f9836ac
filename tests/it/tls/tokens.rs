//! No token crosses a network in plain text by accident.

use crate::support::{
    fixture::{self, World},
    service::Deployment,
};
use std::process::Output;

/// The replica by an address that is this machine, and does not look like it.
fn elsewhere(base: &str) -> String {
    base.replace("127.0.0.1", "0.0.0.0")
}

fn refuses(output: &Output) {
    let talk = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{talk}");
    let expected = "the token would cross the network in plain text: use https://";
    assert!(talk.contains(expected), "{talk}");
}

fn succeeds(output: &Output) {
    let talk = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{talk}");
}

#[tokio::test]
async fn run_and_tail_send_no_token_over_plain_http_to_another_machine_unless_told_to() {
    let world = World::sqlite();
    world.alice.create("A", "sk-1").await.unwrap().expect(201);
    let run = |arguments: &[&str], variable: Option<&str>| {
        let mut command = world.deployment.command(arguments);
        command
            .env("REKEY_URL", elsewhere(world.replica.base()))
            .env("REKEY_TOKEN", &world.token)
            .envs(variable.map(|value| ("REKEY_PLAINTEXT", value)));
        command.output().unwrap()
    };
    let tail = ["events", "tail"];
    let tail_in_plain = ["events", "tail", "--plaintext"];
    let workload = ["run", "--owner", "alice", "--secret", "A", "--", "true"];
    let workload_in_plain = [
        "run",
        "--plaintext",
        "--owner",
        "alice",
        "--secret",
        "A",
        "--",
        "true",
    ];
    for (refused, allowed) in [
        (&tail[..], &tail_in_plain[..]),
        (&workload, &workload_in_plain),
    ] {
        refuses(&run(refused, None));
        refuses(&run(refused, Some("0")));
        succeeds(&run(refused, Some("1")));
        succeeds(&run(allowed, None));
        let output = run(refused, Some("yes"));
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(talk.contains("REKEY_PLAINTEXT must be 1 or 0"), "{talk}");
    }
}

#[tokio::test]
async fn the_audit_consumer_sends_no_token_over_plain_http_to_another_machine_unless_told_to() {
    let world = World::sqlite();
    let token = world
        .deployment
        .service_token("audit", &["*"], &["events:read"]);
    let consumer = Deployment::embedded()
        .broker("amqp://127.0.0.1:1", &fixture::exchange())
        .set("AUDIT__URL", &elsewhere(world.replica.base()))
        .set("AUDIT__TOKEN", &token);
    refuses(&consumer.try_run(&["audit", "serve"]));
    let consumer = consumer.set("AUDIT__PLAINTEXT", "true");
    // It goes on to the broker, which is not there.
    let mut command = consumer.command(&["audit", "serve"]);
    command.stderr(std::process::Stdio::piped());
    let mut process = crate::support::process::Process::spawn(&mut command);
    let stderr = process.child().stderr.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stderr));
    let line = lines
        .find(|line| line.as_ref().unwrap().contains("broker"))
        .unwrap();
    assert!(line.unwrap().contains("tls=off"));
    assert!(process.status().is_none());
}
