//! Everything that stands between a change and its audit record dies, again and again.
//!
//! `scripts/chaos events` runs this test long; without its variables it is the quick form.

use crate::support::dice::Dice;
use crate::support::fixture::{self, SCOPES};
use crate::support::ledger::{self, Told};
use crate::support::port;
use crate::support::process::Process;
use crate::support::rabbitmq::RabbitMq;
use crate::support::service::{Client, Deployment, Replica};
use serde_json::Value;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const CLIENTS: usize = 8;

/// A number of the environment, or the quick form's.
fn number(name: &str, quick: usize) -> usize {
    let given = std::env::var(name).ok();
    given.map_or(quick, |text| text.parse().expect("a number"))
}

/// A part that dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Service,
    Broker,
    Consumer,
}

/// The stack, each part with what it takes to start it again.
struct Stack {
    deployment: Deployment,
    replica: Replica,
    broker: RabbitMq,
    consumer: Process,
}

impl Stack {
    fn start() -> (Self, String) {
        let broker = RabbitMq::start_private();
        let deployment = fixture::postgres();
        let url = format!("http://127.0.0.1:{}", port::free());
        let audit = deployment.service_token("audit", &["*"], &["events:read"]);
        let database = format!(
            "sqlite://{}",
            deployment.folder().join("audit.db").display()
        );
        let deployment = deployment
            .broker(&broker.url(), "secrets.events")
            .set("SERVER__PORT", url.rsplit(':').next().expect("a port"))
            .set("AUDIT__URL", &url)
            .set("AUDIT__TOKEN", &audit)
            .set("AUDIT__DATABASE_URL", &database)
            .set("AUDIT__COMPARE_SECONDS", "2");
        let replica = deployment.serve();
        let token = deployment.token("alice", SCOPES);
        let consumer = consumer(&deployment);
        settled(&deployment);
        let stack = Self {
            deployment,
            replica,
            broker,
            consumer,
        };
        (stack, token)
    }

    /// Kills a part, and starts it again.
    fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Service => {
                self.replica.kill_9();
                self.replica = self.deployment.serve();
            }
            Victim::Broker => {
                self.broker.kill_9();
                self.broker.restart();
            }
            Victim::Consumer => {
                self.consumer.kill_9();
                self.consumer = consumer(&self.deployment);
            }
        }
    }
}

/// Waits until the consumer's queue is there and RabbitMQ has written so: killed within the first half second it
/// knows the queue and not its replica, and never serves it again.
fn settled(deployment: &Deployment) {
    let end = Instant::now() + Duration::from_mins(1);
    let log = deployment.folder().join("consumer.log");
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.contains("consuming")) {
        assert!(Instant::now() < end, "the audit consumer does not consume");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_secs(5));
}

fn consumer(deployment: &Deployment) -> Process {
    let log = File::options()
        .create(true)
        .append(true)
        .open(deployment.folder().join("consumer.log"))
        .expect("a log file");
    let mut command = deployment.command(&["audit", "serve"]);
    Process::spawn(command.stderr(log))
}

/// Clients that go on until so many changes are acknowledged, and never run ahead of what they may.
struct Load {
    clients: JoinSet<Vec<ledger::Attempt>>,
    acknowledged: Arc<AtomicUsize>,
    allowed: Arc<AtomicUsize>,
}

impl Load {
    fn start(client: &Client, secrets: &[String], changes: usize) -> Self {
        let (acknowledged, allowed) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let (client, secrets) = (client.clone(), secrets.to_vec());
            let (acknowledged, allowed) = (acknowledged.clone(), allowed.clone());
            clients.spawn(async move {
                let (mut attempts, mut turn) = (Vec::new(), number);
                while acknowledged.load(Ordering::SeqCst) < changes {
                    if acknowledged.load(Ordering::SeqCst) >= allowed.load(Ordering::SeqCst) {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        continue;
                    }
                    let attempt = ledger::put(&client, &secrets[turn % secrets.len()]).await;
                    if matches!(attempt.told, Told::Applied(_)) {
                        acknowledged.fetch_add(1, Ordering::SeqCst);
                        turn += CLIENTS;
                    } else {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    attempts.push(attempt);
                }
                attempts
            });
        }
        Self {
            clients,
            acknowledged,
            allowed,
        }
    }

    async fn reaches(&self, count: usize) {
        let end = Instant::now() + Duration::from_mins(2);
        while self.acknowledged.load(Ordering::SeqCst) < count {
            assert!(Instant::now() < end, "the clients stand still");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The victims in a random order, each as often as the others.
fn victims(kills: usize, dice: &mut Dice) -> Vec<Victim> {
    let mut victims = [Victim::Service, Victim::Broker, Victim::Consumer].repeat(kills);
    for last in (1..victims.len()).rev() {
        victims.swap(last, dice.below(last + 1));
    }
    victims
}

/// The service's whole log, each event's bytes on a line, as an export has it.
async fn log(client: &Client, log: &str) -> Vec<String> {
    let (mut lines, mut after) = (Vec::new(), "0-0".to_owned());
    loop {
        let path = format!("/api/v1/events?log={log}&limit=1000&after={after}");
        let page = client.fetch(&path).await.expect("an answer").expect(200);
        let text = page.text();
        let events = text
            .strip_prefix("{\"events\":[")
            .and_then(|text| text.rsplit_once("],\"next\":"))
            .expect("a page")
            .0;
        // No string of these events holds this sequence.
        let events = events
            .split("},{\"actor\"")
            .filter(|event| !event.is_empty());
        let count = lines.len();
        for (index, event) in events.enumerate() {
            let begin = if index > 0 { "{\"actor\"" } else { "" };
            lines.push(format!(
                "{begin}{}}}",
                event.strip_suffix('}').unwrap_or(event)
            ));
        }
        if lines.len() - count < 1000 {
            return lines;
        }
        page.json()["next"]
            .as_str()
            .expect("a cursor")
            .clone_into(&mut after);
    }
}

fn export(deployment: &Deployment, log: &str, to: &Path) -> Vec<String> {
    let to = to.to_str().expect("a path");
    deployment.run(&[
        "audit", "export", "--log", log, "--output", to, "--wait", "120",
    ]);
    let text = std::fs::read_to_string(to).expect("an export");
    text.lines().map(str::to_owned).collect()
}

/// Panics unless the consumer holds exactly the service's log, and can prove it.
async fn assert_whole(stack: &Stack, client: &Client) -> usize {
    let keys: Value =
        serde_json::from_str(&stack.deployment.run(&["keys", "list", "--json"])).expect("JSON");
    let key = keys["checkpoint_public_key"].as_str().expect("a key");
    let mut total = 0;
    for name in ["changes", "activity"] {
        let file = stack.deployment.folder().join(format!("{name}.ndjson"));
        let mut exported = export(&stack.deployment, name, &file);
        let checkpoint = exported.pop().expect("a checkpoint");
        assert!(checkpoint.contains("\"signature\""), "{checkpoint}");
        let kept = log(client, name).await;
        assert_eq!(exported.len(), kept.len(), "{name}: lost or twice");
        assert!(
            exported == kept,
            "{name}: the audit log is not the service's"
        );
        total += kept.len();
        let file = file.to_str().expect("a path");
        stack
            .deployment
            .run(&["audit", "verify", "--offline", file, "--public-key", key]);
    }
    stack.deployment.run(&["audit", "verify"]);
    total
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_is_the_services_whoever_dies_on_the_way() {
    let _heavy = fixture::heavy().await;
    let changes = number("REKEY_CHAOS_CHANGES", 300);
    let kills = number("REKEY_CHAOS_KILLS", 2);
    let mut dice = Dice::new("chaos events");
    let (mut stack, token) = Stack::start();
    let client = stack.replica.client(&token);
    let secrets = ledger::create(&client, number("REKEY_CHAOS_SECRETS", 20)).await;
    let load = Load::start(&client, &secrets, changes);
    let victims = victims(kills, &mut dice);
    let step = changes / victims.len();
    for (index, victim) in victims.iter().enumerate() {
        // Within its step each part dies at another moment, with changes under way.
        load.allowed.store((index + 1) * step, Ordering::SeqCst);
        load.reaches(index * step + dice.below(step)).await;
        stack.kill(*victim);
        load.reaches((index + 1) * step).await;
    }
    load.allowed.store(usize::MAX, Ordering::SeqCst);
    let attempts: Vec<_> = load
        .clients
        .join_all()
        .await
        .into_iter()
        .flatten()
        .collect();
    let whole = stack
        .deployment
        .service_token("proof", &["*"], &["events:read"]);
    let total = assert_whole(&stack, &stack.replica.client(&whole)).await;
    let count = ledger::settle(&client, &secrets, &attempts).await;
    eprintln!(
        "chaos events: {kills} kills each of service, broker and audit consumer; {} changes \
         acknowledged, {} answered as not applied, {} unknown ({} stand); {} events in `changes`, \
         {total} in both logs: the audit log is equal, 0 lost, 0 twice, both chains verify",
        count.acknowledged, count.refused, count.unknown, count.standing, count.events
    );
}
