//! Rows of `api_tokens` that rekey did not write are no tokens.

use crate::support::fixture::{self, World};
use crate::support::metrics;
use crate::support::service::{Deployment, Replica};

/// The public part of a token.
fn id(token: &str) -> &str {
    token.get(6..22).unwrap()
}

/// A token of another installation: of the right form, and nothing that this one has ever seen.
fn foreign() -> String {
    Deployment::sqlite()
        .prepare()
        .token("mallory", &["secrets:resolve"])
}

/// BLAKE2b-256 of a token, as a literal of the database's SQL.
fn digest(deployment: &Deployment, token: &str) -> String {
    let digest = hex::encode(rekey::blake2b_256(&[token.as_bytes()]));
    if deployment.database().starts_with("sqlite:") {
        format!("x'{digest}'")
    } else {
        format!("'\\x{digest}'")
    }
}

async fn status(replica: &Replica, token: &str) -> u16 {
    let client = replica.client(token);
    client.events("limit=1").await.unwrap().status
}

#[tokio::test]
async fn a_row_that_somebody_inserts_is_no_token() {
    for world in World::both() {
        let deployment = &world.deployment;
        let token = foreign();
        let (own, digest) = (id(&token), digest(deployment, &token));
        // With no code, with zeros, and with the code of another row.
        for mac in ["digest", "mac"] {
            deployment.sql(&format!(
                "INSERT INTO api_tokens (id, digest, kind, name, acts_for, scopes, label, created_at, mac) \
                 SELECT '{own}', {digest}, 'service', 'mallory', '*', \
                 'secrets:resolve events:read', '', created_at, {mac} FROM api_tokens WHERE id = '{}'",
                id(&world.token)
            ));
            assert_eq!(status(&world.replica, &token).await, 401);
            deployment.sql(&format!("DELETE FROM api_tokens WHERE id = '{own}'"));
        }
        let log = world.replica.stderr();
        assert!(log.contains("was not written by rekey"), "{log}");
        assert!(!log.contains(&token), "{log}");
        let text = metrics::scrape(&world.anonymous()).await;
        let counted: Option<u64> = metrics::sample(&text, "rekey_forged_tokens_total");
        assert_eq!(counted, Some(2));
    }
}

#[tokio::test]
async fn a_row_that_somebody_changes_is_no_token() {
    for deployment in fixture::both() {
        let replica = deployment.serve();
        let other = deployment.service_token("audit", &["*"], &["events:read", "secrets:resolve"]);
        for column in [
            "digest",
            "kind",
            "name",
            "acts_for",
            "scopes",
            "label",
            "created_at",
            "expires_at",
            "revoked_at",
            "mac",
            "networks",
            "secrets",
        ] {
            let token = deployment.token("alice", &["events:read"]);
            let new = match column {
                "expires_at" => "9000000000000000".to_owned(),
                "revoked_at" => "1".to_owned(),
                "label" | "networks" | "secrets" => "'10.0.0.0/8'".to_owned(),
                column => format!(
                    "(SELECT {column} FROM api_tokens WHERE id = '{}')",
                    id(&other)
                ),
            };
            deployment.sql(&format!(
                "UPDATE api_tokens SET {column} = {new} WHERE id = '{}'",
                id(&token)
            ));
            assert_eq!(status(&replica, &token).await, 401, "{column}");
        }
        assert_eq!(status(&replica, &other).await, 200);
    }
}

#[tokio::test]
async fn a_limit_to_networks_can_t_be_taken_away() {
    for deployment in fixture::both() {
        let replica = deployment.serve();
        let create = "token create --owner alice --scope events:read --cidr 10.0.0.0/8";
        for wider in ["", "0.0.0.0/0", "10.0.0.0/8 127.0.0.1/32"] {
            let token = deployment.run(&create.split(' ').collect::<Vec<_>>());
            let token = token.trim_end();
            deployment.sql(&format!(
                "UPDATE api_tokens SET networks = '{wider}' WHERE id = '{}'",
                id(token)
            ));
            assert_eq!(status(&replica, token).await, 401, "{wider}");
        }
    }
}

#[tokio::test]
async fn a_revocation_and_an_expiry_can_t_be_taken_back() {
    for deployment in fixture::both() {
        let token = deployment.token("alice", &["events:read"]);
        deployment.run(&["token", "revoke", id(&token)]);
        let arguments = [
            "token",
            "create",
            "--owner",
            "alice",
            "--scope",
            "events:read",
        ];
        let expired = deployment.run(&[&arguments[..], &["--expires-in", "1s"]].concat());
        deployment.sql("UPDATE api_tokens SET revoked_at = NULL, expires_at = NULL");
        let replica = deployment.serve();
        for token in [token.as_str(), expired.trim_end()] {
            assert_eq!(status(&replica, token).await, 401);
        }
    }
}

#[tokio::test]
async fn commands_tell_rows_that_rekey_did_not_write_from_tokens() {
    for deployment in fixture::both() {
        let token = deployment.token("alice", &["events:read"]);
        let good = deployment.token("bob", &["events:read"]);
        let own = id(&token);
        deployment.sql(&format!(
            "UPDATE api_tokens SET scopes = 'secrets:resolve' WHERE id = '{own}'"
        ));
        let output = deployment.try_run(&["token", "list"]);
        let (list, talk) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        assert!(list.contains(id(&good)) && !list.contains(own), "{list}");
        assert!(talk.contains("1 more rows of api_tokens"), "{talk}");
        let output = deployment.try_run(&["token", "revoke", own]);
        assert_eq!(output.status.code(), Some(1));
        let talk = String::from_utf8(output.stderr).unwrap();
        assert!(talk.contains("not written by rekey"), "{talk}");
    }
}

/// Takes back all migrations from one on.
fn take_back(deployment: &Deployment, first: &str) {
    let states = deployment.run(&["migrate", "status", "--json"]);
    let states: serde_json::Value = serde_json::from_str(&states).unwrap();
    let names = states["migrations"].as_array().unwrap().iter();
    let steps = names.skip_while(|state| state["name"] != first).count();
    deployment.run(&["migrate", "down", &steps.to_string()]);
}

#[tokio::test]
async fn the_code_of_a_row_outlasts_a_column_that_came_later() {
    for deployment in fixture::both() {
        let token = deployment.token("alice", &["events:read"]);
        take_back(&deployment, "m20261127_000014_token_networks");
        deployment.run(&["migrate", "up"]);
        assert_eq!(status(&deployment.serve(), &token).await, 200);
    }
}

#[tokio::test]
async fn tokens_of_an_older_version_are_taken_over_once() {
    for deployment in fixture::both() {
        let token = deployment.token("alice", &["events:read"]);
        take_back(&deployment, "m20261127_000012_token_mac");
        let talk = deployment.try_run(&["migrate", "up"]).stderr;
        let talk = String::from_utf8(talk).unwrap();
        assert!(talk.contains("taken over"), "{talk}");
        let replica = deployment.serve();
        assert_eq!(status(&replica, &token).await, 200);
        drop(replica);
        // Not a second time: a row that comes later without a code is none.
        let sql = "UPDATE api_tokens SET scopes = 'secrets:resolve events:read'";
        deployment.sql(sql);
        deployment.run(&["migrate", "up"]);
        let replica = deployment.serve();
        assert_eq!(status(&replica, &token).await, 401);
    }
}
