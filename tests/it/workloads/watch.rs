//! `rekey run --watch`: what a change causes, whatever happens to the link.

use super::script::Script;
use super::{Bench, Command, QUIET};
use crate::support::proxy::Ending;
use crate::support::service::Deployment;
use rustix::process::Signal;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Says its values and stays.
const SERVER: &str = r#"echo "start $A_KEY $B_KEY"; exec sleep 1000"#;
const BOTH: &[&str] = &["--watch", "--secret", "A_KEY", "--secret", "B_KEY"];

/// Two secrets and a command that runs on both.
async fn started(options: &[&str], line: &str) -> (Bench, [String; 2], Command) {
    let bench = Bench::new();
    let ids = [
        bench.create("A_KEY", "a1").await,
        bench.create("B_KEY", "b1").await,
    ];
    let run = bench.run(&[BOTH, options].concat(), line);
    run.prints(&["start a1 b1"]).await;
    (bench, ids, run)
}

/// Nothing more happens than these lines.
async fn settles(run: &Command, lines: &[&str]) {
    run.prints(lines).await;
    tokio::time::sleep(QUIET).await;
    run.prints(lines).await;
}

#[tokio::test]
async fn a_change_restarts_the_command_with_the_new_value() {
    let (bench, [a, _], mut run) = started(&[], SERVER).await;
    bench.put(&a, "a2").await;
    settles(&run, &["start a1 b1", "start a2 b1"]).await;
    run.signal(Signal::TERM);
    assert_eq!(run.code(), Some(143));
}

#[tokio::test]
async fn a_change_is_not_missed_while_the_link_is_cut() {
    let (bench, [a, b], run) = started(&[], SERVER).await;
    for (ending, id, value, line) in [
        (Ending::Reset, &a, "a2", "start a2 b1"),
        (Ending::Fin, &b, "b2", "start a2 b2"),
    ] {
        bench.proxy.refuse(ending);
        bench.put(id, value).await;
        let tried = bench.proxy.accepted();
        run.until("a try", || bench.proxy.accepted() > tried).await;
        let before = run.stdout().len();
        bench.proxy.pass();
        run.until(line, || run.stdout().len() > before).await;
        assert_eq!(run.stdout().last().unwrap(), line);
    }
    settles(&run, &["start a1 b1", "start a2 b1", "start a2 b2"]).await;
}

#[tokio::test]
async fn whatever_breaks_the_last_value_is_reached_and_no_older_one_comes_back() {
    let (mut bench, [a, _], run) = started(&["--debounce", "20ms"], SERVER).await;
    for number in 2..=25 {
        match number % 6 {
            0 => bench.proxy.break_links(Ending::Reset),
            1 => bench.proxy.refuse(Ending::Fin),
            2 => bench.proxy.stall(),
            3 => bench.proxy.delay(Duration::from_millis(30)),
            4 if number > 20 => {
                bench.replica.kill_9();
                bench.serve_again();
            }
            _ => bench.proxy.pass(),
        }
        bench.put(&a, &format!("a{number}")).await;
        tokio::time::sleep(Duration::from_millis(number % 7 * 40)).await;
        bench.proxy.pass();
    }
    let reached = || {
        run.stdout()
            .last()
            .is_some_and(|line| line == "start a25 b1")
    };
    run.until("the last value", reached).await;
    let numbers: Vec<u64> = run
        .stdout()
        .iter()
        .map(|line| {
            let value = line.strip_prefix("start a").unwrap();
            value.strip_suffix(" b1").unwrap().parse().unwrap()
        })
        .collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
}

#[tokio::test]
async fn a_change_is_not_missed_between_the_first_values_and_the_stream() {
    let bench = Bench::new();
    let a = bench.create("A_KEY", "a1").await;
    bench.create("B_KEY", "b1").await;
    bench.proxy.delay(Duration::from_millis(300));
    let run = bench.run(BOTH, SERVER);
    let accepted = || bench.proxy.bytes_to_client() > 0;
    run.until("the first values", accepted).await;
    bench.put(&a, "a2").await;
    run.until("a2", || {
        run.stdout()
            .last()
            .is_some_and(|line| line == "start a2 b1")
    })
    .await;
}

#[tokio::test]
async fn a_change_set_causes_one_restart_with_all_its_values() {
    let (bench, [a, b], run) = started(&["--debounce", "0s"], SERVER).await;
    let updates = json!({"updates": [{"id": a, "value": "a2"}, {"id": b, "value": "b2"}]});
    let answer = bench
        .alice
        .post("/api/v1/user/secrets/batch", &updates)
        .await;
    answer.unwrap().expect(200);
    settles(&run, &["start a1 b1", "start a2 b2"]).await;
}

#[tokio::test]
async fn changes_that_follow_each_other_cause_one_restart() {
    let (bench, [a, b], run) = started(&["--debounce", "2s"], SERVER).await;
    bench.put(&a, "a2").await;
    bench.put(&b, "b2").await;
    bench.put(&a, "a3").await;
    settles(&run, &["start a1 b1", "start a3 b2"]).await;
}

#[tokio::test]
async fn a_command_that_the_new_values_kill_gets_the_last_good_ones() {
    let line = r#"echo "start $A_KEY $B_KEY"; [ "$A_KEY" != bad ] || exit 9; exec sleep 1000"#;
    let (bench, [a, b], mut run) = started(&[], line).await;
    bench.put(&a, "bad").await;
    let back = ["start a1 b1", "start bad b1", "start a1 b1"];
    settles(&run, &back).await;
    assert!(
        run.stderr()
            .contains("right after its restart (exit status: 9)")
    );
    // The next version of either is tried again.
    bench.put(&b, "b2").await;
    let twice = ["start bad b2", "start a1 b1"];
    run.prints(&[&back[..], &twice].concat()).await;
    bench.put(&a, "a3").await;
    settles(&run, &[&back[..], &twice, &["start a3 b2"]].concat()).await;
    run.signal(Signal::TERM);
    assert_eq!(run.code(), Some(143));
}

#[tokio::test]
async fn a_deleted_secret_is_waited_for() {
    let (bench, [a, b], run) = started(&[], SERVER).await;
    bench.alice.delete(&a).await.unwrap().expect(204);
    run.says("a secret was deleted").await;
    bench.put(&b, "b2").await;
    settles(&run, &["start a1 b1"]).await;
    bench.create("A_KEY", "a2").await;
    settles(&run, &["start a1 b1", "start a2 b2"]).await;
}

#[tokio::test]
async fn a_command_that_does_not_end_is_killed_when_the_grace_is_over() {
    let line = r#"trap '' TERM; echo "start $A_KEY $B_KEY"; while :; do sleep 0.02; done"#;
    let (bench, [a, _], run) = started(&["--grace", "300ms"], line).await;
    bench.put(&a, "a2").await;
    settles(&run, &["start a1 b1", "start a2 b1"]).await;
}

#[tokio::test]
async fn nothing_of_the_command_is_left_behind_at_a_restart() {
    // The shell ends at once, its child after a while: the next start waits for both. (After the test the
    // child ends because its shell is gone.)
    let line = r#"echo "start $A_KEY $B_KEY"
        sh -c 'trap "sleep 0.5; echo gone; exit" TERM; while kill -0 $PPID; do sleep 0.02; done' & wait"#;
    let (bench, [a, _], run) = started(&[], line).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    bench.put(&a, "a2").await;
    settles(&run, &["start a1 b1", "gone", "start a2 b1"]).await;
}

#[tokio::test]
async fn a_signal_can_stand_for_the_restart() {
    let line = r#"trap 'echo got' USR1; echo "start $A_KEY $B_KEY"; while :; do sleep 0.02; done"#;
    let (bench, [a, _], mut run) = started(&["--on-change", "signal:USR1"], line).await;
    bench.put(&a, "a2").await;
    settles(&run, &["start a1 b1", "got"]).await;
    run.signal(Signal::TERM);
    assert_eq!(run.code(), Some(143));
}

#[tokio::test]
async fn a_command_of_its_own_can_stand_for_the_restart() {
    let hook = r#"exec:echo "changed $A_KEY ${REKEY_TOKEN-none}""#;
    let (bench, [a, _], run) = started(&["--on-change", hook], SERVER).await;
    bench.put(&a, "a2").await;
    settles(&run, &["start a1 b1", "changed a2 none"]).await;
    bench.put(&a, "a3").await;
    settles(&run, &["start a1 b1", "changed a2 none", "changed a3 none"]).await;
}

#[tokio::test]
async fn the_commands_own_end_is_runs() {
    let line = r#"echo "start $A_KEY $B_KEY"; sleep 0.5; exit 6"#;
    let (_bench, _, mut run) = started(&[], line).await;
    assert_eq!(run.code(), Some(6));
}

#[tokio::test]
async fn a_restored_backup_is_noticed_and_its_values_are_fetched() {
    let (mut bench, [a, _], run) = started(&[], SERVER).await;
    bench.stop();
    let backup = bench.deployment.folder().join("backup.db");
    std::fs::copy(database(&bench), &backup).unwrap();
    bench.serve_again();
    bench.put(&a, "a2").await;
    run.prints(&["start a1 b1", "start a2 b1"]).await;
    bench.stop();
    restore(&bench, &backup);
    bench.serve_again();
    let back = ["start a1 b1", "start a2 b1", "start a1 b1"];
    settles(&run, &back).await;
    run.says("the log no longer holds this place").await;
    // What comes after it is followed.
    bench.put(&a, "a3").await;
    settles(&run, &[&back[..], &["start a3 b1"]].concat()).await;
}

fn database(bench: &Bench) -> PathBuf {
    bench.deployment.folder().join("rekey.db")
}

/// Puts a copy in the database's place, as an operator would who forgets to raise the epoch.
fn restore(bench: &Bench, backup: &Path) {
    std::fs::copy(backup, database(bench)).unwrap();
    for ending in ["db-wal", "db-shm"] {
        let _ = std::fs::remove_file(database(bench).with_extension(ending));
    }
}

const RESOLVE: &str = "POST /api/v1/secrets/resolve";

/// A service that does as the test says, and a command that follows its `A_KEY`.
async fn scripted(deployment: &Deployment, options: &[&str]) -> (Script, TcpStream, Command) {
    let mut script = Script::start().await;
    let mut command = deployment.command(&["run", "--owner", "alice", "--watch"]);
    command
        .args(["--debounce", "0s", "--secret", "A_KEY"])
        .args(options)
        .args(["--", "sh", "-c", r#"echo "start $A_KEY"; exec sleep 1000"#])
        .env("REKEY_URL", &script.base)
        .env("REKEY_TOKEN", "rekey_token");
    let run = Command::start(command);
    resolves(&mut script, 1, "1-5").await;
    let stream = script.asked("event-stream").await.stream("1-5").await;
    run.prints(&["start a1"]).await;
    (script, stream, run)
}

/// The body of an answer with a version of `A_KEY`.
fn values(version: u64, cursor: &str) -> String {
    let secret = json!({
        "id": "0198f3c2-7a10-7cc0-8000-000000000001", "name": "A_KEY",
        "value": format!("a{version}"), "version": version,
    });
    json!({"secrets": [secret], "cursor": cursor}).to_string()
}

/// Answers the next request for values.
async fn resolves(script: &mut Script, version: u64, cursor: &str) {
    let asked = script.asked(RESOLVE).await;
    asked.answer(200, &values(version, cursor)).await;
}

/// An event that says that `A_KEY` has a new value.
async fn changes(stream: &mut TcpStream, cursor: &str) {
    let event = json!({"type": "secret.updated", "owner": "alice", "name": "A_KEY"});
    let block = format!("id: {cursor}\nevent: secret.updated\ndata: {event}\n\n");
    stream.write_all(block.as_bytes()).await.unwrap();
}

/// The log has lost the stream's cursor: the command gets version 3 and another stream, from 2-9.
async fn loses_the_cursor(script: &mut Script, stream: TcpStream) -> TcpStream {
    drop(stream);
    script.asked("event-stream").await.answer(410, "{}").await;
    let head = json!({
        "log": "changes", "epoch": 2, "position": 9, "hash": "ab".repeat(32), "cursor": "2-9",
        "signature": "s",
    });
    let asked = script.asked("GET /api/v1/events/head").await;
    asked.answer(200, &head.to_string()).await;
    resolves(script, 3, "2-9").await;
    script.asked("event-stream").await.stream("2-9").await
}

#[tokio::test]
async fn values_that_were_asked_for_before_the_cursor_was_lost_are_not_acted_on_after_it() {
    let deployment = Deployment::embedded();
    let (mut script, mut stream, run) = scripted(&deployment, &[]).await;
    changes(&mut stream, "1-6").await;
    let late = script.asked(RESOLVE).await;
    let mut stream = loses_the_cursor(&mut script, stream).await;
    run.prints(&["start a1", "start a3"]).await;
    // Nobody may be listening any more.
    let _ = late.try_answer(200, &values(2, "1-6")).await;
    // The next change is acted on.
    changes(&mut stream, "2-10").await;
    resolves(&mut script, 4, "2-10").await;
    settles(&run, &["start a1", "start a3", "start a4"]).await;
}

#[tokio::test]
async fn the_exec_command_runs_once_at_a_time_also_when_the_cursor_is_lost() {
    let deployment = Deployment::embedded();
    let go_on = deployment.folder().join("go-on");
    let hook = format!(
        r#"exec:echo "begin $A_KEY"; until [ -e {} ]; do sleep 0.02; done; echo "end $A_KEY""#,
        go_on.display()
    );
    let (mut script, mut stream, run) = scripted(&deployment, &["--on-change", &hook]).await;
    changes(&mut stream, "1-6").await;
    resolves(&mut script, 2, "1-6").await;
    run.prints(&["start a1", "begin a2"]).await;
    let _stream = loses_the_cursor(&mut script, stream).await;
    settles(&run, &["start a1", "begin a2"]).await;
    std::fs::write(&go_on, "").unwrap();
    run.prints(&["start a1", "begin a2", "end a2", "begin a3", "end a3"])
        .await;
}

#[tokio::test]
async fn a_token_that_may_not_follow_is_found_out_before_anything_runs() {
    let mut bench = Bench::new();
    bench.create("A_KEY", "a1").await;
    bench.create("B_KEY", "b1").await;
    bench.token = bench.deployment.token("alice", &["secrets:resolve"]);
    let mut run = bench.run(BOTH, SERVER);
    assert_eq!(run.code(), Some(1));
    run.says("403 permission_error").await;
    assert_eq!(run.stdout(), [""; 0]);
}

#[tokio::test]
async fn a_command_outlives_its_token() {
    let (bench, [a, _], run) = started(&[], SERVER).await;
    let id = bench.token.split('_').nth(1).unwrap();
    bench.deployment.run(&["token", "revoke", id]);
    run.says("the service rejected the token").await;
    bench.put(&a, "a2").await;
    settles(&run, &["start a1 b1"]).await;
}

#[tokio::test]
async fn a_token_file_is_read_again_when_it_changes_and_when_its_token_is_rejected() {
    for late in [false, true] {
        let mut bench = Bench::new();
        let a = bench.create("A_KEY", "a1").await;
        let file = bench.deployment.folder().join("workload-token");
        std::fs::write(&file, format!("{}\n", bench.token)).unwrap();
        let line = r#"echo "start $A_KEY"; exec sleep 1000"#;
        let run = ["run", "--owner", "alice", "--secret", "A_KEY", "--watch"];
        let run = [&run[..], &["--", "sh", "-c", line]].concat();
        let run = bench.start_with_token_file(&run, &file);
        run.prints(&["start a1"]).await;
        let tail = bench.start_with_token_file(&["events", "tail", "--follow"], &file);
        tail.until("a line", || tail.stdout().len() == 1).await;
        // Longer than a stream outlives its token.
        bench.rotate_token(&file, late).await;
        bench.put(&a, "a2").await;
        run.prints(&["start a1", "start a2"]).await;
        tail.until("two lines", || tail.stdout().len() == 2).await;
        let said = "the service rejected the token";
        assert_eq!(run.stderr().contains(said), late);
        assert_eq!(tail.stderr().contains(said), late);
    }
}
