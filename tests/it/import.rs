//! `rekey import`: a file becomes secrets, all or none.

use crate::support::fixture::{self, SCOPES};
use crate::support::service::{BINARY, Deployment};
use serde_json::Value;
use std::process::Stdio;

fn import(deployment: &Deployment, text: &str) -> (bool, String) {
    let file = deployment.folder().join("import.env");
    std::fs::write(&file, text).unwrap();
    let output = deployment.try_run(&["import", file.to_str().unwrap(), "--owner", "alice"]);
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_one_change_set_of_creates_and_updates_beside_a_running_service() {
    for deployment in fixture::both() {
        let scopes = [SCOPES, &["secrets:resolve"]].concat();
        let token = deployment.token("alice", &scopes);
        let replica = deployment.serve();
        let client = replica.client(&token);
        client.create("B", "sk-old").await.unwrap().expect(201);
        let text = "# keys\nA='p$ss # \"x\"'\nexport b = \"two\\nlines\" # old\n\nC=plain\n";
        assert_eq!(
            import(&deployment, text),
            (
                true,
                "2 created, 1 updated\nrekey: sealed: 3 of 3 secrets\n".to_owned()
            )
        );
        let body = serde_json::json!({"names": ["A", "B", "C"]});
        let answer = client.post("/api/v1/secrets/resolve", &body).await;
        let secrets = answer.unwrap().expect(200).json();
        let value = |index: usize| secrets["secrets"][index]["value"].clone();
        assert_eq!(
            [value(0), value(1), value(2)],
            ["p$ss # \"x\"", "two\nlines", "plain"]
        );
        let page = client
            .fetch("/api/v1/events?after=1-1")
            .await
            .unwrap()
            .expect(200);
        let events = page.json()["events"].as_array().unwrap().clone();
        let of = |event: &Value, field: &str| event["change_set"][field].clone();
        assert_eq!(events.len(), 3);
        for (index, event) in events.iter().enumerate() {
            assert_eq!(of(event, "index"), index);
            assert_eq!(of(event, "size"), 3);
            assert_eq!(of(event, "id"), of(&events[0], "id"));
            assert_eq!(event["actor"]["kind"], "operator");
            assert_eq!(event["request_id"], Value::Null);
        }
    }
}

#[test]
fn a_file_with_one_fault_changes_nothing_and_shows_no_value() {
    let deployment = fixture::sqlite();
    for (text, said) in [
        (
            "A=canary-1\nPATH=canary-2\n",
            "line 2: the name is reserved",
        ),
        (
            "A=canary-1\n2B=canary-2\n",
            "line 2: the name does not match the pattern",
        ),
        (
            "A=canary-1\na=canary-2\n",
            "line 2: the name is already in line 1",
        ),
        ("A=canary-1\nB=\n", "line 2: the value is too short"),
        ("A=canary-1\ncanary-2\n", "line 2: must be NAME=VALUE"),
        ("# nothing\n", "nothing to import"),
    ] {
        let (good, output) = import(&deployment, text);
        assert!(
            !good && output.contains(said) && !output.contains("canary"),
            "{output}"
        );
    }
    let head = deployment.run(&["events", "head"]);
    assert!(head.starts_with("changes  epoch 0  position 0"), "{head}");
    assert!(
        !deployment
            .try_run(&["import", "absent.env", "--owner", "alice"])
            .status
            .success()
    );
}

#[test]
fn a_file_over_the_limit_changes_nothing() {
    let deployment = fixture::sqlite().set("LIMITS__SECRETS_PER_OWNER", "2");
    let (good, output) = import(&deployment, "A=1\nB=2\nC=3\n");
    assert!(
        !good && output.contains("C: the owner's limit of secrets is reached"),
        "{output}"
    );
    assert_eq!(
        import(&deployment, "A=1\nB=2\n"),
        (
            true,
            "2 created, 0 updated\nrekey: sealed: 2 of 2 secrets\n".to_owned()
        )
    );
}

#[test]
fn on_a_terminal_a_bar_shows_how_far_it_is_and_goes_away() {
    let deployment = fixture::sqlite();
    std::fs::write(deployment.folder().join("import.env"), "A=1\nB=2\n").unwrap();
    // It gives its command a terminal.
    let line = format!("{BINARY} import import.env --owner alice");
    let mut script = deployment.program("script");
    let output = script
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .expect("script runs (package bsdutils)");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let (bar, end) = text.rsplit_once("\u{1b}[2K").expect("a line is cleared");
    assert!(bar.contains("] 2 of 2 secrets"), "{text}");
    assert_eq!(end.trim(), "2 created, 0 updated");
}
