//! `resolve` while the database, or the service itself, breaks: no value leaves without its record, and none is
//! said to have left that did not.

use crate::support::dice::Dice;
use crate::support::events::{all, assert_chained};
use crate::support::fixture::{self, World};
use crate::support::ledger::{self, OUTCOME_UNKNOWN, assert_in_table};
use crate::support::postgres::Postgres;
use crate::support::proxy::{Ending, Fault, Moment, Proxy, Reach, Trigger};
use crate::support::service::Client;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// What was said of one call for two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Said {
    Here,
    NotApplied,
    Unknown,
}

async fn ask(client: &Client, request_id: &str) -> Said {
    let asking = client.with("x-request-id", request_id);
    let body = json!({"names": ["SECRET_0", "SECRET_1"]});
    let Ok(answer) = asking.resolve(&body).await else {
        return Said::Unknown;
    };
    if answer.status == 200 {
        return Said::Here;
    }
    assert_in_table(&answer);
    if answer.text() == OUTCOME_UNKNOWN {
        Said::Unknown
    } else {
        Said::NotApplied
    }
}

/// Clients that ask without a pause until they are told to end; by request what was said.
struct Asking {
    clients: JoinSet<Vec<(String, Said)>>,
    ending: Arc<AtomicBool>,
    /// How many answers with values there were.
    here: Arc<AtomicUsize>,
}

impl Asking {
    fn start(client: &Client) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let here = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            let (client, ending, here) = (client.clone(), ending.clone(), here.clone());
            clients.spawn(async move {
                let mut said = Vec::new();
                while !ending.load(Ordering::SeqCst) {
                    let request_id = uuid::Uuid::new_v4().to_string();
                    let one = ask(&client, &request_id).await;
                    if one == Said::Here {
                        here.fetch_add(1, Ordering::SeqCst);
                    } else {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    said.push((request_id, one));
                }
                said
            });
        }
        Self {
            clients,
            ending,
            here,
        }
    }

    /// Waits until so many more were answered with values.
    async fn goes_on(&self, count: usize) {
        let enough = self.here.load(Ordering::SeqCst) + count;
        let waiting = async {
            while self.here.load(Ordering::SeqCst) < enough {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_mins(1), waiting).await;
        waited.expect("the service hands out values again");
    }

    async fn end(self) -> Vec<(String, Said)> {
        self.ending.store(true, Ordering::SeqCst);
        self.clients.join_all().await.concat()
    }
}

/// Panics unless the log agrees with what was said; how often each was said.
async fn settle(reader: &Client, said: Vec<(String, Said)>) -> HashMap<Said, usize> {
    let log = all(reader, "log=activity").await;
    assert_chained(&log);
    let mut records: HashMap<String, usize> = HashMap::new();
    for event in log.iter().filter(|e| e.text("type") == "secret.accessed") {
        *records
            .entry(event.text("request_id").to_owned())
            .or_default() += 1;
    }
    let mut count = HashMap::new();
    for (request_id, one) in said {
        let stands = records.remove(&request_id).unwrap_or_default();
        match one {
            Said::Here => assert_eq!(stands, 2, "{request_id}"),
            Said::NotApplied => assert_eq!(stands, 0, "{request_id}"),
            Said::Unknown => assert!([0, 2].contains(&stands), "{request_id}"),
        }
        *count.entry(one).or_default() += 1;
    }
    assert_eq!(records, HashMap::new());
    count
}

/// Reads until no connection is left that broke: each is found out by the read that gets it.
async fn healed(client: &Client) {
    let mut good = 0;
    for _ in 0..100 {
        let answer = client.fetch("/api/v1/events?limit=1").await.unwrap();
        good = if answer.status == 200 { good + 1 } else { 0 };
        if good == 20 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("reads go on failing");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_leaves_without_its_record_though_the_database_breaks() {
    let _heavy = fixture::heavy().await;
    let mut dice = Dice::new("resolve, broken database");
    let server = Postgres::shared();
    let proxy = Proxy::start(server.address());
    let deployment = fixture::postgres();
    let through = proxy.url(deployment.database());
    let world = World::of(deployment.set("DATABASE__URL", &through));
    ledger::create(&world.alice, 2).await;
    let asking = Asking::start(&world.alice);
    for turn in 0..60 {
        let moment = [Moment::Before, Moment::After, Moment::Answered][dice.below(3)];
        let fault = [Fault::Cut, Fault::Reset][dice.below(2)];
        match turn % 3 {
            0 => {
                proxy.arm(Trigger {
                    text: "COMMIT",
                    moment,
                    fault,
                    reach: Reach::Link,
                });
            }
            1 => proxy.break_links(Ending::Reset),
            _ => {
                proxy.refuse(Ending::Reset);
                tokio::time::sleep(Duration::from_millis(50)).await;
                proxy.pass();
            }
        }
        let wait = 20 + dice.below(150) as u64;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        proxy.disarm();
        asking.goes_on(1).await;
    }
    let said = asking.end().await;
    healed(&world.auditor).await;
    let count = settle(&world.auditor, said).await;
    eprintln!("resolve, broken database: {count:?}");
    assert!(count[&Said::Here] > 50 && count.contains_key(&Said::NotApplied));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_leaves_without_its_record_though_the_service_is_killed() {
    for mut world in World::both() {
        let _heavy = fixture::heavy().await;
        let mut dice = Dice::new("resolve, kills");
        ledger::create(&world.alice, 2).await;
        let mut said = Vec::new();
        for _ in 0..8 {
            let asking = Asking::start(&world.alice);
            // At any moment between two answers, or within one.
            asking.goes_on(4 + dice.below(8)).await;
            tokio::time::sleep(Duration::from_micros(dice.below(20_000) as u64)).await;
            world.replica.kill_9();
            said.extend(asking.end().await);
            world.replica = world.deployment.serve();
            world.alice = world.alice.on(world.replica.base());
        }
        let reader = world.auditor.on(world.replica.base());
        let count = settle(&reader, said).await;
        eprintln!("resolve, 8 kills: {count:?}");
        assert!(count[&Said::Here] > 20 && count[&Said::Unknown] > 0);
    }
}
