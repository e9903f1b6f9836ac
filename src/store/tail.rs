//! The tailer of a log: the one reader that all streams of the process share.
//!
//! The committer feeds it what this process commits. What does not follow the last event in the ring, because
//! another replica wrote in between, it reads by position, and it looks four times a second. All goes into a
//! bounded ring. A stream reads the ring while its next event is in it, and the
//! database otherwise: so the statements per commit do not grow with the streams.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::{LoggedEvent, Reader};
use crate::{
    backoff::Backoff,
    domain::{Cursor, ErrorChain, Log},
};

/// How often the log is looked at without being woken.
const POLL: Duration = Duration::from_millis(250);
/// The longest pause between two attempts while the log can't be read.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Events read at once.
const READ: u64 = 500;
/// The most that the ring holds: events, and bytes of their bodies (4 MiB).
const EVENTS: usize = 4096;
const BYTES: usize = 4 << 20;

/// A log's newest events. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct LogTail {
    log: Log,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ring: RwLock<Ring>,
    head: watch::Sender<Cursor>,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Arc<LoggedEvent>>,
    bytes: usize,
    /// The position before the first event in the ring.
    before: u64,
    /// The last position that was taken in; none before the head is known.
    newest: Option<u64>,
}

impl Ring {
    fn push(&mut self, event: LoggedEvent) {
        self.bytes += event.body.len();
        self.events.push_back(Arc::new(event));
        while self.events.len() > EVENTS || self.bytes > BYTES {
            let Some(oldest) = self.events.pop_front() else {
                break;
            };
            self.bytes -= oldest.body.len();
            self.before = oldest.position;
        }
    }
}

impl LogTail {
    /// Starts to tail a log from its head.
    #[must_use]
    pub(crate) fn start(
        log: Log,
        reader: Reader,
        commits: watch::Receiver<u64>,
        stopping: watch::Receiver<bool>,
    ) -> (Self, JoinHandle<()>) {
        let shared = Arc::new(Shared {
            ring: RwLock::default(),
            head: watch::Sender::new(Cursor::START),
        });
        let tail = Self { log, shared };
        let follow = tail.clone().follow(reader, commits, stopping);
        (tail, tokio::spawn(follow))
    }

    /// The log.
    #[must_use]
    pub(crate) fn log(&self) -> Log {
        self.log
    }

    /// The cursor of the last event that was read; it changes with each that comes.
    #[must_use]
    pub(crate) fn head(&self) -> watch::Receiver<Cursor> {
        self.shared.head.subscribe()
    }

    /// The events after a position, at most `limit`, from the ring; none when it does not reach back that
    /// far.
    #[must_use]
    pub(crate) fn after(&self, position: u64, limit: usize) -> Option<Vec<Arc<LoggedEvent>>> {
        let newest = self
            .shared
            .ring
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        // Positions are contiguous, so the distance is the index.
        let skip = usize::try_from(position.checked_sub(newest.before)?).ok()?;
        Some(
            newest
                .events
                .iter()
                .skip(skip)
                .take(limit)
                .cloned()
                .collect(),
        )
    }

    /// Takes events that this process has just committed, if they follow the last one in the ring. Else the
    /// tailer reads them.
    pub(super) fn feed(&self, events: Vec<LoggedEvent>) {
        let first = events.first().map(|event| event.position);
        self.append(events, |newest| first == Some(newest + 1));
    }

    async fn follow(
        self,
        reader: Reader,
        mut commits: watch::Receiver<u64>,
        stopping: watch::Receiver<bool>,
    ) {
        let log = self.log;
        let mut begun = false;
        let mut look_at = Instant::now();
        let mut backoff = Backoff::new(LONGEST_PAUSE);
        while !*stopping.borrow() {
            // Marked before the log is read: a commit in between wakes the next round.
            let committed = *commits.borrow_and_update();
            let newest = self.shared.head.borrow().position;
            if begun && newest >= committed && Instant::now() < look_at {
                // All that this process committed is in the ring.
                drop(timeout_at(look_at, commits.changed()).await);
                continue;
            }
            look_at = Instant::now() + POLL;
            let read = if begun {
                reader.log_after(log, newest, READ).await.map(|events| {
                    if events.len() as u64 == READ {
                        look_at = Instant::now();
                    }
                    self.append(events, |_| true);
                })
            } else {
                reader.log_head(log).await.map(|head| {
                    self.begin(head.cursor());
                    begun = true;
                })
            };
            match read {
                Ok(()) => {
                    if backoff.is_failing() {
                        backoff.reset();
                        tracing::info!(log.name = log.as_str(), "the log can be tailed again");
                    }
                }
                Err(error) => {
                    if !backoff.is_failing() {
                        tracing::warn!(
                            log.name = log.as_str(),
                            error = %ErrorChain(&error),
                            "the log can't be tailed; it is read as soon as it can be"
                        );
                    }
                    backoff.wait().await;
                }
            }
        }
    }

    fn begin(&self, head: Cursor) {
        let mut contents = self
            .shared
            .ring
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        contents.newest = Some(head.position);
        contents.before = head.position;
        drop(contents);
        self.shared.head.send_replace(head);
    }

    /// Appends events to a ring that has begun, except those that are in it already, if `fits` says so of the
    /// last position in it.
    fn append(&self, events: Vec<LoggedEvent>, fits: impl FnOnce(u64) -> bool) {
        let Some(head) = events.last().map(LoggedEvent::cursor) else {
            return;
        };
        let mut contents = self
            .shared
            .ring
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(newest) = contents
            .newest
            .filter(|newest| *newest < head.position && fits(*newest))
        else {
            return;
        };
        contents.newest = Some(head.position);
        for event in events {
            if event.position > newest {
                contents.push(event);
            }
        }
        // Under the lock, so that the head never goes back.
        self.shared.head.send_replace(head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    fn tail() -> LogTail {
        LogTail {
            log: Log::Changes,
            shared: Arc::new(Shared {
                ring: RwLock::default(),
                head: watch::Sender::new(Cursor::START),
            }),
        }
    }

    fn event(position: u64, bytes: usize) -> LoggedEvent {
        LoggedEvent {
            epoch: 1,
            position,
            kind: "secret.updated".to_owned(),
            occurred_at: Timestamp::from_micros(0),
            owner: None,
            body: vec![b'x'; bytes],
            traceparent: None,
        }
    }

    fn positions(tail: &LogTail, after: u64) -> Option<Vec<u64>> {
        let events = tail.after(after, 3)?;
        Some(events.iter().map(|event| event.position).collect())
    }

    #[test]
    fn the_ring_answers_from_where_it_reaches_back_to() {
        let tail = tail();
        tail.begin(Cursor {
            epoch: 1,
            position: 10,
        });
        assert_eq!(positions(&tail, 9), None);
        assert_eq!(positions(&tail, 10), Some(vec![]));
        tail.append((11..16).map(|n| event(n, 1)).collect(), |_| true);
        assert_eq!(positions(&tail, 9), None);
        assert_eq!(positions(&tail, 10), Some(vec![11, 12, 13]));
        assert_eq!(positions(&tail, 14), Some(vec![15]));
        assert_eq!(positions(&tail, 15), Some(vec![]));
        // A caller may know of an event that the tailer has yet to read.
        assert_eq!(positions(&tail, 99), Some(vec![]));
        assert_eq!(tail.head().borrow().position, 15);
    }

    #[test]
    fn the_ring_is_bounded_in_events_and_in_bytes() {
        let tail = tail();
        let events = EVENTS as u64;
        tail.begin(Cursor::START);
        tail.append((1..=events + 5).map(|n| event(n, 1)).collect(), |_| true);
        assert_eq!(positions(&tail, 4), None);
        assert_eq!(positions(&tail, 5), Some(vec![6, 7, 8]));
        tail.append(vec![event(events + 6, BYTES)], |_| true);
        assert_eq!(positions(&tail, events + 4), None);
        assert_eq!(positions(&tail, events + 5), Some(vec![events + 6]));
    }

    #[test]
    fn it_is_fed_what_follows_and_nothing_twice() {
        let tail = tail();
        let fed = |positions: std::ops::Range<u64>| {
            tail.feed(positions.map(|n| event(n, 1)).collect());
            tail.head().borrow().position
        };
        assert_eq!(fed(1..3), 0, "its head is not known yet");
        tail.begin(Cursor {
            epoch: 1,
            position: 10,
        });
        assert_eq!(fed(11..13), 12);
        assert_eq!(fed(14..15), 12, "13 is another replica's");
        tail.append((12..15).map(|n| event(n, 1)).collect(), |_| true);
        assert_eq!(positions(&tail, 10), Some(vec![11, 12, 13]));
        assert_eq!(fed(13..15), 14);
        assert_eq!(fed(15..16), 15);
        assert_eq!(positions(&tail, 13), Some(vec![14, 15]));
    }
}
