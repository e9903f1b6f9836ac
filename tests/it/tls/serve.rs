//! TLS of the service's own: certificate, mutual TLS, files that are read again, and what stays in plain text.

use crate::support::{
    authority::{Authority, Identity},
    fixture,
    service::{Deployment, Replica},
};
use reqwest::{Certificate, StatusCode};
use rustix::process::Signal;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

const NAMES: &[&str] = &["localhost", "127.0.0.1"];

fn served(deployment: Deployment, identity: &Identity) -> Deployment {
    deployment
        .set("SERVER__TLS_CERT", identity.certificate.to_str().unwrap())
        .set("SERVER__TLS_KEY", identity.key.to_str().unwrap())
}

/// What a client knows: an authority, and the certificate that it has itself.
fn client(authority: &Authority, own: Option<&Identity>) -> reqwest::Client {
    let root = fs::read(authority.certificate()).unwrap();
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        // Each request has a connection of its own, which may resume an earlier one's session.
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_secs(20))
        .tls_built_in_root_certs(false)
        .add_root_certificate(Certificate::from_pem(&root).unwrap());
    if let Some(own) = own {
        let pem = [
            fs::read(&own.certificate).unwrap(),
            fs::read(&own.key).unwrap(),
        ]
        .concat();
        builder = builder.identity(reqwest::Identity::from_pem(&pem).unwrap());
    }
    builder.build().unwrap()
}

async fn status(client: &reqwest::Client, replica: &Replica, path: &str) -> Option<StatusCode> {
    let answer = client.get(format!("{}{path}", replica.base())).send().await;
    answer.ok().map(|answer| answer.status())
}

async fn answers(client: &reqwest::Client, replica: &Replica) -> bool {
    status(client, replica, "/health").await == Some(StatusCode::OK)
}

/// Waits until new connections of such a client are taken, or are not.
async fn until(replica: &Replica, wanted: bool, new_client: impl Fn() -> reqwest::Client) {
    let end = Instant::now() + Duration::from_secs(20);
    while answers(&new_client(), replica).await != wanted {
        assert!(Instant::now() < end, "{}", replica.stderr());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until_said(replica: &Replica, text: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    while !replica.stderr().contains(text) {
        assert!(Instant::now() < end, "no {text:?} in {}", replica.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_service_serves_tls_and_no_plain_text_beside_it() {
    let authority = Authority::new();
    let identity = authority.issue("server", NAMES);
    let deployment = served(fixture::sqlite(), &identity)
        .set("HTTP__REQUIRE_TLS", "true")
        .set("METRICS__PORT", "0");
    let token = deployment.token("alice", &fixture::ALL);
    let mut replica = deployment.serve();
    assert!(replica.base().starts_with("https://127.0.0.1:"));
    let good = client(&authority, None);
    let call = good
        .get(format!("{}/api/v1/user/secrets", replica.base()))
        .bearer_auth(&token);
    assert_eq!(call.send().await.unwrap().status(), StatusCode::OK);
    assert!(!answers(&client(&Authority::new(), None), &replica).await);
    let plain = replica.base().replace("https://", "http://");
    let plain_answer = good.get(format!("{plain}/health")).send().await;
    assert!(plain_answer.is_err(), "{plain_answer:?}");
    let talk = replica.stderr();
    let (_, metrics) = talk.split_once("\"metrics.address\":\"").unwrap();
    let (metrics, _) = metrics.split_once('"').unwrap();
    let url = format!("https://{metrics}/metrics");
    assert!(good.get(url).send().await.unwrap().status().is_success());
    healthy(&deployment, &replica);
    replica.signal(Signal::TERM);
    assert_eq!(replica.exit_code(Duration::from_secs(25)), Some(0));
}

/// The container's health check, which is given nothing but the service's own settings.
fn healthy(deployment: &Deployment, replica: &Replica) {
    let (_, port) = replica.base().rsplit_once(':').unwrap();
    let mut command = deployment.command(&["healthcheck"]);
    command.env("REKEY__SERVER__PORT", port);
    let output = command.output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{talk}");
    // An address that is given is checked as any other.
    let output = deployment.try_run(&["healthcheck", replica.base()]);
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn under_mutual_tls_only_clients_of_the_authority_get_in() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let identity = servers.issue("server", NAMES);
    let deployment = served(fixture::sqlite(), &identity).set(
        "SERVER__TLS_CLIENT_CA",
        clients.certificate().to_str().unwrap(),
    );
    let replica = deployment.serve();
    let theirs = clients.issue("client", &["client"]);
    let stranger = servers.issue("stranger", &["client"]);
    assert!(answers(&client(&servers, Some(&theirs)), &replica).await);
    assert!(!answers(&client(&servers, None), &replica).await);
    assert!(!answers(&client(&servers, Some(&stranger)), &replica).await);
    let asked = status(
        &client(&servers, Some(&theirs)),
        &replica,
        "/api/v1/user/secrets",
    )
    .await;
    assert_eq!(asked, Some(StatusCode::UNAUTHORIZED));
    healthy(&deployment, &replica);

    // Another authority of clients counts at once, for connections that a session would have resumed, too.
    let kept = client(&servers, Some(&theirs));
    assert!(answers(&kept, &replica).await);
    let next = Authority::new();
    fs::rename(next.certificate(), clients.certificate()).unwrap();
    let next_client = next.issue("client", &["client"]);
    until(&replica, true, || client(&servers, Some(&next_client))).await;
    assert!(!answers(&kept, &replica).await);
}

#[tokio::test]
async fn a_certificate_that_is_replaced_is_read_again_and_a_bad_one_is_not_taken() {
    let (first, second) = (Authority::new(), Authority::new());
    let identity = first.issue("server", NAMES);
    let deployment = served(fixture::sqlite(), &identity);
    let replica = deployment.serve();
    assert!(answers(&client(&first, None), &replica).await);

    let key = fs::read(&identity.key).unwrap();
    fs::write(&identity.key, "canary").unwrap();
    until_said(&replica, "can't be used; what was read before stays in use").await;
    assert!(!replica.stderr().contains("canary"));
    assert!(answers(&client(&first, None), &replica).await);
    fs::write(&identity.key, key).unwrap();
    until_said(&replica, "the TLS files have changed, and are in use").await;

    let next = second.issue("server", NAMES);
    fs::rename(&next.certificate, &identity.certificate).unwrap();
    fs::rename(&next.key, &identity.key).unwrap();
    until(&replica, true, || client(&second, None)).await;
    assert!(!answers(&client(&first, None), &replica).await);
}

#[test]
fn files_that_do_not_go_together_stop_the_start_by_name() {
    let authority = Authority::new();
    let (one, other) = (
        authority.issue("one", NAMES),
        authority.issue("other", NAMES),
    );
    let start = |certificate: &Path, key: &Path| {
        let identity = Identity {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        let output = served(fixture::sqlite(), &identity).try_run(&["serve"]);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let talk = start(&one.certificate, &other.key);
    assert!(talk.contains("can't be used together"), "{talk}");
    let talk = start(&one.certificate, &one.certificate);
    assert!(
        talk.contains("one.pem does not hold a private key in PEM"),
        "{talk}"
    );
    let talk = start(&one.key, &one.key);
    assert!(
        talk.contains("one.key does not hold certificates in PEM"),
        "{talk}"
    );
    let talk = start(Path::new("/nowhere.pem"), &one.key);
    assert!(talk.contains("can't read /nowhere.pem"), "{talk}");
}

#[test]
fn plain_text_is_served_to_a_network_only_where_the_settings_say_so() {
    let deployment = fixture::sqlite().set("SERVER__HOST", "0.0.0.0");
    let output = deployment.try_run(&["serve"]);
    assert_eq!(output.status.code(), Some(1));
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(talk.contains("server.host"), "{talk}");
    assert!(talk.contains("server.plaintext = true"), "{talk}");
    let replica = deployment.serve_with(&[("REKEY__SERVER__PLAINTEXT", "true")]);
    assert!(replica.base().starts_with("http://0.0.0.0:"));
    drop(replica);
    let authority = Authority::new();
    let deployment = served(deployment, &authority.issue("server", NAMES));
    assert!(deployment.serve().base().starts_with("https://0.0.0.0:"));
}
