//! Random characters from the operating system.

use zeroize::Zeroizing;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The digit of `number` modulo 62: `0-9A-Za-z`.
#[must_use]
pub(crate) fn base62_digit(number: u32) -> char {
    #[expect(
        clippy::expect_used,
        reason = "a remainder below 62 is an index of 62 digits"
    )]
    let digit = BASE62.get((number % 62) as usize).expect("a digit");
    char::from(*digit)
}

/// The operating system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub(crate) struct RandomError;

/// `count` characters of `0-9A-Za-z`, each with the same probability.
///
/// # Errors
/// [`RandomError`] when the operating system's generator fails.
pub(crate) fn random_base62(count: usize) -> Result<Zeroizing<String>, RandomError> {
    let mut text = Zeroizing::new(String::with_capacity(count));
    let mut bytes = Zeroizing::new([0_u8; 64]);
    while text.len() < count {
        // orion's one error says nothing more.
        orion::util::secure_rand_bytes(&mut *bytes).or(Err(RandomError))?;
        // Bytes from 248 (4 × 62) on are thrown away, so that no character is likelier than another.
        let characters = bytes.iter().filter(|byte| **byte < 248);
        for byte in characters.take(count - text.len()) {
            text.push(base62_digit(u32::from(*byte)));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_as_many_characters_as_asked_for_and_other_ones_each_time() {
        let (one, other) = (random_base62(100).unwrap(), random_base62(100).unwrap());
        assert_eq!(one.len(), 100);
        assert!(one.bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_ne!(one, other);
    }
}
