//! PostgreSQL and RabbitMQ under TLS with a private authority, and by IPv6.

use crate::support::{
    authority::Authority,
    fixture, port,
    postgres::{Postgres, psql},
    rabbitmq::RabbitMq,
    service::{Client, Deployment, Replica},
};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// Where a service looks for the system's roots.
const ROOTS: &str = "SSL_CERT_FILE";

fn with_roots(deployment: Deployment, roots: &Path) -> Deployment {
    deployment.environment(ROOTS, roots.to_str().unwrap())
}

/// What `migrate up` says when it can't.
fn refusal(deployment: &Deployment) -> String {
    deployment.run(&["keys", "generate"]);
    let output = deployment.try_run(&["migrate", "up"]);
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_spoken_to_only_under_the_name_of_its_certificate() {
    let (ours, others) = (Authority::new(), Authority::new());
    let identity = ours.issue("server", &["localhost"]);
    let server = Postgres::start_private_with(&[
        "ssl=on",
        &format!("ssl_cert_file={}", identity.certificate.display()),
        &format!("ssl_key_file={}", identity.key.display()),
    ]);
    let plain = server.database();
    let url = |host: &str, mode: &str| {
        plain
            .replace("127.0.0.1", host)
            .replace("sslmode=disable", &format!("sslmode={mode}"))
    };
    let deployment = |url: &str| with_roots(Deployment::postgres(url), &ours.certificate());

    let wrong_name = refusal(&deployment(&url("127.0.0.1", "verify-full")));
    assert!(wrong_name.contains("not valid for name"), "{wrong_name}");
    let full = url("localhost", "verify-full");
    let stranger = refusal(&with_roots(
        Deployment::postgres(&full),
        &others.certificate(),
    ));
    assert!(stranger.contains("UnknownIssuer"), "{stranger}");

    let deployment = deployment(&full).prepare();
    let replica = deployment.serve();
    assert!(said(&replica, "database: tls=on (sslmode=verify-full)"));
    let alice = replica.client(&deployment.token("alice", fixture::SCOPES));
    alice.create("A", "sk-1").await.unwrap().expect(201);
    let plain_sessions = "SELECT count(*) FILTER (WHERE NOT ssl), count(*) > 0 FROM pg_stat_ssl \
                          JOIN pg_stat_activity USING (pid) WHERE application_name = 'rekey'";
    assert_eq!(psql(&plain, plain_sessions), "0|t");
    let replica = deployment.serve_with(&[("REKEY__DATABASE__URL", &plain)]);
    assert!(said(&replica, "database: tls=off (sslmode=disable)"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_is_spoken_to_only_under_the_name_of_its_certificate() {
    let (ours, others) = (Authority::new(), Authority::new());
    let identity = ours.issue("server", &["localhost"]);
    let port = port::free();
    let server = RabbitMq::start_private_with(&format!(
        "listeners.ssl.1 = 127.0.0.1:{port}\n\
         ssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n\
         ssl_options.verify = verify_none\n",
        ours.certificate().display(),
        identity.certificate.display(),
        identity.key.display(),
    ));
    let url = |host: &str| format!("amqps://guest:guest@{host}:{port}/%2f");
    let serve = |host: &str, roots: &Authority| {
        let deployment = fixture::sqlite().broker(&url(host), &fixture::exchange());
        with_roots(deployment, &roots.certificate()).serve()
    };

    let wrong_name = serve("127.0.0.1", &ours);
    broker_is(&wrong_name, "failed").await;
    await_log(&wrong_name, "not valid for name").await;
    let stranger = serve("localhost", &others);
    broker_is(&stranger, "failed").await;
    await_log(&stranger, "UnknownIssuer").await;

    let good = serve("localhost", &ours);
    broker_is(&good, "ok").await;
    assert!(said(&good, "broker: tls=on (amqps)"));
    let connections = server.ctl(&["list_connections", "ssl"]);
    assert!(connections.contains("true"), "{connections}");
    assert!(!connections.contains("false"), "{connections}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_address_is_where_the_url_says() {
    let database = Postgres::start_private_with(&["listen_addresses=::1"]);
    let amqp = port::free();
    let broker = RabbitMq::start_private_with(&format!("listeners.tcp.2 = ::1:{amqp}\n"));
    let port = database.address().port();
    let url = format!("postgres://postgres@[::1]:{port}/postgres?sslmode=disable");
    let deployment = Deployment::postgres(&url)
        .broker(
            &format!("amqp://guest:guest@[::1]:{amqp}/%2f"),
            &fixture::exchange(),
        )
        .prepare();
    let replica = deployment.serve();
    broker_is(&replica, "ok").await;
    // Nothing of ours listens there: an address that were not read would be this machine's.
    let elsewhere = fixture::sqlite().broker(
        &format!(
            "amqp://guest:guest@[2001:db8::5]:{}/%2f?tls=off",
            broker.address().port()
        ),
        &fixture::exchange(),
    );
    let elsewhere = elsewhere.serve();
    await_log(&elsewhere, "the relay can't publish").await;
    broker_is(&elsewhere, "failed").await;
}

fn said(replica: &Replica, text: &str) -> bool {
    replica.stderr().contains(text)
}

async fn await_log(replica: &Replica, text: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    while !said(replica, text) {
        assert!(Instant::now() < end, "no {text:?} in {}", replica.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until `/ready` says so of the broker.
async fn broker_is(replica: &Replica, state: &str) {
    let client = Client::anonymous(replica.base());
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = client.fetch("/ready").await.unwrap();
        if answer.json()["checks"]["broker"] == state {
            return;
        }
        assert!(
            Instant::now() < end,
            "{}\n{}",
            answer.text(),
            replica.stderr()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
