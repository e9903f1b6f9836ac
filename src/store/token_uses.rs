//! When tokens were last used: for people alone, so no code covers it, and nothing depends on it.

use std::collections::HashMap;

use super::{
    StoreError,
    commit::{lock_statements, locks},
    dialect::{Bulk, Rows},
    writer::{Opener, Writer},
};
use crate::domain::{Log, Timestamp};

/// Notes uses, each at most once a minute: whichever replica was used.
///
/// # Cancel safety
/// As for a commit.
pub(super) async fn run(
    held: Option<Writer>,
    opener: Opener,
    uses: HashMap<String, Timestamp>,
) -> Result<(Writer, ()), StoreError> {
    // Whoever writes tokens holds that lock: so no two replicas wait for each other's rows.
    let first = lock_statements(locks(&opener, &[Log::Activity]));
    let begun = opener.begin(held, first.into()).await?;
    let rows = Rows::default()
        .texts("id", uses.keys().map(String::as_str))
        .numbers("used_at", uses.values().map(|time| time.micros()));
    let sql = "UPDATE api_tokens SET last_used_at = r.used_at FROM {rows} WHERE api_tokens.id = r.id \
               AND COALESCE(api_tokens.last_used_at, 0) < r.used_at - 60000000";
    begun
        .transaction
        .write(vec![Bulk::of_some(rows, sql)])
        .await?;
    Ok((begun.commit().await?, ()))
}
