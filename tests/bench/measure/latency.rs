//! From a 200 to the message at a consumer, at a steady rate of PUTs.
//!
//! Answers and messages arrive in this process, so that one clock stamps both.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use tokio::{runtime::Runtime, task::JoinSet, time};

use crate::{
    load::{Kind, percentile},
    options::Options,
    relay::consumer,
    support::{postgres::Postgres, rabbitmq::RabbitMq, service::Deployment},
    table::{Sheet, Table, median, milliseconds},
    wire::Wire,
    world::{World, address},
};

/// PUTs per second: so many clients, and so many of each.
const CLIENTS: usize = 25;
const EACH: u32 = 20;

type Stamps = HashMap<String, Instant>;

pub(crate) fn run(options: &Options, sheet: &mut Sheet) {
    let (server, broker) = (Postgres::shared(), RabbitMq::shared());
    let exchange = format!("bench.{}", uuid::Uuid::new_v4().simple());
    let deployment = Deployment::postgres(&server.database())
        .broker(&broker.url(), &exchange)
        .raised_limits();
    let world = World::start(deployment.prepare(), 200, options);
    let runtime = Runtime::new().expect("a runtime");
    let rounds: Vec<(f64, f64)> = (0..options.rounds)
        .map(|_| runtime.block_on(round(&world, options, (&broker.url(), &exchange))))
        .collect();
    let p50 = median(rounds.iter().map(|(p50, _)| *p50).collect());
    let p99 = median(rounds.iter().map(|(_, p99)| *p99).collect());
    sheet.put("latency/p50", p50);
    sheet.put("latency/p99", p99);
    let title = "From a 200 to the message at a consumer, at 500 PUT/s";
    let mut table = Table::new(title, "", &["", "p50", "p99"]);
    let cells = [
        "PostgreSQL and RabbitMQ".to_owned(),
        milliseconds(p50),
        milliseconds(p99),
    ];
    table.row(cells.to_vec());
    sheet.add(table);
}

async fn round(world: &World, options: &Options, (url, exchange): (&str, &str)) -> (f64, f64) {
    let (_connection, mut consumer) = consumer(url, exchange).await;
    let mut puts = JoinSet::new();
    let each = EACH * options.seconds().as_secs() as u32;
    for number in 0..CLIENTS {
        puts.spawn(client(
            address(&world.replica),
            requests(world, number, each),
        ));
    }
    let mut arrived = Stamps::new();
    let wanted = CLIENTS * each as usize;
    while arrived.len() < wanted {
        let next = time::timeout(Duration::from_mins(1), consumer.next()).await;
        let delivery = next.expect("a message in time").expect("a delivery");
        let (now, delivery) = (Instant::now(), delivery.expect("a delivery"));
        let event: serde_json::Value = serde_json::from_slice(&delivery.data).expect("JSON");
        let id = event["request_id"].as_str().expect("an ID");
        if id.starts_with("bench-") {
            arrived.insert(id.to_owned(), now);
        }
    }
    let answered: Stamps = puts.join_all().await.into_iter().flatten().collect();
    // A message that arrives before its 200 took no time.
    let micros = |(id, answered): (&String, &Instant)| {
        arrived[id].saturating_duration_since(*answered).as_micros() as u32
    };
    let mut times: Vec<u32> = answered.iter().map(micros).collect();
    assert_eq!(times.len(), wanted, "every PUT has its message");
    times.sort_unstable();
    (percentile(&times, 50), percentile(&times, 99))
}

/// The PUTs of one client, each with the ID of its request.
fn requests(world: &World, number: usize, each: u32) -> Vec<(String, Vec<u8>)> {
    let secrets = &world.secrets;
    (0..each as usize)
        .map(|turn| {
            let id = &secrets.ids[(number + turn * CLIENTS) % secrets.ids.len()];
            let name = format!("bench-{number}-{turn}");
            let request = String::from_utf8(Kind::Put.request(&secrets.token, id));
            let head = format!("\r\nx-request-id: {name}\r\n\r\n");
            let request = request.expect("UTF-8").replacen("\r\n\r\n", &head, 1);
            (name, request.into_bytes())
        })
        .collect()
}

/// Sends its PUTs evenly, and says when each was answered.
async fn client(address: String, requests: Vec<(String, Vec<u8>)>) -> Stamps {
    let mut wire = Wire::connect(&address).await;
    let mut stamps = Stamps::new();
    let mut tick = time::interval(Duration::from_secs(1) / EACH);
    for (name, request) in requests {
        tick.tick().await;
        assert_eq!(wire.ask(&request).await, 200, "a PUT");
        stamps.insert(name, Instant::now());
    }
    stamps
}
