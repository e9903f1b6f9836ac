//! Who and which: identifiers of secrets, versions, events, keys, owners, requests and agents.

use std::fmt;

use serde::Serialize;
use uuid::Uuid;

use super::{ParseError, name::check};

/// Defines UUID newtypes that print as 36 lower-case characters.
macro_rules! uuid_newtypes {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub(crate) struct $name(Uuid);

        impl $name {
            /// Takes any UUID, of any version.
            #[must_use]
            pub(crate) const fn new(id: Uuid) -> Self {
                Self(id)
            }

            /// The UUID inside.
            #[must_use]
            #[allow(dead_code, reason = "every ID has it, whether or not the service reads it")]
            pub(crate) const fn get(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    )*};
}

uuid_newtypes! {
    /// The ID of a secret; it never changes.
    SecretId;
    /// The ID of one version of a secret: sealed data is bound to it.
    VersionId;
    /// The ID of an event, equal in each of its deliveries.
    EventId;
    /// The ID of a change set: changes that are committed together or not at all.
    ChangeSetId;
}

impl SecretId {
    /// Reads the 36-character hyphenated form in any letter case (RFC 9562 section 4).
    ///
    /// # Errors
    /// [`ParseError::Pattern`] for every other spelling, also those that the `uuid` crate takes (braces,
    /// `urn:uuid:`, 32 bare digits): one secret has one URL.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        if text.len() != uuid::fmt::Hyphenated::LENGTH {
            return Err(ParseError::Pattern);
        }
        Uuid::try_parse(text).map(Self).or(Err(ParseError::Pattern))
    }
}

/// The owner of a secret: 1–64 bytes of UTF-8 without control characters, and not `_` (which means "no
/// owner" in routing keys).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub(crate) struct Owner(String);

impl Owner {
    /// Reads an owner's ID.
    ///
    /// # Errors
    /// [`ParseError`] when the rules above are broken.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        match text {
            "" => Err(ParseError::TooShort),
            "_" => Err(ParseError::NotAllowed),
            _ if text.len() > 64 => Err(ParseError::TooLong),
            _ if text.chars().any(char::is_control) => Err(ParseError::Pattern),
            _ => Ok(Self(text.to_owned())),
        }
    }

    /// The ID as it was given.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The ID of a key-encryption key: `[a-z0-9-]{1,32}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub(crate) struct KeyId(String);

impl KeyId {
    /// Reads a key's ID.
    ///
    /// # Errors
    /// [`ParseError`] when it is not `[a-z0-9-]{1,32}`.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        check(text, 32, plain, plain)?;
        Ok(Self(text.to_owned()))
    }

    /// The ID as text.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which of the service's own keys; each is sealed to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ServiceKeyName {
    /// The MAC of requests that carry an idempotency key.
    Idempotency,
    /// The signature of checkpoints.
    CheckpointSigning,
    /// The MAC of the rows of tokens.
    TokenMac,
}

impl ServiceKeyName {
    /// The name in the table and in the associated data.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Idempotency => "idempotency",
            Self::CheckpointSigning => "checkpoint-signing",
            Self::TokenMac => "token-mac",
        }
    }
}

/// The ID of a request, as the answer's `X-Request-Id` and the event's `request_id` show it:
/// `[A-Za-z0-9._:-]{1,128}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub(crate) struct RequestId(String);

impl RequestId {
    /// Takes over a caller's ID when it is sane.
    ///
    /// # Errors
    /// [`ParseError`] when it is not `[A-Za-z0-9._:-]{1,128}`.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        check(text, 128, plain, plain)?;
        Ok(Self(text.to_owned()))
    }

    /// The ID that rekey gives a request which came without one.
    #[must_use]
    pub(crate) fn from_uuid(id: Uuid) -> Self {
        Self(id.hyphenated().to_string())
    }

    /// The ID as text.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A `traceparent` (W3C Trace Context, version 00): carried from the request to the event and on, as it
/// came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TraceParent(String);

impl TraceParent {
    /// Reads a header's value.
    ///
    /// # Errors
    /// [`ParseError`] when it is not `00-<32 hex>-<16 hex>-<2 hex>` in lower case, or one of its IDs is all
    /// zeros (section 3.2.2: such a header is ignored).
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        let hex = |part: &str, length| {
            part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let zeros = |part: &str| part.bytes().all(|b| b == b'0');
        let parts: Vec<_> = text.splitn(5, '-').collect();
        match parts[..] {
            ["00", trace, parent, flags] if hex(trace, 32) && hex(parent, 16) && hex(flags, 2) => {
                if zeros(trace) || zeros(parent) {
                    return Err(ParseError::NotAllowed);
                }
                Ok(Self(text.to_owned()))
            }
            _ => Err(ParseError::Pattern),
        }
    }

    /// The header's value.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What kind of caller did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AgentKind {
    /// An owner's API token; the ID is the token's.
    Token,
    /// A service's API token; the ID is the token's.
    Service,
    /// A JSON Web Token; the ID is its subject.
    Jwt,
    /// The command line; without an ID.
    Operator,
    /// rekey itself (the first start); without an ID.
    System,
}

/// Who did something: the `actor` object of an event and of a version's `created_by`.
/// (Its fields stand in sorted order, because it is a part of the event's canonical form.)
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct Agent {
    /// The token's ID, the subject of a JSON Web Token, or nothing for the kinds that have none.
    pub id: Option<String>,
    /// The kind of caller.
    pub kind: AgentKind,
}

impl Agent {
    /// The command line.
    pub(crate) const OPERATOR: Self = Self {
        id: None,
        kind: AgentKind::Operator,
    };
    /// rekey itself.
    pub(crate) const SYSTEM: Self = Self {
        id: None,
        kind: AgentKind::System,
    };

    /// The `actor` object as JSON: what a version's `created_by` holds.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "strings and null, written to memory, can't fail to serialise"
    )]
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an agent is always serialisable")
    }
}

/// A place in a log, `<epoch>-<position>`; `0-0` is the place before the first event.
/// Ordered by epoch first: a higher epoch is a new start, whatever its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Cursor {
    /// The epoch of the event at `position`.
    pub epoch: u64,
    /// The last position that the holder has seen.
    pub position: u64,
}

impl Cursor {
    /// The cursor before a log's first event.
    pub(crate) const START: Self = Self {
        epoch: 0,
        position: 0,
    };

    /// Reads `<epoch>-<position>`, both decimal without sign or leading zeros.
    ///
    /// # Errors
    /// [`ParseError::Pattern`] for any other form.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        fn number(digits: &str) -> Option<u64> {
            // i64, because that is what the databases hold.
            let number = digits.parse::<i64>().ok()?;
            let number = u64::try_from(number).ok()?;
            (number.to_string() == digits).then_some(number)
        }
        let (epoch, position) = text.split_once('-').ok_or(ParseError::Pattern)?;
        match (number(epoch), number(position)) {
            (Some(epoch), Some(position)) => Ok(Self { epoch, position }),
            _ => Err(ParseError::Pattern),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_one_spelling_in_a_url_but_for_letter_case() {
        let lower = "0198f3c2-7a10-7cc0-8000-00000000abcd";
        let id = SecretId::parse(&lower.to_uppercase()).unwrap();
        assert_eq!(id.to_string(), lower);
        for bad in [
            "",
            "{0198f3c2-7a10-7cc0-8000-00000000abcd}",
            "urn:uuid:0198f3c2-7a10-7cc0-8000-00000000abcd",
            "0198f3c27a107cc0800000000000abcd",
            "0198f3c2-7a10-7cc0-8000-00000000abcg",
            "0198f3c27-a10-7cc0-8000-00000000abcd",
            " 198f3c2-7a10-7cc0-8000-00000000abcd",
            "0198f3c2-7a10-7cc0-8000-0000000é0abcd",
        ] {
            assert_eq!(SecretId::parse(bad), Err(ParseError::Pattern), "{bad}");
        }
    }

    #[test]
    fn owners_keep_to_their_rules() {
        assert_eq!(Owner::parse("alice").unwrap().as_str(), "alice");
        assert_eq!(Owner::parse(&"é".repeat(32)).unwrap().as_str().len(), 64);
        assert_eq!(Owner::parse(&"é".repeat(33)), Err(ParseError::TooLong));
        assert_eq!(Owner::parse(""), Err(ParseError::TooShort));
        assert_eq!(Owner::parse("_"), Err(ParseError::NotAllowed));
        assert_eq!(Owner::parse("a\nb"), Err(ParseError::Pattern));
    }

    #[test]
    fn key_and_request_ids_keep_to_their_alphabets() {
        assert!(KeyId::parse("k-2026-11").is_ok());
        for bad in ["", "K1", "a_b", &"a".repeat(33)] {
            assert!(KeyId::parse(bad).is_err(), "{bad}");
        }
        assert!(RequestId::parse("Az0._:-").is_ok());
        for bad in ["", "a b", "a\n", "é", &"a".repeat(129)] {
            assert!(RequestId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_traceparent_is_taken_over_only_when_it_is_whole() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(TraceParent::parse(good).unwrap().as_str(), good);
        for bad in [
            "",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert!(TraceParent::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cursors_round_trip_and_bad_ones_are_refused() {
        for good in ["0-0", "1-10234", "1764000000-1"] {
            assert_eq!(Cursor::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "1",
            "1-",
            "-1",
            "1-2-3",
            "+1-1",
            "01-1",
            "1-01",
            "1-99999999999999999999",
        ] {
            assert_eq!(Cursor::parse(bad), Err(ParseError::Pattern), "{bad}");
        }
    }
}
