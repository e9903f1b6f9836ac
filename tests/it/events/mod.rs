//! The log over HTTP, page by page and as a stream, and what is proved with it outside.

mod branches;
mod outside;
mod pages;
mod refusals;
mod schemas;
mod streams;
mod wire;

use crate::faults::ledger;
use crate::support::service::{Client, Deployment, Replica};
use reqwest::Method;
use serde_json::json;

pub(crate) const ALL: [&str; 4] = [
    "secrets:read",
    "secrets:write",
    "secrets:resolve",
    "events:read",
];

pub(crate) const ABSENT: &str = "0198f3c2-0000-7000-8000-000000000000";

/// A service on one of the databases, with two owners and who may read the whole log.
pub(crate) struct World {
    // Before the deployment: the process goes before its folder.
    pub(crate) replica: Replica,
    pub(crate) alice: Client,
    pub(crate) bob: Client,
    pub(crate) auditor: Client,
    pub(crate) deployment: Deployment,
}

impl World {
    pub(crate) fn of(deployment: Deployment) -> Self {
        let alice = deployment.token("alice", &ALL);
        let bob = deployment.token("bob", &ALL);
        let auditor = deployment.service_token("auditor", &["*"], &["events:read"]);
        let replica = deployment.serve();
        Self {
            alice: replica.client(&alice),
            bob: replica.client(&bob),
            auditor: replica.client(&auditor),
            replica,
            deployment,
        }
    }

    /// One on each database.
    pub(crate) fn both() -> [Self; 2] {
        ledger::both().map(Self::of)
    }
}

/// Changes so many secrets at once, each to its own value; the answer's status.
pub(crate) async fn batch(client: &Client, updates: &[(&str, String)]) -> u16 {
    let updates: Vec<_> = updates
        .iter()
        .map(|(id, value)| json!({"id": id, "value": value}))
        .collect();
    let body = json!({"updates": updates});
    let answer = client.post("/api/v1/user/secrets/batch", &body).await;
    answer.unwrap().status
}

/// A change of each of these secrets, in rounds.
pub(crate) async fn change(client: &Client, secrets: &[String], rounds: usize) {
    for round in 0..rounds {
        for secret in secrets {
            let value = format!("sk-{round}");
            client.put(secret, &value).await.unwrap().expect(200);
        }
    }
}

/// An answer to HEAD, whose connection must be free for the next request.
pub(crate) async fn head(client: &Client, path: &str) -> crate::support::service::Answer {
    let answer = client.send(client.request(Method::HEAD, path)).await;
    answer.unwrap()
}
