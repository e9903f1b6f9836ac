//! A version as the database holds it, sealed; and the state of the keys that seal.

use super::{KeyId, ParseError, VersionId};

/// No more versions of a secret are ever kept, whatever `limits.versions` says.
pub(crate) const MOST_VERSIONS: u64 = 1_000;

/// One version's sealed parts (`crypto` says what their bytes are). It holds nothing in the clear, so
/// it may be queued, stored and moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SealedVersion {
    /// The version that the parts are bound to.
    pub version_id: VersionId,
    /// The key-encryption key that wraps the data key.
    pub kek_id: KeyId,
    /// The data key, sealed under the key-encryption key.
    pub wrapped_key: Vec<u8>,
    /// The value, sealed under the data key.
    pub sealed_value: Vec<u8>,
    /// The mask, sealed under the data key.
    pub sealed_mask: Vec<u8>,
}

impl SealedVersion {
    /// How many bytes its parts have together: what the committer's byte limits count.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.wrapped_key.len() + self.sealed_value.len() + self.sealed_mask.len()
    }
}

/// The parts of a version that its mask is opened with: what reads need, without the value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_field_names,
    reason = "the field has the name of its column and of the same part in `SealedVersion`"
)]
pub(crate) struct SealedMask {
    /// The version that the parts are bound to.
    pub version_id: VersionId,
    /// The key-encryption key that wraps the data key.
    pub kek_id: KeyId,
    /// The data key, sealed under the key-encryption key.
    pub wrapped_key: Vec<u8>,
    /// The mask, sealed under the data key.
    pub sealed_mask: Vec<u8>,
}

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
