//! Fetches from the service's log what the broker has lost.
//!
//! A gap shows in what is stored (a later event is there) or in the head of the service's log (the last
//! event is missing, which leaves no gap). One that does not close by itself is filled over HTTP. Each head
//! is a signed checkpoint and is kept.

use std::{sync::atomic::Ordering, time::Duration};

use chrono::Utc;
use tokio::time::{Instant, sleep};

use super::{
    event::{AuditEvent, Link},
    serve::Auditor,
    store::LogState,
};
use crate::{
    client::{ClientError, EventPage},
    domain::{Cursor, ErrorChain, Log, Timestamp},
    store::StoreError,
};

/// How often the marks are checked.
const LOOK: Duration = Duration::from_millis(500);
/// How old a gap is before it is filled: the broker may still deliver it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Events asked for at once.
const LIMIT: u32 = 500;

/// Why a gap stays open for now.
#[derive(Debug, thiserror::Error)]
enum GapError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the service's log has an event whose hash is wrong")]
    Event(#[from] super::event::EventError),
}

/// What is known of a log's gap.
#[derive(Debug, Clone, Copy)]
struct Watched {
    log: Log,
    /// The highest head of the service's log that is known.
    head: Cursor,
    /// Whether the service's log ended before what is stored, which was then reported.
    lagging: bool,
    /// The epoch of the mark when raised epochs were last reported.
    reported: u64,
    /// Where to go on while the mark can't.
    detour: Option<Detour>,
    /// The end of what is stored, with events missing after it, and since when.
    stuck: Option<(Cursor, Instant)>,
    /// When to try again, after an attempt that did not close the gap.
    not_before: Option<Instant>,
}

/// The way around a gap that the service can't fill, such as one of events that retention has removed: the
/// mark stays before it, and the log is fetched from here on. A new process tries the gap again.
#[derive(Debug, Clone, Copy)]
struct Detour {
    /// Where the mark stood.
    mark: Cursor,
    /// The last event after the gap that was reached.
    end: Link,
}

impl Auditor {
    /// Looks for gaps and fills them; never returns. It may be dropped: work that was given to the database
    /// runs to its end.
    pub(super) async fn fill_gaps(&self) {
        let mut watched = Log::ALL.map(|log| Watched {
            log,
            head: Cursor::START,
            lagging: false,
            reported: 0,
            detour: None,
            stuck: None,
            not_before: None,
        });
        let mut compare_at = Instant::now();
        loop {
            let compare = Instant::now() >= compare_at;
            if compare {
                compare_at = Instant::now() + self.compare;
            }
            for one in &mut watched {
                if compare && let Err(error) = self.compare_head(one).await {
                    warn_of(one.log, &error, "can't compare with the service's log");
                }
                if let Err(error) = self.look(one).await {
                    one.not_before = Some(Instant::now() + self.compare);
                    warn_of(one.log, &error, "can't fill a gap; trying again later");
                }
            }
            sleep(LOOK).await;
            if self.ahead.swap(false, Ordering::Relaxed) {
                compare_at = Instant::now();
            }
        }
    }

    /// Asks the service for the head and keeps it as a checkpoint.
    async fn compare_head(&self, watched: &mut Watched) -> Result<(), GapError> {
        let log = watched.log;
        // Read before the head: the service must have everything that is stored by then.
        let stored = self.store.state(log).await?.mark.cursor;
        self.report_raises(watched, stored.epoch).await?;
        let asked = now();
        let head = self.client.head(log).await?;
        if self.key.as_ref().is_some_and(|key| !key.verifies(&head)) {
            tracing::error!(
                log = log.as_str(),
                "the head is not signed by audit.public_key"
            );
            return Ok(());
        }
        let cursor = head.cursor();
        let lagging = cursor < stored;
        if lagging && !watched.lagging {
            tracing::error!(
                log = log.as_str(), %cursor, %stored,
                "the service's log ends before events that it has published"
            );
        }
        watched.lagging = lagging;
        if cursor == Cursor::START {
            return Ok(());
        }
        if !self.store.add_checkpoint(head, (asked, now())).await? {
            tracing::error!(
                log = log.as_str(), %cursor,
                "the service signed a different event from the stored one; this is an alarm"
            );
        }
        watched.head = watched.head.max(cursor);
        Ok(())
    }

    /// Reports each raised epoch that nobody has accepted, once.
    async fn report_raises(&self, watched: &mut Watched, epoch: u64) -> Result<(), StoreError> {
        if watched.reported == epoch {
            return Ok(());
        }
        let raises = self.store.raises(watched.log).await?;
        for raise in raises.iter().filter(|raise| !raise.accepted) {
            tracing::error!(
                log = watched.log.as_str(),
                epoch.previous = raise.previous,
                epoch.raised = raise.epoch,
                parted.position = raise.parted,
                abandoned.events = raise.abandoned,
                "the log goes on in a higher epoch that nobody has accepted; this is an alarm until \
                 `rekey audit accept-epoch`"
            );
        }
        watched.reported = epoch;
        Ok(())
    }

    /// Fills the log's gap, if it has one that is old enough.
    async fn look(&self, watched: &mut Watched) -> Result<(), GapError> {
        let log = watched.log;
        let state = self.store.state(log).await?;
        let mark = state.mark.cursor;
        watched.detour = watched.detour.filter(|detour| detour.mark == mark);
        let from = match watched.detour {
            Some(detour) => self.store.follow(log, detour.end).await?,
            None => state.mark,
        };
        if from.cursor >= goal(&state, watched.head) {
            watched.stuck = None;
            watched.not_before = None;
            return Ok(());
        }
        let Some((_, since)) = watched.stuck.filter(|(at, _)| *at == from.cursor) else {
            watched.stuck = Some((from.cursor, Instant::now()));
            return Ok(());
        };
        let early = |until: Instant| Instant::now() < until;
        if early(since + PATIENCE) || watched.not_before.is_some_and(early) {
            return Ok(());
        }
        let end = self.fill(watched, from).await?;
        let state = self.store.state(log).await?;
        let missing = goal(&state, watched.head);
        if end.cursor < missing {
            watched.not_before = Some(Instant::now() + self.compare);
        }
        if state.mark.cursor < missing {
            if watched.detour.is_none() || end.cursor < missing {
                tracing::error!(
                    log = log.as_str(), mark = %state.mark.cursor, until = %missing,
                    "the service's log does not have the missing events"
                );
            }
            let mark = state.mark.cursor;
            watched.detour = Some(Detour { mark, end });
        }
        Ok(())
    }

    /// Lets the log begin where the service's log begins: events that retention removed before the first start
    /// are lost.
    async fn begin_after(&self, log: Log, cut: Cursor, page: &EventPage) -> Result<(), GapError> {
        let Some(first) = page.events.first() else {
            return Ok(());
        };
        let first = AuditEvent::parse(first.clone().into_bytes())?;
        if cut.position == 0 || first.link.cursor.position != cut.position + 1 {
            return Ok(());
        }
        tracing::warn!(
            log = log.as_str(), %cut,
            "the service had removed events before this consumer first ran: the copy begins after them"
        );
        let base = Link {
            cursor: cut,
            hash: first.prev_hash,
        };
        Ok(self.store.begin_after(log, base).await?)
    }

    /// Fetches the events after `from` until none is missing or the service has no more, and skips those that
    /// are stored. Returns the last event that was reached.
    async fn fill(&self, watched: &Watched, from: Link) -> Result<Link, GapError> {
        let log = watched.log;
        let mut page = match self.client.events(log, Some(from.cursor), LIMIT).await {
            // The service was restored to a position before it, or retention has removed events.
            // Start with its first event: those that are stored already are dropped.
            Err(ClientError::Gone { first, .. }) => {
                // A log that has no events names no first one.
                let first = first.unwrap_or(Cursor::START);
                let page = self.client.events(log, Some(first), LIMIT).await?;
                if from.cursor == Cursor::START {
                    self.begin_after(log, first, &page).await?;
                }
                page
            }
            other => other?,
        };
        let (mut end, mut filled, mut skip) = (from, 0, true);
        loop {
            let events: Result<Vec<_>, _> = page
                .events
                .into_iter()
                .map(|event| AuditEvent::parse(event.into_bytes()))
                .collect();
            let events = events?;
            let last = events.last().map(|event| event.link);
            filled += self.store.add(events, now()).await?.new;
            if let Some(last) = last {
                end = if skip {
                    self.store.follow(log, last).await?
                } else {
                    last
                };
            }
            let whole = end.cursor >= goal(&self.store.state(log).await?, watched.head);
            let Some(last) = last.filter(|_| !whole) else {
                if filled > 0 {
                    tracing::info!(log = log.as_str(), events = filled, "filled a gap");
                }
                return Ok(end);
            };
            page = match self.client.events(log, Some(end.cursor), LIMIT).await {
                // It was the end of a branch that a restored service has abandoned.
                Err(ClientError::Gone { .. }) if skip => {
                    skip = false;
                    self.client.events(log, Some(last.cursor), LIMIT).await?
                }
                other => other?,
            };
        }
    }
}

/// The cursor through which everything must be stored.
fn goal(state: &LogState, head: Cursor) -> Cursor {
    head.max(state.highest)
}

fn now() -> Timestamp {
    Timestamp::from(Utc::now())
}

fn warn_of(log: Log, error: &GapError, what: &'static str) {
    tracing::warn!(log = log.as_str(), error = %ErrorChain(error), "{what}");
}
