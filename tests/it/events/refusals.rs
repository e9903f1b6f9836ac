//! What is answered to a query that is malformed, to a cursor that is not good, and without the scope.

use crate::support::envelope::{ENUM, INT, VALUE, assert_422, assert_error};
use crate::support::events::Stream;
use crate::support::fixture::World;
use crate::support::ledger;
use crate::support::service::{Answer, Client};

fn assert_gone(answer: &Answer, log_head: &str) {
    let detail = "The log does not have this position";
    assert_error(answer, 410, "position_gone_error", detail, &[]);
    assert_eq!(answer.header("rekey-log-first"), Some("0-0"));
    assert_eq!(answer.header("rekey-log-head"), Some(log_head));
}

const AFTER: &str = r#"["query","after"]"#;
const LIMIT: &str = r#"["query","limit"]"#;
const TYPE: &str = r#"["query","type"]"#;
const LOG: &str = r#"["query","log"]"#;
const LAST: &str = r#"["header","Last-Event-ID"]"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_query_is_named_parameter_by_parameter() {
    let world = World::sqlite();
    let alice = &world.alice;
    for (query, items) in [
        ("after=", &[(AFTER, VALUE)][..]),
        ("after=7", &[(AFTER, VALUE)]),
        ("after=1-", &[(AFTER, VALUE)]),
        ("after=-1-7", &[(AFTER, VALUE)]),
        ("after=01-7", &[(AFTER, VALUE)]),
        ("after=1-07", &[(AFTER, VALUE)]),
        ("after=1-7-1", &[(AFTER, VALUE)]),
        ("after=%2B1-7", &[(AFTER, VALUE)]),
        ("after=1-9223372036854775808", &[(AFTER, VALUE)]),
        ("after=0-0&after=0-0", &[(AFTER, VALUE)]),
        ("limit=0", &[(LIMIT, VALUE)]),
        ("limit=1001", &[(LIMIT, VALUE)]),
        ("limit=-1", &[(LIMIT, INT)]),
        ("limit=1.5", &[(LIMIT, INT)]),
        ("limit=", &[(LIMIT, INT)]),
        ("limit=1&limit=1", &[(LIMIT, VALUE)]),
        ("type=", &[(TYPE, ENUM)]),
        ("type=secret.*", &[(TYPE, ENUM)]),
        ("type=Secret.created", &[(TYPE, ENUM)]),
        ("type=secret.created&type=x", &[(TYPE, ENUM)]),
        ("log=", &[(LOG, ENUM)]),
        ("log=Changes", &[(LOG, ENUM)]),
        ("log=changes&log=changes", &[(LOG, VALUE)]),
        (
            "type=x&limit=x&after=x&log=x",
            &[(LOG, ENUM), (AFTER, VALUE), (LIMIT, INT), (TYPE, ENUM)],
        ),
    ] {
        // A page and a stream are asked for by one query.
        let listening = alice.with("accept", "text/event-stream");
        for client in [alice, &listening] {
            assert_422(&client.events(query).await.unwrap(), items);
        }
    }
    let answer = alice.fetch("/api/v1/events/head?log=x").await.unwrap();
    assert_422(&answer, &[(LOG, ENUM)]);
    for last in ["x", "1-", "1-7 8", "1-7,1-8"] {
        let listening = alice.with("accept", "text/event-stream");
        let answer = listening.with("last-event-id", last).events("").await;
        assert_422(&answer.unwrap(), &[(LAST, VALUE)]);
    }
    let twice = alice.with("accept", "text/event-stream");
    let twice = twice.request(reqwest::Method::GET, "/api/v1/events");
    let twice = twice.header("last-event-id", "0-0");
    let twice = alice.send(twice.header("last-event-id", "0-0")).await;
    assert_422(&twice.unwrap(), &[(LAST, VALUE)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_last_event_id_is_none() {
    let world = World::sqlite();
    let alice = &world.alice;
    ledger::create(alice, 3).await;
    for (query, start) in [("after=1-1", "1-1"), ("", "1-3")] {
        let mut stream = Stream::open(alice, query, Some("")).await;
        assert_eq!(stream.block().await.id, start);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_not_good_is_gone_and_says_what_is_there() {
    for world in World::both() {
        let alice = &world.alice;
        let listening = alice.with("accept", "text/event-stream");
        // Each log has its own: the one of activity holds three tokens.
        assert_gone(&alice.events("after=1-1").await.unwrap(), "0-0");
        ledger::create(alice, 2).await;
        for (query, log_head) in [
            ("after=1-3", "1-2"),
            ("after=1-9223372036854775807", "1-2"),
            ("after=0-1", "1-2"),
            ("after=2-1", "1-2"),
            ("after=1-0", "1-2"),
            ("after=2-0", "1-2"),
            ("after=1-4&log=activity", "1-3"),
        ] {
            assert_gone(&alice.events(query).await.unwrap(), log_head);
            assert_gone(&listening.events(query).await.unwrap(), log_head);
        }
        for last in ["1-3", "0-1", "1-0"] {
            let resuming = listening.with("last-event-id", last);
            assert_gone(&resuming.events("after=1-1").await.unwrap(), "1-2");
            // It belongs to streams alone.
            let page = alice.with("last-event-id", last);
            page.events("after=1-1").await.unwrap().expect(200);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_scope_nothing_of_the_log_is_shown() {
    let world = World::sqlite();
    let scopes = ["secrets:read", "secrets:write", "secrets:resolve"];
    let owner = world.deployment.token("alice", &scopes);
    let service = world.deployment.service_token("s", &["*"], &scopes);
    let forbidden = async |client: &Client, path: &str| {
        let answer = client.fetch(path).await.unwrap();
        assert_error(&answer, 403, "permission_error", "Access forbidden", &[]);
    };
    for token in [owner, service] {
        let client = world.replica.client(&token);
        let listening = client.with("accept", "text/event-stream");
        for path in [
            "/api/v1/events",
            "/api/v1/events?log=x",
            "/api/v1/events/head",
        ] {
            forbidden(&client, path).await;
            forbidden(&listening, path).await;
        }
    }
}
