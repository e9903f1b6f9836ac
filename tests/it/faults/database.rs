//! The database restarts, falls silent, follows another, waits for one, or is changed by hand.

use crate::support::broker::{Recorder, delivered};
use crate::support::fixture::{self, SCOPES};
use crate::support::ledger::{self, Load, Told};
use crate::support::metrics::{sample, scrape};
use crate::support::postgres::{Postgres, psql};
use crate::support::proxy::{Fault, Moment, Proxy, Reach, Trigger};
use crate::support::rabbitmq::RabbitMq;
use crate::support::retention::age;
use crate::support::service::{Client, Deployment, Replica};
use std::time::{Duration, Instant};
use tokio::time::{interval, sleep};

const SOON: Duration = Duration::from_secs(10);

/// A service on a server of its own.
fn on(server: &Postgres) -> Deployment {
    let deployment = Deployment::postgres(&server.database());
    deployment.raised_limits().prepare()
}

/// A service whose database is behind a proxy.
fn behind_proxy() -> (Proxy, Deployment) {
    let proxy = Proxy::start(Postgres::shared().address());
    let deployment = fixture::postgres();
    let url = proxy.url(deployment.database());
    (proxy, deployment.set("DATABASE__URL", &url))
}

async fn started(deployment: &Deployment) -> (Replica, Client, Vec<String>) {
    started_for(deployment, "alice").await
}

/// With a secret of this owner, who has none yet.
async fn started_for(deployment: &Deployment, owner: &str) -> (Replica, Client, Vec<String>) {
    let token = deployment.token(owner, SCOPES);
    let replica = deployment.serve();
    let client = replica.client(&token);
    let secrets = ledger::create(&client, 1).await;
    (replica, client, secrets)
}

async fn wait_until(what: &str, limit: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + limit;
    while !holds().await {
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_the_database_the_first_request_is_answered() {
    let mut server = Postgres::start_private();
    let deployment = on(&server);
    let (_replica, client, secrets) = started(&deployment).await;
    for _ in 0..3 {
        client.list().await.unwrap().expect(200);
        server.kill_9();
        server.restart();
        let attempt = ledger::put(&client, &secrets[0]).await;
        assert!(matches!(attempt.told, Told::Applied(_)), "{attempt:?}");
        client.get(&secrets[0]).await.unwrap().expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_change_takes_three_round_trips_and_a_batch_no_more() {
    let (proxy, deployment) = behind_proxy();
    let token = deployment.token("alice", SCOPES);
    let replica = deployment.serve();
    let client = replica.client(&token);
    let secrets = ledger::create(&client, 8).await;
    // From the eleventh version on one is pushed out. By then the statements are prepared.
    for secret in secrets.iter().cycle().take(8 * 12) {
        client.put(secret, "sk-next").await.unwrap().expect(200);
    }
    let before = proxy.turns();
    for _ in 0..10 {
        let answer = client.put(&secrets[0], "sk-next").await.unwrap();
        answer.expect(200);
    }
    assert_eq!(proxy.turns() - before, 3 * 10);
    // A secret that is created takes one more: its name must be free.
    let before = proxy.turns();
    for name in ["A", "B", "C", "D"] {
        client.create(name, "sk-first").await.unwrap().expect(201);
    }
    assert_eq!(proxy.turns() - before, 4 * 4);
    // One that is made once takes no more, and neither does its repeat, which writes nothing.
    for number in 0..4 {
        let key = format!("it's \"{number}\" \\ é");
        let once = client.with("idempotency-key", &key.replace([' ', 'é'], "_"));
        for turns in [3, 2] {
            let before = proxy.turns();
            let answer = once.put(&secrets[0], "sk-next").await.unwrap();
            answer.expect(200);
            if number > 0 {
                assert_eq!(proxy.turns() - before, turns);
            }
        }
    }
    let (before, batches) = (proxy.turns(), commits(&replica).await);
    let clients = (0..16).map(|_| replica.client(&token)).collect();
    let attempts = Load::start(clients, &secrets, 20).end().await;
    assert_eq!(attempts.len(), 320);
    let batches = commits(&replica).await - batches;
    assert!(batches < 320, "{batches}");
    assert_eq!(proxy.turns() - before, 3 * batches);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reads_few_rows_of_a_long_log_though_the_plans_are_as_old_as_the_tables() {
    let deployment = fixture::postgres();
    let url = deployment.database().to_owned();
    for table in ["secrets", "secret_versions", "events"] {
        // Without it no plan is ever made anew.
        let off = format!("ALTER TABLE {table} SET (autovacuum_enabled = off)");
        psql(&url, &off);
    }
    let (_replica, client, secrets) = started(&deployment).await;
    let put = async |count: usize| {
        for _ in 0..count {
            client
                .put(&secrets[0], "sk-next")
                .await
                .unwrap()
                .expect(200);
        }
    };
    // How many rows and entries of indexes the tables gave so far, and how many pages of the log's indexes were
    // looked at: an index that is read from end to end gives one entry. A session says so at the end of a
    // transaction, at most once a second.
    let given = async || -> (u64, u64) {
        sleep(Duration::from_millis(1100)).await;
        put(1).await;
        let rows = "SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables) + \
                    (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)";
        let pages = "SELECT sum(idx_blks_hit + idx_blks_read) FROM pg_statio_user_indexes \
                     WHERE relname = 'events'";
        let [rows, pages] = [rows, pages].map(|sql| psql(&url, sql).parse().unwrap());
        (rows, pages)
    };
    Load::start(vec![client.clone(); 8], &secrets, 250)
        .end()
        .await;
    let before = given().await;
    put(50).await;
    let after = given().await;
    let (rows, pages) = (after.0 - before.0, after.1 - before.1);
    // Some thirty a change, dead rows among them. A plan that looks through the log reads all its 2,000 events.
    assert!(rows < 50 * 200, "{rows} rows for 50 changes");
    assert!(pages < 50 * 15, "{pages} pages for 50 changes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_queues_while_another_process_holds_the_lock_is_one_batch() {
    let deployment = fixture::postgres();
    let token = deployment.token("alice", SCOPES);
    let (one, other) = (deployment.serve(), deployment.serve());
    let client = one.client(&token);
    let secrets = ledger::create(&client, 8).await;
    // From now on the first replica knows that it is not the only one that writes.
    for replica in [&other, &one] {
        let put = replica.client(&token).put(&secrets[0], "sk-next").await;
        put.unwrap().expect(200);
    }
    let url = deployment.database().to_owned();
    psql(&url, "CREATE TABLE released (done BOOLEAN)");
    let hold = "DO $$ BEGIN \
                PERFORM 1 FROM log_head WHERE log = 'changes' FOR UPDATE; \
                FOR turn IN 1..1500 LOOP \
                EXIT WHEN EXISTS (SELECT 1 FROM released); PERFORM pg_sleep(0.01); END LOOP; \
                END $$";
    let at = url.clone();
    let holding = tokio::task::spawn_blocking(move || psql(&at, hold));
    let sleeping = "SELECT count(*) FROM pg_stat_activity \
                WHERE datname = current_database() AND wait_event = 'PgSleep'";
    wait_until("the lock is held", SOON, async || {
        psql(&url, sleeping) == "1"
    })
    .await;
    let before = commits(&one).await;
    let clients = vec![client.clone(); 8];
    let load = Load::start(clients, &secrets, 1);
    wait_until("all wait", SOON, async || {
        let text = scrape(&Client::anonymous(one.base())).await;
        sample(&text, "rekey_commit_queue_depth") == Some(8)
    })
    .await;
    psql(&url, "INSERT INTO released VALUES (TRUE)");
    holding.await.unwrap();
    for attempt in load.end().await {
        assert!(matches!(attempt.told, Told::Applied(_)), "{attempt:?}");
    }
    assert_eq!(commits(&one).await - before, 1);
}

/// How many batches the service has committed.
async fn commits(replica: &Replica) -> u64 {
    let text = scrape(&Client::anonymous(replica.base())).await;
    sample(&text, "rekey_commit_batch_size_count").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_cut_inside_each_message_of_a_batch_gets_a_true_answer() {
    let (proxy, deployment) = behind_proxy();
    let (_replica, client, secrets) = started(&deployment).await;
    let mut attempts = Vec::new();
    for text in ["EXECUTE lock_changes", "WITH w1 AS", "COMMIT"] {
        for moment in [Moment::Before, Moment::After, Moment::Answered] {
            // On a new connection each statement's text passes once more.
            proxy.break_links(crate::support::proxy::Ending::Fin);
            let mut fired = proxy.arm(Trigger {
                text,
                moment,
                fault: Fault::Cut,
                reach: Reach::Link,
            });
            let attempt = ledger::put(&client, &secrets[0]).await;
            assert!(
                fired.wait(Duration::from_secs(9)).await,
                "{text} {moment:?}"
            );
            // Only what was sent before BEGIN is sent again, and only an answered COMMIT stands for sure.
            let answered = text == "COMMIT" && moment == Moment::Answered;
            match attempt.told {
                Told::Applied(_) => {
                    assert_ne!(text, "WITH w1 AS", "{attempt:?}");
                }
                Told::NotApplied(_) => assert!(!answered, "{attempt:?}"),
                Told::Unknown => panic!("{text} {moment:?}: {attempt:?}"),
            }
            let next = ledger::put(&client, &secrets[0]).await;
            assert!(matches!(next.told, Told::Applied(_)), "{next:?}");
            attempts.extend([attempt, next]);
        }
    }
    ledger::settle(&client, &secrets, &attempts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_come_back_though_requests_go_on_while_all_their_connections_are_dead() {
    let (proxy, deployment) = behind_proxy();
    let (_replica, client, secrets) = started(&deployment).await;
    let get = || {
        let (client, secret) = (client.clone(), secrets[0].clone());
        tokio::spawn(async move { client.get(&secret).await.unwrap().status })
    };
    // As many at once as there are connections, so that all are open.
    for answer in (0..20).map(|_| get()).collect::<Vec<_>>() {
        assert_eq!(answer.await.unwrap(), 200);
    }
    proxy.stall_links();
    let mut ticks = interval(Duration::from_millis(50));
    let (mut running, silent) = (Vec::new(), Instant::now());
    let healed = loop {
        ticks.tick().await;
        running.push(get());
        let since = silent.elapsed();
        if since > Duration::from_secs(2) && running.last_mut().is_some() {
            let (client, secret) = (client.clone(), secrets[0].clone());
            let soon = tokio::time::timeout(Duration::from_millis(500), client.get(&secret)).await;
            if matches!(soon, Ok(Ok(answer)) if answer.status == 200) {
                break since;
            }
        }
        assert!(since < Duration::from_secs(30), "no read is answered");
    };
    assert!(healed < Duration::from_secs(12), "{healed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_never_used() {
    let mut server = Postgres::start_private();
    let deployment = on(&server);
    let (replica, client, secrets) = started(&deployment).await;
    server.restart_as(true);
    assert_eq!(
        psql(deployment.database(), "SELECT pg_is_in_recovery()"),
        "t"
    );
    // It would answer all reads.
    for _ in 0..5 {
        assert_ne!(client.get(&secrets[0]).await.unwrap().status, 200);
        assert_ne!(
            client.put(&secrets[0], "sk-next").await.unwrap().status,
            200
        );
    }
    assert!(deployment.try_serve_with(&[]).is_err());
    server.restart_as(false);
    replica.ready(Duration::from_secs(20)).await;
    client
        .put(&secrets[0], "sk-next")
        .await
        .unwrap()
        .expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_for_a_standby_stays_invisible() {
    let server = Postgres::start_private();
    let deployment = on(&server);
    let (_replica, client, secrets) = started(&deployment).await;
    let url = deployment.database();
    let events = || psql(url, "SELECT count(*) FROM events WHERE log = 'changes'");
    psql(url, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    psql(url, "SELECT pg_reload_conf()");
    let shown = "SHOW synchronous_standby_names";
    wait_until("the setting", Duration::from_secs(5), async || {
        psql(url, shown) == "nobody"
    })
    .await;
    let attempt = ledger::put(&client, &secrets[0]).await;
    assert_eq!(attempt.told, Told::Unknown, "{attempt:?}");
    assert_eq!(events(), "1");
    psql(url, "ALTER SYSTEM RESET synchronous_standby_names");
    psql(url, "SELECT pg_reload_conf()");
    wait_until("the commit", Duration::from_secs(10), async || {
        events() == "2"
    })
    .await;
    ledger::settle(&client, &secrets, &[attempt]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_the_future_is_over() {
    for deployment in fixture::both() {
        let (broker, exchange) = (RabbitMq::shared().url(), fixture::exchange());
        let recorder = Recorder::start(&broker, &exchange, "secret.#").await;
        let deployment = deployment.broker(&broker, &exchange);
        let (mut replica, _, _) = started(&deployment).await;
        delivered(&recorder, 1, Duration::from_secs(30)).await;
        // The clock was an hour ahead; then it was set right, while the service was dead.
        replica.kill_9();
        deployment.sql("UPDATE relay_cursors SET leased_until = leased_until + 3600000000");
        let (_replica, _, _) = started_for(&deployment, "bob").await;
        delivered(&recorder, 2, Duration::from_secs(30)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_stops_while_the_clocks_disagree() {
    let deployment = fixture::postgres().set("EVENTS__RETAIN_DAYS", "30");
    let (mut replica, client, secrets) = started(&deployment).await;
    for _ in 0..4 {
        client
            .put(&secrets[0], "sk-next")
            .await
            .unwrap()
            .expect(200);
    }
    assert_eq!(replica.terminate(), Some(0));
    // For the service it is 91 days later than for the server.
    age(&deployment, 4);
    deployment.sql(
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS \
         $$ SELECT pg_catalog.clock_timestamp() - interval '91 days' $$",
    );
    let database = url::Url::parse(deployment.database()).unwrap();
    let name = database.path().trim_start_matches('/');
    deployment.sql(&format!(
        "ALTER DATABASE {name} SET search_path = public, pg_catalog"
    ));
    let replica = deployment.serve();
    wait_until("the warning", Duration::from_secs(10), async || {
        replica.stderr().contains("retention stops")
    })
    .await;
    let url = deployment.database();
    assert_eq!(
        psql(url, "SELECT count(*) FROM events WHERE log = 'changes'"),
        "5"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_the_database_refuses_to_renew_concerns_no_change() {
    let (broker, exchange) = (RabbitMq::shared().url(), fixture::exchange());
    let deployment = fixture::postgres().broker(&broker, &exchange);
    let (replica, client, secrets) = started(&deployment).await;
    deployment.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = 'check_violation'; END $$",
    );
    deployment
        .sql("CREATE TRIGGER refuse BEFORE UPDATE ON relay_cursors EXECUTE FUNCTION refuse()");
    // While one client's change is committed, the other's waits, and so does a renewal: the two come next.
    let end = Instant::now() + Duration::from_secs(6);
    let clients = [client.clone(), client].map(|client| {
        let secret = secrets[0].clone();
        tokio::spawn(async move {
            while Instant::now() < end {
                let put = client.put(&secret, "sk-next").await.unwrap();
                put.expect(200);
            }
        })
    });
    for client in clients {
        client.await.unwrap();
    }
    let errors = replica.stderr();
    assert!(
        errors.contains("the relay can't use the database"),
        "{errors}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_what_was_seen_in_it_stops_all_writes_until_a_restart() {
    for deployment in fixture::both() {
        let (mut replica, client, secrets) = started(&deployment).await;
        client
            .put(&secrets[0], "sk-next")
            .await
            .unwrap()
            .expect(200);
        let head = "/api/v1/events/head";
        client.fetch(head).await.unwrap().expect(200);
        deployment.sql("DELETE FROM events WHERE log = 'changes' AND position = 2");
        client
            .put(&secrets[0], "sk-next")
            .await
            .unwrap()
            .expect(502);
        client
            .put(&secrets[0], "sk-next")
            .await
            .unwrap()
            .expect(502);
        client.fetch(head).await.unwrap().expect(502);
        client.get(&secrets[0]).await.unwrap().expect(200);
        let anybody = Client::anonymous(replica.base());
        let ready = anybody.fetch("/ready").await.unwrap().expect(503).json();
        assert_eq!(ready["checks"]["log"], "failed");
        let metrics = scrape(&anybody).await;
        assert!(metrics.contains("\nrekey_log_broken 1\n"), "{metrics}");
        assert_eq!(replica.terminate(), Some(0));
        let (replica, _, _) = started_for(&deployment, "bob").await;
        replica.ready(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_redone_ends_at_the_first_failure_of_the_database() {
    let deployment = fixture::postgres();
    let (_replica, client, secrets) = started(&deployment).await;
    // The first statement passes, the second is refused, and all later ones take too long.
    deployment.sql("CREATE SEQUENCE statements");
    deployment.sql(
        "CREATE FUNCTION disturb() RETURNS trigger LANGUAGE plpgsql AS $$ \
         DECLARE number bigint := nextval('statements'); \
         BEGIN \
         IF number = 2 THEN RAISE EXCEPTION 'refused'; END IF; \
         IF number > 2 THEN PERFORM pg_sleep(10); END IF; \
         RETURN NULL; \
         END $$",
    );
    deployment.sql(
        "CREATE TRIGGER disturb AFTER INSERT ON secret_versions \
         FOR EACH STATEMENT EXECUTE FUNCTION disturb()",
    );
    // The first PUT waits for this lock; what comes meanwhile is one batch.
    let url = deployment.database().to_owned();
    let holding = tokio::task::spawn_blocking(move || {
        let lock = "SELECT 1 FROM log_head WHERE log = 'changes' FOR UPDATE";
        psql(
            &url,
            &format!("BEGIN; {lock}; SELECT pg_sleep(1.5); COMMIT"),
        )
    });
    let held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' \
                AND datname = current_database()";
    wait_until("the lock", Duration::from_secs(5), async || {
        psql(deployment.database(), held) == "1"
    })
    .await;
    let began = Instant::now();
    let put = || {
        let (client, secret) = (client.clone(), secrets[0].clone());
        tokio::spawn(async move { ledger::put(&client, &secret).await })
    };
    let mut puts = vec![put()];
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND datname = current_database()";
    wait_until("the first PUT", Duration::from_secs(5), async || {
        psql(deployment.database(), waiting) == "1"
    })
    .await;
    puts.extend((1..16).map(|_| put()));
    let mut attempts = Vec::new();
    for put in puts {
        attempts.push(put.await.unwrap());
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{attempts:?}");
    holding.await.unwrap();
    let told = |wanted| {
        attempts
            .iter()
            .filter(|attempt| attempt.told == wanted)
            .count()
    };
    // Of the batch the first met the database's timeout, and the others did not try.
    assert_eq!(told(Told::NotApplied(504)), 1, "{attempts:?}");
    assert!(told(Told::NotApplied(502)) >= 1, "{attempts:?}");
    deployment.sql("DROP TRIGGER disturb ON secret_versions");
    ledger::settle(&client, &secrets, &attempts).await;
}
