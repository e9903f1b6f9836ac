//! Old events and old versions go, and what is left of the log is still a chain.

use crate::support::fixture::{self, SCOPES};
use crate::support::ledger::{self, Load};
use crate::support::retention::{age, kept_from};
use crate::support::service::{Client, Deployment, Replica};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

async fn events(client: &Client, query: &str) -> Value {
    let answer = client.fetch(&format!("/api/v1/events?{query}")).await;
    answer.unwrap().expect(200).json()
}

fn restarted(deployment: &Deployment, replica: &mut Replica, token: &str) -> (Replica, Client) {
    assert_eq!(replica.terminate(), Some(0));
    let replica = deployment.serve_with(&[("REKEY__EVENTS__RETAIN_DAYS", "30")]);
    let client = replica.client(token);
    (replica, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_events_go_and_the_chain_holds_at_the_cut() {
    for deployment in fixture::both() {
        let token = deployment.token("alice", SCOPES);
        let mut replica = deployment.serve();
        let client = replica.client(&token);
        let secrets = ledger::create(&client, 1).await;
        let attempts = Load::start(vec![client.clone(); 10], &secrets, 210)
            .end()
            .await;
        let count = ledger::settle(&client, &secrets, &attempts).await;
        assert_eq!(count.acknowledged, 2100);
        let before = events(&client, "after=1-2050").await;
        let last_gone = events(&client, "after=1-2049&limit=1").await;
        age(&deployment, 2050);
        let (mut replica, client) = restarted(&deployment, &mut replica, &token);
        kept_from(&client, 2051).await;
        // Nothing else went, and the first that is left names the last that went.
        assert_eq!(events(&client, "limit=1000").await, before);
        assert_eq!(
            before["events"][0]["prev_hash"],
            last_gone["events"][0]["hash"]
        );
        assert_eq!(events(&client, "after=1-2050").await, before);
        // Whoever was further back learns from where on it can go on.
        for gone in ["0-0", "1-2049", "1-7"] {
            let answer = client.fetch(&format!("/api/v1/events?after={gone}")).await;
            let answer = answer.unwrap().expect(410);
            assert_eq!(answer.header("rekey-log-first"), Some("1-2050"));
            assert_eq!(answer.header("rekey-log-head"), Some("1-2101"));
        }
        // The last event never goes, and the log goes on behind it.
        age(&deployment, 5000);
        let (_replica, client) = restarted(&deployment, &mut replica, &token);
        kept_from(&client, 2101).await;
        let last = events(&client, "limit=1000").await["events"][0].clone();
        client
            .put(&secrets[0], "sk-next")
            .await
            .unwrap()
            .expect(200);
        // Now it is not the last any more, and may go.
        let page = events(&client, "limit=1000").await;
        let next = page["events"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(next["position"], 2102);
        assert_eq!(next["prev_hash"], last["hash"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_limit_takes_the_versions_that_are_too_many_with_the_next_change() {
    for deployment in fixture::both() {
        let token = deployment.token("alice", SCOPES);
        let keeping = |versions| {
            let replica = deployment.serve_with(&[("REKEY__LIMITS__VERSIONS", versions)]);
            let client = replica.client(&token);
            (replica, client)
        };
        let kept = || -> u64 {
            let keys = deployment.run(&["keys", "list", "--json"]);
            let keys: Value = serde_json::from_str(&keys).unwrap();
            keys["keys"][0]["versions"].as_u64().unwrap()
        };
        let (mut replica, client) = keeping("1000");
        let secrets = ledger::create(&client, 2).await;
        fixture::change(&client, &secrets, 70).await;
        assert_eq!(kept(), 71 + 71);
        assert_eq!(replica.terminate(), Some(0));

        let (mut replica, client) = keeping("3");
        for left in [3 + 71, 3 + 71] {
            fixture::change(&client, &secrets[..1], 1).await;
            assert_eq!(kept(), left);
        }
        fixture::change(&client, &secrets, 1).await;
        assert_eq!(kept(), 3 + 3);
        assert_eq!(replica.terminate(), Some(0));

        let (_replica, client) = keeping("5");
        for left in [4 + 3, 5 + 3, 5 + 3] {
            fixture::change(&client, &secrets[..1], 1).await;
            assert_eq!(kept(), left);
        }
    }
}

/// Each row of the versions: its secret, its number and its ID.
fn stored_versions(deployment: &Deployment) -> BTreeSet<(Uuid, u64, Uuid)> {
    let sqlite = deployment.database().starts_with("sqlite");
    let id = |column: &str| {
        if sqlite {
            format!("hex({column})")
        } else {
            column.to_owned()
        }
    };
    let sql = format!(
        "SELECT {}, version, {} FROM secret_versions",
        id("secret_id"),
        id("version_id")
    );
    let rows = deployment.sql(&sql);
    let row = |row: &str| {
        let columns: Vec<&str> = row.trim().split('|').collect();
        let id = |column: usize| Uuid::parse_str(columns[column]).unwrap();
        (id(0), columns[1].parse().unwrap(), id(2))
    };
    rows.lines().map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_versions_of_each_secret_are_stored_and_no_other() {
    for deployment in fixture::both() {
        let token = deployment.token("alice", SCOPES);
        let mut secrets = Vec::new();
        // Fewer than are kept, as many, more, fewer again; one change at a time, and several in a batch.
        for (kept, rounds) in [("4", 2), ("4", 9), ("2", 1), ("1", 3), ("5", 3), ("5", 9)] {
            let mut replica = deployment.serve_with(&[("REKEY__LIMITS__VERSIONS", kept)]);
            let client = replica.client(&token);
            if secrets.is_empty() {
                secrets = ledger::create(&client, 3).await;
            }
            fixture::change(&client, &secrets, rounds).await;
            let hot = Load::start(vec![client.clone(); 8], &secrets[..1], rounds);
            hot.end().await;
            let mut wanted = BTreeMap::new();
            for secret in &secrets {
                for (event, _) in ledger::history(&client, secret).await {
                    let id = |field: &str| event[field].as_str().unwrap().parse::<Uuid>().unwrap();
                    let version = event["version"].as_u64().unwrap();
                    wanted.insert((id("secret_id"), version), id("version_id"));
                }
            }
            let newest = |secret: Uuid| {
                let mut of_secret = wanted.range((secret, 0)..=(secret, u64::MAX));
                of_secret.next_back().unwrap().0.1
            };
            let stored = stored_versions(&deployment);
            for &(secret, version, id) in &stored {
                assert_eq!(wanted[&(secret, version)], id);
            }
            let numbers: BTreeSet<_> = stored.iter().map(|&(secret, n, _)| (secret, n)).collect();
            let kept: u64 = kept.parse().unwrap();
            let last = wanted
                .keys()
                .filter(|(secret, n)| *n + kept > newest(*secret));
            let last: BTreeSet<_> = last.copied().collect();
            // Where fewer were kept before, what was destroyed then stays destroyed.
            assert!(numbers.is_subset(&last), "{numbers:?} of {last:?}");
            if rounds > 3 {
                assert_eq!(numbers, last);
            }
            assert_eq!(replica.terminate(), Some(0));
        }
    }
}
