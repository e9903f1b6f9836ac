//! `GET /api/v1/events` page by page.

use crate::support::dice::Dice;
use crate::support::events::{Logged, all, assert_chained, page, positions};
use crate::support::fixture::{World, batch, change, head};
use crate::support::ledger;
use crate::support::service::Client;
use serde_json::json;
use std::collections::BTreeSet;

/// Everything that a client sees of a log, in pages of random limits; each page's `next` is looked at.
async fn walk(client: &Client, query: &str, dice: &mut Dice) -> Vec<Logged> {
    let log_head = client.fetch("/api/v1/events/head").await.unwrap();
    let log_head = log_head.expect(200).json()["cursor"].clone();
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let limit = 1 + dice.below(17);
        let page = page(client, &format!("{query}&limit={limit}{after}")).await;
        let count = page.events.len();
        assert!(count <= limit);
        seen.extend(page.events);
        if count < limit {
            assert_eq!(log_head, page.next, "all was scanned");
            return seen;
        }
        assert_eq!(seen.last().unwrap().cursor(), page.next);
        after = format!("&after={}", page.next);
    }
}

async fn histories(client: &Client, secrets: &[String]) -> Vec<(u64, Vec<u8>)> {
    let mut histories = Vec::new();
    for secret in secrets {
        for (event, bytes) in ledger::history(client, secret).await {
            histories.push((event["position"].as_u64().unwrap(), bytes));
        }
    }
    histories.sort();
    histories
}

fn bytes(events: &[Logged]) -> Vec<(u64, Vec<u8>)> {
    let bytes = |logged: &Logged| (logged.position(), logged.bytes.clone());
    events.iter().map(bytes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_any_limit_give_the_whole_log_once_and_byte_for_byte() {
    let mut dice = Dice::new("pages of any limit");
    for world in World::both() {
        let World { alice, bob, .. } = &world;
        let of_alice = ledger::create(alice, 3).await;
        let of_bob = ledger::create(bob, 2).await;
        for round in 0..12 {
            change(alice, &of_alice, 1).await;
            change(bob, &of_bob, 1).await;
            let updates = of_alice.iter().map(|id| (&**id, format!("set-{round}")));
            let updates: Vec<_> = updates.collect();
            assert_eq!(batch(alice, &updates).await, 200);
        }
        let in_alice = histories(alice, &of_alice).await;
        let in_bob = histories(bob, &of_bob).await;
        assert_eq!((in_alice.len(), in_bob.len()), (75, 26));
        for _ in 0..5 {
            // To nobody is more shown than is theirs.
            assert_eq!(bytes(&walk(alice, "", &mut dice).await), in_alice);
            assert_eq!(bytes(&walk(bob, "", &mut dice).await), in_bob);
            let whole = walk(&world.auditor, "log=changes", &mut dice).await;
            assert_eq!(positions(&whole), (1..=101).collect::<Vec<_>>());
            let mut both = [in_alice.clone(), in_bob.clone()].concat();
            both.sort();
            assert_eq!(bytes(&whole), both);
            assert_chained(&whole);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_full_ends_at_its_last_event_and_any_other_at_the_head() {
    for world in World::both() {
        let World { alice, bob, .. } = &world;
        let empty = page(alice, "").await;
        assert_eq!((empty.events.len(), &*empty.next), (0, "0-0"));
        let of_bob = ledger::create(bob, 1).await;
        let of_alice = ledger::create(alice, 1).await;
        change(alice, &of_alice, 1).await;
        change(bob, &of_bob, 5).await;
        // Alice's are 2 and 3 of 8.
        for (query, positions_wanted, next) in [
            ("limit=1", &[2][..], "1-2"),
            ("limit=1&after=1-2", &[3], "1-3"),
            ("limit=1&after=1-3", &[], "1-8"),
            ("limit=2", &[2, 3], "1-3"),
            ("limit=3", &[2, 3], "1-8"),
            ("after=0-0", &[2, 3], "1-8"),
            ("after=1-1", &[2, 3], "1-8"),
            ("after=1-8", &[], "1-8"),
        ] {
            let page = page(alice, query).await;
            let got = (positions(&page.events), &*page.next);
            assert_eq!(got, (positions_wanted.to_vec(), next), "{query}");
        }
        // The 100 that a page has unless more are asked for.
        change(bob, &of_bob, 100).await;
        let usual = page(bob, "").await;
        assert_eq!((usual.events.len(), &*usual.next), (100, "1-102"));
        let quiet = page(alice, "after=1-3").await;
        assert_eq!((quiet.events.len(), &*quiet.next), (0, "1-108"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn types_may_be_chosen_and_what_is_passed_over_is_not_read_again() {
    for world in World::both() {
        let alice = &world.alice;
        let secrets = ledger::create(alice, 3).await;
        change(alice, &secrets, 2).await;
        alice.delete(&secrets[1]).await.unwrap().expect(204);
        let of = async |query: &str| positions(&all(alice, query).await);
        assert_eq!(of("type=secret.created").await, [1, 2, 3]);
        assert_eq!(of("type=secret.deleted").await, [10]);
        let two = "type=secret.deleted&type=secret.created";
        assert_eq!(of(two).await, [1, 2, 3, 10]);
        let repeated = "type=secret.deleted&type=secret.deleted";
        assert_eq!(of(repeated).await, [10]);
        assert_eq!(of("type=token.created").await, [0; 0]);
        let first = page(alice, "type=secret.updated&limit=6").await;
        assert_eq!(positions(&first.events), [4, 5, 6, 7, 8, 9]);
        assert_eq!(first.next, "1-9");
        let rest = page(alice, "type=secret.updated&limit=6&after=1-9").await;
        assert_eq!((rest.events.len(), &*rest.next), (0, "1-10"));
        // A secret that is gone still stands in the log.
        let gone = all(alice, "").await;
        let gone = gone.iter().filter(|e| e.text("secret_id") == secrets[1]);
        assert_eq!(gone.count(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sees_of_both_logs_what_was_granted_and_nothing_else() {
    for world in World::both() {
        let World { alice, bob, .. } = &world;
        let of_alice = ledger::create(alice, 1).await;
        let of_bob = ledger::create(bob, 1).await;
        for client in [alice, bob] {
            let body = json!({"names": ["SECRET_0"]});
            client.resolve(&body).await.unwrap().expect(200);
        }
        let service = |acts_for: &[&str]| {
            let granted = &["events:read"];
            let token = world.deployment.service_token("s", acts_for, granted);
            world.replica.client(&token)
        };
        let owners = async |client: &Client, log: &str| {
            let events = all(client, log).await;
            let owners = events.iter().map(|event| event.text("owner").to_owned());
            owners.collect::<BTreeSet<_>>()
        };
        let changes = "log=changes";
        for (client, seen) in [
            (alice, &["alice"][..]),
            (bob, &["bob"]),
            (&service(&["bob"]), &["bob"]),
            (&service(&["alice", "bob"]), &["alice", "bob"]),
            (&service(&["carol"]), &[]),
        ] {
            let seen: BTreeSet<_> = seen.iter().map(ToString::to_string).collect();
            assert_eq!(owners(client, changes).await, seen);
            assert_eq!(owners(client, "log=activity").await, seen);
        }
        // `*` sees those of nobody, too: a service's token has no owner.
        for client in [&world.auditor, &service(&["*"])] {
            let seen = ["", "alice", "bob"].map(str::to_owned).into();
            assert_eq!(owners(client, "log=activity").await, seen);
        }
        let activity = all(&world.auditor, "log=activity").await;
        assert_chained(&activity);
        let count = |kind| activity.iter().filter(|e| e.text("type") == kind).count();
        assert_eq!(
            (count("token.created"), count("secret.accessed")),
            (activity.len() - 2, 2)
        );
        let named = |event: &Logged| event.text("secret_id").to_owned();
        let accessed = all(alice, "log=activity&type=secret.accessed").await;
        assert_eq!(accessed.iter().map(named).collect::<Vec<_>>(), of_alice);
        let accessed = all(bob, "log=activity&type=secret.accessed").await;
        assert_eq!(accessed.iter().map(named).collect::<Vec<_>>(), of_bob);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_made_and_revoked_stand_in_the_activity_log_without_their_secret() {
    for world in World::both() {
        let before = all(&world.auditor, "log=activity").await.len();
        let token = world.deployment.token("carol", &["secrets:read"]);
        let id = token.split('_').nth(1).unwrap();
        let run = |arguments: &[&str]| world.deployment.try_run(arguments).status.success();
        assert!(run(&["token", "revoke", id]));
        assert!(!run(&["token", "revoke", id]), "it is revoked once");
        let activity = all(&world.auditor, "log=activity").await;
        assert_chained(&activity);
        let news = &activity[before..];
        let kinds: Vec<_> = news.iter().map(|event| event.text("type")).collect();
        assert_eq!(kinds, ["token.created", "token.revoked"]);
        for event in news {
            assert_eq!(event.text("token_id"), id);
            assert_eq!(event.text("owner"), "carol");
            let operator = json!({"id": null, "kind": "operator"});
            assert_eq!(event.event["actor"], operator);
            assert_eq!(event.event["request_id"], json!(null));
            assert_eq!(event.event["token_kind"], "owner");
            assert_eq!(event.event["scopes"], json!(["secrets:read"]));
            let secret = token.split('_').nth(2).unwrap();
            let text = String::from_utf8(event.bytes.clone()).unwrap();
            assert!(!text.contains(secret.get(..20).unwrap()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_answers_as_get_does_but_for_the_body() {
    for world in World::both() {
        let alice = &world.alice;
        ledger::create(alice, 2).await;
        for path in ["/api/v1/events?limit=1", "/api/v1/events/head"] {
            let got = alice.fetch(path).await.unwrap().expect(200);
            let heard = head(alice, path).await.expect(200);
            assert_eq!(heard.body, b"");
            assert_eq!(got.header("content-type"), heard.header("content-type"));
            let length = got.body.len().to_string();
            assert_eq!(heard.header("content-length"), Some(&*length));
        }
        let gone = head(alice, "/api/v1/events?after=9-9").await;
        assert_eq!((gone.status, gone.body.len()), (410, 0));
        assert_eq!(gone.header("rekey-log-head"), Some("1-2"));
        // A stream's headers come, and the connection is free again at once.
        let listening = alice.with("accept", "text/event-stream");
        for _ in 0..3 {
            let began = std::time::Instant::now();
            let heard = head(&listening, "/api/v1/events").await.expect(200);
            assert_eq!(heard.header("content-type"), Some("text/event-stream"));
            assert_eq!(heard.body, b"");
            assert!(began.elapsed().as_secs() < 5);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_what_comes_unless_a_stream_is_asked_for() {
    let world = World::sqlite();
    for (accept, media) in [
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/*", "application/json"),
        ("text/event-stream-x", "application/json"),
        (
            "application/json, text/event-stream;q=0",
            "application/json",
        ),
        ("text/event-stream ; q=0.000", "application/json"),
        ("text/event-stream", "text/event-stream"),
        (
            "text/html;q=0, Text/Event-Stream; q=0.1",
            "text/event-stream",
        ),
    ] {
        let asking = world.alice.with("accept", accept);
        let answer = head(&asking, "/api/v1/events").await.expect(200);
        assert_eq!(answer.header("content-type"), Some(media), "{accept}");
    }
}
