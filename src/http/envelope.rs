//! The form of every error, and of the faults that it names. Every text here is fixed.

use serde::Serialize;

use crate::domain::ParseError;

/// Every error has this form.
#[derive(Debug, Serialize)]
pub(super) struct ErrorEnvelope {
    /// The HTTP status.
    pub(super) code: u16,
    /// A fixed text.
    pub(super) detail: &'static str,
    /// The kind of error.
    pub(super) r#type: &'static str,
    /// The faults of a request that breaks the schema or a rule.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) errors: Vec<ErrorItem>,
}

/// One fault of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ErrorItem {
    /// Where it is.
    loc: Vec<Location>,
    /// A fixed text.
    msg: &'static str,
    /// The kind of fault.
    r#type: ItemKind,
}

impl ErrorItem {
    /// A fault at a location.
    pub(super) fn new<const N: usize>(loc: [Location; N], kind: ItemKind) -> Self {
        Self {
            loc: loc.to_vec(),
            msg: kind.message(),
            r#type: kind,
        }
    }
}

/// A step of the path to a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Location {
    /// A part of the request, a field or a parameter.
    Name(&'static str),
    /// A place in a list, from 0.
    Index(usize),
}

impl Location {
    /// The body.
    pub(super) const BODY: Self = Self::Name("body");
    /// The path.
    pub(super) const PATH: Self = Self::Name("path");
    /// The query.
    pub(super) const QUERY: Self = Self::Name("query");
    /// The header.
    pub(super) const HEADER: Self = Self::Name("header");
}

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ItemKind {
    /// A required field is absent.
    Missing,
    /// Not a string.
    StringType,
    /// Not a whole number.
    IntType,
    /// Too few characters.
    StringTooShort,
    /// Too many characters or bytes.
    StringTooLong,
    /// A character that may not be there.
    StringPatternMismatch,
    /// None of the values that there are.
    Enum,
    /// Not a UUID in its 36-character form.
    UuidParsing,
    /// Of the right form, and still not allowed.
    ValueError,
    /// The owner's limit is reached.
    LimitReached,
    /// Absent, deleted, or not the caller's.
    NotFound,
    /// The idempotency key was used for another request.
    IdempotencyKeyReused,
}

impl ItemKind {
    const fn message(self) -> &'static str {
        match self {
            Self::Missing => "Field required",
            Self::StringType => "Input should be a string",
            Self::IntType => "Input should be a whole number",
            Self::StringTooShort => "Input is too short",
            Self::StringTooLong => "Input is too long",
            Self::StringPatternMismatch => "Input does not match the pattern",
            Self::Enum => "Input is none of the permitted values",
            Self::UuidParsing => "Input should be a UUID of 36 characters",
            Self::ValueError => "Input is not allowed",
            Self::LimitReached => "The limit is reached",
            Self::NotFound => "Not found",
            Self::IdempotencyKeyReused => "The key was used for another request",
        }
    }
}

impl From<ParseError> for ItemKind {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::TooShort => Self::StringTooShort,
            ParseError::TooLong => Self::StringTooLong,
            ParseError::Pattern => Self::StringPatternMismatch,
            ParseError::NotAllowed => Self::ValueError,
        }
    }
}
