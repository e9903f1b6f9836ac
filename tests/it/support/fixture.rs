//! A service that is ready to be asked.
//!
//! Its key, its database and the tokens of three people are made by the service's own commands once per test process;
//! every test gets a copy of them.

use super::postgres::Postgres;
use super::service::{Answer, Client, Deployment, Replica};
use reqwest::Method;
use serde_json::json;
use std::sync::OnceLock;

/// Everything that a token may be allowed.
pub(crate) const ALL: [&str; 4] = [
    "secrets:read",
    "secrets:write",
    "secrets:resolve",
    "events:read",
];
/// What an owner needs who changes secrets and compares them with the log.
pub(crate) const SCOPES: &[&str] = &["secrets:read", "secrets:write", "events:read"];
/// The ID of no secret.
pub(crate) const ABSENT: &str = "0198f3c2-0000-7000-8000-000000000000";
/// Where an owner's secrets are.
pub(crate) const LIST: &str = "/api/v1/user/secrets";
pub(crate) const BATCH: &str = "/api/v1/user/secrets/batch";

/// On a `SQLite` file, with a key, a schema and raised limits.
pub(crate) fn sqlite() -> Deployment {
    empty(Kind::Sqlite).raised_limits()
}

/// On a database of the shared `PostgreSQL`, with a key, a schema and raised limits.
pub(crate) fn postgres() -> Deployment {
    empty(Kind::Postgres).raised_limits()
}

/// One on each database.
pub(crate) fn both() -> [Deployment; 2] {
    [sqlite(), postgres()]
}

/// A running service with two owners, Alice and Bob, and an auditor who may read the whole log.
pub(crate) struct World {
    // Before the deployment: the process goes before its folder.
    pub(crate) replica: Replica,
    pub(crate) alice: Client,
    pub(crate) bob: Client,
    pub(crate) auditor: Client,
    /// Alice's token.
    pub(crate) token: String,
    pub(crate) deployment: Deployment,
}

impl World {
    pub(crate) fn sqlite() -> Self {
        Self::on(Kind::Sqlite)
    }

    pub(crate) fn postgres() -> Self {
        Self::on(Kind::Postgres)
    }

    /// One on each database.
    pub(crate) fn both() -> [Self; 2] {
        [Self::sqlite(), Self::postgres()]
    }

    /// On `SQLite`, with the limits that an operator gets unless a setting says otherwise.
    pub(crate) fn with(settings: &[(&str, &str)]) -> Self {
        let (deployment, people) = populated(Kind::Sqlite);
        let deployment = settings
            .iter()
            .fold(deployment, |all, (key, value)| all.set(key, value));
        Self::start(deployment, people)
    }

    /// On a deployment that has a key and a schema, but no tokens yet.
    pub(crate) fn of(deployment: Deployment) -> Self {
        let people = People::of(&deployment);
        Self::start(deployment, &people)
    }

    fn on(kind: Kind) -> Self {
        let (deployment, people) = populated(kind);
        Self::start(deployment.raised_limits(), people)
    }

    fn start(deployment: Deployment, people: &People) -> Self {
        let replica = deployment.serve();
        Self {
            alice: replica.client(&people.alice),
            bob: replica.client(&people.bob),
            auditor: replica.client(&people.auditor),
            token: people.alice.clone(),
            replica,
            deployment,
        }
    }

    /// Somebody else, who may do everything.
    pub(crate) fn owner(&self, name: &str) -> Client {
        self.replica.client(&self.deployment.token(name, &ALL))
    }

    /// An ID as the SQL of its database has it.
    pub(crate) fn id_literal(&self, id: &str) -> String {
        if self.deployment.database().starts_with("sqlite:") {
            let id = uuid::Uuid::parse_str(id).expect("an ID");
            format!("x'{}'", id.simple())
        } else {
            format!("'{id}'")
        }
    }

    /// Somebody without a token.
    pub(crate) fn anonymous(&self) -> Client {
        Client::anonymous(self.replica.base())
    }
}

/// The tokens of those who are in every [`World`].
struct People {
    alice: String,
    bob: String,
    auditor: String,
}

impl People {
    fn of(deployment: &Deployment) -> Self {
        Self {
            alice: deployment.token("alice", &ALL),
            bob: deployment.token("bob", &ALL),
            auditor: deployment.service_token("auditor", &["*"], &["events:read"]),
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Sqlite,
    Postgres,
}

/// What the copies are made of: with a key and a schema, and nobody at work in it.
static EMPTY: [OnceLock<Deployment>; 2] = [const { OnceLock::new() }; 2];
/// The same, with the people of a [`World`].
static POPULATED: [OnceLock<(Deployment, People)>; 2] = [const { OnceLock::new() }; 2];

fn empty(kind: Kind) -> Deployment {
    copy(EMPTY[kind as usize].get_or_init(|| prepare(kind)))
}

fn populated(kind: Kind) -> (Deployment, &'static People) {
    let (original, people) = POPULATED[kind as usize].get_or_init(|| {
        let deployment = prepare(kind);
        let people = People::of(&deployment);
        (deployment, people)
    });
    (copy(original), people)
}

fn prepare(kind: Kind) -> Deployment {
    match kind {
        Kind::Sqlite => Deployment::sqlite().prepare(),
        Kind::Postgres => Deployment::postgres(&Postgres::shared().database()).prepare(),
    }
}

fn copy(original: &Deployment) -> Deployment {
    let url = original.database();
    if url.starts_with("sqlite:") {
        Deployment::sqlite().copy_of(original)
    } else {
        Deployment::postgres(&Postgres::shared().copy(url)).copy_of(original)
    }
}

/// A copy of a `PostgreSQL` database that nobody is connected to; its URL.
pub(crate) fn copy_of_database(url: &str) -> String {
    Postgres::shared().copy(url)
}

/// An exchange of the broker that no other test uses.
pub(crate) fn exchange() -> String {
    format!("t.{}", uuid::Uuid::new_v4().simple())
}

/// Changes so many secrets at once, each to its own value; the answer's status.
pub(crate) async fn batch(client: &Client, updates: &[(&str, String)]) -> u16 {
    let updates: Vec<_> = updates
        .iter()
        .map(|(id, value)| json!({"id": id, "value": value}))
        .collect();
    let answer = client.post(BATCH, &json!({"updates": updates})).await;
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
pub(crate) async fn head(client: &Client, path: &str) -> Answer {
    let answer = client.send(client.request(Method::HEAD, path)).await;
    answer.unwrap()
}

/// Of the tests that load the machine only four run at a time.
pub(crate) async fn heavy() -> tokio::sync::SemaphorePermit<'static> {
    static HEAVY: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(4);
    HEAVY.acquire().await.expect("nobody closes it")
}
