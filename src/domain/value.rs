//! The value of a secret: the one thing that must never be printed, serialised or left in memory.

use std::fmt;

use zeroize::Zeroizing;

use super::ParseError;

/// The longest value, in bytes of UTF-8.
pub(super) const VALUE_BYTES: usize = 65_536;

/// A secret's value in the clear: 1–65,536 bytes of UTF-8 without NUL, kept byte for byte.
///
/// It is wiped when dropped, its `Debug` shows nothing, and it can be neither serialised nor displayed:
///
/// ```compile_fail
/// fn must_serialize<T: serde::Serialize>() {}
/// must_serialize::<rekey::SecretValue>();
/// ```
///
/// ```compile_fail
/// let value = rekey::SecretValue::parse("example".to_owned().into()).unwrap();
/// println!("{value}");
/// ```
///
/// Nor can it be copied without being seen to be copied:
///
/// ```compile_fail
/// let value = rekey::SecretValue::parse("example".to_owned().into()).unwrap();
/// let second = value.clone();
/// ```
pub struct SecretValue(Zeroizing<String>);

impl SecretValue {
    /// Takes a value over; on error it is wiped too.
    ///
    /// # Errors
    /// `TooShort` when empty, `TooLong` over 65,536 bytes, `Pattern` when it holds NUL (no environment variable can).
    pub fn parse(value: Zeroizing<String>) -> Result<Self, ParseError> {
        match value.len() {
            0 => Err(ParseError::TooShort),
            n if n > VALUE_BYTES => Err(ParseError::TooLong),
            _ if value.as_bytes().contains(&0) => Err(ParseError::Pattern),
            _ => Ok(Self(value)),
        }
    }

    /// The value, for sealing and for the mask.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SecretValue, ParseError> {
        SecretValue::parse(text.to_owned().into())
    }

    #[test]
    fn a_value_is_kept_byte_for_byte() {
        for text in ["x", " a\n", "é\u{feff}\r\n", &"x".repeat(VALUE_BYTES)] {
            assert_eq!(parse(text).unwrap().expose(), text);
        }
    }

    #[test]
    fn bad_values_are_refused() {
        assert_eq!(parse("").unwrap_err(), ParseError::TooShort);
        assert_eq!(parse("a\0b").unwrap_err(), ParseError::Pattern);
        assert_eq!(
            parse(&"x".repeat(VALUE_BYTES + 1)).unwrap_err(),
            ParseError::TooLong
        );
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(
            format!("{:?}", parse("canary").unwrap()),
            "SecretValue([REDACTED])"
        );
    }
}
