//! `rekey audit serve`: stored once, acknowledged after COMMIT, and nothing missed.

use super::{
    Consumer, SOON, first_bad, stored, stores, stores_of,
    twin::{Log, Twin, public_key},
};
use crate::support::fixture::{self, SCOPES};
use crate::support::ledger;
use crate::support::{
    broker::publish,
    metrics::{sample, scrape},
    postgres::{Postgres, psql},
    rabbitmq::RabbitMq,
    retention::{age, kept_from},
    service::{Client, Deployment, Replica},
};
use std::time::{Duration, Instant};

/// A consumer's settings: a broker of its own and a twin of the service.
fn with_twin(deployment: Deployment, url: &str, twin: &Twin) -> Deployment {
    deployment
        .broker(url, "secrets.events")
        .set("AUDIT__URL", &twin.base)
        .set("AUDIT__TOKEN", "rekey_x")
        .set("AUDIT__PUBLIC_KEY", &public_key())
        .set("AUDIT__COMPARE_SECONDS", "1")
}

fn both() -> [Deployment; 2] {
    let url = Postgres::shared().database();
    [
        Deployment::embedded(),
        Deployment::embedded().set("AUDIT__DATABASE_URL", &url),
    ]
}

/// Waits until the queue holds nothing, acknowledged or not.
async fn drained(vhost: &str, queue: &str, messages: &str) {
    let name = vhost.rsplit_once('/').unwrap().1;
    let end = Instant::now() + SOON;
    loop {
        let listed = RabbitMq::shared().ctl(&["list_queues", "-p", name, "name", "messages"]);
        if listed
            .lines()
            .any(|line| line == format!("{queue}\t{messages}"))
        {
            return;
        }
        assert!(Instant::now() < end, "{listed}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_publishes_is_stored_byte_for_byte_over_restarts() {
    for deployment in fixture::both() {
        let url = RabbitMq::shared().vhost();
        let deployment = deployment.broker(&url, "secrets.events");
        let token = deployment.token("alice", SCOPES);
        let mut service = deployment.serve();
        let client = service.client(&token);
        let base = service.base().to_owned();
        let whole = deployment.service_token("audit", &["*"], &["events:read"]);
        let audit = [
            ("REKEY__AUDIT__URL", base.as_str()),
            ("REKEY__AUDIT__TOKEN", whole.as_str()),
        ];
        let mut consumer = Consumer::start(&deployment, &audit).await;
        let secrets = ledger::create(&client, 2).await;
        ledger::put(&client, &secrets[0]).await;
        stores(&deployment, 3).await;
        assert_eq!(consumer.terminate(), Some(0));
        // Its queue keeps what comes while it is away.
        ledger::put(&client, &secrets[1]).await;
        client.delete(&secrets[1]).await.unwrap().expect(204);
        assert_eq!(stored(&deployment, "changes").len(), 3);
        let mut consumer = Consumer::start(&deployment, &audit).await;
        let events = stores(&deployment, 5).await;
        // Two tokens were made before anybody consumed.
        stores_of("activity", &deployment, 2).await;
        let history = ledger::history(&client, &secrets[0]).await;
        assert_eq!([&events[0], &events[2]], [&history[0].1, &history[1].1]);
        assert_eq!(consumer.terminate(), Some(0));
        assert_eq!(service.terminate(), Some(0));
        // Without the service: what is stored proves itself.
        let output = deployment.try_run(&["audit", "verify"]);
        assert_eq!(first_bad(&output), [0; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_on_the_way_comes_from_the_service_and_both_logs_are_proved() {
    for deployment in fixture::both() {
        let url = RabbitMq::shared().vhost();
        let vhost = url.rsplit_once('/').unwrap().1;
        let deployment = deployment.broker(&url, "secrets.events");
        let token = deployment.token("alice", SCOPES);
        let whole = deployment.service_token("audit", &["*"], &["events:read"]);
        let service = deployment.serve();
        let listed = deployment.run(&["keys", "list", "--json"]);
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let key = listed["checkpoint_public_key"].as_str().unwrap();
        let deployment = deployment
            .set("AUDIT__URL", service.base())
            .set("AUDIT__TOKEN", &whole)
            .set("AUDIT__PUBLIC_KEY", key)
            .set("AUDIT__COMPARE_SECONDS", "1");
        let mut consumer = Consumer::start(&deployment, &[]).await;
        let client = service.client(&token);
        let secrets = ledger::create(&client, 1).await;
        stores(&deployment, 1).await;
        assert_eq!(consumer.terminate(), Some(0));
        for _ in 0..3 {
            ledger::put(&client, &secrets[0]).await;
        }
        // The last events, so that nothing in the queue tells of them.
        drained(&url, "rekey.audit", "3").await;
        RabbitMq::shared().ctl(&["purge_queue", "-p", vhost, "rekey.audit"]);
        let mut consumer = Consumer::start(&deployment, &[]).await;
        let events = stores(&deployment, 4).await;
        let history = ledger::history(&client, &secrets[0]).await;
        assert!(
            events
                .iter()
                .zip(&history)
                .all(|(one, (_, other))| one == other)
        );
        assert_eq!(first_bad(&deployment.try_run(&["audit", "verify"])), [0; 0]);
        // Two tokens were made.
        stores_of("activity", &deployment, 2).await;
        for log in ["changes", "activity"] {
            let file = deployment.folder().join(log);
            let file = file.to_str().unwrap();
            deployment.run(&["audit", "export", "--log", log, "--output", file]);
            let offline = ["audit", "verify", "--offline", file, "--public-key", key];
            assert_eq!(first_bad(&deployment.try_run(&offline)), [0; 0]);
        }
        assert_eq!(consumer.terminate(), Some(0));
    }
}

/// Waits until the broker has confirmed so many events, for which it has no queue yet.
async fn published(service: &Replica, count: u32) {
    let anonymous = Client::anonymous(service.base());
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let text = scrape(&anonymous).await;
        if sample(&text, "rekey_relay_unroutable_events_total") == Some(count)
            && sample(&text, "rekey_relay_lag_events{log=\"changes\"}") == Some(0)
        {
            return;
        }
        assert!(Instant::now() < end, "{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_cut_before_the_first_start_is_stored_and_proved_behind_the_cut() {
    for deployment in fixture::both() {
        let url = RabbitMq::shared().vhost();
        let deployment = deployment.broker(&url, "secrets.events");
        let token = deployment.token("alice", SCOPES);
        let whole = deployment.service_token("audit", &["*"], &["events:read"]);
        let mut service = deployment.serve();
        let client = service.client(&token);
        let secrets = ledger::create(&client, 1).await;
        for _ in 0..5 {
            ledger::put(&client, &secrets[0]).await;
        }
        // What the relay has not passed is not removed, and retention looks again after ten minutes only.
        published(&service, 6 + 2).await;
        assert_eq!(service.terminate(), Some(0));
        age(&deployment, 3);
        let service = deployment.serve_with(&[("REKEY__EVENTS__RETAIN_DAYS", "30")]);
        kept_from(&service.client(&token), 4).await;
        let deployment = deployment
            .set("AUDIT__URL", service.base())
            .set("AUDIT__TOKEN", &whole);
        let mut consumer = Consumer::start(&deployment, &[]).await;
        stores(&deployment, 3).await;
        stores_of("activity", &deployment, 2).await;
        let output = deployment.try_run(&["audit", "verify"]);
        assert_eq!(first_bad(&output), [0; 0]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            text.contains("verified: events after 1-3 through 1-6"),
            "{text}"
        );
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(talk.contains("changes: 6 of 6 events\n"), "{talk}");
        let output = deployment.try_run(&["audit", "export"]);
        assert_eq!(output.status.code(), Some(1));
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(talk.contains("had removed events through 1-3"), "{talk}");
        assert_eq!(consumer.terminate(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_dropped_and_one_with_another_hash_is_an_alarm() {
    for deployment in both() {
        let url = RabbitMq::shared().vhost();
        let log = Log::of(4);
        let twin = Twin::start(&log).await;
        let deployment = with_twin(deployment, &url, &twin);
        let mut consumer = Consumer::start(&deployment, &[]).await;
        let twice = [&log.bodies()[..], &log.bodies()[1..3]].concat();
        publish(&url, "secrets.events", &twice).await;
        assert_eq!(stores(&deployment, 4).await, log.bodies());
        drained(&url, "rekey.audit", "0").await;
        assert_eq!(first_bad(&deployment.try_run(&["audit", "verify"])), [0; 0]);
        publish(&url, "secrets.events", &[log.forged(3)]).await;
        consumer.says("contradicts", 1).await;
        drained(&url, "rekey.audit", "0").await;
        assert_eq!(stored(&deployment, "changes"), log.bodies());
        assert_eq!(first_bad(&deployment.try_run(&["audit", "verify"])), [3]);
        assert_eq!(consumer.terminate(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_or_after_its_commit_it_stores_each_event_once() {
    for deployment in both() {
        let url = RabbitMq::shared().vhost();
        let log = Log::of(40);
        // It answers nothing that was not delivered: the broker alone must bring all of it.
        let twin = Twin::start(&Log::default()).await;
        let deployment = with_twin(deployment, &url, &twin);
        let mut sent = 0;
        for point in [
            "audit.received:kill:2",
            "audit.committed:kill:2",
            "audit.committed:kill:3",
        ] {
            let mut consumer = Consumer::start(&deployment, &[("REKEY_FAULT", point)]).await;
            while consumer.process.status().is_none() {
                publish(&url, "secrets.events", &log.bodies()[sent..=sent]).await;
                sent += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let mut consumer = Consumer::start(&deployment, &[]).await;
        assert_eq!(stores(&deployment, sent).await, &log.bodies()[..sent]);
        drained(&url, "rekey.audit", "0").await;
        assert_eq!(consumer.terminate(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_goes_to_the_queue_of_the_refused() {
    let url = RabbitMq::shared().vhost();
    let log = Log::of(2);
    let twin = Twin::start(&log).await;
    let deployment = with_twin(Deployment::embedded(), &url, &twin);
    let _consumer = Consumer::start(&deployment, &[]).await;
    let mut damaged = log.bodies()[1].clone();
    let place = damaged.len() / 2;
    damaged[place] ^= 1;
    let bodies = [b"{}".to_vec(), log.bodies()[0].clone(), damaged];
    publish(&url, "secrets.events", &bodies).await;
    drained(&url, "rekey.audit.dead", "2").await;
    drained(&url, "rekey.audit", "0").await;
    let vhost = url.rsplit_once('/').unwrap().1;
    let listed = RabbitMq::shared().ctl(&["list_queues", "-p", vhost, "name", "type", "arguments"]);
    let queue = listed
        .lines()
        .find(|line| line.starts_with("rekey.audit\t"));
    let queue = queue.unwrap();
    for argument in [
        "\tquorum\t",
        "{\"x-delivery-limit\",100}",
        "{\"x-overflow\",\"reject-publish\"}",
        "{\"x-dead-letter-strategy\",\"at-least-once\"}",
        "{\"x-dead-letter-exchange\",\"rekey.audit.dead\"}",
        "{\"x-single-active-consumer\",true}",
    ] {
        assert!(queue.contains(argument), "{argument} in {queue}");
    }
    // The second event came from the service's log instead.
    assert_eq!(stores(&deployment, 2).await, log.bodies());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_lost_comes_from_the_services_log() {
    for deployment in both() {
        let url = RabbitMq::shared().vhost();
        let mut log = Log::of(10);
        let twin = Twin::start(&log).await;
        let deployment = with_twin(deployment, &url, &twin);
        let mut consumer = Consumer::start(&deployment, &[]).await;
        // Of ten two are lost inside, and the last three leave no gap.
        let bodies = log.bodies();
        let come = [&bodies[..3], &bodies[5..7]].concat();
        publish(&url, "secrets.events", &come).await;
        assert_eq!(stores(&deployment, 10).await, bodies);
        assert_eq!(first_bad(&deployment.try_run(&["audit", "verify"])), [0; 0]);
        // Restored to position 6, the service goes on in another epoch.
        log.0.truncate(6);
        // (Its sequences go on, too: the first event of the epoch is none of a secret.)
        log.grow(1_764_000_000, 1, "bob");
        twin.set(&log);
        publish(&url, "secrets.events", &log.bodies()[6..]).await;
        stores(&deployment, 11).await;
        consumer
            .says("a higher epoch that nobody has accepted", 1)
            .await;
        let output = deployment.try_run(&["audit", "verify"]);
        assert_eq!(first_bad(&output), [7]);
        let said = "epoch 1764000000 follows epoch 1 after position 6 and abandons 4 events";
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(talk.contains(said), "{talk}");
        deployment.run(&["audit", "accept-epoch", "changes", "1764000000"]);
        assert_eq!(first_bad(&deployment.try_run(&["audit", "verify"])), [0; 0]);
        exports_both_branches(&deployment, &log, &bodies[6..]);
        assert_eq!(consumer.terminate(), Some(0));
    }
}

/// An export holds what the log has abandoned after its sixth event, marked, and verifies by itself.
fn exports_both_branches(deployment: &Deployment, log: &Log, abandoned: &[Vec<u8>]) {
    let file = deployment.folder().join("changes.ndjson");
    let path = file.to_str().unwrap();
    deployment.run(&["audit", "export", "--output", path]);
    let exported = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = exported.lines().collect();
    let of = |body: &Vec<u8>| String::from_utf8(body.clone()).unwrap();
    let mut expected: Vec<_> = log.bodies()[..6].iter().map(of).collect();
    let marked = abandoned
        .iter()
        .map(|body| format!("{{\"abandoned\":{}}}", of(body)));
    expected.extend(marked);
    expected.extend(log.bodies()[6..].iter().map(of));
    assert_eq!(lines[..expected.len()], expected);
    let verify = |lines: &[&str]| {
        std::fs::write(&file, lines.join("\n") + "\n").unwrap();
        let key = public_key();
        first_bad(&deployment.try_run(&[
            "audit",
            "verify",
            "--offline",
            path,
            "--public-key",
            &key,
        ]))
    };
    assert_eq!(verify(&lines), [0; 0]);
    // One of the abandoned events is missing, or stands elsewhere.
    let mut missing = lines.clone();
    missing.remove(7);
    assert_eq!(verify(&missing), [7]);
    let mut swapped = lines.clone();
    swapped.swap(7, 8);
    assert_eq!(verify(&swapped), [7]);
    let changed = lines[9].replace("alice", "malice");
    let mut other = lines.clone();
    other[9] = &changed;
    assert_eq!(verify(&other), [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_epoch_or_position_stops_nothing_and_is_an_alarm() {
    for deployment in both() {
        let url = RabbitMq::shared().vhost();
        let mut log = Log::of(4);
        let twin = Twin::start(&log).await;
        let deployment = with_twin(deployment, &url, &twin);
        let mut consumer = Consumer::start(&deployment, &[]).await;
        let forged = [log.later(9_000_000_000_000_000_000)];
        publish(
            &url,
            "secrets.events",
            &[&log.bodies()[..], &forged].concat(),
        )
        .await;
        assert_eq!(stores(&deployment, 4).await, log.bodies());
        drained(&url, "rekey.audit", "0").await;
        consumer
            .says("that the service has not signed; it is an alarm", 1)
            .await;
        log.grow(1, 3, "alice");
        twin.set(&log);
        publish(&url, "secrets.events", &log.bodies()[4..]).await;
        assert_eq!(stores(&deployment, 7).await, log.bodies());
        let output = deployment.try_run(&["audit", "verify"]);
        assert_eq!(first_bad(&output), [5]);
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(talk.contains("1 alarms"), "{talk}");
        assert_eq!(consumer.terminate(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_cut_beyond_its_mark_it_resumes_at_the_end_of_what_it_has() {
    let url = RabbitMq::shared().vhost();
    let mut log = Log::of(4);
    let twin = Twin::start(&log).await;
    let deployment = with_twin(Deployment::embedded(), &url, &twin);
    let mut consumer = Consumer::start(&deployment, &[]).await;
    stores(&deployment, 4).await;
    assert_eq!(consumer.terminate(), Some(0));
    // While it was away, the service has removed events that it does not have.
    log.grow(1, 36, "alice");
    twin.set_cut(&log, 20);
    let mut consumer = Consumer::start(&deployment, &[]).await;
    stores(&deployment, 24).await;
    // It has all that there is, so nothing is fetched however often it compares.
    twin.is_compared(1).await;
    twin.take_asked();
    twin.is_compared(4).await;
    assert_eq!(twin.take_asked(), [""; 0]);
    // What comes later is fetched, and nothing before it.
    log.grow(1, 5, "alice");
    twin.set_cut(&log, 20);
    publish(&url, "secrets.events", &log.bodies()[41..43]).await;
    stores(&deployment, 29).await;
    assert_eq!(twin.take_asked(), ["1-40", "1-43"]);
    assert_eq!(consumer.terminate(), Some(0));
    // A new process finds the end of what it has in its database.
    log.grow(1, 1, "alice");
    twin.set_cut(&log, 20);
    let mut consumer = Consumer::start(&deployment, &[]).await;
    stores(&deployment, 30).await;
    assert_eq!(twin.take_asked(), ["1-4", "1-20", "1-45"]);
    // A second cut, beyond the end of what it has.
    log.grow(1, 14, "alice");
    twin.set_cut(&log, 50);
    stores(&deployment, 40).await;
    twin.is_compared(1).await;
    twin.take_asked();
    twin.is_compared(4).await;
    assert_eq!(twin.take_asked(), [""; 0]);
    assert_eq!(consumer.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_comes_back_after_the_broker_and_the_database_were_gone() {
    let _heavy = fixture::heavy().await;
    let mut broker = RabbitMq::start_private();
    let mut postgres = Postgres::start_private();
    let (url, database) = (broker.url(), postgres.database());
    let log = Log::of(6);
    let twin = Twin::start(&Log::default()).await;
    let deployment = Deployment::embedded().set("AUDIT__DATABASE_URL", &database);
    let deployment = with_twin(deployment, &url, &twin);
    let mut consumer = Consumer::start(&deployment, &[]).await;
    publish(&url, "secrets.events", &log.bodies()[..2]).await;
    stores(&deployment, 2).await;
    postgres.kill_9();
    publish(&url, "secrets.events", &log.bodies()[2..4]).await;
    consumer.says("cannot store events", 1).await;
    postgres.restart();
    stores(&deployment, 4).await;
    // RabbitMQ writes half a second later which replicated queues it has (`ra_directory`): killed before, it knows
    // the queue and not its replica, and never serves it again.
    tokio::time::sleep(Duration::from_secs(5)).await;
    broker.kill_9();
    broker.restart();
    consumer.says("consuming", 2).await;
    publish(&url, "secrets.events", &log.bodies()[4..]).await;
    assert_eq!(stores(&deployment, 6).await, log.bodies());
    assert_eq!(
        psql(&database, "SELECT count(*) FROM audit_migrations"),
        "5"
    );
    assert_eq!(consumer.terminate(), Some(0));
}

#[test]
fn it_starts_only_with_the_services_address_and_token() {
    let deployment = Deployment::embedded().broker("amqp://127.0.0.1:1", "secrets.events");
    let url = ("AUDIT__URL", "http://127.0.0.1:1");
    for deployment in [
        deployment,
        Deployment::embedded()
            .broker("amqp://127.0.0.1:1", "secrets.events")
            .set(url.0, url.1),
        Deployment::embedded()
            .set(url.0, url.1)
            .set("AUDIT__TOKEN", "rekey_x"),
    ] {
        let output = deployment.try_run(&["audit", "serve"]);
        assert_eq!(output.status.code(), Some(1));
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            talk.contains("audit.url, audit.token and broker.url"),
            "{talk}"
        );
        for command in ["tail", "verify", "export"] {
            let output = deployment.try_run(&["audit", command]);
            assert_eq!(output.status.code(), Some(1));
            let talk = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(talk.contains("no database at /"), "{talk}");
        }
    }
}
