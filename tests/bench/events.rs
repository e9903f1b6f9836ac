//! What `scripts/bench` measures beyond PUTs: streams, the way of an event, the relay, resolve.
//!
//! Usage: `events streams|latency|relay|resolve`. Each starts private servers of its own, prints its
//! figures with what they are compared to, and ends by itself.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking and prints its results"
)]
#![allow(
    unreachable_pub,
    reason = "the harness of the tests is shared with the benchmarks"
)]

#[path = "../it/support/mod.rs"]
#[expect(dead_code, reason = "the benchmarks use a part of what the tests use")]
mod support;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use lapin::{Connection, ConnectionProperties, Consumer, ExchangeKind, options, types::FieldTable};
use serde_json::json;
use support::{
    postgres::{Postgres, psql},
    rabbitmq::RabbitMq,
    service::{Client, Deployment, Replica},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

const SCOPES: [&str; 4] = [
    "secrets:read",
    "secrets:write",
    "secrets:resolve",
    "events:read",
];

#[tokio::main]
async fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("streams") => streams().await,
        Some("latency") => latency().await,
        Some("relay") => relay().await,
        Some("resolve") => resolve().await,
        _ => println!("usage: events streams|latency|relay|resolve (scripts/bench calls it)"),
    }
}

fn started(deployment: &Deployment) -> (Replica, Client, String) {
    let token = deployment.token("bench", &SCOPES);
    let replica = deployment.serve();
    let client = replica.client(&token);
    (replica, client, token)
}

async fn create(client: &Client, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..count {
        let answer = client.create(&format!("BENCH_{number}"), "sk-first").await;
        ids.push(answer.unwrap().expect(201).id());
    }
    ids
}

/// So many PUTs over the secrets by so many clients.
async fn put(client: &Client, ids: &[String], (clients, each): (usize, usize)) {
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        let (client, ids) = (client.clone(), ids.to_vec());
        tasks.spawn(async move {
            for turn in 0..each {
                let id = &ids[(number + turn * clients) % ids.len()];
                client
                    .put(id, &format!("sk-{number}-{turn}"))
                    .await
                    .unwrap()
                    .expect(200);
            }
        });
    }
    tasks.join_all().await;
}

fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort();
    times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn ratio(count: u64, of: f64) -> f64 {
    count as f64 / of
}

/// Resident memory of a process, in KiB.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// An open stream that counts the events that it gets.
async fn stream(base: &str, token: &str, events: Arc<AtomicU64>) -> tokio::task::JoinHandle<()> {
    let address = base.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /api/v1/events HTTP/1.1\r\nhost: bench\r\naccept: text/event-stream\r\n\
         authorization: Bearer {token}\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 4096];
    let count = socket.read(&mut first).await.unwrap();
    assert!(first[..count].starts_with(b"HTTP/1.1 200"));
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        let mut last = 0;
        while let Ok(count @ 1..) = socket.read(&mut buffer).await {
            for byte in &buffer[..count] {
                // `data:` stands once in each event's block, at the begin of a line.
                if *byte == b'd' && last == b'\n' {
                    events.fetch_add(1, Ordering::Relaxed);
                }
                last = *byte;
            }
        }
    })
}

const STREAMS: u64 = 1000;
const STREAM_PUTS: u64 = 400;

async fn streams() {
    let server = Postgres::start_private_with(&["shared_preload_libraries=pg_stat_statements"]);
    let url = server.database();
    psql(&url, "CREATE EXTENSION pg_stat_statements");
    let deployment = Deployment::postgres(&url).raised_limits().prepare();
    let (replica, client, token) = started(&deployment);
    let ids = create(&client, 10).await;
    let measure = async || {
        psql(&url, "SELECT pg_stat_statements_reset()");
        let puts = usize::try_from(STREAM_PUTS).unwrap();
        put(&client, &ids, (1, puts)).await;
        let sql = "SELECT sum(calls) FROM pg_stat_statements \
                   WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
        let calls: u64 = psql(&url, sql).parse().unwrap();
        ratio(calls, f64::from(u32::try_from(STREAM_PUTS).unwrap()))
    };
    put(&client, &ids, (8, 50)).await;
    let alone = measure().await;
    let before = resident(replica.id());
    let events = Arc::new(AtomicU64::new(0));
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        open.push(stream(replica.base(), &token, Arc::clone(&events)).await);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let idle = resident(replica.id()).saturating_sub(before);
    let together = measure().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let busy = resident(replica.id()).saturating_sub(before);
    let got = events.load(Ordering::Relaxed);
    println!("open streams                          {STREAMS}");
    let each = |kib| ratio(kib, f64::from(u32::try_from(STREAMS).unwrap()));
    println!(
        "resident memory each, idle            {:.1} KiB (target <= 32)",
        each(idle)
    );
    println!(
        "resident memory each, under load      {:.1} KiB (target <= 32)",
        each(busy)
    );
    println!("statements per commit, no stream      {alone:.2}");
    println!(
        "statements per commit, all streams    {together:.2} (ratio {:.2}, target 1)",
        together / alone
    );
    println!(
        "events delivered                      {got} of {}",
        STREAMS * STREAM_PUTS
    );
    for task in open {
        task.abort();
    }
}

async fn consumer(url: &str, exchange: &str) -> (Connection, Consumer) {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let durable = options::ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    channel
        .exchange_declare(
            exchange.into(),
            ExchangeKind::Topic,
            durable,
            FieldTable::default(),
        )
        .await
        .unwrap();
    let own = options::QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let queue = format!("bench.{}", uuid::Uuid::new_v4().simple());
    channel
        .queue_declare(queue.as_str().into(), own, FieldTable::default())
        .await
        .unwrap();
    channel
        .queue_bind(
            queue.as_str().into(),
            exchange.into(),
            "secret.#".into(),
            options::QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let no_ack = options::BasicConsumeOptions {
        no_ack: true,
        ..Default::default()
    };
    let consumer = channel
        .basic_consume(
            queue.as_str().into(),
            "".into(),
            no_ack,
            FieldTable::default(),
        )
        .await
        .unwrap();
    (connection, consumer)
}

const RATE: u32 = 500;
const LATENCY_SECONDS: u32 = 10;

async fn latency() {
    let (server, broker) = (Postgres::shared(), RabbitMq::shared());
    let deployment = Deployment::postgres(&server.database())
        .broker(&broker.url(), "bench")
        .raised_limits()
        .prepare();
    let (_replica, client, _token) = started(&deployment);
    let (_connection, mut consumer) = consumer(&broker.url(), "bench").await;
    let ids = create(&client, 200).await;
    let arrived = Arc::new(Mutex::new(HashMap::new()));
    let noted = Arc::clone(&arrived);
    let consuming = tokio::spawn(async move {
        while let Some(Ok(delivery)) = consumer.next().await {
            let event: serde_json::Value = serde_json::from_slice(&delivery.data).unwrap();
            let id = event["request_id"].as_str().unwrap_or_default().to_owned();
            noted.lock().unwrap().insert(id, Instant::now());
        }
    });
    let answered = Arc::new(Mutex::new(HashMap::new()));
    let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut puts = JoinSet::new();
    for number in 0..RATE * LATENCY_SECONDS {
        tick.tick().await;
        let id = &ids[usize::try_from(number).unwrap() % ids.len()];
        let request = client
            .request(reqwest::Method::PUT, &format!("/api/v1/user/secrets/{id}"))
            .header("x-request-id", format!("bench-{number}"))
            .json(&json!({"value": format!("sk-{number}")}));
        let (client, answered) = (client.clone(), Arc::clone(&answered));
        puts.spawn(async move {
            client.send(request).await.unwrap().expect(200);
            let request = format!("bench-{number}");
            answered.lock().unwrap().insert(request, Instant::now());
        });
    }
    puts.join_all().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    consuming.abort();
    let arrived = arrived.lock().unwrap();
    let mut times: Vec<Duration> = answered
        .lock()
        .unwrap()
        .iter()
        .map(|(id, answered)| arrived[id].saturating_duration_since(*answered))
        .collect();
    println!(
        "200 -> message at a consumer, {RATE} PUT/s   p50 {:.2} ms (target <= 5)   p99 {:.2} ms   ({} events)",
        percentile(&mut times, 50),
        percentile(&mut times, 99),
        times.len()
    );
}

const RELAYED: usize = 32_000;

async fn relay() {
    for secrets in [200, 1] {
        let (server, broker) = (Postgres::shared(), RabbitMq::shared());
        let exchange = format!("bench.{secrets}");
        let deployment = Deployment::postgres(&server.database())
            .raised_limits()
            .prepare();
        let token = deployment.token("bench", &SCOPES);
        let mut silent = deployment.serve();
        let client = silent.client(&token);
        let ids = create(&client, secrets).await;
        put(&client, &ids, (64, RELAYED / 64)).await;
        assert_eq!(silent.terminate(), Some(0));
        let (_connection, mut consumer) = consumer(&broker.url(), &exchange).await;
        let deployment = deployment.broker(&broker.url(), &exchange);
        let _replica = deployment.serve();
        let all = RELAYED + secrets;
        consumer.next().await.unwrap().unwrap();
        let began = Instant::now();
        for _ in 1..all {
            consumer.next().await.unwrap().unwrap();
        }
        let rate = ratio(all as u64, began.elapsed().as_secs_f64());
        println!("relay over {secrets:>3} secrets: {rate:.0} events/s (target >= 10000)");
    }
}

const RESOLVE: Duration = Duration::from_secs(5);

async fn resolve() {
    let server = Postgres::shared();
    for record in ["commit", "async", "off"] {
        let deployment = Deployment::postgres(&server.database())
            .raised_limits()
            .set("ACTIVITY__RECORD", record)
            .prepare();
        let (_replica, client, _token) = started(&deployment);
        create(&client, 10).await;
        for clients in [1, 16] {
            let until = Instant::now() + RESOLVE;
            let mut tasks = JoinSet::new();
            for number in 0..clients {
                let client = client.clone();
                tasks.spawn(async move {
                    let mut times = Vec::new();
                    while Instant::now() < until {
                        let name = format!("BENCH_{}", (number + times.len()) % 10);
                        let began = Instant::now();
                        let body = json!({"names": [name]});
                        let answer = client.post("/api/v1/secrets/resolve", &body).await;
                        answer.unwrap().expect(200);
                        times.push(began.elapsed());
                    }
                    times
                });
            }
            let mut times = tasks.join_all().await.concat();
            println!(
                "resolve, activity.record = {record:<6} {clients:>2} clients   {:.0}/s   p50 {:.2} ms   p99 {:.2} ms",
                ratio(times.len() as u64, RESOLVE.as_secs_f64()),
                percentile(&mut times, 50),
                percentile(&mut times, 99)
            );
        }
    }
}
