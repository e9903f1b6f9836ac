//! When secrets expire, and who is told.

use super::{
    State, Step,
    set::{Before, Undo},
};
use crate::domain::{
    Announcement, Applied, Change, EventKind, Expiry, IfMatch, Refusal, Secret, Timestamp,
};

impl<'a> State<'a> {
    /// Sets the time at which a secret expires. The time that it has already changes nothing: there is no event.
    pub(super) fn set_expiry(
        &mut self,
        change: &'a Change,
        expires_at: Option<Timestamp>,
        if_match: Option<&IfMatch>,
    ) -> Result<Step<'a>, Refusal> {
        let secret = self.find(change, if_match)?;
        if expires_at.is_some_and(|at| at <= self.now) {
            return Err(Refusal::Passed);
        }
        if secret.expires_at() == expires_at {
            return Ok(Step {
                applied: Applied::ExpirySet(secret.clone()),
                undo: Undo {
                    secret_id: secret.id,
                    first: false,
                    before: Before::Same,
                },
            });
        }
        let secret = Secret {
            expiry: expires_at.map(Expiry::new),
            ..self.changed(secret)
        };
        let undo = self.replace(change, &secret, EventKind::ExpiryChanged);
        Ok(Step {
            applied: Applied::ExpirySet(secret),
            undo,
        })
    }

    /// Tells of an expiry, once.
    pub(super) fn announce(
        &mut self,
        change: &'a Change,
        announcement: Announcement,
    ) -> Result<Step<'a>, Refusal> {
        let secret = self.find(change, None)?;
        let due = |expiry: &Expiry| expiry.is_due(announcement, self.now);
        let expiry = secret.expiry.filter(due).ok_or(Refusal::NotDue)?;
        let mut secret = self.changed(secret);
        let now = Some(secret.updated_at);
        let (expiry, kind) = match announcement {
            Announcement::Expiring { .. } => {
                let expiring_at = now;
                (
                    Expiry {
                        expiring_at,
                        ..expiry
                    },
                    EventKind::Expiring,
                )
            }
            Announcement::Expired => {
                let expired_at = now;
                (
                    Expiry {
                        expired_at,
                        ..expiry
                    },
                    EventKind::Expired,
                )
            }
        };
        secret.expiry = Some(expiry);
        let undo = self.replace(change, &secret, kind);
        Ok(Step {
            applied: Applied::Announced,
            undo,
        })
    }

    /// Puts a secret that has no new value in the place of what it was, with its event.
    fn replace(&mut self, change: &Change, secret: &Secret, kind: EventKind) -> Undo<'a> {
        let first = self.record(change, None, secret, kind);
        let before = match self.living.insert(secret.id, secret.clone()) {
            Some(before) => Before::Expiry(before),
            None => Before::Absent,
        };
        Undo {
            secret_id: secret.id,
            first,
            before,
        }
    }
}
