//! The state of a key-encryption key.

use super::ParseError;

/// What a key-encryption key may still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyState {
    /// It may seal.
    Active,
    /// It seals no more; what it sealed is being rewrapped under the primary key.
    Retiring,
    /// Nothing is sealed under it.
    Retired,
}

impl KeyState {
    const ALL: [Self; 3] = [Self::Active, Self::Retiring, Self::Retired];

    /// The state as the table holds it.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Retiring => "retiring",
            Self::Retired => "retired",
        }
    }

    /// Reads a state.
    ///
    /// # Errors
    /// [`ParseError::NotAllowed`] when there is no such state.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        let state = Self::ALL.into_iter().find(|state| state.as_str() == text);
        state.ok_or(ParseError::NotAllowed)
    }
}
