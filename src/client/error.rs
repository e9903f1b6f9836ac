//! What can go wrong between this process and the service. No variant can hold a token or a value.

use crate::domain::Cursor;

/// Why there is no answer, or none that helps.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The text is not the address of a service.
    #[error(
        "the service's address must be http:// or https:// with a host, without a password or a query"
    )]
    Address,
    /// `http://` to another machine.
    #[error(
        "the token would cross the network in plain text: use https://, or allow it with --plaintext, REKEY_PLAINTEXT=1 or \
         the setting audit.plaintext where a private network or a tunnel protects it"
    )]
    Plaintext,
    /// No header can hold the token.
    #[error("the token holds characters that no token has")]
    Token,
    /// The file with the token cannot be read.
    #[error("cannot read the file with the token")]
    TokenFile(#[source] std::io::Error),
    /// No request can be made, for example because this machine's root certificates cannot be read.
    #[error("cannot set up HTTP requests")]
    Setup(#[source] reqwest::Error),
    /// The connection failed, or it broke.
    #[error("cannot reach the service at {origin}")]
    Unreachable {
        /// The address without its path, which may be a secret of its own.
        origin: String,
        /// What the connection failed on.
        #[source]
        cause: reqwest::Error,
    },
    /// The connection stands, but nothing came for too long.
    #[error("the service stopped answering")]
    Silent,
    /// 401.
    #[error("the service rejected the token")]
    Unauthorised,
    /// 410: the log does not hold the cursor, or no longer.
    #[error("the log does not hold this cursor{}", begins_after(*first))]
    Gone {
        /// The cursor before the first event that the log holds; `None` when the answer does not say.
        first: Option<Cursor>,
        /// The last event's cursor; `None` when the answer does not say.
        head: Option<Cursor>,
    },
    /// Any other status but 200.
    #[error("the service refused the request: {status} {}", kind.as_deref().unwrap_or("without a reason"))]
    Refused {
        /// The answer's status.
        status: u16,
        /// The envelope's `type`, such as `not_found_error`; `None` when the body is no envelope.
        kind: Option<String>,
    },
    /// A 200 that does not answer the question. It may come from something in front of the service.
    #[error("cannot read the service's answer: {0}")]
    NotUnderstood(&'static str),
}

impl ClientError {
    pub(super) fn unreachable(origin: &str, error: reqwest::Error) -> Self {
        if error.is_timeout() {
            Self::Silent
        } else {
            Self::Unreachable {
                origin: origin.to_owned(),
                cause: error.without_url(),
            }
        }
    }

    /// An answer that cannot be read. The reader's own error is dropped: its text may quote a value.
    pub(super) fn not_understood<E>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |_may_quote_a_value| Self::NotUnderstood(what)
    }

    /// Whether the same request may succeed a moment later.
    #[must_use]
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent | Self::NotUnderstood(_) => true,
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            Self::Address
            | Self::Plaintext
            | Self::Token
            | Self::TokenFile(_)
            | Self::Setup(_)
            | Self::Unauthorised
            | Self::Gone { .. } => false,
        }
    }

    /// Whether it is a 404.
    #[must_use]
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

fn begins_after(first: Option<Cursor>) -> String {
    first.map_or_else(String::new, |first| {
        format!("; the first event that it holds comes after {first}")
    })
}
