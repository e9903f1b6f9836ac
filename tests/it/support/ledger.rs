//! What was asked, what was answered, and whether the log agrees.
//!
//! Each attempt has a request ID of its own; the event of a change carries it, so the log tells which
//! attempts stand.

use super::events;
use super::service::{Answer, Client};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// What the service said of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Applied, as this version.
    Applied(u64),
    /// Not applied, with its status.
    NotApplied(u16),
    /// That it doesn't know, or nothing at all.
    Unknown,
}

/// One PUT.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) request_id: String,
    pub(crate) secret: String,
    pub(crate) told: Told,
    /// Whether an answer came.
    pub(crate) answered: bool,
}

pub(crate) const OUTCOME_UNKNOWN: &str = r#"{"code":504,"detail":"It is not known whether the change was made","type":"outcome_unknown_error"}"#;

/// What faults bring about, to the byte.
const TABLE: [(u16, &str); 5] = [
    (
        429,
        r#"{"code":429,"detail":"The service is busy","type":"rate_limit_error"}"#,
    ),
    (
        500,
        r#"{"code":500,"detail":"Internal server error","type":"internal_server_error"}"#,
    ),
    (
        502,
        r#"{"code":502,"detail":"A service behind this one failed; nothing was changed","type":"bad_gateway_error"}"#,
    ),
    (
        504,
        r#"{"code":504,"detail":"A service behind this one did not answer in time; nothing was changed","type":"gateway_timeout_error"}"#,
    ),
    (504, OUTCOME_UNKNOWN),
];

/// Panics unless an error is one that a fault may bring about, with the headers that it must have.
pub(crate) fn assert_in_table(answer: &Answer) {
    let text = answer.text();
    assert!(
        TABLE.contains(&(answer.status, &text)),
        "{}: {text}",
        answer.status
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(
        answer.header("retry-after").is_some(),
        answer.status != 500,
        "{text}"
    );
}

/// A PUT under a fresh request ID.
pub(crate) async fn put(client: &Client, secret: &str) -> Attempt {
    let request_id = uuid::Uuid::new_v4().to_string();
    let request = client
        .request(Method::PUT, &format!("/api/v1/user/secrets/{secret}"))
        .header("x-request-id", &request_id)
        .json(&json!({"value": format!("sk-{request_id}")}));
    let sent = client.send(request).await;
    let answered = sent.is_ok();
    let told = match sent {
        Ok(answer) if answer.status == 200 => {
            let etag = answer.header("etag").expect("an ETag");
            Told::Applied(etag.trim_matches('"').parse().expect("a version"))
        }
        Ok(answer) => {
            assert_in_table(&answer);
            if answer.text() == OUTCOME_UNKNOWN {
                Told::Unknown
            } else {
                Told::NotApplied(answer.status)
            }
        }
        Err(_) => Told::Unknown,
    };
    Attempt {
        request_id,
        secret: secret.to_owned(),
        told,
        answered,
    }
}

/// Creates that many secrets; their IDs.
pub(crate) async fn create(client: &Client, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..count {
        let name = format!("SECRET_{number}");
        let answer = client.create(&name, "sk-the-first-value").await;
        ids.push(answer.expect("an answer").expect(201).id());
    }
    ids
}

/// Clients that PUT without a pause.
pub(crate) struct Load {
    clients: JoinSet<Vec<Attempt>>,
    acknowledged: Arc<AtomicUsize>,
}

impl Load {
    /// Each client makes `each` attempts over the secrets in turn, and ends at the first one without an answer.
    pub(crate) fn start(clients: Vec<Client>, secrets: &[String], each: usize) -> Self {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let mut running = JoinSet::new();
        for (number, client) in clients.into_iter().enumerate() {
            let (secrets, acknowledged) = (secrets.to_vec(), acknowledged.clone());
            running.spawn(async move {
                let mut attempts = Vec::new();
                for turn in 0..each {
                    let attempt = put(&client, &secrets[(number + turn) % secrets.len()]).await;
                    if matches!(attempt.told, Told::Applied(_)) {
                        acknowledged.fetch_add(1, Ordering::SeqCst);
                    }
                    let answered = attempt.answered;
                    attempts.push(attempt);
                    if !answered {
                        break;
                    }
                }
                attempts
            });
        }
        Self {
            clients: running,
            acknowledged,
        }
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until so many are acknowledged.
    pub(crate) async fn reaches(&self, count: usize) {
        let waiting = async {
            while self.acknowledged() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), waiting)
            .await
            .unwrap_or_else(|_| panic!("{} of {count} acknowledged", self.acknowledged()));
    }

    /// Waits for all clients.
    pub(crate) async fn end(self) -> Vec<Attempt> {
        let all = tokio::time::timeout(Duration::from_mins(2), self.clients.join_all()).await;
        all.expect("the clients end")
            .into_iter()
            .flatten()
            .collect()
    }
}

/// The whole history of a secret, oldest first: each event parsed, and its bytes.
pub(crate) async fn history(client: &Client, secret: &str) -> Vec<(Value, Vec<u8>)> {
    let mut all = Vec::new();
    let mut before = String::new();
    loop {
        let path = format!("/api/v1/user/secrets/{secret}/events?limit=1000{before}");
        let page = client.fetch(&path).await.expect("an answer").expect(200);
        let page_events = events::split(&page.body).into_iter();
        all.extend(page_events.map(|logged| (logged.event, logged.bytes)));
        match page.json()["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    all.reverse();
    all
}

/// How many attempts stand, by what was said of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) acknowledged: usize,
    pub(crate) refused: usize,
    pub(crate) unknown: usize,
    /// Of the unknown ones.
    pub(crate) standing: usize,
    /// In the log, the creations included.
    pub(crate) events: usize,
}

/// Panics unless the log of these secrets, which must be the whole log, agrees with what was answered.
pub(crate) async fn settle(client: &Client, secrets: &[String], attempts: &[Attempt]) -> Count {
    let mut log = Vec::new();
    let mut standing = HashMap::new();
    for secret in secrets {
        let events = history(client, secret).await;
        assert_contiguous(&events);
        let shown = client.get(secret).await.expect("an answer").expect(200);
        assert_eq!(
            shown.header("etag"),
            Some(&*format!("\"{}\"", events.len()))
        );
        for (event, _) in events {
            let id = event["request_id"]
                .as_str()
                .expect("a request ID")
                .to_owned();
            let place = (
                secret.clone(),
                event["version"].as_u64().expect("a version"),
            );
            let before = standing.insert(id, place);
            assert_eq!(before, None, "one attempt stands twice: {event}");
            log.push(event);
        }
    }
    assert_chained(&mut log);
    let mut count = Count {
        events: log.len(),
        ..Count::default()
    };
    for attempt in attempts {
        let stands = standing.remove(&attempt.request_id);
        match attempt.told {
            Told::Applied(version) => {
                count.acknowledged += 1;
                assert_eq!(
                    stands,
                    Some((attempt.secret.clone(), version)),
                    "{attempt:?}"
                );
            }
            Told::NotApplied(_) => {
                count.refused += 1;
                assert_eq!(stands, None, "{attempt:?}");
            }
            Told::Unknown => {
                count.unknown += 1;
                count.standing += usize::from(stands.is_some());
            }
        }
    }
    assert_eq!(standing.len(), secrets.len(), "only the creations are left");
    assert_eq!(
        count.events,
        secrets.len() + count.acknowledged + count.standing
    );
    count
}

/// Versions and sequences are 1, 2, 3 …
fn assert_contiguous(events: &[(Value, Vec<u8>)]) {
    for (number, (event, _)) in (1_u64..).zip(events) {
        assert_eq!(event["version"].as_u64(), Some(number), "{event}");
        assert_eq!(event["sequence"].as_u64(), Some(number), "{event}");
        assert_eq!(
            event["previous_version"].as_u64(),
            (number > 1).then(|| number - 1),
            "{event}"
        );
    }
}

/// Positions are 1, 2, 3 …, and each event names the hash of the one before it.
fn assert_chained(log: &mut [Value]) {
    log.sort_by_key(|event| event["position"].as_u64());
    let mut before = Value::from("0".repeat(64));
    for (number, event) in (1_u64..).zip(log.iter()) {
        assert_eq!(event["position"].as_u64(), Some(number), "{event}");
        assert_eq!(event["prev_hash"], before, "{event}");
        before = event["hash"].clone();
    }
}
