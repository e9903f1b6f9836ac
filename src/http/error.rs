//! The envelope: every error that leaves, with its status, type, fixed text and headers.
//!
//! In come the refusals and failures of the rooms below; out goes
//! `{"code", "detail", "type", "errors"?}`. Every text here is fixed: no part of a request, of a
//! database's or a parser's message can reach a body. Every error but
//! [`ApiError::OutcomeUnknown`] means that this attempt was not applied.

use std::error::Error;

use super::{
    conditional::etag,
    envelope::{ErrorEnvelope, ErrorItem, ItemKind, Location},
    json,
};
use crate::{
    auth::AuthError,
    domain::{Failure, Refusal},
    shares::Full,
    store::{AnsweredError, CursorError, Gone, StoreError},
};
use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};

/// What lies behind an error of the service's own: for the log, never for an answer.
pub(super) type Cause = Box<dyn Error + Send + Sync>;

/// An error as the caller sees it.
#[derive(Debug)]
pub(super) enum ApiError {
    /// The request can't be read.
    InvalidRequest(MalformedRequest),
    /// No credential, or not a good one.
    Unauthenticated,
    /// A good credential without the scope, or of the wrong kind.
    Forbidden,
    /// The service is locked down: no value leaves and no change is made.
    LockedDown,
    /// Absent, deleted, not the caller's; or no such route.
    NotFound,
    /// An entry of a change set names a secret that is absent, deleted or not the caller's.
    EntryNotFound {
        /// The entry's place.
        index: usize,
    },
    /// The cursor is not one of the log's (any more).
    PositionGone(Gone),
    /// The route has no such method.
    MethodNotAllowed {
        /// The methods that it has.
        allow: String,
    },
    /// The name is taken.
    AlreadyExists,
    /// `If-Match` does not hold.
    PreconditionFailed {
        /// The present version.
        version: u64,
    },
    /// The body is over the limit.
    PayloadTooLarge,
    /// The body, the path or the query breaks a rule.
    Validation(Vec<ErrorItem>),
    /// The client is too old, or speaks plain HTTP where TLS is required.
    UpgradeRequired {
        /// What to upgrade to.
        upgrade: header::HeaderValue,
    },
    /// A bucket is empty.
    RateLimited {
        /// When there will be something in it again: at least one second.
        wait_seconds: u64,
    },
    /// The service sheds load.
    Overloaded,
    /// A bug. Once a change was handed in, [`ApiError::or_unknown`] makes it an unknown outcome.
    Internal(Cause),
    /// The database refuses or breaks.
    BadGateway(Cause),
    /// The database did not answer in time.
    GatewayTimeout(Cause),
    /// COMMIT may have been sent.
    OutcomeUnknown(Cause),
}

/// Why a request can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MalformedRequest {
    /// Not exactly one `Content-Type: application/json`, or a charset other than UTF-8.
    ContentType,
    /// Any `Content-Encoding`.
    ContentEncoding,
    /// Not UTF-8, not JSON, or not an object.
    Body,
    /// More members than a body may have.
    Members,
    /// A key twice in the body's top-level object.
    RepeatedKey,
    /// The body did not come in full, or not in time.
    Incomplete,
    /// `If-Match` is not a list of entity tags.
    IfMatch,
    /// `Idempotency-Key` is there more than once, or is not 1–255 visible ASCII characters.
    IdempotencyKey,
}

impl MalformedRequest {
    const fn detail(self) -> &'static str {
        match self {
            Self::ContentType => "The Content-Type must be application/json in UTF-8",
            Self::ContentEncoding => "A Content-Encoding is not accepted",
            Self::Body => "The body is not a JSON object",
            Self::Members => "The body holds too many members",
            Self::RepeatedKey => "The body holds a key more than once",
            Self::Incomplete => "The body did not arrive in full within the time limit",
            Self::IfMatch => "The If-Match header is malformed",
            Self::IdempotencyKey => "The Idempotency-Key header is malformed",
        }
    }
}

impl ApiError {
    /// A request with one fault.
    pub(super) fn fault<const N: usize>(place: [Location; N], kind: ItemKind) -> Self {
        Self::Validation(vec![ErrorItem::new(place, kind)])
    }

    /// The table of the contract: status, `type` and `detail`.
    #[expect(clippy::too_many_lines, reason = "a table of one row for each error")]
    pub(super) fn row(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::InvalidRequest(why) => (
                StatusCode::BAD_REQUEST,
                "invalid_request_error",
                why.detail(),
            ),
            Self::Unauthenticated => (
                StatusCode::UNAUTHORIZED,
                "authentication_error",
                "Authentication failed",
            ),
            Self::Forbidden => (
                StatusCode::FORBIDDEN,
                "permission_error",
                "Access forbidden",
            ),
            Self::LockedDown => (
                StatusCode::FORBIDDEN,
                "permission_error",
                "The service is locked down",
            ),
            Self::NotFound | Self::EntryNotFound { .. } => {
                (StatusCode::NOT_FOUND, "not_found_error", "Not found")
            }
            Self::PositionGone(_) => (
                StatusCode::GONE,
                "position_gone_error",
                "The log does not have this position",
            ),
            Self::MethodNotAllowed { .. } => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed_error",
                "Method not allowed",
            ),
            Self::AlreadyExists => (
                StatusCode::CONFLICT,
                "already_exists_error",
                "A secret of that name already exists",
            ),
            Self::PreconditionFailed { .. } => (
                StatusCode::PRECONDITION_FAILED,
                "precondition_failed_error",
                "The If-Match precondition does not hold",
            ),
            Self::PayloadTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "payload_too_large_error",
                "The body is too large",
            ),
            Self::Validation(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "validation_error",
                "Validation failed",
            ),
            Self::UpgradeRequired { .. } => (
                StatusCode::UPGRADE_REQUIRED,
                "upgrade_required_error",
                "Upgrade required",
            ),
            Self::RateLimited { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_error",
                "Too many requests",
            ),
            Self::Overloaded => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_error",
                "The service is busy",
            ),
            Self::Internal(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal_server_error",
                "Internal server error",
            ),
            Self::BadGateway(_) => (
                StatusCode::BAD_GATEWAY,
                "bad_gateway_error",
                "A service behind this one failed; nothing was changed",
            ),
            Self::GatewayTimeout(_) => (
                StatusCode::GATEWAY_TIMEOUT,
                "gateway_timeout_error",
                "A service behind this one did not answer in time; nothing was changed",
            ),
            Self::OutcomeUnknown(_) => (
                StatusCode::GATEWAY_TIMEOUT,
                "outcome_unknown_error",
                "It is not known whether the change was made",
            ),
        }
    }

    /// What the log says beyond the type: the errors of the service itself (5xx) have a cause, and no others.
    pub(super) fn cause(&self) -> Option<&Cause> {
        if let Self::Internal(cause)
        | Self::BadGateway(cause)
        | Self::GatewayTimeout(cause)
        | Self::OutcomeUnknown(cause) = self
        {
            Some(cause)
        } else {
            None
        }
    }

    /// What a bug is once a change was handed in and no refusal came back: the change may stand.
    pub(super) fn or_unknown(self) -> Self {
        if let Self::Internal(cause) = self {
            Self::OutcomeUnknown(cause)
        } else {
            self
        }
    }

    /// The answer, without what every answer has.
    pub(super) fn into_response(self) -> HttpResponse {
        let (status, kind, detail) = self.row();
        let mut builder = HttpResponse::build(status);
        let mut errors = Vec::new();
        let answer = match self {
            Self::Unauthenticated => builder.insert_header((header::WWW_AUTHENTICATE, "Bearer")),
            Self::MethodNotAllowed { allow } => builder.insert_header((header::ALLOW, allow)),
            Self::PreconditionFailed { version } => {
                builder.insert_header((header::ETAG, etag(version)))
            }
            // actix-http adds `Connection: upgrade` itself when it sees this header (and drops a hand-set one);
            // its `upgrade()` would also end the connection.
            Self::UpgradeRequired { upgrade } => builder.insert_header((header::UPGRADE, upgrade)),
            Self::RateLimited { wait_seconds } => {
                builder.insert_header((header::RETRY_AFTER, wait_seconds))
            }
            Self::Overloaded
            | Self::BadGateway(_)
            | Self::GatewayTimeout(_)
            | Self::OutcomeUnknown(_) => builder.insert_header((header::RETRY_AFTER, 1)),
            Self::InvalidRequest(MalformedRequest::Incomplete) => builder.force_close(),
            Self::Validation(items) => {
                errors = items;
                &mut builder
            }
            Self::EntryNotFound { index } => {
                let (list, id) = (Location::Name("updates"), Location::Name("id"));
                let place = [Location::BODY, list, Location::Index(index), id];
                errors.push(ErrorItem::new(place, ItemKind::NotFound));
                &mut builder
            }
            Self::PositionGone(Gone { first, head }) => builder
                .insert_header(("Rekey-Log-First", first.to_string()))
                .insert_header(("Rekey-Log-Head", head.to_string())),
            Self::InvalidRequest(_)
            | Self::Forbidden
            | Self::LockedDown
            | Self::NotFound
            | Self::AlreadyExists
            | Self::PayloadTooLarge
            | Self::Internal(_) => &mut builder,
        };
        let envelope = ErrorEnvelope {
            code: status.as_u16(),
            detail,
            r#type: kind,
            errors,
        };
        // Strings and numbers only: `serde_json` cannot fail on it.
        json(answer, &envelope).unwrap_or_else(|_impossible| answer.finish())
    }
}

/// A failure that has no more to it than its name.
#[derive(Debug, thiserror::Error)]
pub(super) enum Bug {
    /// The work panicked; the panic's own line in the log says where.
    #[error("the request's work panicked")]
    Panicked,
    /// A request that came on no connection.
    #[error("the request has no connection")]
    NoConnection,
    /// The commit answered with another outcome than the command can have.
    #[error("the outcome is not one of this command's")]
    WrongOutcome,
}

/// The service drains, and the request had not handed in a change in time.
#[derive(Debug, thiserror::Error)]
#[error("the service is stopping")]
pub(super) struct Stopping;

impl From<Stopping> for ApiError {
    fn from(stopping: Stopping) -> Self {
        Self::GatewayTimeout(stopping.into())
    }
}

impl From<Bug> for ApiError {
    fn from(bug: Bug) -> Self {
        Self::Internal(bug.into())
    }
}

impl From<serde_json::Error> for ApiError {
    fn from(error: serde_json::Error) -> Self {
        Self::Internal(error.into())
    }
}

impl From<MalformedRequest> for ApiError {
    fn from(why: MalformedRequest) -> Self {
        Self::InvalidRequest(why)
    }
}

impl From<Full> for ApiError {
    fn from(full: Full) -> Self {
        match full {
            Full::All => Self::Overloaded,
            Full::Share => Self::RateLimited { wait_seconds: 1 },
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::NotFound,
            Refusal::LockedDown => Self::LockedDown,
            Refusal::NameTaken => Self::AlreadyExists,
            Refusal::VersionGone => {
                let place = [Location::BODY, Location::Name("version")];
                Self::fault(place, ItemKind::NotFound)
            }
            Refusal::Passed => {
                let place = [Location::BODY, Location::Name("expires_at")];
                Self::fault(place, ItemKind::ValueError)
            }
            Refusal::LimitReached => Self::fault([Location::BODY], ItemKind::LimitReached),
            Refusal::PreconditionFailed { version } => Self::PreconditionFailed { version },
            Refusal::KeyReused => {
                let place = [Location::HEADER, Location::Name("Idempotency-Key")];
                Self::fault(place, ItemKind::IdempotencyKeyReused)
            }
            refusal @ (Refusal::NotDue | Refusal::RecordAltered) => Self::Internal(refusal.into()),
            refusal @ Refusal::KeyNotActive(_) => Self::BadGateway(refusal.into()),
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refused) => refused.refusal.into(),
            Failure::Overloaded => Self::Overloaded,
            Failure::ShareTaken => Self::RateLimited { wait_seconds: 1 },
            Failure::Internal => Self::Internal(failure.into()),
            Failure::Unavailable => Self::BadGateway(failure.into()),
            Failure::TimedOut => Self::GatewayTimeout(failure.into()),
            Failure::Unknown => Self::OutcomeUnknown(failure.into()),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::LogBroken(_) => Self::BadGateway(error.into()),
            StoreError::TimedOut(_) | StoreError::Deadline => Self::GatewayTimeout(error.into()),
            StoreError::Statement(_)
            | StoreError::Corrupt(_)
            | StoreError::RowCount
            | StoreError::Disagrees(_)
            | StoreError::Altered(_, _)
            | StoreError::Lost => Self::Internal(error.into()),
        }
    }
}

impl From<AnsweredError> for ApiError {
    fn from(error: AnsweredError) -> Self {
        match error {
            AnsweredError::Refused(refusal) => refusal.into(),
            AnsweredError::Store(error) => error.into(),
        }
    }
}

impl From<CursorError> for ApiError {
    fn from(error: CursorError) -> Self {
        match error {
            CursorError::Gone(gone) => Self::PositionGone(gone),
            CursorError::Store(error) => error.into(),
        }
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Refused { owner: _ } => Self::Unauthenticated,
            AuthError::Store(error) => error.into(),
        }
    }
}
