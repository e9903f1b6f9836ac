//! What anybody outside does with events: `docs/events.md` and `docs/consumer.py` are held to what they say.

use crate::support::broker::Recorder;
use crate::support::events::{Logged, all, assert_chained, hash};
use crate::support::fixture::{self, ALL, World, batch, change};
use crate::support::folder::Folder;
use crate::support::ledger;
use crate::support::process::{self, Process};
use crate::support::proxy::{Ending, Proxy};
use crate::support::python;
use crate::support::rabbitmq::RabbitMq;
use lapin::options::BasicPublishOptions;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::json;
use std::fs::File;
use std::time::{Duration, Instant};

const CONTRACT: &str = include_str!("../../../docs/events.md");
const CONSUMER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/consumer.py");
const SOON: Duration = Duration::from_secs(30);

/// The one block of that language in `docs/events.md`.
fn block(language: &str) -> &'static str {
    let (_, rest) = CONTRACT.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("\n```").unwrap().0
}

/// Runs the code of `docs/events.md` over events, one a line; the first bad position, or how many are good.
fn verified(lines: &[u8]) -> String {
    let script = format!(
        "{}\n\
         import sys\n\
         before, count = None, 0\n\
         for line in sys.stdin.buffer:\n\
        \x20   event = json.loads(line)\n\
        \x20   linked = before in (None, event['prev_hash'])\n\
        \x20   if not linked or computed_hash(event) != event['hash']:\n\
        \x20       sys.exit(print('bad', event['position']))\n\
        \x20   before, count = event['hash'], count + 1\n\
         print('good', count)\n",
        block("python")
    );
    python::run(&script, lines).trim_end().to_owned()
}

fn lines(events: &[Logged]) -> Vec<u8> {
    let bytes: Vec<_> = events.iter().map(|event| event.bytes.clone()).collect();
    bytes.join(&b'\n')
}

#[tokio::test(flavor = "multi_thread")]
async fn anybody_proves_both_logs_with_nothing_but_python_and_finds_what_was_changed() {
    for world in World::both() {
        let owner = "Zo\u{eb} \"\\/\u{1f511}\u{2028}\u{e000}";
        let token = world.deployment.token(owner, &ALL);
        let client = world.replica.client(&token);
        let secrets = ledger::create(&client, 3).await;
        change(&client, &secrets, 3).await;
        let updates = secrets.iter().map(|id| (&**id, "x".to_owned()));
        assert_eq!(batch(&client, &updates.collect::<Vec<_>>()).await, 200);
        let preset = json!({"provider": "openai", "value": "x"});
        let path = "/api/v1/user/secrets/preset";
        client.post(path, &preset).await.unwrap().expect(201);
        let body = json!({"ids": secrets});
        client.resolve(&body).await.unwrap().expect(200);
        client.delete(&secrets[0]).await.unwrap().expect(204);
        let changes = all(&world.auditor, "").await;
        let activity = all(&world.auditor, "log=activity").await;
        assert_eq!((changes.len(), activity.len()), (17, 7));
        for log in [&changes, &activity] {
            assert_eq!(verified(&lines(log)), format!("good {}", log.len()));
        }
        // Whatever is changed, taken out or swapped shows at its place.
        let text = String::from_utf8(lines(&changes)).unwrap();
        let forged = text.replacen("\"version\":2", "\"version\":3", 1);
        assert_eq!(verified(forged.as_bytes()), "bad 4");
        let mut less = changes.clone();
        less.remove(8);
        assert_eq!(verified(&lines(&less)), "bad 10");
        let mut swapped = changes.clone();
        swapped.swap(8, 9);
        assert_eq!(verified(&lines(&swapped)), "bad 10");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_vector_has_its_hash_and_is_an_event_like_any_other() {
    let vector = Logged::new(block("json").as_bytes().to_vec());
    assert_eq!(verified(&vector.bytes), "good 1");
    assert_chained(std::slice::from_ref(&vector));
    let world = World::sqlite();
    let secrets = ledger::create(&world.alice, 1).await;
    assert_eq!(
        batch(&world.alice, &[(&secrets[0], "x".to_owned())]).await,
        200
    );
    let live = all(&world.alice, "type=secret.updated").await;
    // The same fields in the same order, each of the same type. (Fields that came later are not in the vector.)
    let shape = |event: &Logged| {
        let text = std::str::from_utf8(&event.bytes).unwrap();
        let parts = text.split(['"', ':', ',', '{', '}']).filter(|part| {
            let names = vector.event.as_object().unwrap();
            names.contains_key(*part)
        });
        parts.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(shape(&vector), shape(&live[0]));
    for (name, value) in vector.event.as_object().unwrap() {
        let other = &live[0].event[name];
        let alike = std::mem::discriminant(value) == std::mem::discriminant(other);
        assert!(alike || name == "provider", "{name}");
    }
}

/// The example consumer, as an operator runs it.
struct Consumer {
    // First, so that it is dropped before the folder.
    process: Process,
    folder: Folder,
    variables: Vec<(&'static str, String)>,
}

impl Consumer {
    fn start(variables: Vec<(&'static str, String)>) -> Self {
        let folder = Folder::new("consumer");
        let process = Self::spawn(&folder, &variables);
        Self {
            process,
            folder,
            variables,
        }
    }

    fn spawn(folder: &Folder, variables: &[(&'static str, String)]) -> Process {
        let file = |name: &str| {
            let file = File::options()
                .create(true)
                .append(true)
                .open(folder.join(name));
            file.unwrap()
        };
        let mut command = process::program(python::with_pika());
        command
            .args(["-X", "utf8", CONSUMER])
            .current_dir(folder.path())
            .env_clear()
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdout(file("stdout"))
            .stderr(file("stderr"));
        Process::spawn(&mut command)
    }

    fn kill_and_start_again(&mut self) {
        self.process.kill_9();
        self.process = Self::spawn(&self.folder, &self.variables);
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(self.folder.join("stderr")).unwrap()
    }

    fn printed(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join("stdout")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until it has printed these, each once, in order, byte for byte.
    async fn prints(&self, log: &[Logged]) {
        let until = Instant::now() + SOON;
        while self.printed().len() < log.len() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let bytes = log
            .iter()
            .map(|event| String::from_utf8(event.bytes.clone()));
        let bytes: Vec<_> = bytes.map(Result::unwrap).collect();
        assert_eq!(self.printed(), bytes, "{}", self.stderr());
    }
}

async fn channel() -> (Connection, Channel) {
    let url = RabbitMq::shared().url();
    let connection = Connection::connect(&url, ConnectionProperties::default());
    let connection = connection.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

async fn publish(channel: &Channel, exchange: &str, body: &[u8]) {
    let key = "secret.updated.alice.again".into();
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    let sent = channel.basic_publish(exchange.into(), key, options, body, properties);
    sent.await.unwrap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_consumer_gets_each_event_once_whatever_breaks_and_alarms_at_a_forgery() {
    let (broker, exchange) = (RabbitMq::shared(), fixture::exchange());
    let proxy = Proxy::start(broker.address());
    let recorder = Recorder::start(&broker.url(), &exchange, "secret.#").await;
    let world = World::of(fixture::sqlite().broker(&broker.url(), &exchange));
    let reader = world
        .deployment
        .service_token("example", &["*"], &["events:read"]);
    let mut consumer = Consumer::start(vec![
        ("AMQP_URL", proxy.url(&broker.url())),
        ("EXCHANGE", exchange.clone()),
        ("QUEUE", exchange.clone()),
        ("REKEY_URL", world.replica.base().to_owned()),
        ("REKEY_TOKEN", reader),
    ]);
    let log = async || all(&world.auditor, "").await;
    // Its queue must be bound before the first event, or it begins with a later one.
    while !broker
        .ctl(&["list_bindings", "destination_name"])
        .contains(&exchange)
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let secrets = ledger::create(&world.alice, 3).await;
    for _ in 0..5 {
        change(&world.alice, &secrets, 4).await;
        proxy.break_links(Ending::Reset);
    }
    consumer.prints(&log().await).await;
    // It is killed, and goes on where it was.
    consumer.kill_and_start_again();
    change(&world.alice, &secrets, 3).await;
    consumer.prints(&log().await).await;
    // Its queue misses events, which only the log has.
    let (_connection, channel) = channel().await;
    let (queue, topic) = (exchange.as_str().into(), exchange.as_str().into());
    let unbind = channel.queue_unbind(queue, topic, "secret.#".into(), FieldTable::default());
    unbind.await.unwrap();
    change(&world.alice, &secrets, 2).await;
    recorder.wait_for_distinct(78, SOON).await;
    assert_eq!(consumer.printed().len(), 72);
    proxy.break_links(Ending::Fin);
    let until = Instant::now() + SOON;
    while consumer.printed().len() == 72 && Instant::now() < until {
        change(&world.alice, &secrets[..1], 1).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(
        consumer.stderr().contains("asking the log"),
        "{}",
        consumer.stderr()
    );
    let told = log().await;
    consumer.prints(&told).await;
    // A repeat is dropped; one that differs ends it.
    publish(&channel, &exchange, &told[70].bytes).await;
    change(&world.alice, &secrets, 1).await;
    consumer.prints(&log().await).await;
    let mut forged = told[told.len() - 1].event.clone();
    forged["version"] = json!(99);
    forged["hash"] = json!(hash(&forged));
    publish(&channel, &exchange, forged.to_string().as_bytes()).await;
    let code = consumer.process.wait(SOON).and_then(|status| status.code());
    assert_eq!(code, Some(1), "{}", consumer.stderr());
    assert!(consumer.stderr().contains("comes again and differs"));
}
