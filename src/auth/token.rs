//! API tokens: `rekey_<id>_<secret><checksum>`.
//!
//! `id`: 16 random base62 characters, public. `secret`: 43 (256 random bits). `checksum`: 6 base62 digits
//! of the CRC-32 (ISO-HDLC) of all ASCII before it, so that scanners, and rekey without a look-up,
//! recognise a damaged token.

use std::fmt;

use zeroize::Zeroizing;

use crate::{
    crypto::{RandomError, base62_digit, blake2b_256, random_base62},
    domain::{Grant, HASH_BYTES},
    store::StoredToken,
};

const PREFIX: &str = "rekey_";
const ID: usize = 16;
const SECRET: usize = 43;
const CHECKSUM: usize = 6;
const LENGTH: usize = PREFIX.len() + ID + 1 + SECRET + CHECKSUM;

/// A token of the right form. Its `Debug` shows the public ID alone.
pub(crate) struct Token(Zeroizing<String>);

impl Token {
    /// Makes a fresh token.
    ///
    /// # Errors
    /// [`RandomError`].
    pub(crate) fn generate() -> Result<Self, RandomError> {
        let (id, secret) = (random_base62(ID)?, random_base62(SECRET)?);
        let mut text = Zeroizing::new(String::with_capacity(LENGTH));
        text.push_str(PREFIX);
        text.push_str(&id);
        text.push('_');
        text.push_str(&secret);
        let digits = checksum(text.as_bytes());
        text.push_str(&digits);
        Ok(Self(text))
    }

    /// Reads a token; nothing when its form or its checksum is wrong. It says nothing about whether the
    /// token is known.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() != LENGTH || !text.is_ascii() {
            return None;
        }
        let (body, digits) = text.split_at_checked(LENGTH - CHECKSUM)?;
        let (id, secret) = body.strip_prefix(PREFIX)?.split_once('_')?;
        let base62 = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric());
        let good =
            id.len() == ID && base62(id) && base62(secret) && checksum(body.as_bytes()) == digits;
        good.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The public ID.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "`generate` and `parse`, which make every token, give it its length and ASCII alone"
    )]
    pub(crate) fn id(&self) -> &str {
        let id = self.0.get(PREFIX.len()..PREFIX.len() + ID);
        id.expect("a token has an ID")
    }

    /// The whole token, to be shown once.
    #[must_use]
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// BLAKE2b-256 of the whole token: what is stored.
    #[must_use]
    pub(crate) fn digest(&self) -> [u8; HASH_BYTES] {
        blake2b_256(&[self.0.as_bytes()])
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, [REDACTED])", self.id())
    }
}

/// The row of a fresh token.
#[must_use]
pub(crate) fn issue(token: &Token, grant: Grant) -> StoredToken {
    StoredToken {
        id: token.id().to_owned(),
        digest: token.digest().to_vec(),
        grant,
        revoked_at: None,
        last_used_at: None,
    }
}

/// Six base62 digits (`0-9A-Za-z`), the most significant first, zero-padded.
fn checksum(ascii: &[u8]) -> String {
    let mut rest = crc32fast::hash(ascii);
    let mut digits = ['0'; CHECKSUM];
    // 62^6 is over 2^32: six digits are enough.
    for digit in digits.iter_mut().rev() {
        *digit = base62_digit(rest);
        rest /= 62;
    }
    digits.iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_the_documented_form() {
        let token = Token::generate().unwrap();
        assert_eq!(token.expose().len(), 72);
        assert!(
            token
                .expose()
                .starts_with(&format!("rekey_{}_", token.id()))
        );
        assert_eq!(
            Token::parse(token.expose()).unwrap().digest(),
            token.digest()
        );
        assert!(!format!("{token:?}").contains(token.expose().split_at(23).1));
    }

    #[test]
    fn the_checksum_is_crc_32_iso_hdlc_in_base62() {
        // The check value of CRC-32/ISO-HDLC over "123456789" is 0xCBF43926 = 3,421,780,262.
        assert_eq!(crc32fast::hash(b"123456789"), 0xCBF4_3926);
        assert_eq!(checksum(b"123456789"), "3jZRME");
        assert_eq!(checksum(b""), "000000");
    }

    #[test]
    fn damaged_tokens_are_recognised() {
        let token = Token::generate().unwrap();
        let good = token.expose();
        for at in 0..good.len() {
            let mut damaged = good.as_bytes().to_vec();
            damaged[at] = if damaged[at] == b'0' { b'1' } else { b'0' };
            assert!(
                Token::parse(std::str::from_utf8(&damaged).unwrap()).is_none(),
                "{at}"
            );
        }
        for bad in [
            "",
            "rekey_",
            good.split_at(1).1,
            &format!("{good}0"),
            &"é".repeat(36),
        ] {
            assert!(Token::parse(bad).is_none(), "{bad}");
        }
    }
}
