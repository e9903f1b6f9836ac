//! The proof of what is stored, and that the service's log is the same.
//!
//! For each log: the chain unbroken from its first event, positions and each secret's sequences contiguous,
//! every column what its body says, no alarm, every checkpoint signed and of a stored event, every access of a
//! version that was written. With the
//! service at hand: byte for byte its log, up to a head taken after what is stored was looked at.

use std::{collections::VecDeque, io, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    accesses::{self, WrittenLog},
    chain::{Bad, Chain},
    event::{AuditEvent, Link},
    offline::Proof,
    store::{AuditStore, Checked, Raise, Walk},
};
use crate::{
    client::{ApiClient, ClientError},
    crypto::CheckpointKey,
    domain::{Checkpoint, Cursor, Log},
    store::StoreError,
};

/// Events asked for at once.
const LIMIT: u32 = 500;
/// How often the mark is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// Why the log could not be verified.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    /// The audit database can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The service's log can't be read.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The exported file can't be read.
    #[error("the export can't be read")]
    Read(#[from] io::Error),
    /// The proof fails.
    #[error(transparent)]
    Bad(#[from] Bad),
}

/// Proves logs.
#[derive(Debug)]
pub(crate) struct Verifier {
    /// The stored events.
    pub store: AuditStore,
    /// The service; without one its log is not compared.
    pub client: Option<ApiClient>,
    /// The key that verifies signatures; without one they are not checked.
    pub key: Option<CheckpointKey>,
    /// How long events that are under way are waited for.
    pub patience: Duration,
}

impl Verifier {
    /// Proves one log. `report` is called with the position through which events were checked, and with the
    /// last one.
    ///
    /// # Errors
    /// [`VerifyError::Bad`] names the first bad position; the others say why no proof could be made.
    pub(crate) async fn verify(
        &self,
        log: Log,
        report: impl Fn(u64, u64),
    ) -> Result<Proof, VerifyError> {
        let stored = self.store.state(log).await?.highest;
        let head = match &self.client {
            Some(client) => Some(client.head(log).await?),
            None => None,
        };
        let mut found = Vec::new();
        let until = if let Some(head) = &head {
            found.extend(self.head_is_bad(head, stored));
            head.cursor()
        } else {
            // The highest cursor that anything in the database names.
            let signed = self.store.newest_checkpoint(log).await?;
            signed.map_or(stored, |signed| signed.max(stored))
        };
        await_mark(&self.store, log, until, self.patience).await?;
        let base = self.store.state(log).await?.base;
        let mut chain = Chain::after(Some(log), base);
        let changes = match log {
            Log::Changes => None,
            Log::Activity => Some(self.changes().await?),
        };
        let walked = self.walk((log, changes), &mut chain, until, report).await;
        let closed = head.map_or(Ok(()), |head| chain.ends_at(&head));
        let mut checkpoints = 0;
        let signed = self.checkpoints(log, until).await;
        for proved in [
            walked,
            closed.map_err(VerifyError::Bad),
            self.abandoned(log).await,
            self.no_alarm(log).await,
            self.no_unaccepted_epoch(log).await,
            signed.map(|count| checkpoints = count),
        ] {
            // A proof that fails is a finding; one that can't be made is an error.
            match proved {
                Err(VerifyError::Bad(bad)) => found.push(bad),
                other => other?,
            }
        }
        // Of equal positions the first, because the walk gives the clearest reason.
        match found.into_iter().min_by_key(|bad| bad.position) {
            Some(bad) => Err(bad.into()),
            None => Ok(Proof {
                log,
                after: base.cursor,
                last: chain.last(),
                checkpoints,
            }),
        }
    }

    /// The log `changes`, through everything that the log `activity` can name by now.
    async fn changes(&self) -> Result<WrittenLog, VerifyError> {
        let log = Log::Changes;
        let synced = match &self.client {
            Some(client) => {
                let head = client.head(log).await?.cursor();
                await_mark(&self.store, log, head, self.patience).await?
            }
            None => false,
        };
        let base = self.store.state(log).await?.base.cursor;
        Ok(WrittenLog {
            branches: self.store.branches(log).await?,
            whole: synced && base == Cursor::START,
        })
    }

    fn head_is_bad(&self, head: &Checkpoint, stored: Cursor) -> Option<Bad> {
        if !self.may_be_signed(head) {
            let reason = "the head of the service's log was not signed with this key";
            return Some(Bad::new(head.position, reason));
        }
        let lagging = head.cursor() < stored;
        lagging.then(|| {
            let reason = format!("the service's log ends before it, but {stored} is stored");
            Bad::new(head.position + 1, reason)
        })
    }

    /// Whether the checkpoint is signed, as far as that can be checked.
    fn may_be_signed(&self, checkpoint: &Checkpoint) -> bool {
        let key = self.key.as_ref();
        key.is_none_or(|key| key.verifies(checkpoint))
    }

    /// Follows the chain through `until`, and compares it with the service's own log.
    async fn walk(
        &self,
        (log, changes): (Log, Option<WrittenLog>),
        chain: &mut Chain,
        until: Cursor,
        report: impl Fn(u64, u64),
    ) -> Result<(), VerifyError> {
        let base = chain.last().cursor;
        let mut twin = self.client.as_ref().map(|client| Twin {
            client,
            log,
            cursor: base,
            events: VecDeque::new(),
            cut: 0,
        });
        let mut walk = Walk::begin(&self.store, log, base.position, until.position).await?;
        while let Some(page) = walk.page().await? {
            if let Some(changes) = &changes {
                accesses::check(&self.store, &page, changes).await?;
            }
            for row in page {
                let expected = chain.next();
                row.check(chain.push(row.body())?)?;
                if let Some(twin) = &mut twin
                    && !twin.holds(expected, row.body()).await?
                {
                    let reason = "the service's log has a different event there";
                    return Err(Bad::new(expected, reason).into());
                }
            }
            report(chain.last().cursor.position, until.position);
        }
        if chain.last().cursor.position < until.position {
            let reason = format!("it is missing: the log is known to go through {until}");
            return Err(Bad::new(chain.next(), reason).into());
        }
        Ok(())
    }

    /// Verifies the branch that a restored service has abandoned: it was published, so it must verify too.
    async fn abandoned(&self, log: Log) -> Result<(), VerifyError> {
        let mut walk = Walk::of_abandoned(&self.store, log).await?;
        let mut before: Option<Link> = None;
        while let Some(page) = walk.page().await? {
            for row in page {
                let at = row.cursor()?;
                let bad = |reason: String| Bad::new(at.position, format!("{at}: {reason}"));
                let event = AuditEvent::parse(row.body().to_vec())
                    .map_err(|error| bad(error.to_string()))?;
                let (link, prev_hash) = (event.link, event.prev_hash);
                row.check(event).map_err(|error| bad(error.reason))?;
                let cursor = link.cursor;
                let same = before.filter(|last| last.cursor.epoch == cursor.epoch);
                if let Some(last) = same
                    && last.cursor.position + 1 < cursor.position
                {
                    let reason = format!("it is missing in epoch {}", cursor.epoch);
                    return Err(Bad::new(last.cursor.position + 1, reason).into());
                }
                let follows = match same {
                    Some(last) => last.hash == prev_hash,
                    _ if cursor.position == 1 => prev_hash == Link::START.hash,
                    _ => {
                        let position = cursor.position - 1;
                        self.store.holds(log, position, prev_hash).await?
                    }
                };
                if !follows {
                    return Err(bad("it does not follow an event before it".to_owned()).into());
                }
                before = Some(link);
            }
        }
        Ok(())
    }

    async fn no_unaccepted_epoch(&self, log: Log) -> Result<(), VerifyError> {
        let raises = self.store.raises(log).await?;
        let Some(raise) = raises.into_iter().find(|raise| !raise.accepted) else {
            return Ok(());
        };
        let Raise {
            previous,
            epoch,
            parted,
            abandoned,
            accepted: _,
        } = raise;
        let name = log.as_str();
        let reason = format!(
            "epoch {epoch} follows epoch {previous} after position {parted} and abandons {abandoned} events: if \
             the database was restored, run `rekey audit accept-epoch {name} {epoch}`"
        );
        Err(Bad::new(parted + 1, reason).into())
    }

    async fn no_alarm(&self, log: Log) -> Result<(), VerifyError> {
        let Some((count, position)) = self.store.alarms(log).await? else {
            return Ok(());
        };
        let reason = format!("{count} alarms: something contradicts what is stored or signed");
        Err(Bad::new(position, reason).into())
    }

    /// How many checkpoints hold; the error names the first that does not.
    async fn checkpoints(&self, log: Log, until: Cursor) -> Result<u64, VerifyError> {
        let mut count = 0;
        let mut last = None;
        loop {
            let page = self.store.checkpoints(log, last.as_ref()).await?;
            if page.is_empty() {
                return Ok(count);
            }
            for Checked { checkpoint, event } in page {
                let position = checkpoint.position;
                if !self.may_be_signed(&checkpoint) {
                    let reason = "its checkpoint was not signed with this key";
                    return Err(Bad::new(position, reason).into());
                }
                // A younger one may be of an event that is still under way.
                let young = event.is_none() && checkpoint.cursor() > until;
                if !young && event.as_deref() != Some(&checkpoint.hash[..]) {
                    let reason = "the service signed a different event there";
                    return Err(Bad::new(position, reason).into());
                }
                count += 1;
                last = Some(checkpoint);
            }
        }
    }
}

/// Waits until the mark has reached `until`, at most so long; answers whether it has.
pub(super) async fn await_mark(
    store: &AuditStore,
    log: Log,
    until: Cursor,
    patience: Duration,
) -> Result<bool, StoreError> {
    let end = Instant::now() + patience;
    loop {
        let mark = store.state(log).await?.mark.cursor;
        if mark >= until {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        sleep(LOOK).await;
    }
}

/// The service's log, read beside the stored one.
struct Twin<'a> {
    client: &'a ApiClient,
    log: Log,
    cursor: Cursor,
    events: VecDeque<Vec<u8>>,
    /// Up to here retention has removed the service's events.
    cut: u64,
}

impl Twin<'_> {
    /// Whether the service's next event, that of `position`, has exactly these bytes.
    async fn holds(&mut self, position: u64, body: &[u8]) -> Result<bool, ClientError> {
        if position <= self.cut {
            return Ok(true);
        }
        if self.events.is_empty() {
            let page = match self.client.events(self.log, Some(self.cursor), LIMIT).await {
                Err(ClientError::Gone {
                    first: Some(first), ..
                }) if first.position >= position => {
                    (self.cut, self.cursor) = (first.position, first);
                    return Ok(true);
                }
                other => other?,
            };
            self.cursor = page.next;
            self.events = page.events.into_iter().map(String::into_bytes).collect();
        }
        Ok(self.events.pop_front().is_some_and(|event| event == body))
    }
}
