//! The published JSON Schemas say of events what events are.

use crate::support::document::event_faults;
use crate::support::events::all;
use crate::support::fixture::{World, batch, change};
use crate::support::ledger;
use crate::support::service::Client;
use serde_json::{Value, json};

async fn schema(client: &Client, name: &str) -> Value {
    let answer = client.fetch(&format!("/schemas/{name}.v1.json")).await;
    let answer = answer.unwrap().expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_what_its_published_schema_says_and_has_no_field_beyond() {
    let world = World::sqlite();
    let secrets = ledger::create(&world.alice, 2).await;
    change(&world.alice, &secrets, 1).await;
    let updates = secrets.iter().map(|id| (&**id, "x".to_owned()));
    assert_eq!(batch(&world.alice, &updates.collect::<Vec<_>>()).await, 200);
    let preset = json!({"provider": "openai", "value": "x"});
    let path = "/api/v1/user/secrets/preset";
    world.alice.post(path, &preset).await.unwrap().expect(201);
    let names = json!({"names": ["SECRET_0", "OPENAI_API_KEY"]});
    world.alice.resolve(&names).await.unwrap().expect(200);
    world.alice.delete(&secrets[0]).await.unwrap().expect(204);
    let create = "token create --owner alice --scope secrets:read --expires-in 1h";
    let token = world.deployment.run(&create.split(' ').collect::<Vec<_>>());
    let id = token.split('_').nth(1).unwrap();
    world.deployment.run(&["token", "revoke", id]);
    // Anybody may read them.
    let anybody = Client::anonymous(world.replica.base());
    for (log, name, kinds) in [
        ("changes", "secret-event", 3),
        ("activity", "activity-event", 3),
    ] {
        let schema = schema(&anybody, name).await;
        let events = all(&world.auditor, &format!("log={log}")).await;
        let mut seen: Vec<_> = events.iter().map(|event| event.text("type")).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), kinds);
        for event in &events {
            assert_eq!(event_faults(&event.event), Vec::<String>::new());
            let described = schema.to_string();
            for (field, _) in event.event.as_object().unwrap() {
                assert!(described.contains(&format!("\"{field}\":{{")), "{field}");
            }
            // The test can see a fault, too.
            let mut wrong = event.event.clone();
            wrong["epoch"] = json!("1");
            assert_eq!(event_faults(&wrong).len(), 1, "{wrong}");
        }
    }
}
