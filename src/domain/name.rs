//! The name of a secret (an environment variable) and its provider.

use serde::Serialize;

use super::ParseError;

/// The name of the environment variable that a secret fills: `^[A-Za-z_][A-Za-z0-9_]*$`, 1–255
/// characters, upper-cased; unique per owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub(crate) struct SecretName(String);

impl SecretName {
    /// Reads a name in any letter case.
    ///
    /// # Errors
    /// [`ParseError`] when the pattern or the length is broken. Reserved names are a setting, checked
    /// by the caller.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        check(
            text,
            255,
            |first| first.is_ascii_alphabetic() || first == b'_',
            |b| b.is_ascii_alphanumeric() || b == b'_',
        )?;
        Ok(Self(text.to_ascii_uppercase()))
    }

    /// The name, in upper case.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The service that a key is for: `^[a-z0-9][a-z0-9_-]*$`, 1–64 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub(crate) struct Provider(String);

impl Provider {
    /// Reads a provider's name.
    ///
    /// # Errors
    /// [`ParseError`] when the pattern or the length is broken.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        check(text, 64, plain, |b| plain(b) || b == b'_' || b == b'-')?;
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks length and alphabet; a string of more than `longest` *characters* is too long before it is
/// of the wrong pattern, as a JSON Schema validator would say.
pub(super) fn check(
    text: &str,
    longest: usize,
    first: impl Fn(u8) -> bool,
    rest: impl Fn(u8) -> bool,
) -> Result<(), ParseError> {
    let Some((head, tail)) = text.as_bytes().split_first() else {
        return Err(ParseError::TooShort);
    };
    if text.chars().count() > longest {
        return Err(ParseError::TooLong);
    }
    if first(*head) && tail.iter().all(|b| rest(*b)) {
        Ok(())
    } else {
        Err(ParseError::Pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upper_cased_and_checked() {
        assert_eq!(
            SecretName::parse("openai_api_key").unwrap().as_str(),
            "OPENAI_API_KEY"
        );
        assert!(SecretName::parse("_").is_ok());
        assert!(SecretName::parse(&"A".repeat(255)).is_ok());
        assert_eq!(SecretName::parse(""), Err(ParseError::TooShort));
        assert_eq!(
            SecretName::parse(&"A".repeat(256)),
            Err(ParseError::TooLong)
        );
        for bad in ["1A", "A-B", "A B", "Ä", "A\n", "A="] {
            assert_eq!(SecretName::parse(bad), Err(ParseError::Pattern), "{bad}");
        }
    }

    #[test]
    fn providers_are_checked() {
        assert!(Provider::parse("openai").is_ok());
        assert!(Provider::parse("9-a_b").is_ok());
        assert_eq!(Provider::parse(""), Err(ParseError::TooShort));
        assert_eq!(Provider::parse(&"a".repeat(65)), Err(ParseError::TooLong));
        for bad in ["OpenAI", "-a", "_a", "a b", "é"] {
            assert_eq!(Provider::parse(bad), Err(ParseError::Pattern), "{bad}");
        }
    }
}
