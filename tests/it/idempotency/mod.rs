//! `Idempotency-Key`: a request that is sent again is made once, and answered again.

use crate::support::events::all;
use crate::support::fixture::{self, BATCH, LIST, World};
use crate::support::service::{Answer, Client};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const KEY: &str = "idempotency-key";
const REPLAYED: &str = "idempotent-replayed";

/// A request under a key.
async fn ask(client: &Client, method: &Method, path: &str, key: &str, body: &Value) -> Answer {
    let request = client.request(method.clone(), path).header(KEY, key);
    let request = if *method == Method::DELETE {
        request
    } else {
        request.json(body)
    };
    client.send(request).await.unwrap()
}

fn shown(answer: &Answer) -> (u16, Option<&str>, Option<&str>, &[u8]) {
    (
        answer.status,
        answer.header("etag"),
        answer.header("location"),
        &answer.body,
    )
}

async fn value(client: &Client, id: &str) -> Value {
    let answer = client.resolve(&json!({"ids": [id]})).await.unwrap();
    answer.expect(200).json()["secrets"][0]["value"].clone()
}

/// A request of each kind about a secret, and its status.
fn requests(id: &str) -> [(Method, String, Value, u16); 6] {
    let one = format!("{LIST}/{id}");
    let value = "sk-another-value-0123456789";
    let created = json!({"name": "A", "value": value, "provider": "acme"});
    let preset = json!({"provider": "openai", "value": value});
    let set = json!({"updates": [{"id": id, "value": value}]});
    [
        (Method::POST, LIST.to_owned(), created, 201),
        (Method::POST, format!("{LIST}/preset"), preset, 201),
        (Method::PUT, one.clone(), json!({"value": value}), 200),
        (Method::POST, BATCH.to_owned(), set, 200),
        (
            Method::POST,
            format!("{one}/restore"),
            json!({"version": 1}),
            200,
        ),
        (Method::DELETE, one, Value::Null, 204),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_that_is_sent_again_is_made_once_and_answered_again() {
    for world in World::both() {
        let alice = &world.alice;
        let first = alice
            .create("FIRST", "sk-first-value-of-all")
            .await
            .unwrap()
            .expect(201);
        let id = first.id();
        let cases = requests(&id);
        let mut events = 1;
        for (number, (method, path, body, status)) in cases.iter().enumerate() {
            let key = format!("key-{number}");
            let made = ask(alice, method, path, &key, body).await;
            assert_eq!(made.status, *status, "{method} {path}");
            assert_eq!(made.header(REPLAYED), None);
            events += 1;
            for spelling in [key.clone(), format!("\"{key}\"")] {
                let again = ask(alice, method, path, &spelling, body).await;
                assert_eq!(shown(&again), shown(&made), "{method} {path}");
                assert_eq!(again.header(REPLAYED), Some("true"));
            }
            assert_eq!(all(alice, "").await.len(), events, "{method} {path}");
            let other = json!({"value": "x", "name": "B", "version": 2, "updates": [], "provider": "github"});
            if *method != Method::DELETE {
                let reused = ask(alice, method, path, &key, &other).await;
                // A set without updates is no set, with or without a key.
                assert_eq!(reused.status, 422, "{method} {path}");
            }
        }
        // What was made before a deletion is answered after it, too; its mask is gone with its version.
        let [
            _,
            _,
            (put, one, value, _),
            _,
            (post, restore, version, _),
            _,
        ] = &cases;
        let again = ask(alice, put, one, "key-2", value).await.expect(200);
        assert_eq!(again.json()["masked_value"], "••••");
        let again = ask(alice, post, restore, "key-4", version)
            .await
            .expect(200);
        assert_eq!(again.header(REPLAYED), Some("true"));
        let new = ask(alice, post, restore, "new", version).await;
        new.expect(404);
        assert_eq!(all(alice, "").await.len(), events);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_used_for_another_request_is_refused() {
    for world in World::both() {
        let alice = &world.alice;
        let ids = crate::support::ledger::create(alice, 2).await;
        let [one, two] = [0, 1].map(|index: usize| format!("{LIST}/{}", ids[index]));
        let body = json!({"value": "sk-the-one"});
        ask(alice, &Method::PUT, &one, "k", &body).await.expect(200);
        for (method, path, body) in [
            (Method::PUT, &one, json!({"value": "sk-another"})),
            (Method::PUT, &two, json!({"value": "sk-the-one"})),
            (Method::DELETE, &one, Value::Null),
        ] {
            let refused = ask(alice, &method, path, "k", &body)
                .await
                .expect(422)
                .json();
            let item = &refused["errors"][0];
            assert_eq!(item["type"], "idempotency_key_reused", "{method} {path}");
            assert_eq!(item["loc"], json!(["header", "Idempotency-Key"]));
        }
        // Another precondition is another request.
        let conditional = alice.with("if-match", "\"2\"");
        ask(&conditional, &Method::PUT, &one, "k", &body)
            .await
            .expect(422);
        // The same in other letters is the same path.
        let shouted = format!("{LIST}/{}", ids[0].to_uppercase());
        let again = ask(alice, &Method::PUT, &shouted, "k", &body)
            .await
            .expect(200);
        assert_eq!(again.header(REPLAYED), Some("true"));
        // A key is its token's: another token of the same owner, and another owner, have keys of their own.
        let second = world.owner("alice");
        let other = ask(&second, &Method::PUT, &one, "k", &body)
            .await
            .expect(200);
        assert_eq!(other.header(REPLAYED), None);
        ask(&world.bob, &Method::PUT, &one, "k", &body)
            .await
            .expect(404);
    }
}

#[tokio::test]
async fn a_malformed_or_repeated_key_is_refused() {
    let world = World::sqlite();
    let alice = &world.alice;
    let body = json!({"name": "A", "value": "v"});
    let long = "k".repeat(256);
    for bad in ["", "\"\"", "a b", "\"a", "\"a\"b\"", &long] {
        let refused = ask(alice, &Method::POST, LIST, bad, &body)
            .await
            .expect(400);
        assert_eq!(refused.json()["type"], "invalid_request_error", "{bad}");
    }
    let twice = alice
        .request(Method::POST, LIST)
        .header(KEY, "a")
        .header(KEY, "a");
    alice.send(twice.json(&body)).await.unwrap().expect(400);
    assert!(all(alice, "").await.is_empty());
    let longest = "k".repeat(255);
    ask(alice, &Method::POST, LIST, &longest, &body)
        .await
        .expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_made_is_remembered() {
    for world in World::both() {
        let alice = &world.alice;
        let body = json!({"name": "A", "value": "sk-a"});
        let id = alice.create("A", "sk-old").await.unwrap().expect(201).id();
        ask(alice, &Method::POST, LIST, "k", &body)
            .await
            .expect(409);
        alice.delete(&id).await.unwrap().expect(204);
        let made = ask(alice, &Method::POST, LIST, "k", &body)
            .await
            .expect(201);
        assert_eq!(made.header(REPLAYED), None);
        assert_eq!(value(alice, &made.id()).await, "sk-a");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_retries_over_two_replicas_and_a_kill_makes_each_request_once() {
    for deployment in fixture::both() {
        let is_sqlite = deployment.database().starts_with("sqlite:");
        let mut world = World::of(deployment);
        let id = world
            .alice
            .create("KEY", "sk-first")
            .await
            .unwrap()
            .expect(201)
            .id();
        let path = format!("{LIST}/{id}");
        // SQLite has one process.
        let mut other = (!is_sqlite).then(|| world.deployment.serve());
        for round in 0..6 {
            let key = format!("storm-{round}");
            let body = json!({"value": format!("sk-of-round-{round}")});
            let mut clients = vec![world.alice.clone()];
            clients.extend(other.as_ref().map(|other| world.alice.on(other.base())));
            let mut storm = JoinSet::new();
            for attempt in 0..24 {
                let client = clients[attempt % clients.len()].clone();
                let (path, key, body) = (path.clone(), key.clone(), body.clone());
                storm.spawn(async move {
                    let request = client.request(Method::PUT, &path).header(KEY, &key);
                    // A connection that breaks with its process says nothing.
                    client.send(request.json(&body)).await.ok()
                });
            }
            if round == 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                match &mut other {
                    Some(other) => other.kill_9(),
                    None => world.replica.kill_9(),
                }
            }
            let answers = storm.join_all().await.into_iter().flatten();
            for answer in answers {
                assert_eq!(
                    answer.status,
                    200,
                    "{}",
                    String::from_utf8_lossy(&answer.body)
                );
            }
            if round == 3 {
                if is_sqlite {
                    world.replica = world.deployment.serve();
                    world.alice = world.replica.client(&world.token);
                } else {
                    other = Some(world.deployment.serve());
                }
            }
            let settled = ask(&world.alice, &Method::PUT, &path, &key, &body)
                .await
                .expect(200);
            assert_eq!(settled.header("etag"), Some(&*format!("\"{}\"", round + 2)));
        }
        let log = all(&world.alice, "").await;
        assert_eq!(log.len(), 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_kept_for_a_day_and_then_removed() {
    for world in World::both() {
        let alice = &world.alice;
        let body = json!({"name": "A", "value": "sk-a"});
        let id = ask(alice, &Method::POST, LIST, "k", &body)
            .await
            .expect(201)
            .id();
        let sql = "SELECT expires_at - created_at FROM idempotency_keys";
        assert_eq!(world.deployment.sql(sql).trim(), "86400000000");
        let count = || {
            world
                .deployment
                .sql("SELECT count(*) FROM idempotency_keys")
        };
        assert_eq!(count().trim(), "1");
        // Time can't be told in a row that carries a code: an expired one is removed by whoever starts next.
        world
            .deployment
            .sql("UPDATE idempotency_keys SET expires_at = 1");
        let _second = world.deployment.serve();
        let end = Instant::now() + Duration::from_secs(90);
        while count().trim() != "0" {
            assert!(Instant::now() < end, "the record is still there");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        ask(alice, &Method::POST, LIST, "k", &body)
            .await
            .expect(409);
        assert_eq!(value(alice, &id).await, "sk-a");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_somebody_changed_or_copied_answers_nobody() {
    for world in World::both() {
        let alice = &world.alice;
        let ids = crate::support::ledger::create(alice, 2).await;
        let paths: Vec<_> = ids.iter().map(|id| format!("{LIST}/{id}")).collect();
        let bodies = ["sk-one-value", "sk-two-value"].map(|value| json!({"value": value}));
        for (number, (path, body)) in paths.iter().zip(&bodies).enumerate() {
            ask(alice, &Method::PUT, path, &format!("k{number}"), body)
                .await
                .expect(200);
        }
        let other = |column: &str| {
            format!("(SELECT o.{column} FROM idempotency_keys o WHERE o.key = 'k1')")
        };
        for change in [
            format!("mac = {}", other("mac")),
            format!("answer = {}", other("answer")),
            "status = 204".to_owned(),
            "expires_at = expires_at + 1".to_owned(),
            "created_at = created_at + 1".to_owned(),
        ] {
            world
                .deployment
                .sql("CREATE TABLE kept AS SELECT * FROM idempotency_keys");
            world.deployment.sql(&format!(
                "UPDATE idempotency_keys SET {change} WHERE key = 'k0'"
            ));
            ask(alice, &Method::PUT, &paths[0], "k0", &bodies[0])
                .await
                .expect(500);
            world.deployment.sql("DELETE FROM idempotency_keys");
            world
                .deployment
                .sql("INSERT INTO idempotency_keys SELECT * FROM kept");
            world.deployment.sql("DROP TABLE kept");
            let good = ask(alice, &Method::PUT, &paths[0], "k0", &bodies[0])
                .await
                .expect(200);
            assert_eq!(good.header(REPLAYED), Some("true"), "{change}");
        }
        // A request that was never made is not taken for made, whatever row is copied to its key.
        world
            .deployment
            .sql("UPDATE idempotency_keys SET key = 'new' WHERE key = 'k0'");
        ask(alice, &Method::PUT, &paths[0], "new", &bodies[0])
            .await
            .expect(500);
        assert_eq!(all(alice, "").await.len(), 4);
        assert_eq!(value(alice, &ids[0]).await, "sk-one-value");
    }
}
