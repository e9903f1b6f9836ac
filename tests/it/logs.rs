//! The log in JSON, as a container writes it.

use crate::support::fixture;
use crate::support::port;
use serde_json::Value;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_line_holds_all_causes_and_no_other_line_says_the_same() {
    let address = format!("127.0.0.1:{}", port::free());
    // Nobody listens there.
    let deployment = fixture::sqlite()
        .broker(&format!("amqp://{address}"), "secrets.events")
        .environment("RUST_LOG", "trace");
    let mut replica = deployment.serve();
    let message = "the relay can't publish; it tries until it can";
    let end = Instant::now() + SOON;
    while replica.stderr().matches(message).count() < 2 {
        assert!(Instant::now() < end, "{}", replica.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Some more attempts.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let code = tokio::task::block_in_place(|| replica.terminate());
    assert_eq!(code, Some(0));
    let said = replica.stderr();
    let lines = said.lines().map(serde_json::from_str);
    let lines: Vec<Value> = lines.collect::<Result<_, _>>().unwrap();
    let refused = |line: &&Value| line.to_string().contains("refused");
    let refused: Vec<_> = lines.iter().filter(refused).collect();
    for line in &refused {
        let error = line["error"].as_str().unwrap();
        assert!(
            error.starts_with("the broker refused, or the connection broke: "),
            "{error}"
        );
        assert_eq!(error.matches("Connection refused").count(), 1, "{error}");
        assert_eq!(line["message"], message);
    }
    // One for each log.
    assert_eq!(refused.len(), 2, "{said}");
}
