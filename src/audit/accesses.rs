//! Compares what was handed out with what was written: each `secret.accessed` must name a version that the log
//! `changes` has, and one that was not replaced long before.

use std::{collections::HashMap, time::Duration};

use serde::Deserialize;
use uuid::Uuid;

use super::{
    chain::Bad,
    store::{AuditStore, Branches, StoredEvent, Written},
    verify::VerifyError,
};
use crate::domain::Timestamp;

/// How long after a change the version before it may still be on its way out, and how far the clocks of two
/// replicas may differ.
const TOLERANCE: Duration = Duration::from_mins(1);

const ACCESSED: &str = "secret.accessed";

/// The fields of an event that name a version.
#[derive(Debug, Deserialize)]
pub(super) struct VersionFields {
    r#type: String,
    owner: Option<String>,
    name: Option<String>,
    secret_id: Option<Uuid>,
    version: Option<u64>,
    version_id: Option<Uuid>,
}

impl VersionFields {
    /// Reads an event's body; nothing for an event that is not about a version of a secret.
    fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// Whether both are about the same version of the same secret.
    fn is_of(&self, other: &Self) -> bool {
        (
            &self.owner,
            &self.name,
            self.secret_id,
            self.version,
            self.version_id,
        ) == (
            &other.owner,
            &other.name,
            other.secret_id,
            other.version,
            other.version_id,
        )
    }
}

/// The log `changes`, as the accesses are compared with it.
#[derive(Debug)]
pub(super) struct WrittenLog {
    /// Its branches.
    pub(super) branches: Branches,
    /// Whether it is stored from its first event through everything that can have been handed out.
    pub(super) whole: bool,
}

/// Checks the accesses of a page of the log `activity`.
pub(super) async fn check(
    store: &AuditStore,
    page: &[StoredEvent],
    changes: &WrittenLog,
) -> Result<(), VerifyError> {
    let accesses: Vec<_> = page
        .iter()
        .filter(|row| row.kind() == ACCESSED)
        .filter_map(|row| Some((row, VersionFields::read(row.body())?)))
        .collect();
    let versions: Vec<(Uuid, u64)> = accesses
        .iter()
        .filter_map(|(_, fields)| fields.secret_id.zip(fields.version))
        .collect();
    if versions.is_empty() {
        return Ok(());
    }
    let written = store.written(&versions, &changes.branches).await?;
    let mut by_version: HashMap<(Uuid, u64), Vec<&Written>> = HashMap::new();
    for one in &written {
        by_version
            .entry((one.secret_id, one.version))
            .or_default()
            .push(one);
    }
    let of = |key| by_version.get(&key).map(Vec::as_slice).unwrap_or_default();
    for (row, fields) in accesses {
        let position = row.cursor()?.position;
        let Some(key) = fields.secret_id.zip(fields.version) else {
            return Err(Bad::new(position, "it does not name a version").into());
        };
        let known = of(key);
        let matches = known.iter().any(|one| {
            VersionFields::read(&one.body)
                .is_some_and(|change| change.r#type != "secret.deleted" && change.is_of(&fields))
        });
        // Of a log that was cut the change may be gone, and the deletion after it be there.
        let is_there = known.iter().any(|one| !one.deleted);
        if !matches && (changes.whole || is_there) {
            let reason = "a version was handed out that the log changes does not have";
            return Err(Bad::new(position, reason).into());
        }
        let ended = known.iter().filter(|one| one.deleted);
        let ended = ended.chain(of((key.0, key.1 + 1)).iter().filter(|one| !one.deleted));
        let replaced = ended
            .filter(|one| one.current)
            .map(|one| one.occurred_at)
            .min();
        if replaced.is_some_and(|at| is_long_after(row.occurred_at(), at)) {
            let reason = "a version was handed out long after it had been replaced or deleted";
            return Err(Bad::new(position, reason).into());
        }
    }
    Ok(())
}

fn is_long_after(accessed: Timestamp, replaced: Timestamp) -> bool {
    accessed > replaced && accessed.apart(replaced) > TOLERANCE
}
