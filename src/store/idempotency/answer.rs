//! An answer as the record of its request holds it.

use sea_orm::prelude::Uuid;
use serde::{Deserialize, Serialize};

use super::TABLE;
use crate::{
    domain::{
        Answer, Applied, ChangeSetId, Expiry, Owner, Provider, Secret, SecretId, SecretName,
        Timestamp, VersionId,
    },
    store::{StoreError, rows::corrupt},
};

/// What was made of the secrets of an answer.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Made {
    Created,
    Updated,
    ExpirySet,
    Deleted,
}

/// An answer as its column holds it.
#[derive(Debug, Serialize, Deserialize)]
struct StoredAnswer {
    made: Made,
    change_set: Option<Uuid>,
    secrets: Vec<StoredSecret>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredSecret {
    id: Uuid,
    name: String,
    provider: Option<String>,
    version: u64,
    version_id: Uuid,
    sequence: u64,
    created_at: i64,
    updated_at: i64,
    expires_at: Option<i64>,
}

impl StoredSecret {
    fn of(secret: &Secret) -> Self {
        // Exhaustive: a new field of a secret does not compile until someone decides about it.
        let Secret {
            id,
            owner: _,
            name,
            provider,
            version,
            version_id,
            sequence,
            created_at,
            updated_at,
            expiry,
        } = secret;
        Self {
            id: id.get(),
            name: name.as_str().to_owned(),
            provider: provider.as_ref().map(|one| one.as_str().to_owned()),
            version: *version,
            version_id: version_id.get(),
            sequence: *sequence,
            created_at: created_at.micros(),
            updated_at: updated_at.micros(),
            expires_at: expiry.map(|expiry| expiry.at.micros()),
        }
    }

    fn into_secret(self, owner: &Owner) -> Result<Secret, StoreError> {
        let provider = self.provider.as_deref().map(Provider::parse);
        Ok(Secret {
            id: SecretId::new(self.id),
            owner: owner.clone(),
            name: SecretName::parse(&self.name).map_err(corrupt(TABLE))?,
            provider: provider.transpose().map_err(corrupt(TABLE))?,
            version: self.version,
            version_id: VersionId::new(self.version_id),
            sequence: self.sequence,
            created_at: Timestamp::from_micros(self.created_at),
            updated_at: Timestamp::from_micros(self.updated_at),
            expiry: self.expires_at.map(Timestamp::from_micros).map(Expiry::new),
        })
    }
}

/// An answer as its two columns hold it: the status and the rest.
#[expect(
    clippy::expect_used,
    reason = "strings, numbers and null, written to memory, can't fail to serialise"
)]
pub(super) fn columns(answer: &Answer) -> (i64, String) {
    let mut made = Made::Deleted;
    let mut secrets = Vec::new();
    for applied in &answer.applied {
        let secret = match applied {
            Applied::Created(secret) => {
                made = Made::Created;
                secret
            }
            Applied::Updated(secret) => {
                made = Made::Updated;
                secret
            }
            Applied::ExpirySet(secret) => {
                made = Made::ExpirySet;
                secret
            }
            Applied::Announced | Applied::Deleted => continue,
        };
        secrets.push(StoredSecret::of(secret));
    }
    let never = secrets.iter().all(|secret| secret.expires_at.is_none());
    let status = match made {
        Made::Created => 201,
        Made::ExpirySet if never => 204,
        Made::Updated | Made::ExpirySet => 200,
        Made::Deleted => 204,
    };
    let stored = StoredAnswer {
        made,
        change_set: answer.change_set.map(ChangeSetId::get),
        secrets,
    };
    let text = serde_json::to_string(&stored).expect("an answer is always serialisable");
    (status, text)
}

/// The answer of such a text.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub(super) fn read(text: &str, owner: &Owner) -> Result<Answer, StoreError> {
    let stored: StoredAnswer = serde_json::from_str(text).map_err(corrupt(TABLE))?;
    let mut applied = Vec::new();
    for secret in stored.secrets {
        let secret = secret.into_secret(owner)?;
        applied.push(match stored.made {
            Made::Created => Applied::Created(secret),
            Made::Updated => Applied::Updated(secret),
            Made::ExpirySet => Applied::ExpirySet(secret),
            Made::Deleted => return Err(StoreError::Corrupt(TABLE)),
        });
    }
    if matches!(stored.made, Made::Deleted) {
        applied.push(Applied::Deleted);
    }
    Ok(Answer {
        change_set: stored.change_set.map(ChangeSetId::new),
        applied,
    })
}
