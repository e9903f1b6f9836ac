//! Tokens that an owner makes, lists and revokes by itself: never more than it has, and no database password.

use crate::support::events::all;
use crate::support::fixture::{self, World};
use crate::support::service::{Answer, Client};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const TOKENS: &str = "/api/v1/tokens";

/// A token of Alice's that may make others, with these further options.
fn maker(world: &World, options: &[&str]) -> String {
    let create = "token create --owner alice --scope tokens:write --scope secrets:read \
                  --scope secrets:resolve --scope secrets:write";
    let mut arguments: Vec<_> = create.split_whitespace().collect();
    arguments.extend(options);
    world.deployment.run(&arguments).trim_end().to_owned()
}

async fn made(client: &Client, body: &Value) -> Answer {
    client.post(TOKENS, body).await.unwrap()
}

async fn revoke(client: &Client, id: &str) -> u16 {
    let path = format!("{TOKENS}/{id}");
    let request = client.request(Method::DELETE, &path);
    client.send(request).await.unwrap().status
}

async fn listed(client: &Client) -> Vec<String> {
    let list = client.fetch(TOKENS).await.unwrap().expect(200).json();
    let tokens = list["tokens"].as_array().unwrap();
    assert_eq!(list["total"], tokens.len());
    assert!(tokens.iter().all(|token| token.get("token").is_none()));
    let ids = tokens.iter().map(|token| token["id"].as_str().unwrap());
    ids.map(str::to_owned).collect()
}

#[tokio::test]
async fn an_owner_makes_lists_and_revokes_tokens_of_its_own() {
    for world in World::both() {
        let first = maker(&world, &[]);
        let client = world.replica.client(&first);
        let body = json!({"label": "ci", "scopes": ["secrets:read"], "secrets": ["a", "CI_*"], "expires_in": 3600});
        let answer = made(&client, &body).await.expect(201).json();
        assert_eq!(answer["label"], "ci");
        assert_eq!(answer["secrets"], json!(["A", "CI_*"]));
        let (id, token) = (
            answer["id"].as_str().unwrap(),
            answer["token"].as_str().unwrap(),
        );
        assert_eq!(token.get(6..22).unwrap(), id);
        // It works, on another replica too, and it can't do what it was not given.
        let other = world.deployment.serve();
        for replica in [&world.replica, &other] {
            replica.client(token).list().await.unwrap().expect(200);
            let refused = replica.client(token).create("A", "v").await.unwrap();
            refused.expect(403);
        }
        let ids = listed(&client).await;
        assert!(ids.contains(&id.to_owned()) && ids.len() >= 3, "{ids:?}");
        // Bob neither sees nor revokes it.
        let bobs = world.deployment.token("bob", &["tokens:write"]);
        let bob = world.replica.client(&bobs);
        assert!(!listed(&bob).await.contains(&id.to_owned()));
        assert_eq!(revoke(&bob, id).await, 404);
        assert_eq!(revoke(&client, "0000000000000000").await, 404);
        // Revoked: here at once, on the other replica within 5 seconds.
        assert_eq!(revoke(&client, id).await, 204);
        let since = Instant::now();
        world
            .replica
            .client(token)
            .list()
            .await
            .unwrap()
            .expect(401);
        while other.client(token).list().await.unwrap().status != 401 {
            assert!(since.elapsed() < Duration::from_secs(5));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(revoke(&client, id).await, 404);
        assert!(!listed(&client).await.contains(&id.to_owned()));
        // Both are events, by whom they were caused.
        let events = all(
            &world.auditor,
            "log=activity&type=token.created&type=token.revoked",
        )
        .await;
        let told: Vec<_> = events
            .iter()
            .filter(|event| event.event["token_id"] == id)
            .collect();
        assert_eq!(told.len(), 2);
        for event in told {
            let by = json!({"id": first.get(6..22).unwrap(), "kind": "token"});
            assert_eq!(event.event["actor"], by);
            assert_eq!(event.event["owner"], "alice");
            assert_eq!(event.event["client"], "127.0.0.1");
            assert!(event.event["request_id"].is_string());
        }
        crate::support::events::assert_chained(&all(&world.auditor, "log=activity").await);
    }
}

#[tokio::test]
async fn no_token_gives_more_than_its_maker_has() {
    let world = World::sqlite();
    let options = [
        "--secret",
        "CI_*",
        "--expires-in",
        "1h",
        "--cidr",
        "127.0.0.0/8",
    ];
    let client = world.replica.client(&maker(&world, &options));
    for more in [
        json!({"scopes": ["events:read"]}),
        json!({"scopes": ["secrets:read", "events:read"]}),
        json!({"scopes": ["secrets:read"], "secrets": ["A"]}),
        json!({"scopes": ["secrets:read"], "secrets": ["CI_A", "C*"]}),
        json!({"scopes": ["secrets:read"], "expires_in": 3700}),
        json!({"scopes": ["secrets:read"], "expires_in": null}),
    ] {
        made(&client, &more).await.expect(403);
    }
    // What is not said is what the maker has, and no more of it.
    let answer = made(&client, &json!({"scopes": ["secrets:read"]})).await;
    let answer = answer.expect(201).json();
    assert_eq!(answer["secrets"], json!(["CI_*"]));
    let list = world.deployment.run(&["token", "list", "--json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let tokens = list["tokens"].as_array().unwrap();
    let newest = tokens.iter().find(|one| one["id"] == answer["id"]).unwrap();
    assert_eq!(newest["cidr"], json!(["127.0.0.0/8"]));
    let ends: Vec<_> = tokens
        .iter()
        .rev()
        .take(2)
        .map(|one| &one["expires_at"])
        .collect();
    assert_eq!(ends[0], ends[1]);
    // A narrowed token neither sees nor revokes what is wider than itself.
    let wide = world.token.get(6..22).unwrap();
    assert!(!listed(&client).await.contains(&wide.to_owned()));
    assert_eq!(revoke(&client, wide).await, 404);
    // Without the scope, and as a service, nobody makes one.
    let body = json!({"scopes": ["secrets:read"]});
    made(&world.alice, &body).await.expect(403);
    let service = world
        .deployment
        .service_token("s", &["*"], &["tokens:write"]);
    made(&world.replica.client(&service), &body)
        .await
        .expect(403);
}

#[tokio::test]
async fn a_request_for_a_token_is_read_strictly() {
    let world = World::sqlite();
    let client = world
        .replica
        .client(&maker(&world, &["--expires-in", "never"]));
    for (bad, place) in [
        (json!({}), json!(["body", "scopes"])),
        (json!({"scopes": []}), json!(["body", "scopes"])),
        (json!({"scopes": ["all"]}), json!(["body", "scopes", 0])),
        (
            json!({"scopes": ["secrets:read", "secrets:read"]}),
            json!(["body", "scopes", 1]),
        ),
        (json!({"scopes": "secrets:read"}), json!(["body", "scopes"])),
        (
            json!({"scopes": ["secrets:read"], "secrets": []}),
            json!(["body", "secrets"]),
        ),
        (
            json!({"scopes": ["secrets:read"], "secrets": ["A", "*"]}),
            json!(["body", "secrets", 1]),
        ),
        (
            json!({"scopes": ["secrets:read"], "expires_in": 0}),
            json!(["body", "expires_in"]),
        ),
        (
            json!({"scopes": ["secrets:read"], "expires_in": -1}),
            json!(["body", "expires_in"]),
        ),
        (
            json!({"scopes": ["secrets:read"], "expires_in": 1.5}),
            json!(["body", "expires_in"]),
        ),
        (
            json!({"scopes": ["secrets:read"], "expires_in": "90d"}),
            json!(["body", "expires_in"]),
        ),
        (
            json!({"scopes": ["secrets:read"], "expires_in": u64::MAX}),
            json!(["body", "expires_in"]),
        ),
        (
            json!({"scopes": ["secrets:read"], "label": "a\nb"}),
            json!(["body", "label"]),
        ),
    ] {
        let answer = made(&client, &bad).await.expect(422).json();
        assert_eq!(answer["errors"][0]["loc"], place, "{bad}");
    }
    // Endless, for one that has no end itself.
    let endless = json!({"scopes": ["secrets:read"], "expires_in": null});
    let answer = made(&client, &endless).await.expect(201).json();
    assert_eq!(answer["expires_at"], Value::Null);
    assert_eq!(answer["secrets"], Value::Null);
}

#[tokio::test]
async fn a_lockdown_makes_no_token_and_revokes_them_all_the_same() {
    for deployment in fixture::both() {
        let world = World::of(deployment);
        let client = world.replica.client(&maker(&world, &[]));
        let body = json!({"scopes": ["secrets:read"]});
        let answer = made(&client, &body).await.expect(201).json();
        world.deployment.run(&["lockdown", "on"]);
        assert_ne!(made(&client, &body).await.status, 201);
        assert_eq!(revoke(&client, answer["id"].as_str().unwrap()).await, 204);
    }
}

#[tokio::test]
async fn the_list_tells_when_a_token_was_last_used_at_most_once_a_minute() {
    for world in World::both() {
        let client = world.replica.client(&maker(&world, &[]));
        let body = json!({"scopes": ["secrets:read"]});
        let answer = made(&client, &body).await.expect(201).json();
        let id = answer["id"].as_str().unwrap();
        let used = async || {
            let list = client.fetch(TOKENS).await.unwrap().expect(200).json();
            let tokens = list["tokens"].as_array().unwrap().clone();
            let token = tokens.into_iter().find(|one| one["id"] == id).unwrap();
            token["last_used_at"].clone()
        };
        assert_eq!(used().await, Value::Null);
        let token = answer["token"].as_str().unwrap();
        let client_of_it = world.replica.client(token);
        client_of_it.list().await.unwrap().expect(200);
        let since = Instant::now();
        while used().await.is_null() {
            assert!(since.elapsed() < Duration::from_secs(90));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // It is used again, and looked up again: that is noted in the next minute.
        let first = used().await;
        let until = Instant::now() + Duration::from_secs(12);
        while Instant::now() < until {
            client_of_it.list().await.unwrap().expect(200);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(used().await, first);
    }
}
