//! Time passes for a log: its events grow old, and retention removes them.

use super::events::{Logged, page};
use super::service::{Client, Deployment};
use std::time::{Duration, Instant};

/// Makes the first `count` events of `changes` a hundred days old.
pub(crate) fn age(deployment: &Deployment, count: u64) {
    let sql = format!(
        "UPDATE events SET occurred_at = occurred_at - 8640000000000 \
         WHERE log = 'changes' AND position <= {count}"
    );
    deployment.sql(&sql);
}

/// Waits until this position is the first that the log `changes` holds.
pub(crate) async fn kept_from(client: &Client, first: u64) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let page = page(client, "limit=1").await;
        let kept = page.events.first().map(Logged::position);
        if kept == Some(first) {
            return;
        }
        assert!(Instant::now() < end, "kept from {kept:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
