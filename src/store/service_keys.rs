//! The rows of the service's own keys: sealed bytes, never the keys.

use std::sync::Arc;

use sea_orm::{ConnectionTrait, EntityTrait, IntoActiveModel, QueryOrder};

use super::{
    StoreError, commit,
    entity::{keys, service_keys},
    idempotency, log,
    rows::corrupt,
    tokens,
    transaction::Transaction,
};
use crate::{
    crypto::MacKey,
    domain::{KeyId, KeyState, Log, ServiceKeyName, Timestamp},
};

/// A key of the service's own, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredServiceKey {
    /// What it is for.
    pub name: String,
    /// The key-encryption key that it is sealed under.
    pub kek_id: KeyId,
    /// Its bytes, sealed.
    pub sealed: Vec<u8>,
}

pub(super) async fn all(db: &impl ConnectionTrait) -> Result<Vec<StoredServiceKey>, StoreError> {
    let rows = service_keys::Entity::find()
        .order_by_asc(service_keys::Column::Name)
        .all(db)
        .await?;
    rows.into_iter()
        .map(
            |service_keys::Model {
                 name,
                 kek_id,
                 sealed,
                 created_at: _,
             }| {
                Ok(StoredServiceKey {
                    name,
                    kek_id: KeyId::parse(&kek_id).map_err(corrupt("service_keys"))?,
                    sealed,
                })
            },
        )
        .collect()
}

/// A key of the service's own to be stored.
pub(crate) struct NewServiceKey {
    /// What it is for.
    pub name: ServiceKeyName,
    /// The key-encryption key that it is sealed under.
    pub kek_id: KeyId,
    /// Its bytes, sealed.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether it may be missing where others rest on it.
    pub missing: MissingKey,
}

/// Whether a key may be made although there is something that rests on one.
#[derive(Clone)]
pub(crate) enum MissingKey {
    /// Nothing may rest on it: it is the first one.
    First,
    /// The database comes from a version that had no such key, or made it later: the tokens that are there
    /// get their codes under this one.
    Older(Option<Arc<MacKey>>),
    /// The operator has said so; there is an event of it. Tokens with codes under another key are none.
    Anew,
}

/// What became of a key that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceKeyOutcome {
    /// It is stored, and so many tokens have their codes under it.
    Stored(usize),
    /// There is one of that name.
    There,
    /// There is none of that name, but something rests on one.
    Gone,
    /// The key that it is sealed under may seal no more.
    Refused,
}

/// Stores a key, under the lock.
pub(super) async fn insert(
    transaction: &Transaction,
    key: NewServiceKey,
) -> Result<ServiceKeyOutcome, StoreError> {
    commit::lock(transaction, Log::Changes).await?;
    let known = service_keys::Entity::find_by_id(key.name.as_str())
        .one(transaction)
        .await?;
    let kek = keys::Entity::find_by_id(key.kek_id.as_str())
        .one(transaction)
        .await?;
    if known.is_some() {
        return Ok(ServiceKeyOutcome::There);
    }
    if kek.is_none_or(|kek| kek.state != KeyState::Active.as_str()) {
        return Ok(ServiceKeyOutcome::Refused);
    }
    let mut coded = 0;
    match key.missing {
        MissingKey::First if rests(transaction, key.name).await? => {
            return Ok(ServiceKeyOutcome::Gone);
        }
        MissingKey::Anew if key.name == ServiceKeyName::Idempotency => {
            idempotency::remove_all(transaction).await?;
        }
        MissingKey::Older(Some(mac)) => coded = tokens::give_codes(transaction, &mac).await?,
        MissingKey::First | MissingKey::Older(None) | MissingKey::Anew => {}
    }
    let row = service_keys::Model {
        name: key.name.as_str().to_owned(),
        kek_id: key.kek_id.as_str().to_owned(),
        sealed: key.sealed,
        created_at: key.created_at.micros(),
    };
    service_keys::Entity::insert(row.into_active_model())
        .exec_without_returning(transaction)
        .await?;
    Ok(ServiceKeyOutcome::Stored(coded))
}

/// Whether the database holds what only this key can have signed or coded.
async fn rests(transaction: &Transaction, name: ServiceKeyName) -> Result<bool, StoreError> {
    match name {
        ServiceKeyName::TokenMac => Ok(tokens::count(transaction).await? > 0),
        ServiceKeyName::CheckpointSigning => {
            for log in Log::ALL {
                if log::head(transaction, log).await?.position > 0 {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        ServiceKeyName::Idempotency => idempotency::exist(transaction).await,
    }
}
