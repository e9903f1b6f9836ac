//! No value and no token stands anywhere but where it must: not ten bytes of it in a row, in the clear, in base64 or
//! in hex, in any answer, in the log at its most talkative, or in what the database keeps.

use crate::support::broker::{Delivery, Recorder};
use crate::support::canary::Canary;
use crate::support::fixture::{self, ALL, LIST};
use crate::support::postgres::{self, Postgres};
use crate::support::rabbitmq::RabbitMq;
use crate::support::service::{Answer, Client, Deployment, Replica};
use reqwest::Method;
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

const RESOLVE: &str = "/api/v1/secrets/resolve";
const EVENTS: &str = "/api/v1/events";

/// A value, a token, and everything that a service said to both.
struct Witness {
    value: Canary,
    token: Canary,
    client: Client,
    heard: Vec<(String, Answer)>,
}

impl Witness {
    fn of(deployment: &Deployment, replica: &Replica) -> Self {
        let token = deployment.token("alice", &ALL);
        // The part before, the token's ID, is no secret.
        let secret = token.splitn(3, '_').nth(2).expect("rekey_<id>_<secret>");
        Self {
            value: Canary::fresh(),
            token: Canary::new(secret),
            client: replica.client(&token),
            heard: Vec::new(),
        }
    }

    fn hear(&mut self, place: &str, status: u16, answer: Result<Answer, reqwest::Error>) -> Answer {
        let answer = answer.unwrap();
        assert_eq!(answer.status, status, "{place}");
        self.heard.push((place.to_owned(), answer.clone()));
        answer
    }

    async fn ask(&mut self, status: u16, client: &Client, call: (Method, &str), body: &str) {
        let (method, path) = call;
        let place = format!("the answer to {method} with {} bytes", body.len());
        let request = client.request(method, path).body(body.to_owned());
        let answer = client.send(request).await;
        self.hear(&place, status, answer);
    }

    /// What a client does with a value all day.
    async fn go_the_good_ways(&mut self) -> String {
        let (client, value) = (self.client.clone(), self.value.value().to_owned());
        let created = client.create("CANARY", &value).await;
        let id = self.hear("create", 201, created).id();
        let other = client.create("OTHER", "x").await;
        let other = self.hear("create", 201, other).id();
        let preset = json!({"provider": "openai", "value": value});
        let preset = client.post(&format!("{LIST}/preset"), &preset).await;
        self.hear("preset", 201, preset);
        let updated = client.put(&other, &value).await;
        self.hear("update", 200, updated);
        let stale = client.with("if-match", "\"1\"").put(&other, &value).await;
        self.hear("stale", 412, stale);
        let taken = client.create("CANARY", &value).await;
        self.hear("taken", 409, taken);
        let absent = client.put("0198f3c2-0000-7000-8000-000000000000", &value);
        let absent = absent.await;
        self.hear("absent", 404, absent);
        for path in [
            LIST.to_owned(),
            format!("{LIST}/{id}"),
            format!("{LIST}/presets"),
            format!("{LIST}/{id}/events"),
            format!("{LIST}/{other}/events"),
            "/ready".to_owned(),
            "/openapi.json".to_owned(),
        ] {
            self.ask(200, &client, (Method::GET, &path), "").await;
        }
        let deleted = client.delete(&other).await;
        self.hear("delete", 204, deleted);
        id
    }

    /// What a workload does: it alone gets the value, in one body.
    async fn hand_out(&mut self, id: &str) {
        let (client, value) = (self.client.clone(), self.value.value().to_owned());
        let listening = client.with("accept", "text/event-stream");
        let mut streams = Vec::new();
        for log in ["changes", "activity"] {
            let request = listening.request(Method::GET, &format!("{EVENTS}?log={log}&after=0-0"));
            streams.push((log, request.send().await.unwrap()));
        }
        let set = json!({"updates": [{"id": id, "value": value}]});
        let set = client.post(&format!("{LIST}/batch"), &set).await;
        self.hear("set", 200, set);
        for body in [json!({"names": ["canary"]}), json!({"ids": [id]})] {
            let answer = client.resolve(&body).await.unwrap();
            let mut answer = answer.expect(200);
            assert_eq!(answer.json()["secrets"][0]["value"], *value);
            answer.body.clear();
            self.hear("resolve, without its body", 200, Ok(answer));
        }
        for path in [
            format!("{EVENTS}?limit=1000"),
            format!("{EVENTS}?log=activity"),
            format!("{EVENTS}/head"),
            "/schemas/secret-event.v1.json".to_owned(),
        ] {
            self.ask(200, &client, (Method::GET, &path), "").await;
        }
        for (log, mut stream) in streams {
            let mut body = Vec::new();
            let last = if log == "changes" {
                id
            } else {
                "secret.accessed"
            };
            let has = |body: &[u8]| String::from_utf8_lossy(body).matches(last).count() > 1;
            while !has(&body) {
                body.extend(stream.chunk().await.unwrap().expect("a stream goes on"));
            }
            let (status, headers) = (stream.status().as_u16(), stream.headers().clone());
            let answer = Answer {
                status,
                headers,
                body,
            };
            self.hear(&format!("the stream of {log}"), 200, Ok(answer));
        }
    }

    /// The value where it does not belong, in what workloads and followers send.
    async fn misplace_in_workloads(&mut self) {
        let (client, value) = (self.client.clone(), self.value.value().to_owned());
        let json = client.with("content-type", "application/json");
        for (status, body) in [
            (400, format!(r#"{{"names":["{value}"#)),
            (422, json!({"names": [value]}).to_string()),
            (422, json!({"names": value}).to_string()),
            (422, json!({"ids": [value, {"value": value}]}).to_string()),
            (422, json!({"names": ["A"], "owner": value}).to_string()),
            (
                422,
                json!({"names": ["A"], "min_cursor": value}).to_string(),
            ),
            (404, json!({"names": [value.replace('-', "_")]}).to_string()),
        ] {
            self.ask(status, &json, (Method::POST, RESOLVE), &body)
                .await;
        }
        let batch = format!("{LIST}/batch");
        for entry in [
            json!(value),
            json!({"id": value, "value": value}),
            json!({"id": "0198f3c2-0000-7000-8000-000000000000", "value": [value]}),
        ] {
            let body = json!({"updates": [entry]}).to_string();
            self.ask(422, &json, (Method::POST, &batch), &body).await;
        }
        let absent = json!({"id": "0198f3c2-0000-7000-8000-000000000000", "value": value});
        let body = json!({"updates": [absent]}).to_string();
        self.ask(404, &json, (Method::POST, &batch), &body).await;
        for name in ["after", "limit", "type", "log"] {
            let path = format!("{EVENTS}?{name}={value}");
            self.ask(422, &client, (Method::GET, &path), "").await;
        }
        let resuming = client.with("accept", "text/event-stream");
        let resuming = resuming.with("last-event-id", &value);
        self.ask(422, &resuming, (Method::GET, EVENTS), "").await;
        let traced = client.with("traceparent", &value);
        self.ask(200, &traced, (Method::GET, EVENTS), "").await;
    }

    /// The value where it does not belong, in every part of a body.
    async fn misplace_in_bodies(&mut self, id: &str) {
        let value = self.value.value().to_owned();
        let json = self.client.with("content-type", "application/json");
        for (status, body) in [
            (400, value.clone()),
            (400, format!("\"{value}\"")),
            (400, format!(r#"{{"value":"{value}"#)),
            (400, format!(r#"{{"value":"{value}"}}{value}"#)),
            (400, format!(r#"{{"value":"{value}","value":"{value}"}}"#)),
            (400, format!(r#"{{"value":"{value}\ud800"}}"#)),
            (400, format!(r#"{{"{value}":1,"{value}":2}}"#)),
            (400, format!(r#"{{"value":{value}}}"#)),
            (422, format!(r#"{{"value":["{value}"]}}"#)),
            (422, format!(r#"{{"value":{{"{value}":"{value}"}}}}"#)),
            (422, format!(r#"{{"{value}":"{value}"}}"#)),
            (422, format!(r#"{{"value":"{value}\u0000"}}"#)),
            (422, json!({"value": value.repeat(1_000)}).to_string()),
            (413, json!({"value": value.repeat(10_000)}).to_string()),
        ] {
            let one = format!("{LIST}/{id}");
            self.ask(status, &json, (Method::PUT, &one), &body).await;
        }
        for body in [
            json!({"name": value, "value": value}),
            json!({"name": "A", "value": value, "provider": value}),
            json!({"name": "PATH", "value": value}),
        ] {
            let body = body.to_string();
            self.ask(422, &json, (Method::POST, LIST), &body).await;
        }
        let preset = json!({"provider": value.get(..40), "value": value}).to_string();
        let path = format!("{LIST}/preset");
        self.ask(422, &json, (Method::POST, &path), &preset).await;
    }

    /// The value where it does not belong, in every part of a head.
    async fn misplace_in_heads(&mut self, id: &str, anonymous: &Client) {
        let (client, value) = (self.client.clone(), self.value.value().to_owned());
        let one = format!("{LIST}/{id}");
        for (status, path) in [
            (404, format!("/{value}")),
            (404, format!("{one}/{value}")),
            (422, format!("{LIST}/{value}")),
            (422, format!("{one}/events?before={value}&limit={value}")),
            (200, format!("{LIST}?{value}={value}")),
        ] {
            self.ask(status, &client, (Method::GET, &path), "").await;
        }
        let method = Method::from_bytes(value.as_bytes()).unwrap();
        self.ask(405, &client, (method, &one), "").await;
        for (status, name, content) in [
            (400, "if-match", value.clone()),
            (412, "if-match", format!("\"{value}\"")),
            (400, "content-type", value.clone()),
            (400, "content-encoding", value.clone()),
            (200, "user-agent", format!("{value}/1.0.0 ({value})")),
            (200, "x-request-id", format!("{value}/")),
            (200, "x-forwarded-for", value.clone()),
            (200, "origin", value.clone()),
            (200, &value.clone(), value.clone()),
            (401, "x-api-key", value.clone()),
        ] {
            let json = client.with("content-type", "application/json");
            let json = json.with(name, &content);
            let body = r#"{"value":"x"}"#;
            self.ask(status, &json, (Method::PUT, &one), body).await;
        }
        for content in [
            value.clone(),
            format!("Bearer {value}"),
            format!("Basic {value}"),
        ] {
            let wrong = anonymous.with("authorization", &content);
            self.ask(401, &wrong, (Method::GET, LIST), "").await;
        }
        let twice = client.with("x-api-key", "rekey_other_token");
        self.ask(401, &twice, (Method::GET, LIST), "").await;
    }

    async fn go_all_ways(&mut self, replica: &Replica) {
        let id = self.go_the_good_ways().await;
        self.hand_out(&id).await;
        self.misplace_in_workloads().await;
        self.misplace_in_bodies(&id).await;
        let anonymous = Client::anonymous(replica.base());
        self.misplace_in_heads(&id, &anonymous).await;
    }

    fn assert_absent_in(&self, place: &str, bytes: &[u8]) {
        self.value.assert_absent_in(place, bytes);
        self.token.assert_absent_in(place, bytes);
    }

    /// In no answer, and in no line of the log, which holds one for each refusal.
    fn assert_unheard(&self, replica: &Replica) {
        for (place, answer) in &self.heard {
            self.assert_absent_in(place, &answer.body);
            for (name, content) in &answer.headers {
                self.assert_absent_in(&format!("{name} of {place}"), content.as_bytes());
            }
        }
        let log = replica.stderr();
        let refused = self.heard.iter().filter(|(_, one)| one.status >= 400);
        let told = log.matches("request refused").count();
        assert!(told >= refused.count(), "the log tells too little:\n{log}");
        self.assert_absent_in("the log", log.as_bytes());
        self.assert_absent_in("stdout", replica.stdout().join("\n").as_bytes());
    }
}

#[tokio::test]
async fn no_value_and_no_token_leaves_the_service_or_stays_in_sqlite() {
    let deployment = Deployment::sqlite().raised_limits().traced().prepare();
    let mut replica = deployment.serve();
    let mut witness = Witness::of(&deployment, &replica);
    witness.go_all_ways(&replica).await;
    witness.assert_unheard(&replica);
    // While it runs, the write-ahead log is there; after it has ended, all is in the file.
    let wal = deployment.folder().join("rekey.db-wal");
    assert!(std::fs::metadata(&wal).unwrap().len() > 0);
    for _ in 0..2 {
        witness.value.assert_absent([deployment.folder()]);
        witness.token.assert_absent([deployment.folder()]);
        replica.terminate();
    }
    witness.assert_unheard(&replica);
}

#[tokio::test]
async fn no_value_and_no_token_leaves_the_service_or_stays_in_postgresql() {
    let url = Postgres::shared().database();
    let (broker, exchange) = (RabbitMq::shared(), fixture::exchange());
    let recorder = Recorder::start(&broker.url(), &exchange, "#").await;
    let deployment = Deployment::postgres(&url)
        .raised_limits()
        .traced()
        .broker(&broker.url(), &exchange)
        .prepare();
    let mut replica = deployment.serve();
    let mut witness = Witness::of(&deployment, &replica);
    witness.go_all_ways(&replica).await;
    replica.terminate();
    // The drain publishes what is there.
    let accesses = |record: &[Delivery]| {
        let accesses = record
            .iter()
            .filter(|one| one.routing_key.contains("accessed"));
        accesses.count() >= 2
    };
    let record = recorder.wait_until("both reads", SOON, accesses).await;
    for delivery in record {
        witness.assert_absent_in("a message", &delivery.body);
        let head = format!("{:?} {:?}", delivery.properties, delivery.routing_key);
        witness.assert_absent_in("a message's head", head.as_bytes());
    }
    witness.value.assert_absent([broker.folder()]);
    witness.token.assert_absent([broker.folder()]);
    witness.assert_unheard(&replica);
    let rows = postgres::dump(&url);
    let text = String::from_utf8_lossy(&rows);
    assert!(text.contains("CANARY"), "the dump holds the secret's row");
    witness.assert_absent_in("the database's rows", &rows);
    let log = Postgres::shared().log();
    witness.assert_absent_in("the server's log", log.as_bytes());
    witness.value.assert_absent([deployment.folder()]);
    witness.token.assert_absent([deployment.folder()]);
}
