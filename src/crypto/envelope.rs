//! The bytes of sealed data, and the associated data that they are bound to.
//!
//! Sealed: format byte `1` ‖ nonce (24 bytes) ‖ ciphertext ‖ tag (32), by orion's key-committing
//! `cae::xchacha20poly1305blake2b`. Associated data: for each field its length as u32 big-endian, then
//! its bytes; an absent field has length 0. Both are stored for ever: a change of either is a new format.

use orion::errors::UnknownCryptoError;
use orion::hazardous::cae::xchacha20poly1305blake2b::{self as cae, Nonce, TAG_SIZE};
use zeroize::Zeroizing;

use crate::domain::KeyId;

pub(super) use orion::hazardous::cae::xchacha20poly1305blake2b::SecretKey;

const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 24;

/// Something could not be sealed; nothing was written anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealError {
    /// The operating system gave no random bytes, or the cipher refused.
    #[error("sealing failed")]
    Cipher,
    /// The primary key is not in this process's keyring.
    #[error("the primary key is not in the keyring")]
    KeyMissing,
}

impl From<UnknownCryptoError> for SealError {
    /// orion's one error says nothing more.
    fn from(UnknownCryptoError: UnknownCryptoError) -> Self {
        Self::Cipher
    }
}

/// Sealed bytes did not open: they were damaged or moved, or belong to another key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// The bytes are too short or of an unknown format.
    #[error("the sealed bytes have an unknown format")]
    Format,
    /// The tag does not fit this key and associated data.
    #[error("the sealed bytes do not belong to this key, owner, secret and version")]
    Refused,
    /// What was opened is not UTF-8, or not of the length it must have.
    #[error("the decrypted bytes are not valid")]
    Content,
    /// This process's keyring lacks the key.
    #[error("key {0} is not in the keyring")]
    KeyMissing(KeyId),
}

/// What is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A version's data key.
    DataKey,
    /// A version's value.
    Value,
    /// A version's mask.
    Mask,
    /// A key-encryption key's check value.
    KeyCheck,
    /// One of the service's own keys.
    ServiceKey,
    /// A keyring file.
    Keyring,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::DataKey => "data-key",
            Self::Value => "value",
            Self::Mask => "mask",
            Self::KeyCheck => "key-check",
            Self::ServiceKey => "service-key",
            Self::Keyring => "keyring",
        }
    }
}

/// What sealed bytes are bound to: the same fields must be given to open them.
#[derive(Debug, Clone, Copy)]
pub(super) struct AssociatedData<'a> {
    pub(super) purpose: Purpose,
    pub(super) owner: Option<&'a str>,
    pub(super) secret_id: Option<[u8; 16]>,
    pub(super) version_id: Option<[u8; 16]>,
    pub(super) kek_id: Option<&'a str>,
    pub(super) name: Option<&'a str>,
}

impl<'a> AssociatedData<'a> {
    /// Of what belongs to a key-encryption key, and to no secret.
    pub(super) fn of_key(purpose: Purpose, kek_id: &'a KeyId, name: Option<&'a str>) -> Self {
        Self {
            purpose,
            owner: None,
            secret_id: None,
            version_id: None,
            kek_id: Some(kek_id.as_str()),
            name,
        }
    }

    fn to_bytes(self) -> Vec<u8> {
        length_prefixed(&[
            b"rekey",
            &[FORMAT],
            self.purpose.as_str().as_bytes(),
            // An absent field has length 0.
            self.owner.unwrap_or_default().as_bytes(),
            self.secret_id.as_ref().map_or(&[], <[u8; 16]>::as_slice),
            self.version_id.as_ref().map_or(&[], <[u8; 16]>::as_slice),
            self.kek_id.unwrap_or_default().as_bytes(),
            self.name.unwrap_or_default().as_bytes(),
        ])
    }
}

/// For each field its length as u32 big-endian, then its bytes.
pub(super) fn length_prefixed(fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    for field in fields {
        #[expect(
            clippy::expect_used,
            reason = "no field is longer than a label on the command line, far below 4 GiB"
        )]
        let length = u32::try_from(field.len()).expect("a short field");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}

/// Seals `plaintext` (of any length, empty too), bound to the associated data.
pub(super) fn seal(
    key: &SecretKey,
    associated_data: AssociatedData<'_>,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    let nonce = Nonce::generate()?;
    let bound_to = associated_data.to_bytes();
    let mut body = vec![0; plaintext.len() + TAG_SIZE];
    cae::seal(key, &nonce, plaintext, Some(&bound_to), &mut body)?;
    Ok([&[FORMAT], nonce.as_ref(), &body].concat())
}

/// Opens what [`seal`] made with the same key and associated data.
pub(super) fn open(
    key: &SecretKey,
    associated_data: AssociatedData<'_>,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (format, rest) = sealed.split_first().ok_or(OpenError::Format)?;
    let (nonce, body) = rest
        .split_at_checked(NONCE_BYTES)
        .ok_or(OpenError::Format)?;
    let length = body.len().checked_sub(TAG_SIZE).ok_or(OpenError::Format)?;
    if *format != FORMAT {
        return Err(OpenError::Format);
    }
    // orion's one error says nothing more.
    let nonce = Nonce::try_from(nonce).or(Err(OpenError::Format))?;
    let bound_to = associated_data.to_bytes();
    let mut plaintext = Zeroizing::new(vec![0; length]);
    let opened = cae::open(key, &nonce, body, Some(&bound_to), &mut plaintext);
    // As above.
    opened.or(Err(OpenError::Refused))?;
    Ok(plaintext)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn data() -> AssociatedData<'static> {
        AssociatedData {
            purpose: Purpose::Value,
            owner: Some("alice"),
            secret_id: Some([1; 16]),
            version_id: Some([2; 16]),
            kek_id: None,
            name: None,
        }
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let key = SecretKey::generate().unwrap();
        let sealed = seal(&key, data(), b"example").unwrap();
        assert_eq!(sealed.len(), 1 + 24 + 7 + 32);
        assert_eq!(sealed[0], 1);
        let bound = data().to_bytes();
        let mut expected = Vec::new();
        for field in [
            b"rekey".as_slice(),
            &[1],
            b"value",
            b"alice",
            &[1; 16],
            &[2; 16],
            b"",
            b"",
        ] {
            expected.extend_from_slice(&u32::try_from(field.len()).unwrap().to_be_bytes());
            expected.extend_from_slice(field);
        }
        assert_eq!(bound, expected);
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_refused() {
        let key = SecretKey::generate().unwrap();
        let sealed = seal(&key, data(), b"example").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&key, data(), &damaged).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(open(&key, data(), &sealed[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn another_place_or_key_is_refused() {
        let key = SecretKey::generate().unwrap();
        let sealed = seal(&key, data(), b"example").unwrap();
        let changes: [fn(&mut AssociatedData<'_>); 8] = [
            |data| data.purpose = Purpose::Mask,
            |data| data.owner = Some("bob"),
            |data| data.owner = Some("alic"),
            |data| data.secret_id = Some([3; 16]),
            |data| data.version_id = Some([3; 16]),
            |data| data.secret_id = None,
            |data| data.kek_id = Some("k"),
            |data| data.name = Some("k"),
        ];
        for change in changes {
            let mut other = data();
            change(&mut other);
            assert_eq!(open(&key, other, &sealed).unwrap_err(), OpenError::Refused);
        }
        let other = SecretKey::generate().unwrap();
        assert_eq!(
            open(&other, data(), &sealed).unwrap_err(),
            OpenError::Refused
        );
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(plaintext in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let key = SecretKey::generate().unwrap();
            let sealed = seal(&key, data(), &plaintext).unwrap();
            prop_assert_eq!(&*open(&key, data(), &sealed).unwrap(), &plaintext);
        }

        #[test]
        fn no_two_places_share_their_associated_data(a in "[a-z]{0,8}", b in "[a-z]{0,8}", c in "[a-z]{0,8}", d in "[a-z]{0,8}") {
            let one = AssociatedData { owner: Some(&a), kek_id: Some(&b), ..data() };
            let other = AssociatedData { owner: Some(&c), kek_id: Some(&d), ..data() };
            prop_assert_eq!(one.to_bytes() == other.to_bytes(), (a, b) == (c, d));
        }
    }
}
