//! Checks that keyring and database match, makes the first keys, and opens the service's own.
//!
//! The command line makes keys (`migrate up`; the embedded default at its first start), the service never does:
//! a key that is missing beside what rests on it is a database that somebody changed.

use std::sync::Arc;

use chrono::Utc;

use crate::{
    crypto::{CheckpointSigner, Keyring, MacKey, OpenError, SealError, Sealer},
    domain::{Agent, KeyId, KeyState, ServiceKeyName, Timestamp},
    store::{
        Admin, MissingKey, NewServiceKey, Reader, ServiceKeyOutcome, StoreError, StoredKey,
        StoredServiceKey,
    },
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
    /// One of the service's own keys is missing, and something rests on it.
    #[error(
        "the service's own key {name} is missing: restore its row in the table service_keys from a backup, or \
         run `rekey keys {remedy}`, which makes another one and records it",
        name = .0.as_str(), remedy = remedy(*.0)
    )]
    Gone(ServiceKeyName),
    /// One of the service's own keys is there, so that it can't be made anew.
    #[error("the service's own key {} is there", .0.as_str())]
    There(ServiceKeyName),
    /// One of the service's own keys could not be made.
    #[error("the service's own key {} could not be created: the primary key was being retired", .0.as_str())]
    Unmade(ServiceKeyName),
    /// The database has no primary key.
    #[error("the database names no primary key: run `rekey migrate up`")]
    NoPrimary,
    /// The keyring is empty.
    #[error("the keyring has no key: run `rekey keys generate`")]
    EmptyKeyring,
}

/// The command of `rekey keys` that makes a key anew.
const fn remedy(name: ServiceKeyName) -> &'static str {
    match name {
        ServiceKeyName::TokenMac => "new-token-key",
        ServiceKeyName::CheckpointSigning => "new-signing-key",
        ServiceKeyName::Idempotency => "new-idempotency-key",
    }
}

/// The keys that the service can't do without.
const OWN: [ServiceKeyName; 3] = [
    ServiceKeyName::CheckpointSigning,
    ServiceKeyName::TokenMac,
    ServiceKeyName::Idempotency,
];

/// The service's own keys, opened.
#[derive(Debug)]
pub(crate) struct OwnKeys {
    /// Signs checkpoints.
    pub signer: CheckpointSigner,
    /// Makes and checks the codes of the tokens' rows.
    pub token_mac: Arc<MacKey>,
    /// Makes and checks the codes of requests that are made once, and of their records.
    pub idempotency: Arc<MacKey>,
}

/// How old the database is that gets its own keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provenance {
    /// From a version whose tokens had no codes, and which made the signing key with its first start.
    Older,
    /// From this one: where something rests on a key, the key is there.
    Present,
}

/// Checks that the keyring holds every key that is not retired, with the right bytes, and answers the
/// primary one.
///
/// # Errors
/// [`KeysError::Key`] names the key, [`KeysError::NoPrimary`].
pub(crate) fn verify(known: &[StoredKey], keyring: &Keyring) -> Result<KeyId, KeysError> {
    for key in known.iter().filter(|key| key.state != KeyState::Retired) {
        keyring
            .verify(&key.id, &key.check_value)
            .map_err(|error| KeysError::Key(key.id.clone(), error))?;
    }
    let primary = known.iter().find(|key| key.primary);
    primary
        .map(|key| key.id.clone())
        .ok_or(KeysError::NoPrimary)
}

/// Checks a database's keys as [`verify`] does.
///
/// # Errors
/// [`KeysError`].
pub(crate) async fn verify_all(reader: &Reader, keyring: &Keyring) -> Result<KeyId, KeysError> {
    verify(&reader.keys().await?, keyring)
}

/// Makes what the database lacks: its first key-encryption key is the keyring's last one, and the service's own
/// keys are sealed under the primary one. Says how many tokens were taken over from an older version.
///
/// # Errors
/// [`KeysError`]; [`KeysError::Gone`] names a key that must not be made anew in silence.
pub(crate) async fn make(
    admin: &Admin,
    keyring: Keyring,
    provenance: Provenance,
) -> Result<usize, KeysError> {
    let now = Timestamp::from(Utc::now());
    if admin.keys().await?.is_empty() {
        let first = keyring.last().ok_or(KeysError::EmptyKeyring)?;
        let check_value = keyring.check_value(first)?;
        admin.add_first_key(first, check_value, now).await?;
    }
    let primary = verify(&admin.keys().await?, &keyring)?;
    let sealer = Sealer::new(keyring);
    let known = admin.service_keys().await?;
    let mut taken_over = 0;
    for name in OWN {
        if known.iter().any(|row| row.name == name.as_str()) {
            continue;
        }
        let bytes = sealer.generate_service_key(&primary, name)?;
        let missing = match (provenance, name) {
            (Provenance::Present, _) => MissingKey::First,
            (Provenance::Older, ServiceKeyName::TokenMac) => {
                MissingKey::Older(Some(Arc::new(open_mac(&sealer, (&primary, name), &bytes)?)))
            }
            (Provenance::Older, _) => MissingKey::Older(None),
        };
        match add(admin, name, &primary, bytes, missing).await? {
            ServiceKeyOutcome::Stored(coded) => taken_over += coded,
            // Of two that make it at once the first has made it.
            ServiceKeyOutcome::There => {}
            ServiceKeyOutcome::Gone => return Err(KeysError::Gone(name)),
            ServiceKeyOutcome::Refused => return Err(KeysError::Unmade(name)),
        }
    }
    Ok(taken_over)
}

/// Makes one of the service's own keys anew, with an event of it, where it is missing.
///
/// # Errors
/// [`KeysError::There`] when it is not missing.
pub(crate) async fn make_anew(
    admin: &Admin,
    keyring: Keyring,
    name: ServiceKeyName,
) -> Result<(), KeysError> {
    let primary = verify(&admin.keys().await?, &keyring)?;
    let sealed = Sealer::new(keyring).generate_service_key(&primary, name)?;
    match add(admin, name, &primary, sealed, MissingKey::Anew).await? {
        ServiceKeyOutcome::Stored(_) => Ok(()),
        ServiceKeyOutcome::There => Err(KeysError::There(name)),
        ServiceKeyOutcome::Gone => Err(KeysError::Gone(name)),
        ServiceKeyOutcome::Refused => Err(KeysError::Unmade(name)),
    }
}

async fn add(
    admin: &Admin,
    name: ServiceKeyName,
    primary: &KeyId,
    sealed: Vec<u8>,
    missing: MissingKey,
) -> Result<ServiceKeyOutcome, StoreError> {
    let key = NewServiceKey {
        name,
        kek_id: primary.clone(),
        sealed,
        created_at: Timestamp::from(Utc::now()),
        missing,
    };
    admin.add_service_key(key, Agent::OPERATOR).await
}

/// Opens the service's own keys.
///
/// # Errors
/// [`KeysError::Gone`] and [`KeysError::ServiceKey`] name the key.
pub(crate) async fn open(reader: &Reader, sealer: &Sealer) -> Result<OwnKeys, KeysError> {
    let rows = reader.service_keys().await?;
    let signer = open_signer(sealer, &rows)?;
    Ok(OwnKeys {
        signer: signer.ok_or(KeysError::Gone(ServiceKeyName::CheckpointSigning))?,
        token_mac: open_token_mac(sealer, &rows)?,
        idempotency: open_mac_key(sealer, &rows, ServiceKeyName::Idempotency)?,
    })
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
    find(known, name)
        .map(|key| sealer.checkpoint_signer(&key.kek_id, &key.sealed))
        .transpose()
        .map_err(|error| KeysError::ServiceKey(name, error))
}

/// The key of the tokens' codes from the rows of the service's own keys.
///
/// # Errors
/// [`KeysError::Gone`] when its row is not there, [`KeysError::ServiceKey`] when it does not open.
pub(crate) fn open_token_mac(
    sealer: &Sealer,
    known: &[StoredServiceKey],
) -> Result<Arc<MacKey>, KeysError> {
    open_mac_key(sealer, known, ServiceKeyName::TokenMac)
}

fn open_mac_key(
    sealer: &Sealer,
    known: &[StoredServiceKey],
    name: ServiceKeyName,
) -> Result<Arc<MacKey>, KeysError> {
    let key = find(known, name).ok_or(KeysError::Gone(name))?;
    open_mac(sealer, (&key.kek_id, name), &key.sealed).map(Arc::new)
}

fn open_mac(
    sealer: &Sealer,
    (kek_id, name): (&KeyId, ServiceKeyName),
    bytes: &[u8],
) -> Result<MacKey, KeysError> {
    let opened = sealer.mac_key(kek_id, name, bytes);
    opened.map_err(|error| KeysError::ServiceKey(name, error))
}

fn find(known: &[StoredServiceKey], name: ServiceKeyName) -> Option<&StoredServiceKey> {
    known.iter().find(|key| key.name == name.as_str())
}
