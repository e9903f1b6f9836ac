//! One caller's open streams are bounded, and so is what it asks of each.

use crate::support::envelope::assert_error;
use crate::support::events::Stream;
use crate::support::fixture::{self, World, head};
use crate::support::ledger;
use reqwest::Method;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_too_many_is_refused_until_another_one_ends() {
    let deployment = fixture::sqlite().set("LIMITS__STREAMS_PER_CALLER", "2");
    let world = World::of(deployment);
    let first = Stream::open(&world.alice, "", None).await;
    let _second = Stream::open(&world.alice, "log=activity", None).await;
    let request = world.alice.request(Method::GET, "/api/v1/events");
    let request = request.header("accept", "text/event-stream");
    let answer = world.alice.send(request).await.unwrap();
    assert_error(&answer, 429, "rate_limit_error", "Too many requests", &[]);
    assert_eq!(answer.header("retry-after"), Some("1"));
    // Pages and heads are no streams, and others have their own.
    world.alice.events("").await.unwrap().expect(200);
    let asked = world.alice.with("accept", "text/event-stream");
    assert_eq!(head(&asked, "/api/v1/events").await.status, 200);
    let _other = Stream::open(&world.bob, "", None).await;
    // Nothing happens on it: its end is seen all the same.
    drop(first);
    let end = Instant::now() + SOON;
    while Stream::try_open(&world.alice, "", None).await.is_none() {
        assert!(Instant::now() < end, "the place of a stream that ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_is_named_two_thousand_times_counts_once() {
    let world = World::sqlite();
    let secrets = ledger::create(&world.alice, 3).await;
    let put = world.alice.put(&secrets[0], "sk-next").await;
    put.unwrap().expect(200);
    let types = "type=secret.updated&".repeat(2000);
    let page = world.alice.events(&types).await.unwrap().expect(200);
    assert_eq!(page.json()["events"].as_array().unwrap().len(), 1);
    let mut stream = Stream::open(&world.alice, &format!("after=0-0&{types}"), None).await;
    let events = stream.events(1).await;
    assert_eq!(events.len(), 1);
}
