//! Old events go, and what is left is still a chain.

use crate::support::fixture::{self, SCOPES};
use crate::support::ledger::{self, Load};
use crate::support::retention::{age, kept_from};
use crate::support::service::{Client, Deployment, Replica};
use serde_json::Value;

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
