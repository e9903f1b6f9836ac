//! The rows of the service's own keys: sealed bytes, never the keys.

use sea_orm::{ConnectionTrait, EntityTrait, IntoActiveModel, QueryOrder};

use super::{
    StoreError, commit,
    entity::{keys, service_keys},
    rows::corrupt,
    transaction::Transaction,
};
use crate::domain::{KeyId, KeyState, Log, ServiceKeyName, Timestamp};

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

/// Stores a key, under the lock, unless there is one of that name or `kek_id` may seal no more.
pub(super) async fn insert_absent(
    transaction: &Transaction,
    name: ServiceKeyName,
    kek_id: &KeyId,
    sealed: Vec<u8>,
    now: Timestamp,
) -> Result<(), StoreError> {
    commit::lock(transaction, Log::Changes).await?;
    let known = service_keys::Entity::find_by_id(name.as_str())
        .one(transaction)
        .await?;
    let kek = keys::Entity::find_by_id(kek_id.as_str())
        .one(transaction)
        .await?;
    if known.is_some() || kek.is_none_or(|kek| kek.state != KeyState::Active.as_str()) {
        return Ok(());
    }
    let row = service_keys::Model {
        name: name.as_str().to_owned(),
        kek_id: kek_id.as_str().to_owned(),
        sealed,
        created_at: now.micros(),
    };
    service_keys::Entity::insert(row.into_active_model())
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}
