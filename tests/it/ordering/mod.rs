//! One order per secret and one for the log, with any number of clients and replicas.

use crate::support::broker::{Recorder, assert_delivers, delivered};
use crate::support::fixture::{self, SCOPES};
use crate::support::ledger::{self, Load, Told};
use crate::support::rabbitmq::RabbitMq;
use crate::support::service::Deployment;
use std::collections::BTreeSet;
use std::time::Duration;

const LATE: Duration = Duration::from_mins(1);

async fn sixty_four_clients_on_one_secret(deployment: Deployment) {
    let _heavy = fixture::heavy().await;
    let (broker, exchange) = (RabbitMq::shared().url(), fixture::exchange());
    let recorder = Recorder::start(&broker, &exchange, "secret.#").await;
    let deployment = deployment.broker(&broker, &exchange);
    let token = deployment.token("alice", SCOPES);
    let replica = deployment.serve();
    let client = replica.client(&token);
    let secrets = ledger::create(&client, 1).await;
    let clients = (0..64).map(|_| replica.client(&token)).collect();
    let attempts = Load::start(clients, &secrets, 50).end().await;
    let versions: BTreeSet<_> = attempts
        .iter()
        .map(|attempt| match attempt.told {
            Told::Applied(version) => version,
            Told::NotApplied(_) | Told::Unknown => panic!("{attempt:?}"),
        })
        .collect();
    assert_eq!(versions, (2..=3201).collect());
    let count = ledger::settle(&client, &secrets, &attempts).await;
    assert_eq!((count.acknowledged, count.events), (3200, 3201));
    let shown = client.get(&secrets[0]).await.unwrap().expect(200);
    assert_eq!(shown.header("etag"), Some("\"3201\""));
    let record = delivered(&recorder, 3201, LATE).await;
    assert_delivers(&client, &secrets, &record).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_clients_get_each_version_once_and_events_come_in_order_on_sqlite() {
    sixty_four_clients_on_one_secret(fixture::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_clients_get_each_version_once_and_events_come_in_order_on_postgresql() {
    sixty_four_clients_on_one_secret(fixture::postgres()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_keep_one_order_though_one_of_them_is_killed() {
    let _heavy = fixture::heavy().await;
    let (broker, exchange) = (RabbitMq::shared().url(), fixture::exchange());
    let recorder = Recorder::start(&broker, &exchange, "secret.#").await;
    let deployment = fixture::postgres().broker(&broker, &exchange);
    let token = deployment.token("alice", SCOPES);
    let mut doomed = deployment.serve();
    let client = doomed.client(&token);
    let secrets = ledger::create(&client, 1).await;
    // It has the lease: the one that is killed is the one that publishes.
    delivered(&recorder, 1, LATE).await;
    let stays = deployment.serve();
    let clients = (0..64)
        .map(|number| {
            let replica = if number % 2 == 0 { &doomed } else { &stays };
            replica.client(&token)
        })
        .collect();
    let load = Load::start(clients, &secrets, 50);
    load.reaches(800).await;
    doomed.kill_9();
    let attempts = load.end().await;
    let client = stays.client(&token);
    let count = ledger::settle(&client, &secrets, &attempts).await;
    assert!(
        count.acknowledged >= 1600 && count.refused == 0,
        "{count:?}"
    );
    assert!((1..=32).contains(&count.unknown), "{count:?}");
    let record = delivered(&recorder, count.events, LATE).await;
    assert_delivers(&client, &secrets, &record).await;
    eprintln!("{count:?}, {} deliveries", record.len());
}
