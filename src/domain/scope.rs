//! What a token may do.

use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A scope of an API token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
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
#[error("must be secrets:read, secrets:write, secrets:resolve or events:read")]
pub(crate) struct UnknownScope;

impl Scope {
    /// All scopes.
    pub(crate) const ALL: [Self; 4] = [
        Self::SecretsRead,
        Self::SecretsWrite,
        Self::SecretsResolve,
        Self::EventsRead,
    ];

    /// The name in rows, events and options.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
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

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
