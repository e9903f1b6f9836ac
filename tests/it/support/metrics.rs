//! What the service says of itself at `/metrics`.

use super::service::Client;
use std::str::FromStr;

/// The whole text.
pub(crate) async fn scrape(client: &Client) -> String {
    let answer = client.fetch("/metrics").await.unwrap().expect(200);
    let kind = answer.header("content-type").unwrap();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    answer.text()
}

/// The value of a sample; `None` when there is none of that name and labels.
pub(crate) fn sample<T: FromStr>(text: &str, series: &str) -> Option<T> {
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{series} ")))?;
    line.rsplit(' ').next()?.parse().ok()
}
