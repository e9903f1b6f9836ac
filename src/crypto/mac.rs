//! Message authentication codes: keyed BLAKE2b-256 (RFC 7693 section 2.9) over length-prefixed fields.
//!
//! For each field its length as u32 big-endian, then its bytes: no two lists of fields give the same bytes.
//! The codes are stored for ever: a change is a new format.

use std::fmt;

use orion::{
    errors::UnknownCryptoError,
    hazardous::mac::blake2b::{Blake2b, SecretKey, Tag},
};

use super::envelope::length_prefixed;
use crate::domain::HASH_BYTES;

const KEY_BYTES: usize = 32;

/// The key of message authentication codes. It is wiped on drop, and nothing shows it.
pub(crate) struct MacKey(SecretKey);

impl MacKey {
    /// Makes a key of 32 bytes; nothing for any other length.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; KEY_BYTES] = bytes.try_into().ok()?;
        SecretKey::try_from(bytes.as_slice()).ok().map(Self)
    }

    /// The code of these fields.
    #[must_use]
    pub(crate) fn code(&self, fields: &[&[u8]]) -> [u8; HASH_BYTES] {
        #[expect(
            clippy::expect_used,
            reason = "orion refuses a size outside 1–64 and an update after `finalize`, nothing else"
        )]
        let tag = self.tag(fields).expect("BLAKE2b of 32 bytes can't fail");
        let mut code = [0; HASH_BYTES];
        code.copy_from_slice(tag.unprotected_as_ref());
        code
    }

    fn tag(&self, fields: &[&[u8]]) -> Result<Tag, UnknownCryptoError> {
        let mut state = Blake2b::new(&self.0, HASH_BYTES)?;
        state.update(&length_prefixed(fields))?;
        state.finalize()
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> MacKey {
        let bytes: Vec<u8> = (0..32).collect();
        MacKey::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn the_code_is_that_of_other_implementations() {
        // Python: hashlib.blake2b(b"".join(struct.pack(">I", len(f)) + f for f in (b"re", b"", b"key")),
        // digest_size=32, key=bytes(range(32))).hexdigest()
        assert_eq!(
            hex::encode(key().code(&[b"re", b"", b"key"])),
            "0794ccf4bb1b549b52572c05b06820b64d12009f8e731bd00f8253fb312ca4f0"
        );
    }

    #[test]
    fn other_fields_or_another_key_give_another_code() {
        let code = key().code(&[b"a", b"bc"]);
        assert_eq!(key().code(&[b"a", b"bc"]), code);
        for other in [
            &[b"ab".as_slice(), b"c"][..],
            &[b"abc"],
            &[b"a", b"bc", b""],
        ] {
            assert_ne!(key().code(other), code, "{other:?}");
        }
        let stranger = MacKey::from_bytes(&[7; 32]).unwrap();
        assert_ne!(stranger.code(&[b"a", b"bc"]), code);
    }

    #[test]
    fn a_key_has_32_bytes_and_is_not_shown() {
        assert!(MacKey::from_bytes(&[1; 31]).is_none());
        assert!(MacKey::from_bytes(&[1; 64]).is_none());
        assert_eq!(format!("{:?}", key()), "MacKey([REDACTED])");
    }
}
