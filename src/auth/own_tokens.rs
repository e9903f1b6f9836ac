//! An owner's own tokens, as the service lists, makes and revokes them.

use super::{
    authenticator::Authenticator,
    token::{Token, issue},
};
use crate::{
    domain::{Grant, Owner, RequestContext, Timestamp, TokenChange},
    store::{self, StoreError, StoredToken, TokenRow},
};

impl Authenticator {
    /// An owner's tokens that are not revoked, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tokens_of(&self, owner: &Owner) -> Result<Vec<StoredToken>, StoreError> {
        self.reader.tokens_of(owner, &self.key).await
    }

    /// One of them; none when it is absent, revoked, or another owner's or a service's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn token_of(
        &self,
        owner: &Owner,
        id: &str,
    ) -> Result<Option<StoredToken>, StoreError> {
        let found = match self.reader.token(id, &self.key).await? {
            Some(TokenRow::Good(token)) => Some(*token),
            Some(TokenRow::Forged) | None => None,
        };
        Ok(found.filter(|token| {
            token.revoked_at.is_none() && token.grant.grantee.owner() == Some(owner)
        }))
    }

    /// The change that makes a token.
    #[must_use]
    pub(crate) fn adding(
        &self,
        token: &Token,
        grant: Grant,
        context: RequestContext,
    ) -> TokenChange {
        store::adding(issue(token, grant), &self.key, context)
    }

    /// The change that revokes a token.
    #[must_use]
    pub(crate) fn revoking(
        &self,
        token: StoredToken,
        at: Timestamp,
        context: RequestContext,
    ) -> TokenChange {
        store::revoking(token, &self.key, at, context)
    }

    /// Looks a token up again when it comes next. Other replicas do so within 3 s.
    pub(crate) fn forget_token(&self, token: &StoredToken) {
        self.forget(&token.digest);
    }
}
