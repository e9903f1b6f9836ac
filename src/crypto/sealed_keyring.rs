//! A keyring file that a passphrase seals.
//!
//! File: `{"sealed_keyring":1,"kdf":"argon2id","memory_kib":…,"iterations":…,"salt":"…","sealed":"…"}`. The salt (16
//! bytes) and the sealed keyring are in padded standard base64. Argon2id (version 0x13, one lane) makes the key of
//! passphrase and salt; with another passphrase or other parameters nothing opens, because the cipher commits to its key.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use orion::{
    errors::UnknownCryptoError,
    hazardous::kdf::argon2::{Argon2, CostParams, ID, Sequential},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::envelope::{self, AssociatedData, Purpose, SecretKey};

const FORMAT: u32 = 1;
const KDF: &str = "argon2id";
const SALT_BYTES: usize = 16;
/// What new files get: the second choice of RFC 9106, with one lane.
const MEMORY_KIB: u32 = 65_536;
const ITERATIONS: u32 = 3;
/// What a file may ask for: whoever can write it must not take all memory, or hold a start up for minutes.
const MOST_MEMORY_KIB: u32 = 262_144;
const MOST_ITERATIONS: u32 = 16;
/// Less would be no hindrance (OWASP's least).
const LEAST_MEMORY_KIB: u32 = 19_456;

/// Why a sealed keyring does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealedKeyringError {
    /// It is not of the documented form.
    #[error(
        "it is not of the form {{\"sealed_keyring\":1,\"kdf\",\"memory_kib\",\"iterations\",\"salt\",\"sealed\"}}"
    )]
    Form,
    /// A newer version wrote it.
    #[error("it has the format {0}, and this version knows 1")]
    Format(u32),
    /// The parameters are out of bounds.
    #[error(
        "it asks for more or less of Argon2id than is allowed: 19456 to 262144 KiB of memory, 1 to 16 iterations"
    )]
    Cost,
    /// Another passphrase sealed it, or it was altered.
    #[error("keyring.passphrase does not open it: it is another one, or the file was altered")]
    Refused,
    /// There are no random bytes, or no memory.
    #[error("the cipher failed")]
    Cipher,
}

impl From<UnknownCryptoError> for SealedKeyringError {
    /// orion's one error says nothing more.
    fn from(UnknownCryptoError: UnknownCryptoError) -> Self {
        Self::Cipher
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedFile {
    sealed_keyring: u32,
    kdf: String,
    memory_kib: u32,
    iterations: u32,
    salt: String,
    sealed: String,
}

/// Whether a keyring file is a sealed one, of whatever format.
pub(super) fn is_sealed(text: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Mark {
        #[serde(rename = "sealed_keyring")]
        _format: u32,
    }
    serde_json::from_slice::<Mark>(text).is_ok()
}

/// Seals the text of a keyring file.
pub(super) fn seal(text: &[u8], passphrase: &SecretString) -> Result<String, SealedKeyringError> {
    let mut salt = [0; SALT_BYTES];
    orion::util::secure_rand_bytes(&mut salt)?;
    let key = derive(passphrase, &salt, MEMORY_KIB, ITERATIONS)?;
    let sealed = envelope::seal(&key, bound_to(), text).or(Err(SealedKeyringError::Cipher))?;
    let file = SealedFile {
        sealed_keyring: FORMAT,
        kdf: KDF.to_owned(),
        memory_kib: MEMORY_KIB,
        iterations: ITERATIONS,
        salt: STANDARD.encode(salt),
        sealed: STANDARD.encode(sealed),
    };
    // Numbers and strings, written to memory, can't fail.
    serde_json::to_string_pretty(&file).or(Err(SealedKeyringError::Form))
}

/// Opens what [`seal`] made.
pub(super) fn open(
    text: &[u8],
    passphrase: &SecretString,
) -> Result<Zeroizing<Vec<u8>>, SealedKeyringError> {
    #[derive(Deserialize)]
    struct Mark {
        sealed_keyring: u32,
    }
    let mark: Mark = serde_json::from_slice(text).or(Err(SealedKeyringError::Form))?;
    if mark.sealed_keyring != FORMAT {
        return Err(SealedKeyringError::Format(mark.sealed_keyring));
    }
    let file: SealedFile = serde_json::from_slice(text).or(Err(SealedKeyringError::Form))?;
    let decode = |text: &str| STANDARD.decode(text).or(Err(SealedKeyringError::Form));
    let (salt, sealed) = (decode(&file.salt)?, decode(&file.sealed)?);
    if file.kdf != KDF || salt.len() != SALT_BYTES {
        return Err(SealedKeyringError::Form);
    }
    let memory = LEAST_MEMORY_KIB..=MOST_MEMORY_KIB;
    if !memory.contains(&file.memory_kib) || !(1..=MOST_ITERATIONS).contains(&file.iterations) {
        return Err(SealedKeyringError::Cost);
    }
    let key = derive(passphrase, &salt, file.memory_kib, file.iterations)?;
    envelope::open(&key, bound_to(), &sealed).or(Err(SealedKeyringError::Refused))
}

fn derive(
    passphrase: &SecretString,
    salt: &[u8],
    memory_kib: u32,
    iterations: u32,
) -> Result<SecretKey, SealedKeyringError> {
    let cost = CostParams::new(iterations, memory_kib, 1)?;
    let mut bytes = Zeroizing::new([0; 32]);
    let passphrase = passphrase.expose_secret().as_bytes();
    Argon2::<ID, Sequential>::derive_key(passphrase, salt, &cost, None, None, &mut *bytes)?;
    Ok(SecretKey::try_from(bytes.as_slice())?)
}

fn bound_to() -> AssociatedData<'static> {
    AssociatedData {
        purpose: Purpose::Keyring,
        owner: None,
        secret_id: None,
        version_id: None,
        kek_id: None,
        name: None,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::{
        crypto::{Keyring, KeyringError},
        domain::Timestamp,
    };

    fn passphrase(text: &str) -> SecretString {
        SecretString::from(text)
    }

    /// A sealed file with one field replaced.
    fn with(sealed: &str, field: &str, value: serde_json::Value) -> Vec<u8> {
        let mut file: serde_json::Value = serde_json::from_str(sealed).unwrap();
        file[field] = value;
        serde_json::to_vec(&file).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_the_passphrase_alone() {
        let right = passphrase("correct horse battery");
        let sealed = seal(b"canary", &right).unwrap();
        assert!(is_sealed(sealed.as_bytes()) && !is_sealed(b"{\"keys\":[]}"));
        assert!(!sealed.contains("canary"));
        assert_eq!(*open(sealed.as_bytes(), &right).unwrap(), b"canary");
        let wrong = open(sealed.as_bytes(), &passphrase("correct horse batterz"));
        assert_eq!(wrong, Err(SealedKeyringError::Refused));
        assert_ne!(seal(b"canary", &right).unwrap(), sealed);
    }

    #[test]
    fn an_altered_file_is_refused_and_none_takes_all_memory() {
        use SealedKeyringError::{Cost, Form, Format, Refused};
        let right = passphrase("correct horse battery");
        let sealed = seal(b"canary", &right).unwrap();
        for (field, value, expected) in [
            ("sealed_keyring", 2.into(), Format(2)),
            ("kdf", "argon2i".into(), Form),
            ("memory_kib", 262_145.into(), Cost),
            ("memory_kib", u32::MAX.into(), Cost),
            ("memory_kib", 19_455.into(), Cost),
            ("memory_kib", 32_768.into(), Refused),
            ("iterations", 0.into(), Cost),
            ("iterations", 17.into(), Cost),
            ("iterations", 2.into(), Refused),
            ("salt", STANDARD.encode([1; 16]).into(), Refused),
            ("salt", STANDARD.encode([1; 8]).into(), Form),
            ("salt", "?".into(), Form),
            ("sealed", STANDARD.encode([1; 99]).into(), Refused),
            ("sealed", "".into(), Refused),
            ("more", 1.into(), Form),
        ] {
            let altered = with(&sealed, field, value);
            assert_eq!(open(&altered, &right), Err(expected), "{field}");
        }
    }

    #[test]
    fn a_passphrase_seals_the_file_and_a_new_key_goes_into_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring.json");
        let [right, wrong] = ["correct horse battery", "another one here"].map(SecretString::from);
        let now = Timestamp::from_micros(0);
        let first = Keyring::generate(&path, None, now).unwrap();
        assert!(matches!(
            Keyring::read(&path, Some(&right)),
            Err(KeyringError::Unsealed(_))
        ));
        Keyring::seal(&path, &right).unwrap();
        let sealed = fs::read_to_string(&path).unwrap();
        assert!(!sealed.contains(first.as_str()));
        assert!(matches!(
            Keyring::read(&path, None),
            Err(KeyringError::Locked(_))
        ));
        assert!(matches!(
            Keyring::read(&path, Some(&wrong)),
            Err(KeyringError::Sealed(_, SealedKeyringError::Refused))
        ));
        // Neither seals it twice nor adds a key without the passphrase.
        for refused in [
            Keyring::seal(&path, &right),
            Keyring::unseal(&path, &wrong),
            Keyring::generate(&path, None, now).map(drop),
            Keyring::generate(&path, Some(&wrong), now).map(drop),
        ] {
            refused.unwrap_err();
            assert_eq!(fs::read_to_string(&path).unwrap(), sealed);
        }
        let second = Keyring::generate(&path, Some(&right), now).unwrap();
        let ring = Keyring::read(&path, Some(&right)).unwrap();
        assert_eq!(ring.ids().collect::<Vec<_>>(), [&first, &second]);
        Keyring::unseal(&path, &right).unwrap();
        let ring = Keyring::read(&path, None).unwrap();
        assert_eq!(ring.ids().collect::<Vec<_>>(), [&first, &second]);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
