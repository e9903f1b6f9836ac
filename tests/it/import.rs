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
        let text = "# keys\nA='p$ss # \"x\"'\nexport\tb=\"two\r\nlines\" # old\r\n\nC=plain\n";
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
fn a_file_with_faults_changes_nothing_names_every_faulty_line_and_shows_no_text_of_it() {
    let deployment = fixture::sqlite();
    for (text, said) in [
        (
            "A=canary-1\nPATH=canary-2\n",
            "line 2: the name is reserved\n",
        ),
        (
            "A=canary-1\n2B=canary-2\n",
            "line 2: the name does not match the pattern\n",
        ),
        (
            "A=canary-1\na=canary-2\nb='canary",
            "line 2: the name is already in line 1\nline 3: the quote is not closed\n",
        ),
        (
            "A=canary-1\nB=\n",
            "line 2: the value is too short (--skip-empty leaves such lines out)\n",
        ),
        (
            "canary-2\nA=canary&3\nB=1\n1=canary",
            "line 1: must be NAME=VALUE, a comment or a blank line\nline 2: write the value in single quotes",
        ),
        ("A=1\rB=canary\r", "line 1: a line must end in LF or CR LF"),
        (
            "KEY=q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4mrze8BI0VniavN7wEjRWeJ\ncanary7wEjRWeJ==\n",
            "line 2: this looks like the end of a key of several lines",
        ),
    ] {
        let (good, output) = import(&deployment, text);
        assert!(
            !good && output.contains(&format!(": nothing was imported\n{said}")),
            "{output}"
        );
        assert!(
            !output.contains("canary") && !output.contains("q83v"),
            "{output}"
        );
    }
    let (good, output) = import(&deployment, "# nothing\n");
    assert!(!good && output.contains("nothing to import"), "{output}");
    std::fs::write(
        deployment.folder().join("import.env"),
        b"A=1\nB=\xffcanary\n",
    )
    .unwrap();
    let output = deployment.try_run(&["import", "import.env", "--owner", "alice"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.ends_with("\nline 2: must be UTF-8\n"),
        "{said}"
    );
    let head = deployment.run(&["events", "head"]);
    assert!(head.starts_with("changes  epoch 0  position 0"), "{head}");
    assert!(
        !deployment
            .try_run(&["import", "absent.env", "--owner", "alice"])
            .status
            .success()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_the_current_one_is_left_and_the_same_file_twice_changes_nothing() {
    for deployment in fixture::both() {
        let token = deployment.token("alice", SCOPES);
        let replica = deployment.serve();
        let client = replica.client(&token);
        client.create("A", "one").await.unwrap().expect(201);
        client.create("B", "two").await.unwrap().expect(201);
        let text = "A=one\nB=other\nC=three\n";
        let progress = "rekey: sealed: 2 of 2 secrets\n";
        let left = "1 created, 1 updated\n1 left: the value is the current one already\n";
        assert_eq!(
            import(&deployment, text),
            (true, format!("{left}{progress}"))
        );
        let head = deployment.run(&["events", "head"]);
        assert!(head.starts_with("changes  epoch 1  position 4"), "{head}");
        let left = "0 created, 0 updated\n3 left: the value is the current one already\n";
        assert_eq!(import(&deployment, text), (true, left.to_owned()));
        assert_eq!(deployment.run(&["events", "head"]), head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    let deployment = fixture::sqlite();
    let token = deployment.token("alice", SCOPES);
    let replica = deployment.serve();
    let client = replica.client(&token);
    client.create("A", "one").await.unwrap().expect(201);
    client.create("B", "two").await.unwrap().expect(201);
    std::fs::write(
        deployment.folder().join("import.env"),
        "B=canary\nA=one\nC=canary\nD=\n",
    )
    .unwrap();
    let options = [
        "import",
        "import.env",
        "--owner",
        "alice",
        "--dry-run",
        "--skip-empty",
    ];
    let head = deployment.run(&["events", "head"]);
    let said =
        "would create C\nwould update B\nwould leave A\nwould create 1, update 1 and leave 1\n";
    assert_eq!(deployment.run(&options), said);
    let data = deployment.run(&[&options[..], &["--json"]].concat());
    let expected =
        serde_json::json!({"create": ["C"], "update": ["B"], "leave": ["A"], "skipped": 1});
    assert_eq!(serde_json::from_str::<Value>(&data).unwrap(), expected);
    assert_eq!(deployment.run(&["events", "head"]), head);
}

#[test]
fn the_standard_input_is_imported_and_lines_without_a_value_can_be_left_out() {
    let deployment = fixture::sqlite();
    let import = |text: &str| {
        let arguments = ["import", "-", "--owner", "alice", "--skip-empty", "--json"];
        let mut command = deployment.command(&arguments);
        let piped = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, text.as_bytes()).unwrap();
        drop(input);
        child.wait_with_output().unwrap()
    };
    let output = import("A=1\nB=\nC=''\n");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let data: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = serde_json::json!({"created": 1, "updated": 0, "left": 0, "skipped": 2});
    assert_eq!(data, expected);
    let output = import("A=a&b\n");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.starts_with("rekey: standard input: nothing was imported\nline 1: "),
        "{said}"
    );
    // What is left of a wrapped key is not skipped either.
    let key =
        "q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4mrze8BI0VniavN7wEjRWeJ\ncanary7wEjRWeJo=\n";
    let output = import(&format!("KEY={key}"));
    assert!(!output.status.success() && output.stdout.is_empty());
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
