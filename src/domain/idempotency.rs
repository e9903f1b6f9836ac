//! Requests that are made once: an `Idempotency-Key` names one, and the commit that makes it keeps its answer.

use std::time::Duration;

use super::{Agent, AgentKind, Applied, ChangeSetId, HASH_BYTES, Owner, ParseError};

/// How long the answer of a request is kept.
pub(crate) const ANSWER_KEPT: Duration = Duration::from_hours(24);

/// What a client calls a request that it may send again: 1–255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Reads the header's value: bare, or in double quotes as a string of RFC 8941. Both are one key.
    ///
    /// # Errors
    /// [`ParseError`] when it is empty, too long, or has other characters.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        let key = match text.strip_prefix('"') {
            Some(rest) => unescape(rest.strip_suffix('"').ok_or(ParseError::Pattern)?)?,
            None => text.to_owned(),
        };
        Self::parse_stored(&key)
    }

    /// Reads a key as it is stored: without the quotes.
    ///
    /// # Errors
    /// As [`IdempotencyKey::parse`].
    pub(crate) fn parse_stored(key: &str) -> Result<Self, ParseError> {
        if key.is_empty() {
            return Err(ParseError::TooShort);
        }
        if key.len() > 255 {
            return Err(ParseError::TooLong);
        }
        if !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ParseError::Pattern);
        }
        Ok(Self(key.to_owned()))
    }

    /// The key as it is stored.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The characters between the quotes, where `\` stands before a quote or another `\` (RFC 8941 section 3.3.3).
fn unescape(quoted: &str) -> Result<String, ParseError> {
    let mut text = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        text.push(match character {
            '"' => return Err(ParseError::Pattern),
            '\\' => match characters.next() {
                Some(escaped @ ('"' | '\\')) => escaped,
                _ => return Err(ParseError::Pattern),
            },
            plain => plain,
        });
    }
    Ok(text)
}

/// Which request is meant: a key means something only to the principal that gave it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct OnceName {
    /// The owner whose secrets are changed.
    pub owner: Owner,
    /// The credential's kind and ID: another token of the same owner has keys of its own.
    pub principal: String,
    /// The client's key.
    pub key: IdempotencyKey,
}

impl OnceName {
    /// The request that an agent of an owner calls so.
    #[must_use]
    pub(crate) fn new(owner: Owner, agent: &Agent, key: IdempotencyKey) -> Self {
        let kind = match agent.kind {
            AgentKind::Token => "token",
            AgentKind::Service => "service",
            AgentKind::Jwt => "jwt",
            AgentKind::Operator => "operator",
            AgentKind::System => "system",
        };
        let id = agent.id.as_deref().unwrap_or_default();
        Self {
            owner,
            principal: format!("{kind}:{id}"),
            key,
        }
    }
}

/// A request that must be made once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Once {
    /// What it is called.
    pub name: OnceName,
    /// The code of the request: method, path, precondition and body.
    pub request: [u8; HASH_BYTES],
}

/// What a request that was made has answered, without its masks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The change set, if it was one.
    pub change_set: Option<ChangeSetId>,
    /// What was made of each change, in order.
    pub applied: Vec<Applied>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_quoted_and_the_bare_form_are_one_key() {
        for (text, key) in [
            ("a", "a"),
            ("\"a\"", "a"),
            (
                "8e03978e-40d5-43dd-bc93-6894a57f9324",
                "8e03978e-40d5-43dd-bc93-6894a57f9324",
            ),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (r#"a"b\c"#, r#"a"b\c"#),
        ] {
            assert_eq!(IdempotencyKey::parse(text).unwrap().as_str(), key, "{text}");
        }
        assert!(IdempotencyKey::parse(&"k".repeat(255)).is_ok());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "k".repeat(256);
        for bad in [
            "", "\"", "\"a", "\"\"", "a b", "\"a b\"", "é", "a\tb", "\"a\"b\"", "\"a\\\"",
            "\"a\\n\"", &long,
        ] {
            assert!(IdempotencyKey::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn quoting_a_key_changes_nothing(key in "[!-~]{1,100}") {
            let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
            let parsed = IdempotencyKey::parse(&quoted).unwrap();
            prop_assert_eq!(parsed.as_str(), key.as_str());
        }
    }
}
