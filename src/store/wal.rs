//! SQLite's write-ahead log is moved into the database beside the writer, so that a commit does not pay for it.

use std::{sync::Arc, time::Duration};

use sea_orm::ConnectionTrait as _;
use tokio::time::timeout;

use super::{StoreError, committer::Shared, pool::Pool, writer::Opener};
use crate::domain::{ErrorChain, Log};

/// How often what was committed is moved. Each move is short then, and slows the commits beside it little.
const EVERY: Duration = Duration::from_millis(50);
/// The pause after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(10);
/// The writer moves what is left itself, and begins the log anew, when it has so many pages (256 MiB): only if it
/// never rests while they are moved. All that come in that moment wait, so it must be rare.
pub(super) const WRITERS_LIMIT: &str = "PRAGMA wal_autocheckpoint = 65536";
/// How long the connection has to close.
const CLOSING: Duration = Duration::from_millis(500);

/// Moves what was committed until the committer stops. A passive checkpoint waits for nobody, and nobody waits
/// for it (<https://sqlite.org/pragma.html#pragma_wal_checkpoint>).
pub(super) async fn keep_short(opener: Opener, shared: Arc<Shared>) {
    let pool = match opener.pool().await {
        Ok(pool) => pool,
        Err(error) => {
            tracing::error!(error = %ErrorChain(&error), "the write-ahead log is left to the writer");
            return;
        }
    };
    let mut stopping = shared.stopping.subscribe();
    let positions = || Log::ALL.map(|log| *shared.committed(log).borrow());
    let mut moved = positions();
    let mut pause = EVERY;
    while timeout(pause, stopping.wait_for(|stopping| *stopping))
        .await
        .is_err()
    {
        let committed = positions();
        if committed == moved {
            continue;
        }
        pause = match checkpoint(&pool).await {
            Ok(()) => {
                moved = committed;
                EVERY
            }
            Err(error) => {
                tracing::warn!(
                    error = %ErrorChain(&error),
                    "the write-ahead log could not be moved into the database"
                );
                AFTER_FAILURE
            }
        };
    }
    pool.close(CLOSING).await;
}

async fn checkpoint(pool: &Pool) -> Result<(), StoreError> {
    let mut task = pool.spawn(async |db| {
        db.execute_unprepared("PRAGMA wal_checkpoint(PASSIVE)")
            .await?;
        Ok(())
    });
    task.finish().await
}
