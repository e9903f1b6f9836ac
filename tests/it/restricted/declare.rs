//! Accounts of the broker that may not declare the exchange: they use one that is there, and say so when there is none.

use crate::support::broker::{Recorder, delivered};
use crate::support::fixture::{self, SCOPES};
use crate::support::ledger;
use crate::support::proxy::{Ending, Proxy};
use crate::support::rabbitmq::RabbitMq;
use crate::support::service::Replica;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
const MISSING: &str =
    "the exchange secrets.events is missing, and the broker's account may not declare it";

/// The URL of a virtual host for guest, and for an account with these permissions in it.
fn account(configure: &str, write: &str, read: &str) -> (String, String) {
    let broker = RabbitMq::shared();
    let guest = broker.vhost();
    let vhost = guest.rsplit_once('/').expect("a virtual host").1;
    let user = format!("u{vhost}");
    broker.ctl(&["add_user", &user, "secret"]);
    broker.ctl(&[
        "set_permissions",
        "-p",
        vhost,
        &user,
        configure,
        write,
        read,
    ]);
    let url = guest.replace("guest:guest", &format!("{user}:secret"));
    (guest, url)
}

async fn says(replica: &Replica, text: &str) {
    let end = Instant::now() + SOON;
    while !replica.stderr().contains(text) {
        assert!(Instant::now() < end, "{text} in:\n{}", replica.stderr());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_not_declare_publishes_to_the_exchange_that_is_there() {
    let (guest, writer) = account("^$", "^secrets[.]events$", "^$");
    let recorder = Recorder::start(&guest, "secrets.events", "secret.#").await;
    let deployment = fixture::sqlite().broker(&writer, "secrets.events");
    let token = deployment.token("alice", SCOPES);
    let replica = deployment.serve();
    let client = replica.client(&token);
    ledger::create(&client, 2).await;
    assert_eq!(delivered(&recorder, 2, SOON).await.len(), 2);
    replica.ready(SOON).await;
    assert!(!replica.stderr().contains("WARN"), "{}", replica.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_is_missing_and_may_not_be_declared_is_named_and_waited_for() {
    let (guest, writer) = account("^$", "^secrets[.]events$", "^$");
    // Another reason first: the log tells this one, too.
    let proxy = Proxy::start(RabbitMq::shared().address());
    proxy.refuse(Ending::Reset);
    let deployment = fixture::sqlite().broker(&proxy.url(&writer), "secrets.events");
    let token = deployment.token("alice", SCOPES);
    let replica = deployment.serve();
    let client = replica.client(&token);
    ledger::create(&client, 1).await;
    says(&replica, "the relay can't publish").await;
    proxy.pass();
    says(&replica, MISSING).await;
    let told = replica.stderr().matches(MISSING).count();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(
        (1..=2).contains(&told) && replica.stderr().matches(MISSING).count() <= 2,
        "once for each log:\n{}",
        replica.stderr()
    );
    // It is declared by somebody else.
    let recorder = Recorder::start(&guest, "secrets.events", "secret.#").await;
    delivered(&recorder, 1, SOON).await;
    says(&replica, "the relay can publish again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_not_write_is_named_as_the_reason() {
    let (guest, reader) = account("^$", "^$", "^$");
    let recorder = Recorder::start(&guest, "secrets.events", "secret.#").await;
    let deployment = fixture::sqlite().broker(&reader, "secrets.events");
    let token = deployment.token("alice", SCOPES);
    let replica = deployment.serve();
    let client = replica.client(&token);
    ledger::create(&client, 1).await;
    says(
        &replica,
        "the broker denies access to its account: protocol error: AMQP soft error: ACCESS-REFUSED",
    )
    .await;
    assert_eq!(recorder.deliveries().len(), 0);
}
