//! What the service itself does to a token: it makes one for an owner, or revokes one.

use super::{EventId, Grant, RequestContext, Timestamp};

/// A token that is made or revoked, ready for the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenChange {
    /// The ID that its event will have.
    pub event_id: EventId,
    /// Who asked.
    pub context: RequestContext,
    /// The token's public ID.
    pub token_id: String,
    /// What it grants.
    pub grant: Grant,
    /// What is done.
    pub action: TokenAction,
}

/// What is done to a token's row. Its code covers the row as it is afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenAction {
    /// A new row.
    Add {
        /// The digest of the whole token.
        digest: Vec<u8>,
        /// The row's code.
        mac: Vec<u8>,
    },
    /// The row of a token that is not revoked yet gets the time of its revocation.
    Revoke {
        /// When it is revoked.
        at: Timestamp,
        /// The row's code as it was read: a row that has another one by now is left alone.
        before: Vec<u8>,
        /// The row's code.
        mac: Vec<u8>,
    },
}
