//! The seven compatible calls and a secret's history, as their clients see them.

use super::text;
use crate::support::envelope::assert_common;
use crate::support::fixture::{self, ALL, LIST, World};
use crate::support::process::program;
use crate::support::python;
use crate::support::service::{Answer, Client};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const MEMBERS: [&str; 6] = [
    "created_at",
    "id",
    "masked_value",
    "name",
    "provider",
    "updated_at",
];
const FIRST_PREV_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn members(object: &Value) -> BTreeSet<&str> {
    let members = object.as_object().expect("an object");
    members.keys().map(String::as_str).collect()
}

/// RFC 3339 in UTC with `Z` and microseconds: such texts sort as the times do.
fn assert_time(time: &str) {
    let digit = |c: char| if c.is_ascii_digit() { '0' } else { c };
    let shape: String = time.chars().map(digit).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000000Z");
}

fn assert_secret(secret: &Value) {
    assert_eq!(members(secret), MEMBERS.into());
    assert_time(text(secret, "created_at"));
    assert_time(text(secret, "updated_at"));
    let id = text(secret, "id");
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().to_string(), id);
}

async fn created(client: &Client, name: &str) -> Answer {
    client.create(name, "x").await.unwrap().expect(201)
}

async fn put(client: &Client, id: &str, value: &str) -> Answer {
    client.put(id, value).await.unwrap().expect(200)
}

async fn main_flow(service: &World) {
    let alice = &service.alice;
    let body = json!({"name": "my_key", "value": "sk-proj-4567890123456xyz", "provider": "acme"});
    let created = alice.post(LIST, &body).await.unwrap().expect(201);
    let secret = created.json();
    assert_secret(&secret);
    assert_eq!(secret["name"], "MY_KEY");
    assert_eq!(secret["provider"], "acme");
    assert_eq!(secret["masked_value"], "sk-pro••••xyz");
    assert_eq!(secret["created_at"], secret["updated_at"]);
    assert_eq!(created.header("etag"), Some("\"1\""));
    let id = created.id();
    let url = format!("{LIST}/{id}");
    assert_eq!(created.header("location"), Some(url.as_str()));
    assert_common(&created);
    let got = alice.get(&id).await.unwrap().expect(200);
    assert_eq!(got.json(), secret);
    assert_eq!(got.header("etag"), Some("\"1\""));
    let listed = alice.list().await.unwrap().expect(200).json();
    assert_eq!(listed, json!({"secrets": [secret], "total": 1}));

    let updated = put(alice, &id, "sk-proj-0000000000000abc").await;
    assert_updated(&secret, &updated);
    assert_eq!(updated.header("etag"), Some("\"2\""));
    let same_value = put(alice, &id, "sk-proj-0000000000000abc").await;
    assert_updated(&updated.json(), &same_value);
    assert_eq!(alice.get(&id).await.unwrap().json(), same_value.json());
    deletion(alice, &id).await;
}

/// Nothing but mask and `updated_at` changed, and that rose.
fn assert_updated(before: &Value, updated: &Answer) {
    let after = updated.json();
    assert_secret(&after);
    for kept in ["id", "name", "provider", "created_at"] {
        assert_eq!(after[kept], before[kept]);
    }
    assert_eq!(after["masked_value"], "sk-pro••••abc");
    let rises = text(&after, "updated_at") > text(before, "updated_at");
    assert!(rises, "{after}");
}

async fn deletion(alice: &Client, id: &str) {
    let deleted = alice.delete(id).await.unwrap().expect(204);
    assert!(deleted.body.is_empty());
    assert_common(&deleted);
    alice.delete(id).await.unwrap().expect(404);
    alice.get(id).await.unwrap().expect(404);
    alice.put(id, "x").await.unwrap().expect(404);
    let empty = json!({"secrets": [], "total": 0});
    assert_eq!(alice.list().await.unwrap().json(), empty);
    let reborn = created(alice, "MY_KEY").await;
    assert_ne!(reborn.id(), id);
    assert_eq!(reborn.header("etag"), Some("\"1\""));
    assert_eq!(reborn.json()["provider"], Value::Null);
}

#[tokio::test]
async fn a_secret_is_created_read_updated_and_deleted_on_sqlite() {
    main_flow(&World::sqlite()).await;
}

#[tokio::test]
async fn a_secret_is_created_read_updated_and_deleted_on_postgresql() {
    main_flow(&World::postgres()).await;
}

#[tokio::test]
async fn the_call_of_the_published_example_updates_a_secret() {
    let service = World::sqlite();
    let id = created(&service.alice, "KEY").await.id();
    let (base, token) = (service.replica.base(), &service.token);
    let line = format!(
        "curl --request PUT \\\n  --url {base}/api/v1/user/secrets/{id} \\\n  \
         --header 'Authorization: Bearer {token}' \\\n  \
         --header 'Content-Type: application/json' \\\n  \
         --data '{{ \"value\": \"example\" }}'"
    );
    let output = program("sh").args(["-c", &line]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_secret(&answer);
    assert_eq!(answer["masked_value"], "••••");
    let got = service.alice.get(&id).await.unwrap();
    assert_eq!(got.json(), answer);
    assert_eq!(got.header("etag"), Some("\"2\""));
}

fn by_creation(secret: &Value) -> (String, String) {
    let member = |key| text(secret, key).to_owned();
    (member("created_at"), member("id"))
}

#[tokio::test]
async fn the_list_is_complete_and_ordered_by_creation_then_id() {
    let service = World::sqlite();
    let names: Vec<_> = (0..120).map(|n| format!("KEY_{n}")).collect();
    let answers = join_all(names.iter().map(|name| created(&service.alice, name))).await;
    let expected: BTreeSet<_> = answers
        .iter()
        .map(|answer| by_creation(&answer.json()))
        .collect();
    created(&service.owner("bob"), "KEY_0").await;
    let listed = service.alice.list().await.unwrap().json();
    assert_eq!(listed["total"], 120);
    let secrets = listed["secrets"].as_array().unwrap();
    assert!(secrets.iter().map(by_creation).eq(expected));
}

#[tokio::test]
async fn a_mask_shows_what_its_rule_allows_and_no_length() {
    let service = World::sqlite();
    let id = created(&service.alice, "A").await.id();
    let largest = "é".repeat(32_768);
    for (value, mask) in [
        ("x", "••••"),
        ("12345678901", "••••"),
        ("123456789012", "••••012"),
        ("12345678901234567890123", "••••123"),
        ("123456789012345678901234", "123456••••234"),
        ("1 3\t56789012345678901 34", "1•3•56•••••34"),
        (" neither end is trimmed. ", "•neith••••d.•"),
        ("😀😁😂😃😄😅😆😇😈😉😊😋", "••••😉😊😋"),
        ("-----BEGIN PRIVATE KEY-----abcdefgh", "••••"),
        ("first line of many\nsecond line of many", "••••"),
        (&largest, "éééééé••••ééé"),
    ] {
        let shown = put(&service.alice, &id, value).await.json();
        assert_eq!(shown["masked_value"], mask);
        assert_eq!(service.alice.get(&id).await.unwrap().json(), shown);
    }
}

#[tokio::test]
async fn an_id_is_taken_in_any_letter_case_and_other_keys_are_ignored() {
    let service = World::sqlite();
    let body = json!({"name": "a", "value": "x", "provider": null, "color": {"is": ["red"]}});
    let created = service.alice.post(LIST, &body).await.unwrap().expect(201);
    let id = created.id();
    let got = service.alice.get(&id.to_uppercase()).await.unwrap();
    assert_eq!(got.expect(200).json(), created.json());
    let updated = put(&service.alice, &id.to_uppercase(), "y").await;
    assert_eq!(updated.id(), id);
}

async fn presets(client: &Client) -> Value {
    let path = format!("{LIST}/presets");
    client.fetch(&path).await.unwrap().expect(200).json()
}

#[tokio::test]
async fn presets_say_which_secrets_the_caller_has() {
    let service = World::sqlite();
    let alice = &service.alice;
    let expected = |anthropic, github| {
        json!({"presets": [
            {"provider": "openai", "env_var_name": "OPENAI_API_KEY", "configured": false},
            {"provider": "anthropic", "env_var_name": "ANTHROPIC_API_KEY", "configured": anthropic},
            {"provider": "github", "env_var_name": "GITHUB_TOKEN", "configured": github},
            {"provider": "tinker", "env_var_name": "TINKER_API_KEY", "configured": false},
        ]})
    };
    assert_eq!(presets(alice).await, expected(false, false));
    created(&service.owner("bob"), "OPENAI_API_KEY").await;
    created(alice, "github_token").await;
    let body = json!({"provider": "anthropic", "value": "sk-ant-78901234567890wxyz"});
    let path = format!("{LIST}/preset");
    let created = alice.post(&path, &body).await.unwrap().expect(201);
    let secret = created.json();
    assert_secret(&secret);
    assert_eq!(secret["name"], "ANTHROPIC_API_KEY");
    assert_eq!(secret["provider"], "anthropic");
    assert_eq!(secret["masked_value"], "sk-ant••••xyz");
    let url = format!("{LIST}/{}", created.id());
    assert_eq!(created.header("location"), Some(url.as_str()));
    assert_eq!(presets(alice).await, expected(true, true));
    alice.post(&path, &body).await.unwrap().expect(409);
}

#[tokio::test]
async fn concurrent_updates_each_get_their_own_version_and_time() {
    let service = World::sqlite();
    let id = created(&service.alice, "A").await.id();
    let answers = join_all((0..40).map(|_| put(&service.alice, &id, "same"))).await;
    let change = |answer: &Answer| {
        let tag = answer.header("etag").unwrap().trim_matches('"');
        let version: u64 = tag.parse().unwrap();
        (version, text(&answer.json(), "updated_at").to_owned())
    };
    let mut changes: Vec<_> = answers.iter().map(change).collect();
    changes.sort();
    assert!(changes.iter().map(|(version, _)| *version).eq(2..=41));
    assert!(changes.is_sorted_by(|(_, one), (_, next)| one < next));
}

/// More creates at once than the limit of 5 allows, over all the clients given.
async fn race_for_the_limit(clients: &[Client]) {
    let names: Vec<_> = (0..20).map(|n| format!("KEY_{n}")).collect();
    let clients_in_turn = clients.iter().cycle();
    let creates = names
        .iter()
        .zip(clients_in_turn)
        .map(|(name, client)| client.create(name, "x"));
    let answers = join_all(creates).await;
    let mut made = 0;
    for answer in answers {
        let answer = answer.unwrap();
        if answer.status == 201 {
            made += 1;
        } else {
            let answer = answer.expect(422).json();
            assert_eq!(answer["errors"][0]["type"], "limit_reached");
        }
    }
    let listed = clients[0].list().await.unwrap().json();
    assert_eq!((made, &listed["total"]), (5, &json!(5)));
    let id = text(&listed["secrets"][0], "id");
    clients[0].delete(id).await.unwrap().expect(204);
    created(&clients[0], "NEXT").await;
}

#[tokio::test]
async fn an_owners_limit_holds_against_concurrent_creates_on_sqlite() {
    let service = World::with(&[("LIMITS__SECRETS_PER_OWNER", "5")]);
    race_for_the_limit(std::slice::from_ref(&service.alice)).await;
}

#[tokio::test]
async fn an_owners_limit_holds_over_two_replicas_on_postgresql() {
    let service = World::of(fixture::postgres().set("LIMITS__SECRETS_PER_OWNER", "5"));
    let second = service.deployment.serve();
    let other = service.alice.on(second.base());
    race_for_the_limit(&[service.alice.clone(), other]).await;
}

async fn history(client: &Client, id: &str, query: &str) -> Answer {
    let path = format!("{LIST}/{id}/events?{query}");
    client.fetch(&path).await.unwrap().expect(200)
}

#[tokio::test]
async fn an_event_says_who_changed_what_under_which_request() {
    let service = World::sqlite();
    let body = json!({"name": "KEY", "value": "one", "provider": "acme"});
    let creating = service.alice.with("x-request-id", "create-1");
    let created = creating.post(LIST, &body).await.unwrap().expect(201);
    let id = created.id();
    let updating = service.alice.with("x-request-id", "update-1");
    let updated = put(&updating, &id, "two").await.json();
    let page = history(&service.alice, &id, "").await.json();
    assert_eq!(page["next"], Value::Null);
    let [newest, oldest] = page["events"].as_array().unwrap().as_slice() else {
        panic!("two events expected: {page}");
    };
    for event in [newest, oldest] {
        assert_time(text(event, "occurred_at"));
        for id in ["id", "version_id", "server_request_id"] {
            uuid::Uuid::parse_str(text(event, id)).unwrap();
        }
    }
    assert_ne!(newest["version_id"], oldest["version_id"]);
    assert_eq!(oldest["prev_hash"], FIRST_PREV_HASH);
    assert_eq!(newest["prev_hash"], oldest["hash"]);
    let token_id = service.token.split('_').nth(1).unwrap();
    let expected = json!({
        "id": newest["id"], "type": "secret.updated", "log": "changes", "epoch": 1,
        "position": 2, "sequence": 2, "secret_id": id, "owner": "alice", "name": "KEY",
        "provider": "acme", "version": 2, "previous_version": 1,
        "version_id": newest["version_id"], "restored_from": null, "change_set": null,
        "expires_at": null, "actor": {"kind": "token", "id": token_id},
        "request_id": "update-1", "occurred_at": updated["updated_at"],
        "client": "127.0.0.1", "server_request_id": newest["server_request_id"],
        "prev_hash": newest["prev_hash"], "hash": newest["hash"],
    });
    assert_eq!(*newest, expected);
    assert_created(oldest, &created.json());
    assert_eq!(members(newest), members(oldest));
}

fn assert_created(event: &Value, secret: &Value) {
    for (key, value) in [
        ("type", json!("secret.created")),
        ("position", json!(1)),
        ("sequence", json!(1)),
        ("version", json!(1)),
        ("previous_version", Value::Null),
        ("request_id", json!("create-1")),
        ("occurred_at", secret["created_at"].clone()),
    ] {
        assert_eq!(event[key], value, "{key}");
    }
}

#[tokio::test]
async fn a_history_is_paged_newest_first_and_is_the_secrets_own() {
    let service = World::sqlite();
    let alice = &service.alice;
    let id = created(alice, "A").await.id();
    for _ in 0..6 {
        put(alice, &id, "y").await;
        // Others write in between: the positions have gaps, the sequence has none.
        let other = created(alice, "OTHER").await.id();
        alice.delete(&other).await.unwrap().expect(204);
    }
    let mut query = "limit=3".to_owned();
    let (mut pages, mut sequences) = (Vec::new(), Vec::new());
    loop {
        let page = history(alice, &id, &query).await.json();
        let events = page["events"].as_array().unwrap();
        pages.push(events.len());
        let sequence = |event: &Value| event["sequence"].as_u64().unwrap();
        sequences.extend(events.iter().map(sequence));
        assert!(events.iter().all(|event| event["secret_id"] == id.as_str()));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        assert!(pages.len() < 9, "the paging does not end");
        query = format!("limit=3&before={next}");
    }
    assert_eq!(sequences, [7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(pages, [3, 3, 1]);
    let beyond = history(alice, &id, "before=1-1").await.json();
    assert_eq!(beyond, json!({"events": [], "next": null}));
    alice.delete(&id).await.unwrap().expect(204);
    let gone = alice.fetch(&format!("{LIST}/{id}/events")).await;
    gone.unwrap().expect(404);
}

/// Verifies a chain from its first event on, as somebody outside would, with nothing of ours; prints its last hash.
const VERIFIER: &str = r#"
import hashlib, json, sys
last = bytes(32)
for event in reversed(json.load(sys.stdin)["events"]):
    before, stated = event.pop("prev_hash"), event.pop("hash")
    assert before == last.hex(), event["position"]
    body = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    last = hashlib.blake2b(last + body.encode(), digest_size=32).digest()
    assert stated == last.hex(), event["position"]
print(last.hex())
"#;

fn verified(history: &[u8]) -> String {
    python::run(VERIFIER, history).trim_end().to_owned()
}

async fn assert_chained(service: World) {
    // The canonical form holds what is not ASCII as it is.
    let token = service.deployment.token("zoë/𝄞 \"a\\b\"", &ALL);
    let zoe = service.replica.client(&token);
    let id = created(&zoe, "A").await.id();
    join_all((0..30).map(|_| put(&zoe, &id, "y"))).await;
    let history = history(&zoe, &id, "limit=1000").await;
    assert_eq!(history.json()["events"].as_array().unwrap().len(), 31);
    let head = service.deployment.run(&["events", "head", "--json"]);
    let head: Value = serde_json::from_str(&head).unwrap();
    assert_eq!(head["hash"], verified(&history.body).as_str());
    assert_eq!(head["position"], 31);
}

#[tokio::test]
async fn anybody_can_verify_the_hash_chain_on_sqlite() {
    assert_chained(World::sqlite()).await;
}

#[tokio::test]
async fn anybody_can_verify_the_hash_chain_on_postgresql() {
    assert_chained(World::postgres()).await;
}
