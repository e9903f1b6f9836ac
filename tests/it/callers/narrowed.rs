//! Tokens that are narrowed to secrets: what is not in their list is absent to them, whatever they ask for.

use crate::support::events::{Stream, all};
use crate::support::fixture::{ABSENT, ALL, BATCH, LIST, World};
use crate::support::service::{Answer, Client, Deployment};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A token of these options, beside all scopes.
fn narrowed(deployment: &Deployment, options: &[&str], scopes: &[&str]) -> String {
    let mut arguments = vec!["token", "create"];
    for scope in scopes {
        arguments.extend(["--scope", scope]);
    }
    arguments.extend(options);
    deployment.run(&arguments).trim_end().to_owned()
}

/// A service where Alice has three secrets, and a client of hers that may have two of them.
async fn prepared(world: &World) -> (Client, [String; 3]) {
    let mut ids = Vec::new();
    for name in ["OPENAI_API_KEY", "CI_DEPLOY", "GITHUB_TOKEN"] {
        let answer = world.alice.create(name, &format!("sk-{name}")).await;
        ids.push(answer.unwrap().expect(201).id());
    }
    let options = [
        "--owner",
        "alice",
        "--secret",
        "openai_api_key",
        "--secret",
        "CI_*",
    ];
    let token = narrowed(&world.deployment, &options, &ALL);
    (world.replica.client(&token), ids.try_into().unwrap())
}

fn names(list: &Value) -> BTreeSet<String> {
    let secrets = list["secrets"].as_array().unwrap().iter();
    secrets
        .map(|one| one["name"].as_str().unwrap().to_owned())
        .collect()
}

async fn restore(client: &Client, id: &str, version: u64) -> Result<Answer, reqwest::Error> {
    let path = format!("{LIST}/{id}/restore");
    client.post(&path, &json!({"version": version})).await
}

#[tokio::test]
async fn a_narrowed_token_sees_and_changes_what_its_list_names_and_nothing_else() {
    for world in World::both() {
        let (client, [openai, ci, github]) = prepared(&world).await;
        let listed = client.list().await.unwrap().expect(200).json();
        let expected = ["CI_DEPLOY", "OPENAI_API_KEY"].map(str::to_owned).into();
        assert_eq!(names(&listed), expected);
        assert_eq!(listed["total"], 2);
        for inside in [&openai, &ci] {
            client.get(inside).await.unwrap().expect(200);
            client.put(inside, "new").await.unwrap().expect(200);
        }
        // What is outside answers as what is absent.
        for (outside, absent) in [
            (client.get(&github).await, client.get(ABSENT).await),
            (
                client.put(&github, "x").await,
                client.put(ABSENT, "x").await,
            ),
            (client.delete(&github).await, client.delete(ABSENT).await),
            (
                client.fetch(&format!("{LIST}/{github}/events")).await,
                client.fetch(&format!("{LIST}/{ABSENT}/events")).await,
            ),
            (
                client.fetch(&format!("{LIST}/{github}/versions")).await,
                client.fetch(&format!("{LIST}/{ABSENT}/versions")).await,
            ),
            (
                restore(&client, &github, 1).await,
                restore(&client, ABSENT, 1).await,
            ),
            (
                restore(&client, &github, 9).await,
                restore(&client, ABSENT, 9).await,
            ),
            (
                client.resolve(&json!({"names": ["GITHUB_TOKEN"]})).await,
                client.resolve(&json!({"names": ["NOTHING"]})).await,
            ),
            (
                client.resolve(&json!({"ids": [openai, github]})).await,
                client.resolve(&json!({"ids": [openai, ABSENT]})).await,
            ),
        ] {
            let (outside, absent) = (outside.unwrap().expect(404), absent.unwrap().expect(404));
            assert_eq!(outside.text(), absent.text());
        }
        let set =
            |last: &str| json!({"updates": [{"id": ci, "value": "s"}, {"id": last, "value": "s"}]});
        let refused = client.post(BATCH, &set(&github)).await.unwrap().expect(404);
        let absent = client.post(BATCH, &set(ABSENT)).await.unwrap().expect(404);
        assert_eq!(refused.text(), absent.text());
        // Nothing happened to the one outside.
        let whole = world.alice.resolve(&json!({"ids": [github]})).await;
        let whole = whole.unwrap().expect(200).json();
        assert_eq!(whole["secrets"][0]["value"], "sk-GITHUB_TOKEN");
        assert_eq!(whole["secrets"][0]["version"], 1);
    }
}

#[tokio::test]
async fn a_narrowed_token_creates_only_what_its_list_names() {
    for world in World::both() {
        let (client, _) = prepared(&world).await;
        // A name outside can't be created, free or taken; one inside can.
        let free = client.create("FREE", "v").await.unwrap().expect(404);
        let taken = client.create("GITHUB_TOKEN", "v").await.unwrap();
        assert_eq!(taken.expect(404).text(), free.text());
        let preset = json!({"provider": "github", "value": "v"});
        let preset = client.post(&format!("{LIST}/preset"), &preset).await;
        preset.unwrap().expect(404);
        client.create("CI_NEW", "v").await.unwrap().expect(201);
        let presets = client.fetch(&format!("{LIST}/presets")).await.unwrap();
        let presets = presets.expect(200).json();
        let configured: Vec<_> = presets["presets"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["configured"] == true)
            .map(|one| one["provider"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(configured, ["openai"]);
        let inside = client.resolve(&json!({"names": ["CI_DEPLOY"]})).await;
        assert_eq!(
            inside.unwrap().expect(200).json()["secrets"][0]["value"],
            "sk-CI_DEPLOY"
        );
    }
}

#[tokio::test]
async fn a_narrowed_token_is_told_of_its_own_secrets_alone() {
    for world in World::both() {
        let (client, [openai, ci, github]) = prepared(&world).await;
        world
            .alice
            .resolve(&json!({"ids": [github, ci]}))
            .await
            .unwrap()
            .expect(200);
        let told = |events: &[crate::support::events::Logged]| -> Vec<String> {
            events
                .iter()
                .map(|event| event.text("secret_id").to_owned())
                .collect()
        };
        assert_eq!(
            told(&all(&client, "log=changes").await),
            [openai.clone(), ci.clone()]
        );
        // Not of her tokens, nor of what else was read.
        assert_eq!(
            told(&all(&client, "log=activity").await),
            std::slice::from_ref(&ci)
        );
        let mut stream = Stream::open(&client, "after=0-0", None).await;
        assert_eq!(told(&stream.events(2).await), [openai, ci.clone()]);
        world.alice.put(&github, "x").await.unwrap().expect(200);
        world.alice.put(&ci, "x").await.unwrap().expect(200);
        assert_eq!(told(&stream.events(1).await), [ci]);
    }
}

#[tokio::test]
async fn a_narrowed_service_token_resolves_only_what_its_list_names() {
    let world = World::sqlite();
    let (_, [_, ci, github]) = prepared(&world).await;
    let options = ["--service", "ci", "--act-for", "*", "--secret", "CI_*"];
    let token = narrowed(&world.deployment, &options, &["secrets:resolve"]);
    let client = world.replica.client(&token);
    let asked = |id: &str| json!({"owner": "alice", "ids": [id]});
    client.resolve(&asked(&ci)).await.unwrap().expect(200);
    client.resolve(&asked(&github)).await.unwrap().expect(404);
}

#[tokio::test]
async fn nobody_widens_a_narrowed_token_in_the_database() {
    for world in World::both() {
        for wider in ["", "CI_* OTHER", "C*"] {
            let options = ["--owner", "alice", "--secret", "CI_*"];
            let token = narrowed(&world.deployment, &options, &ALL);
            let id = token.get(6..22).unwrap();
            let set = format!("UPDATE api_tokens SET secrets = '{wider}' WHERE id = '{id}'");
            world.deployment.sql(&set);
            let answer = world.replica.client(&token).list().await.unwrap();
            assert_eq!(answer.status, 401, "{wider}");
        }
        // What networks are called does not narrow to secrets, and the other way round.
        let options = ["--owner", "alice", "--secret", "CI_*"];
        let token = narrowed(&world.deployment, &options, &ALL);
        let id = token.get(6..22).unwrap();
        world.deployment.sql(&format!(
            "UPDATE api_tokens SET networks = secrets, secrets = '' WHERE id = '{id}'"
        ));
        let answer = world.replica.client(&token).list().await.unwrap();
        assert_eq!(answer.status, 401);
    }
}

#[test]
fn what_is_no_name_narrows_no_token() {
    let deployment = Deployment::sqlite().prepare();
    for bad in ["*", "A B", "1A", "A*B", ""] {
        let create = "token create --owner alice --scope secrets:read --secret";
        let mut arguments: Vec<_> = create.split(' ').collect();
        arguments.push(bad);
        let output = deployment.try_run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{bad}");
    }
    let create = "token create --owner alice --scope secrets:read --secret a --secret ci_*";
    deployment.run(&create.split(' ').collect::<Vec<_>>());
    let list = deployment.run(&["token", "list", "--json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["tokens"][0]["secrets"], json!(["A", "CI_*"]));
    let shown = deployment.run(&["token", "list"]);
    assert!(shown.contains("only A, CI_*"), "{shown}");
}
