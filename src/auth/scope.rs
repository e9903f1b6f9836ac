//! What a token may do.

use std::str::FromStr;

/// A scope of an API token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// See secrets, without values.
    SecretsRead,
    /// Create, update and delete secrets.
    SecretsWrite,
    /// Read values.
    SecretsResolve,
    /// Read events.
    EventsRead,
}

/// No scope has that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("allowed are secrets:read, secrets:write, secrets:resolve and events:read")]
pub struct UnknownScope;

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 4] = [
        Self::SecretsRead,
        Self::SecretsWrite,
        Self::SecretsResolve,
        Self::EventsRead,
    ];

    /// The name in tokens and settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SecretsRead => "secrets:read",
            Self::SecretsWrite => "secrets:write",
            Self::SecretsResolve => "secrets:resolve",
            Self::EventsRead => "events:read",
        }
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or(UnknownScope)
    }
}
