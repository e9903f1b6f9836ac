//! The sweep that tells of expiries: `secret.expiring` some time before, and `secret.expired`.
//!
//! Every replica sweeps. The commit looks at each secret under the lock, so each event is there once, whoever is first.

use std::time::Duration;

use chrono::Utc;
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    domain::{
        Action, Agent, Announcement, Change, ErrorChain, EventId, NamedSecrets, Origin,
        RequestContext, Timestamp,
    },
    store::{Committer, DueSecret, Reader},
};

/// How often it is looked for what is due.
const EVERY: Duration = Duration::from_secs(1);

/// Tells of the expiries of all secrets.
#[derive(Debug)]
pub(crate) struct ExpirySweep {
    /// Finds what is due.
    pub(crate) reader: Reader,
    /// Writes the events.
    pub(crate) committer: Committer,
    /// How long before a secret expires `secret.expiring` comes.
    pub(crate) lead: Duration,
}

impl ExpirySweep {
    /// Sweeps until it is dropped. A batch that was handed to the committer runs to its end.
    pub(crate) async fn run(self) {
        let mut failing = false;
        loop {
            match self.reader.due(self.lead).await {
                Ok(due) => {
                    failing = false;
                    let changes = self.announcements(&due);
                    if !changes.is_empty() {
                        self.committer.announce(changes).await;
                    }
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(
                            error = %ErrorChain(&error),
                            "it can't be read which secrets expire; it is tried again"
                        );
                    }
                    failing = true;
                }
            }
            sleep(EVERY).await;
        }
    }

    /// What is to be told now. The commit looks again.
    fn announcements(&self, due: &[DueSecret]) -> Vec<Change> {
        let now = Timestamp::from(Utc::now());
        let expiring = Announcement::Expiring { lead: self.lead };
        let mut changes = Vec::new();
        for secret in due {
            if secret.expiry.is_due(expiring, now) {
                changes.push(change(secret, expiring));
            }
            if secret.expiry.at <= now {
                changes.push(change(secret, Announcement::Expired));
            }
        }
        changes
    }
}

fn change(secret: &DueSecret, announcement: Announcement) -> Change {
    Change {
        owner: secret.owner.clone(),
        secret_id: secret.id,
        action: Action::Announce(announcement),
        event_id: EventId::new(Uuid::now_v7()),
        context: RequestContext {
            agent: Agent::SYSTEM,
            origin: Origin::default(),
            request_id: None,
            traceparent: None,
            secrets: NamedSecrets::ALL,
        },
        once: None,
    }
}
