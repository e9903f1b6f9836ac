//! `GET /api/v1/events` as server-sent events.

use crate::support::dice::Dice;
use crate::support::events::{
    Block, Came, Logged, Stream, all_after, assert_chained, positions, read_block,
};
use crate::support::fixture::{self, World, batch, change};
use crate::support::ledger;
use crate::support::postgres::Postgres;
use crate::support::proxy::{Ending, Proxy};
use crate::support::service::{Client, Deployment, Replica};
use reqwest::Method;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

fn at(cursor: &str) -> Block {
    Block {
        id: cursor.to_owned(),
        event: None,
    }
}

fn address(replica: &Replica) -> SocketAddr {
    let address = replica.base().strip_prefix("http://").unwrap();
    address.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_its_start_and_goes_on_with_what_happens_in_order() {
    for world in World::both() {
        let World { alice, bob, .. } = &world;
        let of_alice = ledger::create(alice, 2).await;
        let mut live = Stream::open(alice, "", None).await;
        assert_eq!(live.block().await, at("1-2"));
        let mut from_the_first = Stream::open(alice, "after=0-0", None).await;
        assert_eq!(from_the_first.block().await, at("0-0"));
        assert_eq!(positions(&from_the_first.events(2).await), [1, 2]);
        let of_bob = ledger::create(bob, 1).await;
        for _ in 0..20 {
            change(alice, &of_alice, 1).await;
            change(bob, &of_bob, 1).await;
        }
        let told = live.events(40).await;
        assert_eq!(told, all_after(alice, "1-2", "").await);
        assert_eq!(from_the_first.events(40).await, told);
        // A cursor within: the position is one that the stream has not to look up again.
        let mut within = Stream::open(alice, "after=1-4", None).await;
        assert_eq!(within.block().await, at("1-4"));
        assert_eq!(within.events(39).await, told[1..]);
        assert_eq!(within.next(Duration::from_millis(600)).await, Came::Nothing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_event_id_wins_over_the_query() {
    for world in World::both() {
        let alice = &world.alice;
        let secrets = ledger::create(alice, 1).await;
        change(alice, &secrets, 5).await;
        let mut stream = Stream::open(alice, "after=1-1", Some("1-4")).await;
        assert_eq!(stream.block().await, at("1-4"));
        assert_eq!(positions(&stream.events(2).await), [5, 6]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_the_log_and_the_types_that_were_asked_for_and_no_other_owner() {
    for world in World::both() {
        let World { alice, bob, .. } = &world;
        let of_alice = ledger::create(alice, 1).await;
        let of_bob = ledger::create(bob, 1).await;
        let mut deletions = Stream::open(alice, "type=secret.deleted", None).await;
        let mut reads = Stream::open(alice, "log=activity&type=secret.accessed", None).await;
        let mut whole = Stream::open(&world.auditor, "", None).await;
        for (client, secrets) in [(bob, &of_bob), (alice, &of_alice)] {
            change(client, secrets, 2).await;
            let body = json!({"ids": secrets});
            client.resolve(&body).await.unwrap().expect(200);
            client.delete(&secrets[0]).await.unwrap().expect(204);
        }
        let deleted = deletions.events(1).await;
        assert_eq!(positions(&deleted), [8]);
        assert_eq!(deleted[0].text("owner"), "alice");
        let accessed = reads.events(1).await;
        assert_eq!(accessed[0].text("secret_id"), of_alice[0]);
        assert_eq!(positions(&whole.events(6).await), [3, 4, 5, 6, 7, 8]);
        for stream in [&mut deletions, &mut reads, &mut whole] {
            assert_eq!(stream.next(Duration::from_millis(400)).await, Came::Nothing);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_owner_hears_every_fifteen_seconds_how_far_the_log_was_looked_at() {
    let World {
        alice,
        bob,
        replica,
        deployment,
        ..
    } = World::postgres();
    let other = deployment.serve();
    let secrets = ledger::create(&bob, 1).await;
    let mut streams = Vec::new();
    for replica in [&replica, &other] {
        let stream = Stream::open(&alice.on(replica.base()), "", None).await;
        streams.push((stream, Instant::now()));
    }
    change(&bob, &secrets, 50).await;
    for (mut stream, began) in streams {
        assert_eq!(stream.block().await, at("1-1"));
        assert_eq!(stream.block().await, at("1-51"));
        let waited = began.elapsed();
        let due = Duration::from_secs(14)..Duration::from_secs(19);
        assert!(due.contains(&waited), "{waited:?}");
    }
    // It is good to resume from.
    let mut resumed = Stream::open(&alice, "", Some("1-51")).await;
    ledger::create(&alice, 1).await;
    assert_eq!(positions(&resumed.events(1).await), [52]);
}

/// Follows a log over links that break, resuming by the last ID that came whole.
struct Survivor {
    client: Client,
    last: String,
    seen: Vec<Logged>,
}

impl Survivor {
    async fn from_here(client: &Client) -> Self {
        let first = Stream::open(client, "", None).await.block().await;
        Self {
            client: client.clone(),
            last: first.id,
            seen: Vec::new(),
        }
    }

    /// Until the link breaks, or until it has seen an event.
    async fn follow(&mut self, base: &str, until: Option<u64>) {
        let client = self.client.on(base);
        let opened = Stream::try_open(&client, "", Some(&self.last)).await;
        let Some(mut stream) = opened else { return };
        while self.seen.last().map(Logged::position) < until || until.is_none() {
            match stream.next(Duration::from_secs(30)).await {
                Came::Block(block) => {
                    self.last = block.id;
                    self.seen.extend(block.event);
                }
                Came::Broken | Came::End => return,
                Came::Nothing => panic!("a stream under load is silent"),
            }
        }
    }
}

/// Writes without a pause until it is told to end.
struct Writers {
    tasks: JoinSet<()>,
    ending: Arc<AtomicBool>,
}

impl Writers {
    fn start(clients: &[Client], secrets: &[String]) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for (client, secret) in clients.iter().cloned().zip(secrets.to_vec()) {
            let ending = ending.clone();
            tasks.spawn(async move {
                while !ending.load(Ordering::SeqCst) {
                    client.put(&secret, "sk-value").await.unwrap().expect(200);
                }
            });
        }
        Self { tasks, ending }
    }

    async fn end(self) {
        self.ending.store(true, Ordering::SeqCst);
        self.tasks.join_all().await;
    }
}

/// One that sees all, and one owner among two: cut at any moment, on all replicas in turn.
async fn two_hundred_cuts(world: World, others: Vec<Replica>, name: &str) {
    let _heavy = fixture::heavy().await;
    let mut dice = Dice::new(name);
    let World { alice, bob, .. } = &world;
    let of_alice = ledger::create(alice, 2).await;
    let of_bob = ledger::create(bob, 2).await;
    let replicas: Vec<&Replica> = std::iter::once(&world.replica).chain(&others).collect();
    let proxies: Vec<_> = replicas
        .iter()
        .map(|replica| Proxy::start(address(replica)))
        .collect();
    let last = replicas.last().unwrap().base();
    let clients = [alice.clone(), alice.on(last), bob.clone(), bob.on(last)];
    let writers = Writers::start(&clients, &[of_alice, of_bob].concat());
    let mut survivors = [
        Survivor::from_here(&world.auditor).await,
        Survivor::from_here(alice).await,
    ];
    let starts = survivors.each_ref().map(|survivor| survivor.last.clone());
    for turn in 0..200 {
        let proxy = &proxies[turn % proxies.len()];
        let base = format!("http://{}", proxy.address());
        let wait = Duration::from_micros(500 + dice.below(40_000) as u64);
        let ending = [Ending::Reset, Ending::Fin][dice.below(2)];
        let [one, other] = &mut survivors;
        let followed = async { tokio::join!(one.follow(&base, None), other.follow(&base, None)) };
        // Until both are cut: one may be on its way still at the first moment.
        let cutting = async {
            tokio::time::sleep(wait).await;
            loop {
                proxy.break_links(ending);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = followed => {}
            () = cutting => {}
        }
    }
    writers.end().await;
    for ((mut survivor, start), kind) in survivors.into_iter().zip(starts).zip(["all", "owner"]) {
        let whole = all_after(&survivor.client, &start, "").await;
        let until = whole.last().map(Logged::position);
        survivor.follow(world.replica.base(), until).await;
        assert_eq!(positions(&survivor.seen), positions(&whole), "{kind}");
        assert_eq!(survivor.seen, whole);
        eprintln!("{name}, {kind}: {} events, 200 cuts", whole.len());
        assert!(whole.len() >= 50, "it was no load");
        if kind == "all" {
            assert_chained(&whole);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_cut_two_hundred_times_and_resumed_misses_and_repeats_nothing_on_sqlite() {
    let world = World::sqlite();
    two_hundred_cuts(world, Vec::new(), "200 cuts, SQLite").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_cut_two_hundred_times_and_resumed_elsewhere_misses_and_repeats_nothing() {
    let world = World::postgres();
    let other = world.deployment.serve();
    two_hundred_cuts(world, vec![other], "200 cuts, two replicas").await;
}

/// A stream over a connection whose client takes bytes when it wants to.
struct Lazy {
    connection: TcpStream,
    taken: Vec<u8>,
}

impl Lazy {
    async fn open(replica: &Replica, token: &str) -> Self {
        let mut connection = TcpStream::connect(address(replica)).await.unwrap();
        let head = format!(
            "GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\naccept: text/event-stream\r\n\
             authorization: Bearer {token}\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        while !bytes.windows(3).any(|three| three == b"id:") {
            assert!(connection.read_buf(&mut bytes).await.unwrap() > 0);
        }
        Self {
            connection,
            taken: bytes,
        }
    }

    /// Takes everything until the server ends it; the blocks that came whole.
    async fn take_the_rest(mut self) -> Vec<Block> {
        let reading =
            async { while matches!(self.connection.read_buf(&mut self.taken).await, Ok(1..)) {} };
        let ended = tokio::time::timeout(Duration::from_secs(30), reading).await;
        assert!(ended.is_ok(), "a slow reader is still served");
        let head = self.taken.windows(4).position(|four| four == b"\r\n\r\n");
        let body = dechunked(&self.taken[head.unwrap() + 4..]);
        let end = body.windows(2).rposition(|two| two == b"\n\n").unwrap();
        let text = std::str::from_utf8(&body[..end]).unwrap();
        let blocks = text.split("\n\n").map(|block| read_block(block.as_bytes()));
        blocks.collect()
    }
}

/// The bytes of a chunked body, as far as they came.
fn dechunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&rest[..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        rest = &rest[line + 2..];
        body.extend_from_slice(&rest[..size.min(rest.len())]);
        rest = rest.get(size + 2..).unwrap_or_default();
    }
    body
}

fn resident_kib(replica: &Replica) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", replica.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// So many changes, fifty in each commit.
async fn write_much(client: &Client, secrets: &[String], commits: usize) {
    for _ in 0..commits {
        let updates = secrets.iter().map(|id| (&**id, "v".to_owned()));
        let updates: Vec<_> = updates.collect();
        assert_eq!(batch(client, &updates).await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_too_slow_is_let_go_and_resumes_without_a_gap() {
    let _heavy = fixture::heavy().await;
    let World {
        alice,
        replica,
        deployment,
        auditor,
        ..
    } = World::of(fixture::sqlite().set("HTTP__WRITE_TIMEOUT_MS", "5000"));
    let secrets = ledger::create(&alice, 50).await;
    write_much(&alice, &secrets, 10).await;
    let token = deployment.token("alice", &["events:read"]);
    let mut lazy = Vec::new();
    for _ in 0..20 {
        lazy.push(Lazy::open(&replica, &token).await);
    }
    let before = resident_kib(&replica);
    // Eight megabytes: no socket's buffers hold them.
    write_much(&alice, &secrets, 260).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let grown = resident_kib(&replica).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB for 20 readers of 8 MiB");
    let whole = all_after(&auditor, "1-550", "").await;
    assert_eq!(whole.len(), 13_000);
    let mut reads = Vec::new();
    for reader in lazy {
        let blocks = reader.take_the_rest().await;
        let last = blocks.last().unwrap().id.clone();
        let seen: Vec<_> = blocks.into_iter().filter_map(|b| b.event).collect();
        assert!(seen.len() < whole.len(), "it took all");
        assert_eq!(seen, whole[..seen.len()]);
        reads.push((last, seen.len()));
    }
    // What it missed was in the ring at first, and is only in the database by now.
    let (last, seen) = &reads[0];
    let mut resumed = Stream::open(&alice, "", Some(last)).await;
    let rest = resumed.events(whole.len() - seen).await;
    assert_eq!(rest, whole[*seen..]);
    eprintln!("20 slow readers: {grown} KiB, {seen} events taken of 13000");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_in_order_at_shutdown_and_nobody_who_does_not_read_holds_it_up() {
    for database in fixture::both() {
        let mut world = World::of(database);
        let alice = &world.alice;
        let secrets = ledger::create(alice, 50).await;
        let token = world.deployment.token("alice", &["events:read"]);
        let _never_reads = Lazy::open(&world.replica, &token).await;
        write_much(alice, &secrets, 60).await;
        let mut streams = Vec::new();
        for query in ["", "log=activity", "after=0-0", "type=secret.deleted"] {
            for client in [&world.alice, &world.bob, &world.auditor] {
                streams.push(Stream::open(client, query, None).await);
            }
        }
        world.replica.signal(rustix::process::Signal::TERM);
        for mut stream in streams {
            loop {
                match stream.next(Duration::from_secs(5)).await {
                    Came::Block(_) => {}
                    Came::End => break,
                    other @ (Came::Broken | Came::Nothing) => panic!("{other:?}"),
                }
            }
        }
        let code = world.replica.exit_code(Duration::from_secs(20));
        assert_eq!(code, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_within_five_seconds_of_its_tokens_end() {
    let world = World::postgres();
    let other = world.deployment.serve();
    let secrets = ledger::create(&world.alice, 1).await;
    let writers = Writers::start(std::slice::from_ref(&world.alice), &secrets);
    let revoked = world.deployment.token("alice", &["events:read"]);
    let create = "token create --owner bob --scope events:read --expires-in 4s";
    let arguments: Vec<_> = create.split(' ').collect();
    let expiring = world.deployment.run(&arguments);
    let (expiring, expires) = (expiring.trim_end(), Instant::now() + Duration::from_secs(4));
    let mut lasting = Stream::open(&world.auditor, "", None).await;
    let mut streams = Vec::new();
    for base in [world.replica.base(), other.base()] {
        // A busy one, and a quiet one.
        for query in ["", "type=secret.deleted"] {
            let client = Client::new(base, &revoked);
            streams.push((Stream::open(&client, query, None).await, false));
            let client = Client::new(base, expiring);
            streams.push((Stream::open(&client, query, None).await, true));
        }
    }
    let id = revoked.split('_').nth(1).unwrap();
    world.deployment.run(&["token", "revoke", id]);
    let revocation = Instant::now();
    let mut ends = JoinSet::new();
    for (mut stream, expires_itself) in streams {
        ends.spawn(async move {
            while let Came::Block(_) = stream.next(Duration::from_secs(10)).await {}
            let ended = stream.next(Duration::ZERO).await;
            (ended, expires_itself, Instant::now())
        });
    }
    while let Some(end) = ends.join_next().await {
        let (ended, expires_itself, time) = end.unwrap();
        assert_eq!(ended, Came::End);
        let due = if expires_itself { expires } else { revocation };
        let late = time.saturating_duration_since(due);
        assert!(late < Duration::from_secs(5), "{late:?}, {expires_itself}");
    }
    assert!(!lasting.events(1).await.is_empty());
    writers.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_commits_is_told_by_the_other_at_once() {
    let world = World::postgres();
    let other = world.deployment.serve();
    let secrets = ledger::create(&world.alice, 1).await;
    let mut stream = Stream::open(&world.alice.on(other.base()), "", None).await;
    assert_eq!(stream.block().await, at("1-1"));
    for position in 2..12 {
        let path = format!("/api/v1/user/secrets/{}", secrets[0]);
        let put = world.alice.request(Method::PUT, &path);
        let answer = world.alice.send(put.json(&json!({"value": "x"}))).await;
        answer.unwrap().expect(200);
        let committed = Instant::now();
        assert_eq!(positions(&stream.events(1).await), [position]);
        assert!(committed.elapsed() < Duration::from_secs(2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_its_database_or_is_resumed_and_misses_nothing() {
    let _heavy = fixture::heavy().await;
    let mut server = Postgres::start_private();
    let deployment = Deployment::postgres(&server.database());
    let world = World::of(deployment.raised_limits().prepare());
    let secrets = ledger::create(&world.alice, 2).await;
    let mut survivor = Survivor::from_here(&world.auditor).await;
    let mut live = Stream::open(&world.auditor, "", None).await;
    live.block().await;
    for _ in 0..3 {
        server.kill_9();
        // It may be told meanwhile that its token can't be looked up: then it comes again.
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.restart();
        world.replica.ready(Duration::from_secs(20)).await;
        let before = all_after(&world.auditor, &survivor.last, "").await.len();
        while all_after(&world.auditor, &survivor.last, "").await.len() < before + 4 {
            for secret in &secrets {
                let answer = world.alice.put(secret, "x").await.unwrap();
                assert!(
                    [200, 502, 504].contains(&answer.status),
                    "{}",
                    answer.text()
                );
            }
        }
        let until = all_after(&world.auditor, &survivor.last, "").await;
        let until = until.last().map(Logged::position);
        while survivor.seen.last().map(Logged::position) < until {
            survivor.follow(world.replica.base(), until).await;
        }
    }
    let whole = all_after(&world.auditor, "1-2", "").await;
    assert_eq!(survivor.seen, whole);
    // The one that was open all the time has told a part without a gap, perhaps all.
    let mut told = Vec::new();
    while let Came::Block(block) = live.next(Duration::from_secs(1)).await {
        told.extend(block.event);
    }
    assert_eq!(told, whole[..told.len()]);
    eprintln!(
        "3 kills of the database: {} of {} events told",
        told.len(),
        whole.len()
    );
}
