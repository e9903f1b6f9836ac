//! Finds the principal that a token stands for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::Utc;
use tokio::time::sleep;

use super::{
    jwt::{JwtVerifier, has_the_form_of_a_jwt},
    token::Token,
};
use crate::{
    crypto::{MacKey, same_bytes},
    domain::{
        Agent, AgentKind, Grantee, HASH_BYTES, NamedSecrets, Networks, Owner, Scope, Timestamp,
    },
    store::{Committer, Reader, StoreError, StoredToken, TokenRow},
};

/// How long a valid token is accepted without another look-up: revocation must take effect within 5 s on
/// every replica.
const FRESH: Duration = Duration::from_secs(3);

/// How often it is handed in when tokens were used.
const TELL: Duration = Duration::from_mins(1);
/// How often each token is told of: its column says no more than the minute.
const EACH_TOLD: Duration = Duration::from_mins(1);

/// The most tokens that are remembered; beyond it all are forgotten and looked up again.
const REMEMBERED: usize = 10_000;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    /// The agent that events name.
    pub agent: Agent,
    /// Whose token it is.
    pub grantee: Grantee,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Where the credential may be used from. Whoever knows the caller's address compares it.
    pub networks: Networks,
    /// The secrets that it may read, resolve and change.
    pub secrets: NamedSecrets,
    /// When the credential expires.
    pub expires_at: Option<Timestamp>,
}

/// There is no principal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    /// The credential is malformed, unknown, expired or revoked; the client does not learn which.
    #[error("the credential is not valid")]
    Refused {
        /// Whose it was, where it is no guess: it was good once.
        owner: Option<Owner>,
    },
    /// The database can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Looks tokens up, and remembers valid ones for a moment.
#[derive(Debug)]
pub(crate) struct Authenticator {
    pub(super) reader: Reader,
    pub(super) key: Arc<MacKey>,
    jwt: Option<Arc<JwtVerifier>>,
    valid: Mutex<HashMap<[u8; HASH_BYTES], Remembered>>,
    /// When tokens were used that are not noted yet, by ID.
    uses: Mutex<TokenUses>,
}

/// What is remembered of a token.
#[derive(Debug)]
pub(crate) enum Memory {
    /// It was good a moment ago.
    Fresh(Arc<Principal>),
    /// It was good some time ago, and must be looked up again.
    Stale,
    /// It was never seen, or forgotten.
    Unknown,
}

/// When tokens were used.
#[derive(Debug, Default)]
struct TokenUses {
    /// What was not told yet, by the tokens' IDs.
    waiting: HashMap<String, Timestamp>,
    /// When each was told of last.
    told: HashMap<String, Instant>,
}

#[derive(Debug)]
struct Remembered {
    principal: Arc<Principal>,
    expires_at: Option<Timestamp>,
    seen: Instant,
}

impl Authenticator {
    /// An authenticator over the table of tokens, whose rows carry codes under this key, and over the JSON Web Tokens
    /// of an issuer, if there is one.
    #[must_use]
    pub(crate) fn new(reader: Reader, key: Arc<MacKey>, jwt: Option<Arc<JwtVerifier>>) -> Self {
        Self {
            reader,
            key,
            jwt,
            valid: Mutex::new(HashMap::new()),
            uses: Mutex::default(),
        }
    }

    /// The principal that a token stands for.
    ///
    /// # Errors
    /// [`AuthError::Refused`] for every kind of bad credential, [`AuthError::Store`].
    pub(crate) async fn authenticate(&self, text: &str) -> Result<Arc<Principal>, AuthError> {
        if self.takes_jwt(text) {
            return self.verify_jwt(text).await;
        }
        let token = Token::parse(text).ok_or(AuthError::Refused { owner: None })?;
        match self.recall(&token) {
            Memory::Fresh(principal) => Ok(principal),
            Memory::Stale | Memory::Unknown => self.look_up(&token).await,
        }
    }

    /// Whether a text has the form of a JSON Web Token, and there is an issuer of them.
    #[must_use]
    pub(crate) fn takes_jwt(&self, text: &str) -> bool {
        self.jwt.is_some() && has_the_form_of_a_jwt(text)
    }

    /// The principal that a JSON Web Token stands for.
    ///
    /// # Errors
    /// [`AuthError::Refused`] for every kind of bad one.
    pub(crate) async fn verify_jwt(&self, text: &str) -> Result<Arc<Principal>, AuthError> {
        let verified = match &self.jwt {
            Some(jwt) => jwt.verify(text).await,
            None => None,
        };
        verified
            .map(Arc::new)
            .ok_or(AuthError::Refused { owner: None })
    }

    /// What is remembered of a token; it costs no look-up.
    #[must_use]
    pub(crate) fn recall(&self, token: &Token) -> Memory {
        // Each change of the map is one call: a panic leaves it whole.
        let valid = self.valid.lock().unwrap_or_else(PoisonError::into_inner);
        match valid.get(&token.digest()) {
            Some(found) if found.seen.elapsed() < FRESH && !has_passed(found.expires_at) => {
                Memory::Fresh(Arc::clone(&found.principal))
            }
            Some(_) => Memory::Stale,
            None => Memory::Unknown,
        }
    }

    /// The principal that a token stands for, as the database has it now.
    ///
    /// # Errors
    /// [`AuthError::Refused`] for every kind of bad credential, [`AuthError::Store`].
    pub(crate) async fn look_up(&self, token: &Token) -> Result<Arc<Principal>, AuthError> {
        let digest = token.digest();
        let found = match self.reader.token(token.id(), &self.key).await? {
            Some(TokenRow::Good(found)) => Some(*found),
            Some(TokenRow::Forged) => {
                tracing::error!(
                    token.id = token.id(),
                    "the row of a token was not written by rekey, or was changed: it is refused"
                );
                metrics::counter!("rekey_forged_tokens_total").increment(1);
                None
            }
            None => None,
        };
        // An unknown ID is compared too, so that it takes no less time than a wrong secret.
        let stored = found
            .as_ref()
            .map_or(&[0; HASH_BYTES][..], |found| found.digest.as_slice());
        let same = same_bytes(stored, &digest);
        let Some(row) = found.filter(|_| same) else {
            self.forget(digest.as_slice());
            return Err(AuthError::Refused { owner: None });
        };
        if row.revoked_at.is_some() || has_passed(row.grant.expires_at) {
            self.forget(digest.as_slice());
            let owner = row.grant.grantee.owner().cloned();
            return Err(AuthError::Refused { owner });
        }
        self.note_use(token.id());
        let expires_at = row.grant.expires_at;
        let principal = Arc::new(Principal::from(row));
        let remembered = Remembered {
            principal: Arc::clone(&principal),
            expires_at,
            seen: Instant::now(),
        };
        self.remember(digest, remembered);
        Ok(principal)
    }

    /// A token that is used is looked up every few seconds: that is often enough to know when it was used.
    fn note_use(&self, id: &str) {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let told = uses.told.get(id);
        if told.is_none_or(|at| at.elapsed() >= EACH_TOLD) && uses.waiting.len() < REMEMBERED {
            let now = Timestamp::from(Utc::now());
            uses.waiting.insert(id.to_owned(), now);
        }
    }

    fn uses_to_tell(&self) -> HashMap<String, Timestamp> {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = std::mem::take(&mut uses.waiting);
        uses.told.retain(|_, at| at.elapsed() < EACH_TOLD);
        let now = Instant::now();
        uses.told.extend(waiting.keys().map(|id| (id.clone(), now)));
        waiting
    }

    /// Hands in when tokens were used, every few seconds, for as long as the process runs.
    pub(crate) async fn tell_uses(self: Arc<Self>, committer: Committer) {
        loop {
            sleep(TELL).await;
            let waiting = self.uses_to_tell();
            if !waiting.is_empty() {
                committer.record_token_uses(waiting);
            }
        }
    }

    pub(super) fn forget(&self, digest: &[u8]) {
        let mut valid = self.valid.lock().unwrap_or_else(PoisonError::into_inner);
        valid.remove(digest);
    }

    fn remember(&self, digest: [u8; HASH_BYTES], remembered: Remembered) {
        // Each change of the map is one call: a panic leaves it whole.
        let mut valid = self.valid.lock().unwrap_or_else(PoisonError::into_inner);
        if valid.len() >= REMEMBERED {
            valid.clear();
        }
        valid.insert(digest, remembered);
    }
}

fn has_passed(expires_at: Option<Timestamp>) -> bool {
    expires_at.is_some_and(|end| end <= Timestamp::from(Utc::now()))
}

impl From<StoredToken> for Principal {
    fn from(token: StoredToken) -> Self {
        let kind = match token.grant.grantee {
            Grantee::Owner(_) => AgentKind::Token,
            Grantee::Service { .. } => AgentKind::Service,
        };
        Self {
            agent: Agent {
                id: Some(token.id),
                kind,
            },
            grantee: token.grant.grantee,
            scopes: token.grant.scopes,
            networks: token.grant.networks,
            secrets: token.grant.secrets,
            expires_at: token.grant.expires_at,
        }
    }
}
