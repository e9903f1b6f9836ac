//! Writes one log to a file that can be verified without anything else: its events, then the checkpoint of the last one.
//! Events of a branch that a restored service has abandoned stand before the event that took their place, marked.

use std::{
    collections::VecDeque,
    io::{self, Write},
    time::Duration,
};

use super::{
    chain::{ABANDONED, Bad, Chain},
    event::Link,
    store::{AuditStore, Walk},
    verify::await_mark,
};
use crate::{
    client::{ApiClient, ClientError},
    domain::{Cursor, Log},
    store::StoreError,
};

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// The audit database can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The service gives no checkpoint.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The file can't be written.
    #[error("cannot write the export")]
    Write(#[from] io::Error),
    /// The consumer did not store everything in time.
    #[error(
        "the audit database does not have the log through {0} yet: is `rekey audit serve` running?"
    )]
    Lagging(Cursor),
    /// The log's first events were never stored, so no file could prove itself.
    #[error(
        "the service had removed events through {0} before the audit consumer first ran, and an export must begin with the first event"
    )]
    Headless(Cursor),
    /// The stored log does not verify.
    #[error("the stored log does not verify")]
    Bad(#[from] Bad),
}

/// What an export is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExportSource<'a> {
    /// The stored events.
    pub(crate) store: &'a AuditStore,
    /// The service, which signs the checkpoint.
    pub(crate) client: &'a ApiClient,
    /// How long the consumer may take to store all up to the checkpoint.
    pub(crate) patience: Duration,
}

/// Takes a fresh checkpoint, waits until the consumer has stored all up to it (at most `patience`), and
/// writes the events and exactly that checkpoint, one canonical JSON a line; an abandoned event is
/// `{"abandoned":EVENT}`. `report` is called with the
/// position that is written and the last one to write.
///
/// # Errors
/// [`ExportError`]; what was written so far is not an export.
pub(crate) async fn export(
    source: ExportSource<'_>,
    log: Log,
    out: &mut impl Write,
    report: impl Fn(u64, u64),
) -> Result<Cursor, ExportError> {
    let store = source.store;
    let checkpoint = source.client.head(log).await?;
    let until = checkpoint.cursor();
    if !await_mark(store, log, until, source.patience).await? {
        return Err(ExportError::Lagging(until));
    }
    let base = store.state(log).await?.base.cursor;
    if base != Cursor::START {
        return Err(ExportError::Headless(base));
    }
    let mut chain = Chain::after(Some(log), Link::START);
    let mut abandoned = Walk::of_each_abandoned(store, log).await?;
    let mut walk = Walk::begin(store, log, 0, until.position).await?;
    while let Some(page) = walk.page().await? {
        for row in page {
            write_abandoned(&mut abandoned, chain.next(), (&mut chain, out)).await?;
            chain.push(row.body())?;
            out.write_all(row.body())?;
            out.write_all(b"\n")?;
        }
        report(chain.last().cursor.position, until.position);
    }
    write_abandoned(&mut abandoned, u64::MAX, (&mut chain, out)).await?;
    chain.ends_at(&checkpoint)?;
    serde_json::to_writer(&mut *out, &checkpoint).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(until)
}

/// Writes the stretches that begin at or before a position, each event marked as abandoned.
async fn write_abandoned(
    abandoned: &mut VecDeque<(u64, Walk<'_>)>,
    position: u64,
    (chain, out): (&mut Chain, &mut impl Write),
) -> Result<(), ExportError> {
    while let Some((_, mut walk)) = abandoned.pop_front_if(|(from, _)| *from <= position) {
        while let Some(page) = walk.page().await? {
            for row in page {
                chain.push_abandoned(row.body())?;
                out.write_all(ABANDONED)?;
                out.write_all(row.body())?;
                out.write_all(b"}\n")?;
            }
        }
    }
    Ok(())
}
