//! When a secret expires, and what was told of it.

use std::time::Duration;

use super::Timestamp;

/// The expiry of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// From then on the value is handed out no more.
    pub at: Timestamp,
    /// When `secret.expiring` told of it.
    pub expiring_at: Option<Timestamp>,
    /// When `secret.expired` told of it.
    pub expired_at: Option<Timestamp>,
}

impl Expiry {
    /// An expiry that nobody was told of.
    #[must_use]
    pub(crate) const fn new(at: Timestamp) -> Self {
        Self {
            at,
            expiring_at: None,
            expired_at: None,
        }
    }

    /// Whether an announcement is due, and was not made yet. `secret.expiring` comes before `secret.expired`.
    #[must_use]
    pub(crate) fn is_due(&self, announcement: Announcement, now: Timestamp) -> bool {
        match announcement {
            Announcement::Expiring { lead } => {
                self.expiring_at.is_none() && self.at <= now.plus(lead)
            }
            Announcement::Expired => {
                self.expired_at.is_none() && self.expiring_at.is_some() && self.at <= now
            }
        }
    }
}

/// What is told of an expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announcement {
    /// It comes in this time, or sooner.
    Expiring {
        /// How long before.
        lead: Duration,
    },
    /// It has come.
    Expired,
}
