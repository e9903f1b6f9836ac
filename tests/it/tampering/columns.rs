//! Every column of every table, changed by somebody who can write to the database, one at a time: no value leaves
//! that is not the last one, no credential is won, and what is hidden is found. The table in `docs/threat-model.md`
//! is what this test prints.

use crate::support::fixture::{self, ALL};
use crate::support::process::Process;
use crate::support::rabbitmq::RabbitMq;
use crate::support::service::{Client, Deployment, Replica};
use rustix::process::Signal;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::block_in_place;

const SOON: Duration = Duration::from_mins(1);

/// The tables, and the row of each that is changed. `{a}` stands for Alice's secret A, `{alice}` for her token's ID.
const TABLES: [(&str, &str); 10] = [
    ("secrets", "id = {a}"),
    ("secret_versions", "secret_id = {a} AND version = 3"),
    (
        "events",
        "log = 'changes' AND position = \
         (SELECT max(p.position) FROM events p WHERE p.log = 'changes' AND p.secret_id = {a})",
    ),
    ("log_head", "log = 'changes'"),
    ("relay_cursors", "log = 'changes'"),
    ("keys", "state = 'active'"),
    ("instances", "1 = 1"),
    ("service_keys", "name = 'token-mac'"),
    ("api_tokens", "id = '{alice}'"),
    ("idempotency_keys", "key = 'once-a'"),
];

/// Makes a token that is good for a second.
const EXPIRED: [&str; 8] = [
    "token",
    "create",
    "--owner",
    "alice",
    "--scope",
    "secrets:resolve",
    "--expires-in",
    "1s",
];

const BEGIN: &str = "<!-- begin: printed by tampering::columns -->\n";
const END: &str = "<!-- end -->\n";

/// A database with everything in it, an audit copy of its logs, and nobody at work.
struct Baseline {
    deployment: Deployment,
    /// Alice's secret A: the last of its three values is `sk-a-3`.
    a: String,
    good: [String; 3],
    /// A revoked and an expired token of Alice's.
    bad: [String; 2],
    audit_token: String,
}

/// Where a copy of the audit database is.
fn audit_url(deployment: &Deployment) -> String {
    format!(
        "sqlite://{}",
        deployment.folder().join("audit.db").display()
    )
}

impl Baseline {
    async fn make(deployment: Deployment) -> Self {
        let broker = RabbitMq::shared().vhost();
        let url = audit_url(&deployment);
        let deployment = deployment
            .broker(&broker, "secrets.events")
            .set("AUDIT__COMPARE_SECONDS", "1")
            .set("AUDIT__DATABASE_URL", &url);
        let alice = deployment.token("alice", &ALL);
        let bob = deployment.token("bob", &ALL);
        let service = deployment.service_token("bobs", &["bob"], &["secrets:resolve"]);
        let audit_token =
            deployment.service_token("audit", &["*"], &["events:read", "secrets:resolve"]);
        let revoked = deployment.token("alice", &ALL);
        deployment.run(&["token", "revoke", revoked.get(6..22).unwrap()]);
        let expired = deployment.run(&EXPIRED);
        let mut replica = deployment.serve();
        let (owner, other) = (replica.client(&alice), replica.client(&bob));
        let a = owner.create("A", "sk-a-1").await.unwrap().expect(201).id();
        owner.create("B", "sk-b-1").await.unwrap().expect(201);
        let gone = owner
            .create("GONE", "sk-gone")
            .await
            .unwrap()
            .expect(201)
            .id();
        owner.delete(&gone).await.unwrap().expect(204);
        expire(&owner).await;
        let bobs_a = other
            .create("A", "sk-bob-0")
            .await
            .unwrap()
            .expect(201)
            .id();
        owner
            .resolve(&json!({"names": ["A"]}))
            .await
            .unwrap()
            .expect(200);
        owner.put(&a, "sk-a-2").await.unwrap().expect(200);
        let once = owner.with("idempotency-key", "once-a");
        once.put(&a, "sk-a-3").await.unwrap().expect(200);
        let once = other.with("idempotency-key", "once-b");
        once.put(&bobs_a, "sk-bob-1").await.unwrap().expect(200);
        let this = Self {
            a,
            good: [alice, bob, service],
            bad: [revoked, expired.trim_end().to_owned()],
            audit_token,
            deployment,
        };
        this.audit(&replica).await;
        assert_eq!(replica.terminate(), Some(0));
        this
    }

    /// Lets the audit consumer store both logs.
    async fn audit(&self, replica: &Replica) {
        let mut command = self.deployment.command(&["audit", "serve"]);
        command
            .env("REKEY__AUDIT__URL", replica.base())
            .env("REKEY__AUDIT__TOKEN", &self.audit_token)
            .stderr(std::process::Stdio::null());
        let mut consumer = Process::spawn(&mut command);
        let end = Instant::now() + SOON;
        while let Some(said) = self.verify(&self.deployment, replica, &[]) {
            assert!(Instant::now() < end, "{said}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        consumer.signal(Signal::TERM);
        assert!(consumer.wait(SOON).is_some());
    }

    /// What `audit verify` says when it does not prove everything.
    fn verify(
        &self,
        deployment: &Deployment,
        replica: &Replica,
        options: &[&str],
    ) -> Option<String> {
        let output = deployment
            .command(&[&["audit", "verify"], options].concat())
            .env("REKEY__AUDIT__URL", replica.base())
            .env("REKEY__AUDIT__TOKEN", &self.audit_token)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (!output.status.success()).then_some(said)
    }

    fn copy(&self) -> Deployment {
        let original = self.deployment.database();
        let copy = if self.is_sqlite() {
            Deployment::sqlite()
        } else {
            Deployment::postgres(&fixture::copy_of_database(original))
        };
        let copy = copy.copy_of(&self.deployment).raised_limits();
        let url = audit_url(&copy);
        copy.set("AUDIT__DATABASE_URL", &url)
    }

    fn is_sqlite(&self) -> bool {
        self.deployment.database().starts_with("sqlite:")
    }

    /// The columns of a table with their types; none when the table has no row to change.
    fn columns(&self, table: &str, row: &str) -> Vec<(String, String)> {
        let count = self
            .deployment
            .sql(&format!("SELECT count(*) FROM {table} WHERE {row}"));
        if count.trim() == "0" {
            return Vec::new();
        }
        let sql = if self.is_sqlite() {
            format!("SELECT name, lower(type) FROM pragma_table_info('{table}')")
        } else {
            format!(
                "SELECT column_name, data_type FROM information_schema.columns \
                 WHERE table_name = '{table}' ORDER BY ordinal_position"
            )
        };
        let listed = self.deployment.sql(&sql);
        let pairs = listed.lines().filter_map(|line| line.split_once('|'));
        pairs
            .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
            .collect()
    }

    /// What happens to those who ask, after the change.
    async fn effects(&self, deployment: &Deployment) -> BTreeSet<String> {
        let mut effects = BTreeSet::new();
        let replica = match block_in_place(|| deployment.try_serve_with(&[])) {
            Ok(replica) => replica,
            Err(said) => {
                assert!(said.contains("rekey: "), "{said}");
                effects.insert("the service does not start".to_owned());
                return effects;
            }
        };
        // First: what is asked for below is recorded, and the audit copy does not have it.
        let found = block_in_place(|| self.verify(deployment, &replica, &["--values"]));
        if let Some(said) = &found {
            eprintln!("{said}");
            effects.insert("`verify` finds it".to_owned());
        }
        for bad in &self.bad {
            let answer = replica.client(bad).resolve(&json!({"names": ["A"]})).await;
            assert_eq!(answer.unwrap().status, 401, "a credential was won");
        }
        let mut hidden = false;
        let [alice, bob, bobs] = &self.good;
        for (token, asked, value) in [
            (alice, json!({"names": ["A"]}), "sk-a-3"),
            (alice, json!({"ids": [self.a]}), "sk-a-3"),
            (alice, json!({"names": ["B"]}), "sk-b-1"),
            (alice, json!({"names": ["GONE"]}), ""),
            (bob, json!({"names": ["A"]}), "sk-bob-1"),
            (bob, json!({"ids": [self.a]}), ""),
            (bobs, json!({"names": ["A"], "owner": "bob"}), "sk-bob-1"),
            (bobs, json!({"names": ["A"], "owner": "alice"}), ""),
        ] {
            let answer = replica.client(token).resolve(&asked).await.unwrap();
            match answer.status {
                200 => assert_eq!(answer.json()["secrets"][0]["value"], value, "{asked}"),
                404 if value.is_empty() => {}
                404 => hidden = true,
                401 => drop(effects.insert("the token is refused".to_owned())),
                500 => drop(effects.insert("the value is not handed out".to_owned())),
                403 => drop(effects.insert("the service is locked down".to_owned())),
                502 => drop(effects.insert("nothing is handed out".to_owned())),
                other => panic!("{asked}: {other}"),
            }
        }
        hidden |= self.hidden_from_the_owner(&replica, &mut effects).await;
        self.ask_again(&replica, &mut effects).await;
        assert!(
            !hidden || found.is_some(),
            "something is hidden, and nothing finds it"
        );
        effects
    }

    /// Sends a request again that was made once under a key.
    async fn ask_again(&self, replica: &Replica, effects: &mut BTreeSet<String>) {
        let [alice, ..] = &self.good;
        let once = replica.client(alice).with("idempotency-key", "once-a");
        let again = once.put(&self.a, "sk-a-3").await.unwrap();
        let replayed = again.header("idempotent-replayed") == Some("true");
        match again.status {
            200 if replayed => assert_eq!(again.json()["id"], self.a.as_str()),
            // The secret's own value, again: the log shows both.
            200 => drop(effects.insert("a request that is sent again is made again".to_owned())),
            500 => drop(effects.insert("a request that is sent again is refused".to_owned())),
            401 if effects.contains("the token is refused") => {}
            403 | 502 => {}
            other => panic!("asked again: {other}"),
        }
    }

    /// Whether an owner is shown less of her secret's events and versions than there is, without being told.
    async fn hidden_from_the_owner(
        &self,
        replica: &Replica,
        effects: &mut BTreeSet<String>,
    ) -> bool {
        let mut hidden = false;
        let [alice, ..] = &self.good;
        let own = self.own_events(replica, alice).await;
        match own.as_deref() {
            Ok([1, 2, 3]) => {}
            // Readers are told, as after retention; the audit copy has the events.
            Err(410) => drop(effects.insert("the log says that it begins later".to_owned())),
            Err(500) => drop(effects.insert("the log is not read on".to_owned())),
            Err(401) if effects.contains("the token is refused") => {}
            _ => hidden = true,
        }
        match self.own_versions(replica, alice).await.as_deref() {
            Ok([3, 2, 1]) => {}
            Err(500) => drop(effects.insert("its versions are not shown".to_owned())),
            Err(401) if effects.contains("the token is refused") => {}
            _ => hidden = true,
        }
        hidden
    }

    /// The numbers of her secret's versions that the owner gets, or the status in their place.
    async fn own_versions(&self, replica: &Replica, token: &str) -> Result<Vec<u64>, u16> {
        let path = format!("/api/v1/user/secrets/{}/versions", self.a);
        let answer = replica.client(token).fetch(&path).await.unwrap();
        if answer.status != 200 {
            return Err(answer.status);
        }
        let list = answer.json();
        let versions = list["versions"].as_array().unwrap().iter();
        Ok(versions
            .map(|version| version["version"].as_u64().unwrap())
            .collect())
    }

    /// The sequences of her secret's events that the owner gets, or the status in their place.
    async fn own_events(&self, replica: &Replica, token: &str) -> Result<Vec<u64>, u16> {
        let client = replica.client(token);
        let answer = client.events("after=0-0&limit=1000").await.unwrap();
        if answer.status != 200 {
            return Err(answer.status);
        }
        let page = answer.json();
        let events = page["events"].as_array().unwrap().iter();
        let own = events.filter(|event| event["secret_id"] == self.a.as_str());
        Ok(own
            .map(|event| event["sequence"].as_u64().unwrap())
            .collect())
    }
}

/// A secret that has expired, after everybody was told.
async fn expire(owner: &Client) {
    let id = owner
        .create("OLD", "sk-old")
        .await
        .unwrap()
        .expect(201)
        .id();
    let at = chrono::Utc::now() + chrono::TimeDelta::seconds(2);
    let path = format!("/api/v1/user/secrets/{id}/expiry");
    let request = owner.request(reqwest::Method::PUT, &path);
    let request = request.json(&json!({"expires_at": at.to_rfc3339()}));
    owner.send(request).await.unwrap().expect(200);
    let end = Instant::now() + SOON;
    loop {
        let told = owner
            .events("type=secret.expired")
            .await
            .unwrap()
            .expect(200);
        if told.json()["events"][0]["secret_id"] == id.as_str() {
            return;
        }
        assert!(Instant::now() < end, "nobody was told");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The statement that gives a column of a row another row's value, or else a neighbour of its own.
fn change(table: &str, row: &str, (column, kind): &(String, String)) -> String {
    let (neighbour, literal) = match kind.as_str() {
        "bigint" | "integer" => (format!("{column} + 1"), "1"),
        "text" => (format!("{column} || 'x'"), "'x'"),
        "bytea" => (
            format!("decode(repeat('00', length({column})), 'hex')"),
            "'\\x00'",
        ),
        "blob" => (format!("zeroblob(length({column}))"), "x'00'"),
        "uuid" => (
            "'00000000-0000-7000-8000-000000000001'::uuid".to_owned(),
            "'00000000-0000-7000-8000-000000000001'::uuid",
        ),
        other => panic!("{table}.{column} is of the unknown type {other}"),
    };
    format!(
        "UPDATE {table} SET {column} = COALESCE((SELECT o.{column} FROM {table} o WHERE o.{column} IS NOT NULL \
         AND o.{column} IS DISTINCT FROM (SELECT t.{column} FROM {table} t WHERE {row}) \
         ORDER BY 1 LIMIT 1), {neighbour}, {literal}) WHERE {row}"
    )
}

/// What becomes of each column, on one of the databases.
async fn outcomes(baseline: Arc<Baseline>) -> BTreeMap<(usize, usize, String), String> {
    // Without a change there is nothing to find.
    let copy = block_in_place(|| baseline.copy());
    assert_eq!(baseline.effects(&copy).await, BTreeSet::new());
    let turns = Arc::new(Semaphore::new(6));
    let id = if baseline.is_sqlite() {
        format!(
            "x'{}'",
            uuid::Uuid::parse_str(&baseline.a).unwrap().simple()
        )
    } else {
        format!("'{}'", baseline.a)
    };
    let alice = baseline.good[0].get(6..22).unwrap();
    let mut tasks = Vec::new();
    for (index, (table, row)) in TABLES.into_iter().enumerate() {
        let row = row.replace("{a}", &id).replace("{alice}", alice);
        for (place, column) in baseline.columns(table, &row).into_iter().enumerate() {
            let (baseline, turns) = (baseline.clone(), turns.clone());
            let sql = change(table, &row, &column);
            tasks.push(tokio::spawn(async move {
                let _turn = turns.acquire().await.unwrap();
                // Processes are waited for: not by a thread that the other cases need.
                let copy = block_in_place(|| baseline.copy());
                let outcome = if block_in_place(|| copy.try_sql(&sql)).is_err() {
                    "the database refuses it".to_owned()
                } else {
                    // A test that fails shows what it had done.
                    eprintln!("{sql}");
                    let effects = baseline.effects(&copy).await;
                    let all: Vec<_> = effects.into_iter().collect();
                    if all.is_empty() {
                        "no effect".to_owned()
                    } else {
                        all.join("; ")
                    }
                };
                ((index, place, format!("`{table}.{}`", column.0)), outcome)
            }));
        }
    }
    let mut outcomes = BTreeMap::new();
    for task in tasks {
        let (key, outcome) = task.await.unwrap();
        outcomes.insert(key, outcome);
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn no_column_that_somebody_changes_wins_a_value_or_a_credential_or_hides_one_unseen() {
    let [sqlite, postgres] = fixture::both();
    let (sqlite, postgres) = (Baseline::make(sqlite).await, Baseline::make(postgres).await);
    let (sqlite, postgres) = (
        outcomes(Arc::new(sqlite)).await,
        outcomes(Arc::new(postgres)).await,
    );
    let mut table = "| column | what happens |\n| --- | --- |\n".to_owned();
    for ((index, place, name), outcome) in &sqlite {
        let other = &postgres[&(*index, *place, name.clone())];
        if outcome == other {
            writeln!(table, "| {name} | {outcome} |").unwrap();
        } else {
            writeln!(table, "| {name} | SQLite: {outcome}. PostgreSQL: {other} |").unwrap();
        }
    }
    assert_eq!(sqlite.len(), postgres.len());
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/threat-model.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the table's beginning");
    let (known, after) = rest.split_once(END).expect("the table's end");
    if std::env::var_os("REKEY_WRITE_DOCS").is_some() {
        std::fs::write(&file, format!("{before}{BEGIN}\n{table}\n{END}{after}")).unwrap();
        return;
    }
    assert_eq!(
        known.trim(),
        table.trim(),
        "docs/threat-model.md has another table: run this test with REKEY_WRITE_DOCS=1, and read the difference"
    );
}
