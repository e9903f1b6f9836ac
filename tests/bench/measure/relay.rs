//! How fast the relay empties a log that was filled while there was no broker, with confirms.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use lapin::{
    Connection, ConnectionProperties, Consumer,
    message::Delivery,
    options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions},
    types::FieldTable,
};
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    load::Kind,
    options::Options,
    support::{broker::declare, postgres::Postgres, rabbitmq::RabbitMq, service::Deployment},
    table::{Sheet, Table, median, thousands},
    world::World,
};

const PATIENCE: Duration = Duration::from_mins(1);
/// As many as the relay leaves unconfirmed.
const UNCONFIRMED: usize = 500;

pub(crate) fn run(options: &Options, sheet: &mut Sheet) {
    let events = options.scaled(32_000, 500);
    let (server, broker) = (Postgres::shared(), RabbitMq::shared());
    let version = broker.ctl(&["version"]);
    sheet.fact("RabbitMQ", version.trim());
    let note = "Events per second from the log to a consumer's queue on RabbitMQ, each confirmed; and one such message \
                again and again from a program that holds it in memory.";
    let mut table = Table::new("The relay", note, &["the events are of", "events/s"]);
    let mut model = None;
    for secrets in [200, 1] {
        let mut rates = Vec::new();
        for _ in 0..options.rounds {
            let (rate, last) = relayed(secrets, events, options, (server, broker));
            rates.push(rate);
            model = Some(last);
        }
        let rate = median(rates);
        sheet.put(&format!("relay/{secrets}"), rate);
        table.row(vec![format!("{secrets} secrets"), thousands(rate)]);
    }
    let model = model.expect("a round");
    let rates = (0..options.rounds).map(|_| repeated(&model, events, broker));
    let rate = median(rates.collect());
    sheet.put("relay/repeated", rate);
    table.row(vec!["one message, repeated".to_owned(), thousands(rate)]);
    sheet.add(table);
}

fn relayed(
    secrets: usize,
    events: usize,
    options: &Options,
    (server, broker): (&Postgres, &RabbitMq),
) -> (f64, Delivery) {
    let exchange = format!("bench.{}", uuid::Uuid::new_v4().simple());
    let deployment = Deployment::postgres(&server.database()).raised_limits();
    let mut world = World::start(deployment.prepare(), secrets, options);
    let job = world.job(Kind::Put, &world.secrets.ids, 64, options);
    let put = job.of_count(events).run().count;
    assert_eq!(world.replica.terminate(), Some(0), "the service drains");
    let runtime = Runtime::new().expect("a runtime");
    let (_connection, mut consumer) = runtime.block_on(consumer(&broker.url(), &exchange));
    let World { deployment, .. } = world;
    let deployment = deployment.broker(&broker.url(), &exchange);
    let _replica = deployment.serve();
    runtime.block_on(async {
        let mut next = async || {
            let next = timeout(PATIENCE, consumer.next()).await;
            let delivery = next.expect("an event in time").expect("a delivery");
            delivery.expect("a delivery")
        };
        let mut last = next().await;
        let began = Instant::now();
        let rest = secrets + put - 1;
        for _ in 0..rest {
            last = next().await;
        }
        (rest as f64 / began.elapsed().as_secs_f64(), last)
    })
}

/// How many times a second a message can be published and confirmed, as the relay does it.
fn repeated(model: &Delivery, events: usize, broker: &RabbitMq) -> f64 {
    let exchange = format!("bench.{}", uuid::Uuid::new_v4().simple());
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let (connection, mut consumer) = consumer(&broker.url(), &exchange).await;
        tokio::spawn(async move { while consumer.next().await.is_some() {} });
        let channel = connection.create_channel().await.expect("a channel");
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        confirms.await.expect("confirms");
        let mut unconfirmed = VecDeque::new();
        let began = Instant::now();
        for _ in 0..events {
            let published = channel.basic_publish(
                exchange.as_str().into(),
                model.routing_key.clone(),
                BasicPublishOptions {
                    mandatory: true,
                    ..BasicPublishOptions::default()
                },
                &model.data,
                model.properties.clone(),
            );
            unconfirmed.push_back(published.await.expect("a publish"));
            if unconfirmed.len() >= UNCONFIRMED
                && let Some(first) = unconfirmed.pop_front()
            {
                assert!(first.await.expect("a confirm").is_ack());
            }
        }
        for confirm in unconfirmed {
            assert!(confirm.await.expect("a confirm").is_ack());
        }
        events as f64 / began.elapsed().as_secs_f64()
    })
}

/// A consumer of its own queue, bound to all events of secrets.
pub(crate) async fn consumer(url: &str, exchange: &str) -> (Connection, Consumer) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await;
    let connection = connection.expect("a connection");
    let channel = connection.create_channel().await.expect("a channel");
    let queue = format!("q.{exchange}");
    let declared = declare(&channel, exchange, &queue, "secret.#").await;
    declared.expect("a bound queue");
    let no_ack = BasicConsumeOptions {
        no_ack: true,
        ..Default::default()
    };
    let queue = queue.as_str().into();
    let consuming = channel.basic_consume(queue, "".into(), no_ack, FieldTable::default());
    (connection, consuming.await.expect("a consumer"))
}
