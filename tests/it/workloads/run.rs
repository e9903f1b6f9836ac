//! `rekey run` without `--watch`: what the command gets, and what it gives back.

use super::{Bench, Command, QUIET};
use crate::support::canary::Canary;
use crate::support::fixture;
use rustix::process::Signal;

const SHOW: &str =
    r#"printf '%s|%s|%s|%s\n' "$A_KEY" "$B_KEY" "${REKEY_TOKEN-none}" "${REKEY_TOKEN_FILE-none}""#;

#[tokio::test]
async fn the_command_gets_the_values_and_not_the_token() {
    let bench = Bench::new();
    bench.create("A_KEY", "one é\n\"two\"").await;
    bench.create("B_KEY", "three").await;
    let secrets = [
        "--secret", "a_key", "--secret", "B_KEY", "--secret", "A_KEY",
    ];
    let mut run = bench.run(&secrets, SHOW);
    assert_eq!(run.code(), Some(0));
    run.prints(&["one é", "\"two\"|three|none|none"]).await;
    assert_eq!(run.stderr(), "");

    let path = bench.deployment.folder().join("workload-token");
    std::fs::write(&path, format!("{}\n", bench.token)).unwrap();
    let mut arguments = vec!["run", "--owner", "alice"];
    arguments.extend(secrets);
    arguments.extend(["--", "sh", "-c", SHOW]);
    let mut command = bench.deployment.command(&arguments);
    command
        .env("REKEY_URL", bench.replica.base())
        .env("REKEY_TOKEN_FILE", &path);
    let mut run = Command::start(command);
    assert_eq!(run.code(), Some(0));
    run.prints(&["one é", "\"two\"|three|none|none"]).await;
}

#[tokio::test]
async fn a_secret_that_would_steer_the_command_is_refused_whatever_the_service_allows() {
    let deployment = fixture::sqlite().set("LIMITS__RESERVED_NAMES", "");
    let token = deployment.token("alice", &fixture::ALL);
    let replica = deployment.serve();
    let alice = replica.client(&token);
    alice.create("LD_PRELOAD", "x").await.unwrap().expect(201);
    let mut command = deployment.command(&[
        "run",
        "--owner",
        "alice",
        "--secret",
        "LD_PRELOAD",
        "--",
        "env",
    ]);
    command
        .env("REKEY_URL", replica.base())
        .env("REKEY_TOKEN", &token);
    let mut run = Command::start(command);
    assert_eq!(run.code(), Some(2));
    run.says("steers shells, loaders or interpreters").await;
}

#[tokio::test]
async fn the_commands_exit_code_is_runs() {
    let bench = Bench::new();
    bench.create("A_KEY", "one").await;
    for (line, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
    ] {
        assert_eq!(bench.run(&["--secret", "A_KEY"], line).code(), Some(code));
    }
    for (program, code) in [("./not-there", 127), ("/", 126)] {
        let arguments = [
            "run", "--owner", "alice", "--secret", "A_KEY", "--", program,
        ];
        let mut run = bench.start(&arguments);
        assert_eq!(run.code(), Some(code));
        run.says("cannot start the command").await;
    }
}

#[tokio::test]
async fn a_signal_to_run_reaches_the_command_once() {
    let bench = Bench::new();
    bench.create("A_KEY", "one").await;
    let line = "trap 'echo hup' HUP; trap 'echo int' INT; trap 'echo term; exit 5' TERM; \
                echo start; while :; do sleep 0.02; done";
    let mut run = bench.run(&["--secret", "A_KEY"], line);
    run.prints(&["start"]).await;
    run.signal(Signal::HUP);
    run.prints(&["start", "hup"]).await;
    // The terminal's Ctrl-C goes to the whole group of `run`.
    let group = run.process.id().try_into().unwrap();
    let group = rustix::process::Pid::from_raw(group).unwrap();
    rustix::process::kill_process_group(group, Signal::INT).unwrap();
    run.prints(&["start", "hup", "int"]).await;
    run.signal(Signal::TERM);
    assert_eq!(run.code(), Some(5));
    run.prints(&["start", "hup", "int", "term"]).await;
}

/// Whether a process still runs. (What has ended and is not reaped has no arguments.)
fn runs(id: &str) -> bool {
    std::fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|arguments| !arguments.is_empty())
}

#[tokio::test]
async fn a_signal_that_ends_run_ends_all_that_the_command_has_started() {
    let bench = Bench::new();
    bench.create("A_KEY", "one").await;
    // The second process does not end by itself.
    let line = "sleep 1000 & echo $!; sh -c 'trap \"\" TERM INT HUP; echo $$; while :; do sleep 0.1; done' & wait";
    let hook = "exec:echo hook; sh -c 'echo $$; exec sleep 1000' & wait";
    let once = ["--secret", "A_KEY", "--grace", "200ms"];
    let watching = [&once[..], &["--watch"]].concat();
    for options in [&once[..], &watching] {
        for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
            let mut run = bench.run(options, line);
            run.until("two processes", || run.stdout().len() == 2).await;
            assert!(run.stdout().iter().all(|id| runs(id)));
            run.signal(signal);
            assert_eq!(run.code(), Some(code));
            assert!(!run.stdout().iter().any(|id| runs(id)), "{signal:?}");
        }
    }
    let id = bench.create("B_KEY", "one").await;
    let options = ["--secret", "B_KEY", "--watch", "--on-change", hook];
    let mut run = bench.run(&options, "exec sleep 1000");
    tokio::time::sleep(QUIET).await;
    bench.put(&id, "two").await;
    run.until("the hook", || run.stdout().len() == 2).await;
    run.signal(Signal::TERM);
    assert_eq!(run.code(), Some(143));
    assert!(!runs(&run.stdout()[1]));
}

#[tokio::test]
async fn what_the_command_leaves_behind_at_its_own_end_is_left() {
    let bench = Bench::new();
    bench.create("A_KEY", "one").await;
    let line = "sleep 1000 > /dev/null 2>&1 & echo $!; exit 3";
    let mut run = bench.run(&["--secret", "A_KEY"], line);
    assert_eq!(run.code(), Some(3));
    run.until("its ID", || run.stdout().len() == 1).await;
    let id = run.stdout().remove(0);
    assert!(runs(&id));
    let id = rustix::process::Pid::from_raw(id.parse().unwrap()).unwrap();
    rustix::process::kill_process(id, Signal::KILL).unwrap();
}

#[tokio::test]
async fn without_its_values_nothing_is_run() {
    let bench = Bench::new();
    bench.create("A_KEY", "one").await;
    let missing = ["--secret", "A_KEY", "--secret", "NOT_THERE"];
    let mut run = bench.run(&missing, "echo started");
    assert_eq!(run.code(), Some(1));
    run.says("does not have a secret of each of these names")
        .await;
    assert_eq!(run.stdout(), [""; 0]);

    let foreign = [
        "run", "--owner", "bob", "--secret", "A_KEY", "--", "echo", "started",
    ];
    let mut run = bench.start(&foreign);
    assert_eq!(run.code(), Some(1));
    assert_eq!(run.stdout(), [""; 0]);

    let mut command = bench.deployment.command(&foreign);
    command
        .env("REKEY_URL", bench.replica.base())
        .env("REKEY_TOKEN", "rekey_wrong");
    let mut run = Command::start(command);
    assert_eq!(run.code(), Some(1));
    run.says("the service rejected the token").await;

    let mut run = Command::start(bench.deployment.command(&foreign));
    assert_eq!(run.code(), Some(1));
    run.says("REKEY_URL is not set").await;
}

#[tokio::test]
async fn no_value_and_no_token_is_in_what_run_says_or_in_its_arguments() {
    let bench = Bench::new();
    let canary = Canary::fresh();
    let id = bench.create("A_KEY", canary.value()).await;
    let line = "echo start; tr '\\0' ' ' < /proc/$PPID/cmdline; exec sleep 1000";
    let arguments = [
        "run", "--owner", "alice", "--secret", "A_KEY", "--watch", "--", "sh", "-c", line,
    ];
    let mut command = bench.deployment.command(&arguments);
    command
        .env("RUST_LOG", "trace")
        .env("REKEY_URL", bench.proxy.url(bench.replica.base()))
        .env("REKEY_TOKEN", &bench.token);
    let mut run = Command::start(command);
    run.until("a start", || !run.stdout().is_empty()).await;
    let next = Canary::fresh();
    bench.put(&id, next.value()).await;
    run.says("A_KEY has version 2: restarting the command")
        .await;
    run.signal(Signal::TERM);
    assert_eq!(run.code(), Some(143));
    let said = format!("{}{}", run.stderr(), run.stdout().join("\n"));
    let token = Canary::new(&bench.token);
    for (canary, name) in [
        (&canary, "the value"),
        (&next, "the next"),
        (&token, "the token"),
    ] {
        canary.assert_absent_in(name, said.as_bytes());
    }
}
