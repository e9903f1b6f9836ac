//! Checks that keyring and database match, registers the first key, and opens the service's
//! own keys.

use chrono::Utc;
use tokio::runtime::Handle;

use crate::{
    crypto::{CheckpointSigner, Keyring, OpenError, SealError, Sealer},
    domain::{KeyId, KeyState, ServiceKeyName, Timestamp},
    store::{Admin, Reader, StoreError, StoredServiceKey, Target},
};

/// Keyring and database don't match.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    /// A key that the database needs is missing, or is another one.
    #[error("key {0} of the database can't be used with this keyring")]
    Key(KeyId, #[source] OpenError),
    /// The first key can't be registered, or one of the service's own not be made.
    #[error("a key can't be created")]
    Seal(#[from] SealError),
    /// The database can't be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// One of the service's own keys does not open.
    #[error("the service's own key {} does not open", .0.as_str())]
    ServiceKey(ServiceKeyName, #[source] OpenError),
    /// One of the service's own keys was not there to be read after it had been made.
    #[error("the service's own key {} could not be created: the primary key was being retired", .0.as_str())]
    Unmade(ServiceKeyName),
    /// The database has keys, but none is the primary one.
    #[error("the database names no primary key")]
    NoPrimary,
}

/// Checks that the keyring holds every key that is not retired, with the right bytes, and answers the
/// primary one. An empty table gets the keyring's last key as its first and primary one.
///
/// # Errors
/// [`KeysError`] names the key.
pub(crate) async fn verify(
    reader: &Reader,
    target: &Target,
    keyring: &Keyring,
) -> Result<KeyId, KeysError> {
    let mut known = reader.keys().await?;
    if known.is_empty() {
        let first = keyring.last().ok_or(KeysError::NoPrimary)?;
        let admin = Admin::open(target, &Handle::current()).await?;
        let now = Timestamp::from(Utc::now());
        let check_value = keyring.check_value(first)?;
        admin.add_first_key(first, check_value, now).await?;
        admin.close().await;
        known = reader.keys().await?;
    }
    for key in known.iter().filter(|key| key.state != KeyState::Retired) {
        keyring
            .verify(&key.id, &key.check_value)
            .map_err(|error| KeysError::Key(key.id.clone(), error))?;
    }
    let primary = known.into_iter().find(|key| key.primary);
    primary.map(|key| key.id).ok_or(KeysError::NoPrimary)
}

/// The signer of checkpoints. Its key is made, sealed under the primary one, when the database has none;
/// of two replicas that start at once the first makes it.
///
/// # Errors
/// [`KeysError`] when it can't be made or does not open.
pub(crate) async fn checkpoint_signer(
    reader: &Reader,
    target: &Target,
    sealer: &Sealer,
    primary: &KeyId,
) -> Result<CheckpointSigner, KeysError> {
    let name = ServiceKeyName::CheckpointSigning;
    if let Some(signer) = open_signer(sealer, &reader.service_keys().await?)? {
        return Ok(signer);
    }
    let bytes = sealer.generate_service_key(primary, name)?;
    let admin = Admin::open(target, &Handle::current()).await?;
    let now = Timestamp::from(Utc::now());
    admin.add_service_key(name, primary, bytes, now).await?;
    admin.close().await;
    open_signer(sealer, &reader.service_keys().await?)?.ok_or(KeysError::Unmade(name))
}

/// The signer of checkpoints from the rows of the service's own keys; nothing when its row is not there.
///
/// # Errors
/// [`KeysError::ServiceKey`] when it does not open.
pub(crate) fn open_signer(
    sealer: &Sealer,
    known: &[StoredServiceKey],
) -> Result<Option<CheckpointSigner>, KeysError> {
    let name = ServiceKeyName::CheckpointSigning;
    let row = known.iter().find(|key| key.name == name.as_str());
    row.map(|key| sealer.checkpoint_signer(&key.kek_id, &key.sealed))
        .transpose()
        .map_err(|error| KeysError::ServiceKey(name, error))
}
