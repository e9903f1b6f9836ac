//! From a token's text to the principal behind it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::Utc;

use super::{Scope, token::Token};
use crate::{
    crypto::same_bytes,
    domain::{Agent, AgentKind, HASH_BYTES, Owner, Timestamp},
    store::{Reader, StoreError, StoredToken, TokenKind},
};

/// For how long a token that was good is taken for good without a look: revocation must take effect
/// within 5 s on every replica.
const FRESH: Duration = Duration::from_secs(3);

/// The most tokens that are remembered; beyond it all are forgotten and looked up again.
const REMEMBERED: usize = 10_000;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// As events name it.
    pub agent: Agent,
    /// Whose token it is.
    pub kind: PrincipalKind,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrincipalKind {
    /// An owner's: it acts for that owner.
    Owner(Owner),
    /// A service's: it acts for the owners named, `*` for all.
    Service {
        /// The service's name.
        name: String,
        /// The owners it acts for.
        acts_for: Vec<String>,
    },
}

/// There is no principal.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The credential is malformed, unknown, expired or revoked: nobody learns which.
    #[error("the credential is no good")]
    Refused,
    /// The database can't be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Looks tokens up, and remembers good ones for a moment.
#[derive(Debug)]
pub struct Authenticator {
    reader: Reader,
    good: Mutex<HashMap<[u8; HASH_BYTES], Remembered>>,
}

#[derive(Debug)]
struct Remembered {
    principal: Arc<Principal>,
    expires_at: Option<Timestamp>,
    seen: Instant,
}

impl Authenticator {
    /// An authenticator over the table of tokens.
    #[must_use]
    pub fn new(reader: Reader) -> Self {
        Self {
            reader,
            good: Mutex::new(HashMap::new()),
        }
    }

    /// The principal behind a token's text.
    ///
    /// # Errors
    /// [`AuthError::Refused`] for every kind of bad credential, [`AuthError::Reader`].
    pub async fn authenticate(&self, text: &str) -> Result<Arc<Principal>, AuthError> {
        let token = Token::parse(text).ok_or(AuthError::Refused)?;
        let digest = token.digest();
        if let Some(principal) = self.remembered(&digest) {
            return Ok(principal);
        }
        let found = self.reader.token(token.id()).await?;
        // An unknown ID is compared too, so that it takes no less time than a wrong secret.
        let stored = found
            .as_ref()
            .map_or(&[0; HASH_BYTES][..], |found| found.digest.as_slice());
        let same = same_bytes(stored, &digest);
        let row = found
            .filter(|row| same && is_good(row))
            .ok_or(AuthError::Refused)?;
        let expires_at = row.expires_at;
        let principal = Arc::new(Principal::try_from(row)?);
        self.remember(digest, Arc::clone(&principal), expires_at);
        Ok(principal)
    }

    fn remembered(&self, digest: &[u8; HASH_BYTES]) -> Option<Arc<Principal>> {
        let good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        let found = good.get(digest)?;
        let fresh = found.seen.elapsed() < FRESH && !is_over(found.expires_at);
        fresh.then(|| Arc::clone(&found.principal))
    }

    fn remember(
        &self,
        digest: [u8; HASH_BYTES],
        principal: Arc<Principal>,
        expires_at: Option<Timestamp>,
    ) {
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good.len() >= REMEMBERED {
            good.clear();
        }
        good.insert(
            digest,
            Remembered {
                principal,
                expires_at,
                seen: Instant::now(),
            },
        );
    }
}

fn is_over(expires_at: Option<Timestamp>) -> bool {
    expires_at.is_some_and(|end| end <= Timestamp::from(Utc::now()))
}

fn is_good(row: &StoredToken) -> bool {
    row.revoked_at.is_none() && !is_over(row.expires_at)
}

impl TryFrom<StoredToken> for Principal {
    type Error = StoreError;

    fn try_from(row: StoredToken) -> Result<Self, StoreError> {
        let scopes: Result<Vec<Scope>, _> = row.scopes.iter().map(|scope| scope.parse()).collect();
        let (kind, agent) = match row.kind {
            TokenKind::Owner(owner) => (PrincipalKind::Owner(owner), AgentKind::Token),
            TokenKind::Service { name, acts_for } => (
                PrincipalKind::Service { name, acts_for },
                AgentKind::Service,
            ),
        };
        Ok(Self {
            agent: Agent {
                id: Some(row.id),
                kind: agent,
            },
            kind,
            scopes: scopes.or(Err(StoreError::Corrupt("api_tokens")))?,
        })
    }
}
