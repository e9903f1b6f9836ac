//! The key source: a file, or a list from the settings.
//!
//! File: `{"keys":[{"id": "…", "key": "<standard base64 of 32 bytes, padded>", "created_at": "…"}]}`,
//! mode 0600 or stricter. Only the database says which key is the primary one.

use std::{
    fmt, fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use orion::errors::UnknownCryptoError;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{
    envelope::{self, AssociatedData, OpenError, Purpose, SealError, SecretKey},
    random::{RandomError, random_base62},
    sealed_keyring::{self, SealedKeyringError},
};
use crate::{
    domain::{KeyId, Timestamp},
    files::{NotPrivate, Replacement, create_folder, folder_of, refuse_shared},
};

const KEY_BYTES: usize = 32;
const CHECKED: [u8; 32] = [0; 32];

/// Why a keyring could not be read or extended. No text holds a key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyringError {
    /// There is no such file.
    #[error("there is no keyring at {}: create one with `rekey keys generate`", .0.display())]
    Absent(PathBuf),
    /// The file could not be read or written.
    #[error("the keyring {} can't be used", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// Someone else owns the file, or can read or write it.
    #[error("the keyring {} is not private (its mode must be 0600 or stricter)", .0.display())]
    Shared(PathBuf, #[source] NotPrivate),
    /// The file is not of the documented form.
    #[error("the keyring {} is not of the form {{\"keys\":[{{\"id\",\"key\",\"created_at\"}}]}}", .0.display())]
    Form(PathBuf),
    /// A passphrase seals the file, and none is given.
    #[error("the keyring {} is sealed: set keyring.passphrase", .0.display())]
    Locked(PathBuf),
    /// A passphrase is given, and the file is open.
    #[error(
        "keyring.passphrase is set, but the keyring {} is not sealed: seal it with `rekey keys seal`", .0.display()
    )]
    Unsealed(PathBuf),
    /// The file can't be sealed or opened.
    #[error("the sealed keyring {} can't be used", .0.display())]
    Sealed(PathBuf, #[source] SealedKeyringError),
    /// An entry is not a valid key.
    #[error(
        "entry {0} of the keyring: must be an id of [a-z0-9-]{{1,32}}, which no other entry has, and the padded standard base64 of 32 bytes"
    )]
    Entry(usize),
    /// There is no key at all.
    #[error("the keyring holds no key")]
    Empty,
    /// The operating system gave no random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl From<UnknownCryptoError> for KeyringError {
    /// Only the generation of a key fails with orion's one error, and only for want of random bytes.
    fn from(UnknownCryptoError: UnknownCryptoError) -> Self {
        Self::Random(RandomError)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    keys: Vec<KeyEntry>,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    id: String,
    key: String,
    created_at: String,
}

/// The key-encryption keys that this process holds, by ID, in the source's order.
pub(crate) struct Keyring {
    keys: Vec<(KeyId, SecretKey)>,
}

impl Keyring {
    /// Reads the keyring file, which is sealed if there is a passphrase.
    ///
    /// # Errors
    /// [`KeyringError`] when it is absent, readable for others, malformed or empty, or does not open.
    pub(crate) fn read(
        path: &Path,
        passphrase: Option<&SecretString>,
    ) -> Result<Self, KeyringError> {
        let entries = read_file(path, passphrase)?;
        Self::from_pairs(entries.keys.iter().map(|e| (e.id.as_str(), e.key.as_str())))
    }

    /// Reads a list of `id:base64` (the setting `keyring.keys`).
    ///
    /// # Errors
    /// [`KeyringError::Entry`] with the entry's number from 1, [`KeyringError::Empty`].
    pub(crate) fn from_list<'a>(
        list: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, KeyringError> {
        // An entry without a colon has an empty key, which is refused as such.
        Self::from_pairs(
            list.into_iter()
                .map(|e| e.split_once(':').unwrap_or((e, ""))),
        )
    }

    fn from_pairs<'a>(
        pairs: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, KeyringError> {
        let mut keys: Vec<(KeyId, SecretKey)> = Vec::new();
        for (index, (id, key)) in pairs.enumerate() {
            let refused = KeyringError::Entry(index + 1);
            let (Ok(id), Some(key)) = (KeyId::parse(id), decode(key)) else {
                return Err(refused);
            };
            if keys.iter().any(|(known, _)| *known == id) {
                return Err(refused);
            }
            keys.push((id, key));
        }
        if keys.is_empty() {
            return Err(KeyringError::Empty);
        }
        Ok(Self { keys })
    }

    /// Adds a fresh key to the file, and creates file (0600) and folder (0700) if they are missing. The
    /// file is replaced as a whole: a crash leaves the old one or the new one.
    ///
    /// # Errors
    /// [`KeyringError`]; the file is then as it was.
    pub(crate) fn generate(
        path: &Path,
        passphrase: Option<&SecretString>,
        now: Timestamp,
    ) -> Result<KeyId, KeyringError> {
        let fail = |error| KeyringError::File(path.to_owned(), error);
        create_folder(folder_of(path)).map_err(fail)?;
        let _lock = lock(path)?;
        let mut file = match read_file(path, passphrase) {
            Ok(file) => file,
            Err(KeyringError::Absent(_)) => KeyFile { keys: Vec::new() },
            Err(error) => return Err(error),
        };
        let entry = new_entry(now)?;
        #[expect(clippy::expect_used, reason = "a day and 8 letters are a good ID")]
        let id = KeyId::parse(&entry.id).expect("an ID of our own");
        file.keys.push(entry);
        write_file(path, &file, passphrase)?;
        Ok(id)
    }

    /// Seals the keyring file with a passphrase.
    ///
    /// # Errors
    /// [`KeyringError`]; the file is then as it was.
    pub(crate) fn seal(path: &Path, passphrase: &SecretString) -> Result<(), KeyringError> {
        let _lock = lock(path)?;
        write_file(path, &read_file(path, None)?, Some(passphrase))
    }

    /// Replaces a sealed keyring file by an open one.
    ///
    /// # Errors
    /// [`KeyringError`]; the file is then as it was.
    pub(crate) fn unseal(path: &Path, passphrase: &SecretString) -> Result<(), KeyringError> {
        let _lock = lock(path)?;
        write_file(path, &read_file(path, Some(passphrase))?, None)
    }

    /// The last key of the source: what becomes the primary one in an empty database.
    #[must_use]
    pub(crate) fn last(&self) -> Option<&KeyId> {
        self.keys.last().map(|(id, _)| id)
    }

    /// The IDs of all keys, in the source's order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &KeyId> {
        self.keys.iter().map(|(id, _)| id)
    }

    /// The key to seal with.
    pub(super) fn to_seal(&self, id: &KeyId) -> Result<&SecretKey, SealError> {
        self.get(id).ok_or(SealError::KeyMissing)
    }

    /// The key to open with.
    pub(super) fn to_open(&self, id: &KeyId) -> Result<&SecretKey, OpenError> {
        self.get(id)
            .ok_or_else(|| OpenError::KeyMissing(id.clone()))
    }

    fn get(&self, id: &KeyId) -> Option<&SecretKey> {
        self.keys
            .iter()
            .find(|(known, _)| known == id)
            .map(|(_, key)| key)
    }

    /// A check value for a key: 32 zero bytes, sealed under it. With it a start proves that the source
    /// still holds the bytes that the database's versions were sealed under.
    ///
    /// # Errors
    /// [`SealError`] when the key is not in this keyring, or the cipher fails.
    pub(crate) fn check_value(&self, id: &KeyId) -> Result<Vec<u8>, SealError> {
        let data = AssociatedData::of_key(Purpose::KeyCheck, id, None);
        envelope::seal(self.to_seal(id)?, data, &CHECKED)
    }

    /// Whether this keyring's key of that ID is the one that made the check value.
    ///
    /// # Errors
    /// [`OpenError`] when the key is missing, or is another one under the same ID.
    pub(crate) fn verify(&self, id: &KeyId, check_value: &[u8]) -> Result<(), OpenError> {
        let data = AssociatedData::of_key(Purpose::KeyCheck, id, None);
        let opened = envelope::open(self.to_open(id)?, data, check_value)?;
        if *opened == CHECKED {
            Ok(())
        } else {
            Err(OpenError::Content)
        }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

fn decode(text: &str) -> Option<SecretKey> {
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    (bytes.len() == KEY_BYTES).then(|| SecretKey::try_from(bytes.as_slice()).ok())?
}

fn new_entry(now: Timestamp) -> Result<KeyEntry, KeyringError> {
    let key = SecretKey::generate()?;
    let suffix = random_base62(8)?.to_ascii_lowercase();
    let created_at = now.to_string();
    #[expect(clippy::expect_used, reason = "RFC 3339 has a T between day and time")]
    let (day, _) = created_at.split_once('T').expect("a day and a time");
    let bytes: &[u8] = key.unprotected_as_ref();
    Ok(KeyEntry {
        id: format!("{day}-{suffix}"),
        key: STANDARD.encode(bytes),
        created_at,
    })
}

/// Locks the file's folder: two commands at once must not lose each other's key.
fn lock(path: &Path) -> Result<fs::File, KeyringError> {
    let fail = |error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            KeyringError::Absent(path.to_owned())
        } else {
            KeyringError::File(path.to_owned(), error)
        }
    };
    let folder = fs::File::open(folder_of(path)).map_err(fail)?;
    folder.lock().map_err(fail)?;
    Ok(folder)
}

/// Replaces the file as a whole. It is sealed if there is a passphrase.
fn write_file(
    path: &Path,
    file: &KeyFile,
    passphrase: Option<&SecretString>,
) -> Result<(), KeyringError> {
    let fail = |error| KeyringError::File(path.to_owned(), error);
    let text = serde_json::to_string_pretty(file).map_err(|e| fail(e.into()))?;
    let mut text = Zeroizing::new(text);
    if let Some(passphrase) = passphrase {
        let sealed = sealed_keyring::seal(text.as_bytes(), passphrase);
        text = Zeroizing::new(sealed.map_err(|why| KeyringError::Sealed(path.to_owned(), why))?);
    }
    let mut replacement = Replacement::of(path, 0o600).map_err(fail)?;
    replacement.write_all(text.as_bytes()).map_err(fail)?;
    replacement.commit().map_err(fail)
}

fn read_file(path: &Path, passphrase: Option<&SecretString>) -> Result<KeyFile, KeyringError> {
    let fail = |error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            KeyringError::Absent(path.to_owned())
        } else {
            KeyringError::File(path.to_owned(), error)
        }
    };
    let mut file = fs::File::open(path).map_err(fail)?;
    refuse_shared(&file).map_err(|why| KeyringError::Shared(path.to_owned(), why))?;
    // As large as it is now, so that no part of it is left behind where the text grows.
    let length = file.metadata().map_err(fail)?.len();
    let length = usize::try_from(length).unwrap_or_default();
    let mut text = Zeroizing::new(Vec::with_capacity(length));
    file.read_to_end(&mut text).map_err(fail)?;
    let text = match (sealed_keyring::is_sealed(&text), passphrase) {
        (false, None) => text,
        (true, Some(passphrase)) => sealed_keyring::open(&text, passphrase)
            .map_err(|why| KeyringError::Sealed(path.to_owned(), why))?,
        (true, None) => return Err(KeyringError::Locked(path.to_owned())),
        (false, Some(_)) => return Err(KeyringError::Unsealed(path.to_owned())),
    };
    // serde_json's message would quote the file: it is not passed on.
    serde_json::from_slice(&text).or(Err(KeyringError::Form(path.to_owned())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn entry(id: &str, byte: u8) -> String {
        format!("{id}:{}", STANDARD.encode([byte; 32]))
    }

    fn put_file(path: &Path, text: &str) {
        let mut file = Replacement::of(path, 0o600).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.commit().unwrap();
    }

    #[test]
    fn generated_keys_are_read_back_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper/keyring.json");
        assert!(matches!(
            Keyring::read(&path, None),
            Err(KeyringError::Absent(_))
        ));
        let now = Timestamp::from_micros(1_776_254_400_000_000);
        let first = Keyring::generate(&path, None, now).unwrap();
        let second = Keyring::generate(&path, None, now).unwrap();
        assert!(first.as_str().starts_with("2026-04-15-"));
        let ring = Keyring::read(&path, None).unwrap();
        assert_eq!(ring.ids().collect::<Vec<_>>(), [&first, &second]);
        assert_eq!(ring.last(), Some(&second));
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring.json");
        Keyring::generate(&path, None, Timestamp::from_micros(0)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            Keyring::read(&path, None),
            Err(KeyringError::Shared(_, NotPrivate::Mode(0o640)))
        ));
    }

    #[test]
    fn malformed_sources_are_refused_without_quoting_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring.json");
        for text in [
            "",
            "canary",
            r#"{"keys":"canary"}"#,
            r#"{"keys":[{"id":"a","key":"canary"}]}"#,
        ] {
            put_file(&path, text);
            let error = Keyring::read(&path, None).unwrap_err();
            assert!(matches!(error, KeyringError::Form(_)), "{text}");
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
        let twice = [entry("a", 1), entry("a", 2)];
        let lists: [&[String]; 4] = [
            &twice,
            &["a".to_owned()],
            &["A:AAAA".to_owned()],
            &["a:AAAA".to_owned()],
        ];
        for list in lists {
            let error = Keyring::from_list(list.iter().map(String::as_str)).unwrap_err();
            assert!(matches!(error, KeyringError::Entry(_)), "{list:?}");
        }
        assert!(matches!(Keyring::from_list([]), Err(KeyringError::Empty)));
    }

    #[test]
    fn the_check_value_tells_a_wrong_key_from_the_right_one() {
        let id = KeyId::parse("a").unwrap();
        let (right, wrong, none) = (
            Keyring::from_list([entry("a", 1).as_str()]).unwrap(),
            Keyring::from_list([entry("a", 2).as_str()]).unwrap(),
            Keyring::from_list([entry("b", 1).as_str()]).unwrap(),
        );
        let check = right.check_value(&id).unwrap();
        assert_eq!(right.verify(&id, &check), Ok(()));
        assert_eq!(wrong.verify(&id, &check), Err(OpenError::Refused));
        assert_eq!(none.verify(&id, &check), Err(OpenError::KeyMissing(id)));
    }

    #[test]
    fn debug_shows_ids_alone() {
        let ring = Keyring::from_list([entry("a", 7).as_str()]).unwrap();
        assert_eq!(format!("{ring:?}"), r#"[KeyId("a")]"#);
    }
}
