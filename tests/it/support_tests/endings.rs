//! Whatever ends a test process, its servers end and its folders go.
//!
//! Each test runs this binary again with one test, [`a_child_holds_servers`], which does nothing in an ordinary run.

use crate::support::postgres::Postgres;
use crate::support::rabbitmq::RabbitMq;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const ROLE: &str = "REKEY_TEST_ENDING";
const CHILD: &str = "support_tests::endings::a_child_holds_servers";

#[test]
fn a_child_holds_servers() {
    let Ok(ending) = std::env::var(ROLE) else {
        return;
    };
    let server = Postgres::shared();
    say(&format!("folder {}", server.folder().display()));
    if ending == "killed" {
        // Neither of these is dropped, and the second is still starting.
        let broker = std::mem::ManuallyDrop::new(RabbitMq::launch());
        say(&format!("folder {}", broker.folder().display()));
        say("started");
        std::thread::sleep(Duration::from_mins(1));
    }
    say("started");
    assert_ne!(ending, "panicking", "as asked");
}

fn say(line: &str) {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .unwrap();
}

#[test]
fn nothing_is_left_after_an_ordinary_end() {
    let (mut child, folders, _stdout) = start("ordinary");
    assert!(child.wait().unwrap().success());
    assert_gone(&folders);
}

#[test]
fn nothing_is_left_after_a_panic() {
    let (mut child, folders, _stdout) = start("panicking");
    assert!(!child.wait().unwrap().success());
    assert_gone(&folders);
}

#[test]
fn nothing_is_left_when_the_test_process_is_killed() {
    let (mut child, folders, _stdout) = start("killed");
    assert!(
        folders
            .iter()
            .all(|folder| !processes_in(folder).is_empty()),
        "the servers run"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    assert_gone(&folders);
}

/// The stream stays open, so that the child's last lines find a reader.
fn start(ending: &str) -> (Child, Vec<PathBuf>, BufReader<ChildStdout>) {
    // This very binary, also when a build has put another in its place.
    let mut child = Command::new("/proc/self/exe")
        .args(["--exact", CHILD, "--nocapture"])
        .env(ROLE, ending)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let (mut folders, mut line) = (Vec::new(), String::new());
    while line.trim_end() != "started" {
        line.clear();
        assert_ne!(
            stdout.read_line(&mut line).unwrap(),
            0,
            "the child starts its servers"
        );
        folders.extend(line.trim_end().strip_prefix("folder ").map(PathBuf::from));
    }
    (child, folders, stdout)
}

fn assert_gone(folders: &[PathBuf]) {
    assert!(!folders.is_empty());
    for folder in folders {
        let end = Instant::now() + Duration::from_secs(10);
        while folder.exists() || !processes_in(folder).is_empty() {
            let left = processes_in(folder);
            assert!(
                Instant::now() < end,
                "{} is left, with processes {left:?}",
                folder.display()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Each server works in its own folder, and so do its children.
fn processes_in(folder: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let within = processes.filter(|process| {
        // Of a folder that is gone the link says so behind its path.
        let place = std::fs::read_link(process.path().join("cwd"));
        place.is_ok_and(|place| {
            place
                .to_string_lossy()
                .starts_with(&*folder.to_string_lossy())
        })
    });
    within
        .map(|process| process.file_name().to_string_lossy().into_owned())
        .collect()
}
