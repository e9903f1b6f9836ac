//! SIGTERM: what was handed in is answered, and nobody else delays the end.

use crate::support::fixture::{self, ALL, LIST, World};
use crate::support::port;
use crate::support::postgres::{psql, try_psql};
use crate::support::process::Process;
use crate::support::service::{BINARY, Client, Deployment, Replica};
use rustix::process::Signal;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Anything that is waited for takes less.
const SOON: Duration = Duration::from_secs(30);
/// Longer than a test may take.
const LONG: &[(&str, &str)] = &[
    ("LIMITS__BODY_SECONDS", "600"),
    ("HTTP__TIMEOUT_MS", "120000"),
    ("COMMIT__WATCHDOG_MS", "100000"),
    ("COMMIT__TIMEOUT_MS", "90000"),
    ("DATABASE__TIMEOUT_MS", "90000"),
];

/// A service that has no short deadline but that of its drain.
fn without_deadlines(deployment: Deployment) -> Deployment {
    LONG.iter()
        .fold(deployment, |all, (key, value)| all.set(key, value))
}

async fn connect(replica: &Replica) -> TcpStream {
    let address = replica.base().strip_prefix("http://").unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    // Small, so that an answer that nobody reads stays where it is.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(address.parse().unwrap()).await.unwrap()
}

fn head(method: &str, path: &str, token: &str, length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n"
    )
}

/// Reads until this text has come.
async fn reads(stream: &mut TcpStream, text: &str) {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(text) {
        let mut more = [0; 1024];
        let count = timeout(SOON, stream.read(&mut more)).await;
        let count = count.unwrap_or_else(|_| panic!("no {text}")).unwrap();
        let so_far = String::from_utf8_lossy(&read);
        assert!(count > 0, "no {text} in {so_far}");
        read.extend(&more[..count]);
    }
}

/// Waits until the database has a session of which this is true.
fn there_is(url: &str, condition: &str) {
    let end = Instant::now() + SOON;
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity \
         WHERE datname = current_database() AND {condition}"
    );
    while tokio::task::block_in_place(|| psql(url, &sql)) == "0" {
        assert!(Instant::now() < end, "no session: {condition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hold_their_connections_do_not_delay_the_end() {
    let mut world = World::of(without_deadlines(fixture::sqlite()));
    let token = world.deployment.token("carol", &ALL);
    let carol = world.replica.client(&token);
    let mut names = Vec::new();
    for number in 0..100 {
        let name = format!("KEY_{number}");
        let created = carol.create(&name, &"v".repeat(64 * 1024)).await;
        created.unwrap().expect(201);
        names.push(name);
    }
    // A body that never comes, of a caller that was told to go on.
    let mut body = connect(&world.replica).await;
    let half = head("POST", LIST, &token, 100) + "expect: 100-continue\r\n\r\n";
    body.write_all(half.as_bytes()).await.unwrap();
    reads(&mut body, "100 Continue\r\n\r\n").await;
    body.write_all(b"{\"name\"").await.unwrap();
    // An answer of 6 MiB that nobody reads any further.
    let mut answer = connect(&world.replica).await;
    let asked = json!({"names": names}).to_string();
    let whole = head("POST", "/api/v1/secrets/resolve", &token, asked.len()) + "\r\n" + &asked;
    answer.write_all(whole.as_bytes()).await.unwrap();
    reads(&mut answer, "200 OK").await;
    // A head that never ends, and a connection that stays open.
    let mut started = connect(&world.replica).await;
    started.write_all(b"GET /ready HTTP/1.1\r\n").await.unwrap();
    let idle = connect(&world.replica).await;

    let began = Instant::now();
    world.replica.signal(Signal::TERM);
    // The body's sender is told before its connection is closed.
    reads(&mut body, "invalid_request_error").await;
    let code = tokio::task::block_in_place(|| world.replica.exit_code(SOON));
    assert_eq!(code, Some(0), "{}", world.replica.stderr());
    let took = began.elapsed();
    assert!(took < Duration::from_secs(18), "{took:?}");
    drop((body, answer, started, idle));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_handed_in_is_answered_however_long_it_waits_for_the_lock() {
    let mut world = World::of(without_deadlines(fixture::postgres()));
    let created = world.alice.create("A_KEY", "one").await.unwrap();
    let id = created.expect(201).id();
    let url = world.deployment.database().to_owned();
    let lock = "BEGIN; SELECT 1 FROM log_head FOR UPDATE; SELECT pg_sleep(8); COMMIT";
    let locked = url.clone();
    let locking = tokio::task::spawn_blocking(move || psql(&locked, lock));
    there_is(&url, "wait_event = 'PgSleep'");
    let alice = world.alice.clone();
    let change = tokio::spawn(async move { alice.put(&id, "two").await });
    there_is(&url, "wait_event_type = 'Lock'");
    world.replica.signal(Signal::TERM);
    let code = tokio::task::block_in_place(|| world.replica.exit_code(SOON));
    assert_eq!(code, Some(0));
    change.await.unwrap().unwrap().expect(200);
    locking.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_the_database_does_not_answer_is_given_up() {
    let mut world = World::of(without_deadlines(fixture::postgres()));
    let url = world.deployment.database().to_owned();
    let lock = "BEGIN; LOCK TABLE secrets; SELECT pg_sleep(120)";
    let locked = url.clone();
    let locking = tokio::task::spawn_blocking(move || try_psql(&locked, lock));
    there_is(&url, "wait_event = 'PgSleep'");
    let alice = world.alice.clone();
    let read = tokio::spawn(async move { alice.list().await });
    there_is(&url, "wait_event_type = 'Lock'");
    world.replica.signal(Signal::TERM);
    let answer = read.await.unwrap().unwrap().expect(504);
    assert_eq!(answer.json()["type"], "gateway_timeout_error");
    let code = tokio::task::block_in_place(|| world.replica.exit_code(SOON));
    assert_eq!(code, Some(0));
    psql(
        &url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' \
         AND datname = current_database()",
    );
    assert!(locking.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_drain_takes_at_most_twenty_seconds() {
    let deployment = without_deadlines(fixture::sqlite());
    let token = deployment.token("alice", &ALL);
    let mut replica = deployment.serve_with(&[("REKEY_FAULT", "before-commit:hang")]);
    let alice = replica.client(&token);
    let change = tokio::spawn({
        let alice = alice.clone();
        async move { alice.create("A_KEY", "one").await }
    });
    let end = Instant::now() + SOON;
    let depth = "rekey_commit_queue_depth 1\n";
    while !alice
        .fetch("/metrics")
        .await
        .unwrap()
        .text()
        .contains(depth)
    {
        assert!(Instant::now() < end, "the change is not under way");
    }
    let began = Instant::now();
    replica.signal(Signal::TERM);
    let code = tokio::task::block_in_place(|| replica.exit_code(SOON));
    assert_eq!(code, Some(0));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(24), "{took:?}");
    assert!(change.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_drains_unless_it_was_ignored_from_the_start() {
    let deployment = fixture::sqlite();
    let mut replica = deployment.serve();
    replica.signal(Signal::HUP);
    let code = tokio::task::block_in_place(|| replica.exit_code(SOON));
    assert_eq!(code, Some(0));
    assert!(replica.stderr().contains("drained"));

    // As `nohup` starts it.
    let port = port::free();
    let mut command = deployment.program("env");
    command
        .args(["--ignore-signal=HUP", BINARY, "serve"])
        .env("REKEY__SERVER__PORT", port.to_string());
    let mut process = Process::spawn(&mut command);
    let client = Client::anonymous(&format!("http://127.0.0.1:{port}"));
    let end = Instant::now() + SOON;
    while client.fetch("/health").await.is_err() {
        assert!(Instant::now() < end, "it does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    process.signal(Signal::HUP);
    tokio::time::sleep(Duration::from_secs(2)).await;
    client.fetch("/health").await.unwrap().expect(200);
    process.signal(Signal::TERM);
    assert_eq!(process.wait(SOON).unwrap().code(), Some(0));
}
