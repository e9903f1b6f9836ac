//! What `resolve` refuses, to the byte; and that nothing is handed out or recorded then.

use crate::support::envelope::{
    LONG, MISSING, PATTERN, SHORT, STRING, UUID, VALUE, assert_422, assert_error, assert_missing,
};
use crate::support::events::all;
use crate::support::fixture::{ABSENT, World};
use crate::support::ledger;
use reqwest::Method;
use serde_json::{Value, json};

const OWNER: &str = r#"["body","owner"]"#;
const NAMES: &str = r#"["body","names"]"#;
const IDS: &str = r#"["body","ids"]"#;
const MIN: &str = r#"["body","min_cursor"]"#;

/// A place, and what is wrong there.
type Item = (&'static str, [&'static str; 2]);

fn numbered(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("SECRET_{number}"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_are_handed_out_and_no_more() {
    let world = World::sqlite();
    let alice = &world.alice;
    ledger::create(alice, 101).await;
    for count in [101, 150] {
        let answer = alice.resolve(&json!({"names": numbered(count)})).await;
        assert_422(&answer.unwrap(), &[(NAMES, VALUE)]);
    }
    let hundred = alice.resolve(&json!({"names": numbered(100)})).await;
    assert_eq!(
        hundred.unwrap().expect(200).json()["secrets"][99]["name"],
        "SECRET_99"
    );
    let accesses = all(alice, "log=activity&type=secret.accessed").await;
    assert_eq!(accesses.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_rule_is_named_with_its_place() {
    let world = World::sqlite();
    let alice = &world.alice;
    ledger::create(alice, 1).await;
    let first = r#"["body","names",0]"#;
    let second = r#"["body","names",1]"#;
    let upper = ABSENT.to_uppercase();
    let cases: [(Value, &[Item]); 22] = [
        (json!({}), &[(NAMES, MISSING)]),
        (json!({"names": null, "ids": null}), &[(NAMES, MISSING)]),
        (json!({"names": ["A"], "ids": [ABSENT]}), &[(IDS, VALUE)]),
        (json!({"names": []}), &[(NAMES, VALUE)]),
        (json!({"ids": []}), &[(IDS, VALUE)]),
        (json!({"names": "A"}), &[(NAMES, VALUE)]),
        (json!({"names": {"0": "A"}}), &[(NAMES, VALUE)]),
        (json!({"names": ["A", "a"]}), &[(second, VALUE)]),
        (
            json!({"ids": [ABSENT, upper]}),
            &[(r#"["body","ids",1]"#, VALUE)],
        ),
        (
            json!({"names": [1, ["A"]]}),
            &[(first, STRING), (second, STRING)],
        ),
        (
            json!({"names": [null, {}]}),
            &[(first, STRING), (second, STRING)],
        ),
        (
            json!({"names": ["A-B", ""]}),
            &[(first, PATTERN), (second, SHORT)],
        ),
        (json!({"names": ["A".repeat(256)]}), &[(first, LONG)]),
        (json!({"ids": ["x"]}), &[(r#"["body","ids",0]"#, UUID)]),
        (json!({"names": ["A"], "owner": 1}), &[(OWNER, STRING)]),
        (json!({"names": ["A"], "owner": ""}), &[(OWNER, SHORT)]),
        (
            json!({"names": ["A"], "owner": "x".repeat(65)}),
            &[(OWNER, LONG)],
        ),
        (json!({"names": ["A"], "min_cursor": 1}), &[(MIN, STRING)]),
        (json!({"names": ["A"], "min_cursor": ""}), &[(MIN, VALUE)]),
        (json!({"names": ["A"], "min_cursor": "1"}), &[(MIN, VALUE)]),
        (
            json!({"names": ["A"], "min_cursor": "1-01"}),
            &[(MIN, VALUE)],
        ),
        (
            json!({"owner": "", "names": ["-"], "min_cursor": "x"}),
            &[(OWNER, SHORT), (first, PATTERN), (MIN, VALUE)],
        ),
    ];
    for (body, items) in cases {
        assert_422(&alice.resolve(&body).await.unwrap(), items);
    }
    let accesses = all(alice, "log=activity&type=secret.accessed").await;
    assert_eq!(accesses.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_absent_foreign_or_not_granted_has_one_same_answer() {
    for world in World::both() {
        let mine = ledger::create(&world.alice, 1).await;
        let of_bob = ledger::create(&world.bob, 2).await;
        let gone = world
            .alice
            .create("GONE", "x")
            .await
            .unwrap()
            .expect(201)
            .id();
        world.alice.delete(&gone).await.unwrap().expect(204);
        for body in [
            json!({"names": ["ABSENT"]}),
            json!({"names": ["SECRET_0", "SECRET_1"]}),
            json!({"names": ["GONE"]}),
            json!({"ids": [ABSENT]}),
            json!({"ids": [gone]}),
            json!({"ids": [of_bob[0]]}),
            json!({"ids": [mine[0], of_bob[0]]}),
            json!({"owner": "bob", "ids": [of_bob[0]]}),
            json!({"owner": "bob", "names": ["SECRET_0"]}),
        ] {
            assert_missing(&world.alice.resolve(&body).await.unwrap());
        }
        let scopes = &["secrets:resolve"];
        let token = world.deployment.service_token("s", &["alice"], scopes);
        let service = world.replica.client(&token);
        for body in [
            json!({"owner": "bob", "names": ["SECRET_0"]}),
            json!({"owner": "Alice", "names": ["SECRET_0"]}),
            json!({"owner": "*", "names": ["SECRET_0"]}),
            json!({"owner": "alice", "ids": [of_bob[0]]}),
        ] {
            assert_missing(&service.resolve(&body).await.unwrap());
        }
        for body in [
            json!({"names": ["SECRET_0"]}),
            json!({"names": ["SECRET_0"], "owner": null}),
        ] {
            assert_422(&service.resolve(&body).await.unwrap(), &[(OWNER, MISSING)]);
        }
        let accesses = all(&world.auditor, "log=activity&type=secret.accessed").await;
        assert_eq!(accesses.len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_the_log_has_not_reached_is_gone_and_one_that_it_has_is_not() {
    for world in World::both() {
        let alice = &world.alice;
        ledger::create(alice, 2).await;
        let resolve = async |cursor: &str| {
            let body = json!({"names": ["SECRET_0"], "min_cursor": cursor});
            alice.resolve(&body).await.unwrap()
        };
        for good in ["0-0", "1-1", "1-2"] {
            let answer = resolve(good).await.expect(200).json();
            assert_eq!(answer["cursor"], "1-2");
        }
        for bad in ["1-3", "0-1", "2-2", "1-0", "1-9223372036854775807"] {
            let answer = resolve(bad).await;
            let detail = "The log does not have this position";
            assert_error(&answer, 410, "position_gone_error", detail, &[]);
            assert_eq!(answer.header("rekey-log-first"), Some("0-0"));
            assert_eq!(answer.header("rekey-log-head"), Some("1-2"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_takes_its_own_scope_a_post_and_json() {
    let world = World::sqlite();
    ledger::create(&world.alice, 1).await;
    let scopes = ["secrets:read", "secrets:write", "events:read"];
    for token in [
        world.deployment.token("alice", &scopes),
        world.deployment.service_token("s", &["*"], &scopes),
    ] {
        let client = world.replica.client(&token);
        let body = json!({"owner": "alice", "names": ["SECRET_0"]});
        let answer = client.resolve(&body).await.unwrap();
        assert_error(&answer, 403, "permission_error", "Access forbidden", &[]);
    }
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
        let path = "/api/v1/secrets/resolve";
        let answer = world.alice.send(world.alice.request(method, path)).await;
        let answer = answer.unwrap().expect(405);
        assert_eq!(answer.header("allow"), Some("POST"));
    }
    let detail = "The body is not a JSON object";
    let request = world.alice.request(Method::POST, "/api/v1/secrets/resolve");
    let request = request.header("content-type", "application/json");
    let answer = world.alice.send(request.body("[]")).await.unwrap();
    assert_error(&answer, 400, "invalid_request_error", detail, &[]);
}
