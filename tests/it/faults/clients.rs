//! Clients that go away in the middle.

use crate::support::dice::Dice;
use crate::support::fixture::{self, SCOPES};
use crate::support::ledger::{self, Attempt, Told};
use crate::support::service::Deployment;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const RESETS: usize = 500;

/// A PUT that is reset after so many bytes; after the whole of it, once `wait` is over.
async fn reset(base: &str, request: &[u8], bytes: usize, wait: Duration) {
    let address = base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&request[..bytes]).await.unwrap();
    tokio::time::sleep(wait).await;
    stream.set_zero_linger().unwrap();
}

fn request(token: &str, secret: &str, request_id: &str) -> (String, usize) {
    let body = format!("{{\"value\":\"sk-{request_id}-{}\"}}", "x".repeat(200));
    let head = format!(
        "PUT /api/v1/user/secrets/{secret} HTTP/1.1\r\nhost: localhost\r\nx-request-id: {request_id}\r\n\
         authorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let length = head.len();
    (head + &body, length)
}

async fn five_hundred_resets(deployment: Deployment, name: &str) {
    let _heavy = fixture::heavy().await;
    let mut dice = Dice::new(name);
    let token = deployment.token("alice", SCOPES);
    let mut replica = deployment.serve();
    let secrets = ledger::create(&replica.client(&token), 3).await;
    let mut attempts = Vec::new();
    for number in 0..RESETS {
        let request_id = uuid::Uuid::new_v4().to_string();
        let secret = secrets[number % secrets.len()].clone();
        let (text, head) = request(&token, &secret, &request_id);
        let bytes = match number % 3 {
            0 => dice.below(head),
            1 => head + dice.below(text.len() - head),
            _ => text.len(),
        };
        let wait = Duration::from_micros(dice.below(4000) as u64);
        reset(replica.base(), text.as_bytes(), bytes, wait).await;
        // A part of a PUT is none.
        let told = if bytes < text.len() {
            Told::NotApplied(0)
        } else {
            Told::Unknown
        };
        attempts.push(Attempt {
            request_id,
            secret,
            told,
            answered: false,
        });
    }
    let client = replica.client(&token);
    attempts.push(ledger::put(&client, &secrets[0]).await);
    // The drain waits for whatever still runs.
    assert_eq!(replica.terminate(), Some(0));
    let replica = deployment.serve();
    let count = ledger::settle(&replica.client(&token), &secrets, &attempts).await;
    assert_eq!(count.acknowledged, 1, "{count:?}");
    assert!(count.standing > 0 && count.refused > 300, "{count:?}");
    eprintln!("{name}: {count:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_resets_leaves_a_whole_change_or_nothing_on_sqlite() {
    five_hundred_resets(fixture::sqlite(), "resets, SQLite").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_resets_leaves_a_whole_change_or_nothing_on_postgresql() {
    five_hundred_resets(fixture::postgres(), "resets, PostgreSQL").await;
}
