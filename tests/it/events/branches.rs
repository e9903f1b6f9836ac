//! What becomes of cursors when retention has cut the log, or the database was restored to an earlier point.
//! Both are brought about in the database by hand, while no service runs.

use crate::support::envelope::assert_error;
use crate::support::events::{Came, Logged, Stream, all_after, assert_chained, page, positions};
use crate::support::fixture::{World, change};
use crate::support::ledger;
use crate::support::postgres::psql;
use crate::support::service::{Answer, Client};
use serde_json::json;
use std::time::Duration;

/// A log of ten events of one secret, and the database's address.
async fn ten_events() -> (World, String, Vec<Logged>) {
    let world = World::postgres();
    let url = world.deployment.database().to_owned();
    let secrets = ledger::create(&world.alice, 1).await;
    change(&world.alice, &secrets, 9).await;
    let log = all_after(&world.alice, "0-0", "").await;
    assert_eq!(log.len(), 10);
    (world, url, log)
}

/// Ends the service, does that to its database, and starts it again.
fn meanwhile(world: &mut World, url: &str, sql: &str) {
    assert_eq!(world.replica.terminate(), Some(0));
    psql(url, sql);
    world.replica = world.deployment.serve();
    let base = world.replica.base();
    world.alice = world.alice.on(base);
    world.auditor = world.auditor.on(base);
}

fn assert_gone(answer: &Answer, first: &str, last: &str) {
    let detail = "The log does not have this position";
    assert_error(answer, 410, "position_gone_error", detail, &[]);
    assert_eq!(answer.header("rekey-log-first"), Some(first));
    assert_eq!(answer.header("rekey-log-head"), Some(last));
}

/// Asks for what is behind a cursor in each way that there is.
async fn ask_behind(client: &Client, cursor: &str) -> [Answer; 3] {
    let listening = client.with("accept", "text/event-stream");
    let resuming = listening.with("last-event-id", cursor);
    let query = format!("after={cursor}");
    [
        client.events(&query).await.unwrap(),
        listening.events(&query).await.unwrap(),
        resuming.events("").await.unwrap(),
    ]
}

async fn resolves(client: &Client, min_cursor: &str) -> Answer {
    let body = json!({"names": ["SECRET_0"], "min_cursor": min_cursor});
    client.resolve(&body).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_cut_the_log_begins_with_the_first_event_kept() {
    let (mut world, url, log) = ten_events().await;
    let cut = "UPDATE log_head h SET cut_epoch = e.epoch, cut_position = e.position, cut_hash = e.hash \
               FROM events e WHERE e.log = 'changes' AND e.position = 6 AND h.log = 'changes'; \
               DELETE FROM events WHERE log = 'changes' AND position <= 6";
    meanwhile(&mut world, &url, cut);
    let alice = &world.alice;
    let begins = page(alice, "").await;
    assert_eq!((begins.events, &*begins.next), (log[6..].to_vec(), "1-10"));
    for cursor in ["0-0", "1-1", "1-5", "2-6", "1-0"] {
        for answer in ask_behind(alice, cursor).await {
            assert_gone(&answer, "1-6", "1-10");
        }
    }
    // The cut itself is good.
    assert_eq!(all_after(alice, "1-6", "").await, log[6..]);
    let mut stream = Stream::open(alice, "", Some("1-6")).await;
    assert_eq!(stream.events(4).await, log[6..]);
    // Whatever stands at or below it has been reached long since.
    for reached in ["0-0", "1-1", "1-6", "1-7", "1-10"] {
        resolves(alice, reached).await.expect(200);
    }
    for bad in ["2-6", "2-1", "1-11"] {
        assert_gone(&resolves(alice, bad).await, "1-6", "1-10");
    }
    // The chain goes on from what was cut, also when nothing at all is left.
    let all_gone = cut.replace('6', "10");
    meanwhile(&mut world, &url, &all_gone);
    let alice = &world.alice;
    let empty = page(alice, "").await;
    assert_eq!((empty.events.len(), &*empty.next), (0, "1-10"));
    let head = alice.fetch("/api/v1/events/head").await.unwrap().json();
    assert_eq!(
        (&head["cursor"], &head["hash"]),
        (&json!("1-10"), &log[9].event["hash"])
    );
    let mut stream = Stream::open(alice, "", None).await;
    assert_eq!(stream.block().await.id, "1-10");
    change(alice, &[log[0].text("secret_id").to_owned()], 1).await;
    let next = stream.events(1).await;
    assert_chained(&[log[9..].to_vec(), next].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_cursors_of_the_common_part_hold_and_those_of_the_lost_branch_are_found_out()
 {
    let (mut world, url, before) = ten_events().await;
    // Back to the seventh event, and a higher epoch.
    let restore = "DELETE FROM events WHERE log = 'changes' AND position > 7; \
                   DELETE FROM secret_versions WHERE version > 7; \
                   UPDATE secrets SET version = 7, sequence = 7; \
                   UPDATE log_head SET epoch = 1776254400";
    meanwhile(&mut world, &url, restore);
    let alice = &world.alice;
    // The head carries the epoch of the last event: nothing has happened in the new one.
    assert_eq!(page(alice, "").await.next, "1-7");
    let mut stream = Stream::open(alice, "", None).await;
    assert_eq!(stream.block().await.id, "1-7");
    for answer in ask_behind(alice, "1-8").await {
        assert_gone(&answer, "0-0", "1-7");
    }
    change(alice, &[before[0].text("secret_id").to_owned()], 2).await;
    let after = all_after(alice, "1-7", "").await;
    let cursors: Vec<_> = after.iter().map(Logged::cursor).collect();
    assert_eq!(cursors, ["1776254400-8", "1776254400-9"]);
    assert_eq!(stream.events(2).await, after);
    let whole = all_after(alice, "0-0", "").await;
    assert_eq!(whole, [&before[..7], &after[..]].concat());
    assert_chained(&whole);
    for good in ["1-3", "1-7", "1776254400-8"] {
        let position: u64 = good.split_once('-').unwrap().1.parse().unwrap();
        let rest = page(alice, &format!("after={good}")).await;
        let expected: Vec<_> = (position + 1..=9).collect();
        assert_eq!(
            (positions(&rest.events), &*rest.next),
            (expected, "1776254400-9")
        );
        resolves(alice, good).await.expect(200);
    }
    for lost in ["1-8", "1-9", "1-10", "1776254400-7", "1776254400-10", "2-8"] {
        for answer in ask_behind(alice, lost).await {
            assert_gone(&answer, "0-0", "1776254400-9");
        }
        assert_gone(&resolves(alice, lost).await, "0-0", "1776254400-9");
    }
    // Quiet is quiet: whoever resumes at the new head hears nothing twice.
    let mut resumed = Stream::open(alice, "", Some("1776254400-9")).await;
    assert_eq!(resumed.block().await.id, "1776254400-9");
    assert_eq!(
        resumed.next(Duration::from_millis(400)).await,
        Came::Nothing
    );
}
