//! How long tokens last, where they may be used from, and how all tokens of somebody are revoked at once.

use crate::support::events::all;
use crate::support::fixture::{self, World};
use crate::support::service::Deployment;
use chrono::{DateTime, TimeDelta};
use serde_json::{Value, json};

const DAYS: i64 = 90;

/// The public part of a token.
fn id(token: &str) -> &str {
    token.get(6..22).unwrap()
}

fn create(deployment: &Deployment, more: &[&str]) -> String {
    let arguments = ["token", "create", "--scope", "secrets:read"];
    let token = deployment.run(&[&arguments, more].concat());
    token.trim_end().to_owned()
}

/// The token of an ID, as the list shows it.
fn shown(deployment: &Deployment, id: &str) -> Value {
    let list = deployment.run(&["token", "list", "--json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let tokens = list["tokens"].as_array().unwrap();
    tokens.iter().find(|one| one["id"] == id).unwrap().clone()
}

#[test]
fn a_token_lasts_ninety_days_unless_its_creator_says_otherwise() {
    let deployment = Deployment::sqlite().prepare();
    let time = |field: &Value| DateTime::parse_from_rfc3339(field.as_str().unwrap()).unwrap();
    let token = create(&deployment, &["--owner", "alice"]);
    let token = shown(&deployment, id(&token));
    let lasts = time(&token["expires_at"]) - time(&token["created_at"]);
    assert_eq!(lasts, TimeDelta::days(DAYS));
    let endless = create(&deployment, &["--owner", "alice", "--expires-in", "never"]);
    assert_eq!(shown(&deployment, id(&endless))["expires_at"], Value::Null);
    // The embedded default's own.
    let deployment = Deployment::embedded();
    drop(deployment.serve());
    let first = deployment.embedded_token();
    assert_eq!(shown(&deployment, id(&first))["expires_at"], Value::Null);
}

#[tokio::test]
async fn all_tokens_of_an_owner_or_a_service_are_revoked_at_once() {
    for deployment in fixture::both() {
        let world = World::of(deployment);
        let deployment = &world.deployment;
        let second = deployment.token("alice", &["secrets:read"]);
        let service = deployment.service_token("deploy", &["alice"], &["events:read"]);
        let printed = deployment.run(&["token", "revoke", "--owner", "alice", "--json"]);
        let revoked: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(revoked, json!({"revoked": [id(&world.token), id(&second)]}));
        // Each is an event of its own, and no other token is touched.
        let events = all(&world.auditor, "log=activity&type=token.revoked").await;
        let told: Vec<_> = events.iter().map(|event| event.text("token_id")).collect();
        assert_eq!(told, [id(&world.token), id(&second)]);
        let replica = deployment.serve();
        for token in [&world.token, &second] {
            let answer = replica.client(token).list().await.unwrap();
            assert_eq!(answer.status, 401);
        }
        world.bob.list().await.unwrap().expect(200);
        let client = replica.client(&service);
        client.events("limit=1").await.unwrap().expect(200);
        // There is nothing left to revoke.
        let again = deployment.try_run(&["token", "revoke", "--owner", "alice"]);
        assert_eq!(again.status.code(), Some(1));
        let printed = deployment.run(&["token", "revoke", "--service", "deploy"]);
        assert_eq!(printed, format!("{}\n", id(&service)));
        let replica = deployment.serve();
        let client = replica.client(&service);
        client.events("limit=1").await.unwrap().expect(401);
    }
}

#[test]
fn one_kind_of_revocation_is_asked_for_at_a_time() {
    let deployment = Deployment::sqlite().prepare();
    for wrong in [
        &["token", "revoke"][..],
        &["token", "revoke", "T", "--owner", "alice"],
        &["token", "revoke", "--owner", "alice", "--service", "s"],
        &[
            "token",
            "create",
            "--owner",
            "a",
            "--scope",
            "secrets:read",
            "--cidr",
            "10.0.0.1/8",
        ],
    ] {
        assert_eq!(
            deployment.try_run(wrong).status.code(),
            Some(2),
            "{wrong:?}"
        );
    }
}

#[tokio::test]
async fn a_token_with_networks_works_from_nowhere_else() {
    let world = World::with(&[("HTTP__TRUSTED_PROXIES", "127.0.0.1")]);
    let limited = [
        "--owner",
        "alice",
        "--cidr",
        "10.0.0.0/8",
        "--cidr",
        "2001:db8::/32",
    ];
    let token = create(&world.deployment, &limited);
    let networks = &shown(&world.deployment, id(&token))["cidr"];
    assert_eq!(*networks, json!(["10.0.0.0/8", "2001:db8::/32"]));
    let client = world.replica.client(&token);
    let from = |address| client.with("x-forwarded-for", address);
    // Before it was ever good, while it is remembered, and to one that the service does not know.
    let unknown = world.replica.client("rekey_nonsense").list().await.unwrap();
    for _ in 0..2 {
        for outside in ["11.0.0.1", "2001:db9::1", "junk", "10.0.0.1, 11.0.0.1"] {
            let refused = from(outside).list().await.unwrap().expect(401);
            assert_eq!(refused.text(), unknown.text());
        }
        client.list().await.unwrap().expect(401);
        for inside in ["10.1.2.3", "2001:db8::7", "11.0.0.1, 10.0.0.9"] {
            from(inside).list().await.unwrap().expect(200);
        }
    }
    // Nobody else can say where a caller is.
    let direct = World::with(&[]);
    let token = create(
        &direct.deployment,
        &["--owner", "alice", "--cidr", "10.0.0.0/8"],
    );
    let client = direct.replica.client(&token);
    let claimed = client.with("x-forwarded-for", "10.1.2.3");
    claimed.list().await.unwrap().expect(401);
    let token = create(
        &direct.deployment,
        &["--owner", "alice", "--cidr", "127.0.0.1"],
    );
    let client = direct.replica.client(&token);
    client.list().await.unwrap().expect(200);
}
