//! Whether the keyring and the database go together, and the first registration of a key.

use chrono::Utc;
use tokio::runtime::Handle;

use crate::{
    crypto::{Keyring, OpenError, SealError},
    domain::{KeyId, Timestamp},
    store::{Operator, Store, StoreError, StoredKey, Target},
};

/// Keyring and database don't go together.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A key that the database needs is missing, or is another one.
    #[error("key {0} of the database can't be used with this keyring")]
    Key(KeyId, #[source] OpenError),
    /// The first key can't be registered.
    #[error("the first key can't be registered")]
    First(#[from] SealError),
    /// The database can't be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database has keys, but none is the primary one.
    #[error("the database names no primary key")]
    NoPrimary,
}

/// Checks that the keyring holds every key that is not retired, with the right bytes, and answers the
/// primary one. An empty table gets the keyring's last key as its first and primary one.
///
/// # Errors
/// [`KeysError`] names the key.
pub async fn verify(store: &Store, target: &Target, keyring: &Keyring) -> Result<KeyId, KeysError> {
    let mut known = store.keys().await?;
    if known.is_empty() {
        let first = keyring.last().ok_or(KeysError::NoPrimary)?;
        let operator = Operator::open(target, &Handle::current()).await?;
        let now = Timestamp::from(Utc::now());
        operator
            .add_first_key(first, keyring.check_value(first)?, now)
            .await?;
        operator.close().await;
        known = store.keys().await?;
    }
    for StoredKey {
        id,
        state,
        check_value,
        primary: _,
    } in &known
    {
        if state != "retired" {
            keyring
                .verify(id, check_value)
                .map_err(|error| KeysError::Key(id.clone(), error))?;
        }
    }
    let primary = known.into_iter().find(|key| key.primary);
    primary.map(|key| key.id).ok_or(KeysError::NoPrimary)
}
