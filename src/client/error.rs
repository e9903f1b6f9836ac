//! What can go wrong with the service over HTTP. No variant can hold a token or a value.

use crate::domain::Cursor;

/// Why there is no answer, or none that helps.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not an address of a service.
    #[error(
        "not a service's address: allowed is http:// or https:// with a host, without a password or a query"
    )]
    Address,
    /// The token cannot be sent.
    #[error("the token holds characters that no token has")]
    Token,
    /// No connection, or it broke.
    #[error("the service is not reached")]
    Unreachable(#[source] reqwest::Error),
    /// The connection stands, and nothing came for too long.
    #[error("the service has gone silent")]
    Silent,
    /// 401.
    #[error("the service does not take the token")]
    Unauthorised,
    /// 410: the log does not know the cursor, or no longer.
    #[error("the log does not hold the cursor")]
    Gone {
        /// The cursor before the first event kept.
        first: Option<Cursor>,
        /// The last event's.
        head: Option<Cursor>,
    },
    /// Any other status but 200.
    #[error("the service refuses: {status} {}", kind.as_deref().unwrap_or("without a known reason"))]
    Refused {
        /// The answer's status.
        status: u16,
        /// The envelope's `type`, such as `not_found_error`.
        kind: Option<String>,
    },
    /// A 200 that is not the answer to the question.
    #[error("the service's answer is not understood")]
    NotUnderstood,
}

impl ClientError {
    /// The address may be somebody's secret path: the message goes without.
    pub(super) fn unreachable(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            Self::Silent
        } else {
            Self::Unreachable(error.without_url())
        }
    }

    /// Whether the same request may do better in a moment. (An answer that is not understood may come
    /// from something before the service.)
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Silent | Self::NotUnderstood => true,
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            Self::Address | Self::Token | Self::Unauthorised | Self::Gone { .. } => false,
        }
    }

    /// Whether it is a 404.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}
