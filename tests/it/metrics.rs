//! `/metrics`: what it tells, where it is served, and what it never says.

use crate::support::fixture::{self, SCOPES};
use crate::support::ledger;
use crate::support::metrics::{sample, scrape};
use crate::support::rabbitmq::RabbitMq;
use crate::support::service::{Client, Deployment};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_of_requests_commits_logs_and_relays_and_name_nobody() {
    let broker = RabbitMq::shared();
    let exchange = fixture::exchange();
    let deployment = fixture::sqlite().broker(&broker.url(), &exchange);
    let token = deployment.token("alice", SCOPES);
    let replica = deployment.serve();
    let client = replica.client(&token);
    let secrets = ledger::create(&client, 2).await;
    for _ in 0..3 {
        client
            .put(&secrets[0], "sk-next")
            .await
            .unwrap()
            .expect(200);
    }
    client.get("no-id").await.unwrap().expect(422);
    let path = "/api/v1/user/secrets/{secret_id}";
    let text = loop {
        let text = scrape(&Client::anonymous(replica.base())).await;
        if sample(&text, "rekey_relay_lag_events{log=\"changes\"}") == Some(0.0)
            && sample(&text, "rekey_log_position{log=\"changes\"}") == Some(5.0)
            && sample(&text, "rekey_relay_unroutable_events_total") >= Some(5.0)
            // The relay of the other log may connect later.
            && sample(&text, "rekey_broker_connected") == Some(1.0)
        {
            break text;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let requests = |method: &str, status: u16| {
        let labels = format!("method=\"{method}\",route=\"{path}\",status=\"{status}\"");
        sample(&text, &format!("rekey_http_requests_total{{{labels}}}"))
    };
    assert_eq!(requests("PUT", 200), Some(3.0), "{text}");
    assert_eq!(requests("GET", 422), Some(1.0));
    let durations =
        format!("rekey_http_request_duration_seconds_count{{method=\"PUT\",route=\"{path}\"}}");
    assert_eq!(sample(&text, &durations), Some(3.0));
    assert_eq!(sample(&text, "rekey_commit_batch_size_sum"), Some(5.0));
    assert_eq!(
        sample(&text, "rekey_commit_duration_seconds_count"),
        Some(5.0)
    );
    assert_eq!(sample(&text, "rekey_commit_queue_depth"), Some(0.0));
    assert_eq!(sample(&text, "rekey_secret_actors"), Some(0.0));
    assert!(text.contains("rekey_build_info{version=\""));
    for named in ["alice", &secrets[0], "SECRET_0", "no-id"] {
        assert!(!text.contains(named), "{named}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_counted_while_they_are_open() {
    let deployment = fixture::sqlite();
    let token = deployment.token("alice", SCOPES);
    let replica = deployment.serve();
    let client = replica.client(&token).with("accept", "text/event-stream");
    let mut stream = client
        .request(reqwest::Method::GET, "/api/v1/events")
        .send()
        .await
        .unwrap();
    assert!(
        stream
            .chunk()
            .await
            .unwrap()
            .unwrap()
            .starts_with(b"id: 0-0")
    );
    let anonymous = Client::anonymous(replica.base());
    assert_eq!(
        sample(&scrape(&anonymous).await, "rekey_event_streams"),
        Some(1.0)
    );
    drop(stream);
    // A heartbeat finds out that nobody is there, and the next one ends the stream.
    let end = std::time::Instant::now() + Duration::from_secs(45);
    while sample(&scrape(&anonymous).await, "rekey_event_streams") != Some(0.0) {
        assert!(std::time::Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_port_of_their_own_metrics_are_served_there_alone() {
    let deployment = Deployment::embedded().set("METRICS__PORT", "0");
    let replica = deployment.serve_with(&[("REKEY__LOG__FORMAT", "json"), ("RUST_LOG", "info")]);
    let elsewhere = Client::anonymous(replica.base());
    elsewhere.fetch("/metrics").await.unwrap().expect(404);
    let errors = replica.stderr();
    let line = errors
        .lines()
        .find(|line| line.contains("metrics are served"));
    let line: serde_json::Value = serde_json::from_str(line.unwrap()).unwrap();
    let base = format!("http://{}", line["metrics.address"].as_str().unwrap());
    // That listener is not the API: the document says nothing of it.
    let metrics = reqwest::get(format!("{base}/metrics")).await.unwrap();
    assert_eq!(metrics.status(), 200);
    let kind = &metrics.headers()["content-type"];
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    assert!(metrics.text().await.unwrap().contains("rekey_build_info"));
    let other = reqwest::get(format!("{base}/health")).await.unwrap();
    assert_eq!(other.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_an_address_that_others_reach_the_api_serves_no_metrics() {
    let deployment = Deployment::embedded()
        .set("SERVER__HOST", "0.0.0.0")
        .set("SERVER__PLAINTEXT", "true");
    let replica = deployment.serve();
    let port = replica.base().rsplit(':').next().unwrap().to_owned();
    let client = Client::anonymous(&format!("http://127.0.0.1:{port}"));
    client.fetch("/health").await.unwrap().expect(200);
    client.fetch("/metrics").await.unwrap().expect(404);
}
