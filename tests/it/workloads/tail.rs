//! `rekey events tail`: the log, each event once, byte for byte.

use super::Bench;
use crate::support::proxy::Ending;
use rustix::process::Signal;
use std::time::Duration;

/// The log as one page of the API has it.
async fn page(bench: &Bench) -> Vec<String> {
    let client = bench.replica.client(&bench.token);
    let answer = client.events("limit=1000").await.unwrap().expect(200);
    let text = answer.text();
    let events = text.strip_prefix(r#"{"events":["#).unwrap();
    let (events, _) = events.rsplit_once(r#"],"next":"#).unwrap();
    // An event is an object that ends in its ID of a version, and holds no such text elsewhere.
    let events = events.replace("},{\"actor\"", "}\n{\"actor\"");
    events.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn each_event_is_shown_once_across_cuts_and_byte_for_byte() {
    let bench = Bench::new();
    let id = bench.create("A_KEY", "one").await;
    bench.put(&id, "two").await;
    let mut tail = bench.start(&["events", "tail", "--follow", "--json"]);
    tail.until("two lines", || tail.stdout().len() == 2).await;
    bench.put(&id, "three").await;
    tail.until("three lines", || tail.stdout().len() == 3).await;
    bench.proxy.break_links(Ending::Reset);
    bench.put(&id, "four").await;
    tail.until("four lines", || tail.stdout().len() == 4).await;
    bench.proxy.refuse(Ending::Fin);
    bench.put(&id, "five").await;
    bench.alice.delete(&id).await.unwrap().expect(204);
    bench.proxy.pass();
    tail.until("six lines", || tail.stdout().len() >= 6).await;
    assert_eq!(tail.stdout(), page(&bench).await);
    tail.signal(Signal::TERM);
    assert_eq!(tail.code(), None);
}

#[tokio::test]
async fn whatever_breaks_the_log_is_shown_whole() {
    let mut bench = Bench::new();
    let id = bench.create("A_KEY", "one").await;
    let tail = bench.start(&["events", "tail", "--follow", "--json"]);
    for number in 0..60 {
        match number % 5 {
            0 => bench.proxy.break_links(Ending::Reset),
            1 => bench.proxy.refuse(Ending::Fin),
            2 => bench.proxy.stall(),
            3 if number == 33 => {
                bench.replica.kill_9();
                bench.serve_again();
            }
            _ => bench.proxy.pass(),
        }
        bench.put(&id, &format!("value {number}")).await;
        tokio::time::sleep(Duration::from_millis(number % 4 * 30)).await;
        bench.proxy.pass();
    }
    tail.until("61 lines", || tail.stdout().len() >= 61).await;
    assert_eq!(tail.stdout(), page(&bench).await);
}

#[tokio::test]
async fn without_follow_it_ends_with_the_log() {
    let bench = Bench::new();
    let id = bench.create("A_KEY", "one").await;
    bench.put(&id, "two").await;
    let mut tail = bench.start(&["events", "tail", "--after", "1-1"]);
    assert_eq!(tail.code(), Some(0));
    tail.until("a line", || !tail.stdout().is_empty()).await;
    let lines = tail.stdout();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("1-2  "), "{lines:?}");
    assert!(lines[0].contains("secret.updated  alice/A_KEY  version 2  by token "));

    let mut tail = bench.start(&["events", "tail", "--after", "9-9"]);
    assert_eq!(tail.code(), Some(1));
    tail.says("the log does not hold this cursor; the first event that it holds comes after 0-0")
        .await;
}

#[tokio::test]
async fn the_log_of_activity_says_who_got_the_values() {
    let bench = Bench::new();
    bench.create("A_KEY", "one").await;
    assert_eq!(bench.run(&["--secret", "A_KEY"], "true").code(), Some(0));
    let mut tail = bench.start(&["events", "tail", "--log", "activity"]);
    assert_eq!(tail.code(), Some(0));
    let id = bench.token.split('_').nth(1).unwrap();
    let line = format!("secret.accessed  alice/A_KEY  version 1  by service {id}");
    tail.until(&line, || {
        tail.stdout().iter().any(|shown| shown.contains(&line))
    })
    .await;
}
