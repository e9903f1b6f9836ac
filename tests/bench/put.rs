//! The load of `scripts/bench`: PUTs over keep-alive connections, and their rate and latencies.
//!
//! Usage: `put URL TOKEN CLIENTS SECRETS SECONDS`. It creates what is missing of `SECRETS` secrets, then
//! each client updates one after the other as fast as it is answered. Prints one line:
//! `<PUTs/s> <p50 ms> <p99 ms>`. Ends with an error when a PUT is answered by anything but 200.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking and prints its result"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

struct Load {
    client: Client,
    url: String,
    token: String,
}

impl Load {
    async fn create(&self, number: usize) -> String {
        let name = format!("BENCH_{number}_{}", uuid::Uuid::new_v4().simple());
        let answer = self
            .client
            .post(format!("{}/api/v1/user/secrets", self.url))
            .bearer_auth(&self.token)
            .json(&json!({"name": name, "value": "sk-benchmark-0123456789abcdef"}))
            .send()
            .await
            .expect("the service answers");
        assert_eq!(answer.status(), StatusCode::CREATED);
        let secret: Value = answer.json().await.expect("JSON");
        secret["id"].as_str().expect("an ID").to_owned()
    }

    async fn update(&self, id: &str, number: usize) -> Duration {
        let began = Instant::now();
        let answer = self
            .client
            .put(format!("{}/api/v1/user/secrets/{id}", self.url))
            .bearer_auth(&self.token)
            .json(&json!({"value": format!("sk-benchmark-{number:020}")}))
            .send()
            .await
            .expect("the service answers");
        let status = answer.status();
        answer.bytes().await.expect("a whole answer");
        assert_eq!(status, StatusCode::OK);
        began.elapsed()
    }
}

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let [url, token, clients, secrets, seconds] = words.as_slice() else {
        println!("usage: put URL TOKEN CLIENTS SECRETS SECONDS (scripts/bench calls it)");
        return;
    };
    let number = |word: &str| word.parse::<usize>().expect("a number");
    let (clients, secrets, seconds) = (number(clients), number(secrets), number(seconds));
    let client = Client::builder().no_proxy().build().expect("a client");
    let load = Arc::new(Load {
        client,
        url: url.clone(),
        token: token.clone(),
    });
    let mut ids = Vec::new();
    for n in 0..secrets {
        ids.push(load.create(n).await);
    }
    let ids = Arc::new(ids);
    let began = Instant::now();
    let until = began + Duration::from_secs(u64::try_from(seconds).expect("few seconds"));
    let mut tasks = Vec::new();
    for task in 0..clients {
        let (load, ids) = (Arc::clone(&load), Arc::clone(&ids));
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < until {
                let id = &ids[(task + times.len() * clients) % ids.len()];
                times.push(load.update(id, times.len()).await);
            }
            times
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("a client ends"));
    }
    let elapsed = began.elapsed();
    times.sort();
    let share = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    let micros =
        |time: Duration| f64::from(u32::try_from(time.as_micros()).unwrap_or(u32::MAX)) / 1000.0;
    let rate = f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX)) / elapsed.as_secs_f64();
    println!(
        "{rate:.0} {:.2} {:.2}",
        micros(share(50)),
        micros(share(99))
    );
}
