//! What may be shown of a value.

use super::SecretValue;

/// Four bullets, whatever the length, so that the length does not show.
const BULLETS: &str = "••••";

/// The part of a value that answers show, so that its owner knows it again:
///
/// | Unicode scalar values | shown |
/// | --- | --- |
/// | 24 and more | the first 6, `••••`, the last 3 |
/// | 12–23 | `••••`, the last 3 |
/// | below 12, or begins with `-----BEGIN`, or holds a newline | `••••` |
///
/// A control character or white space in a shown part becomes `•`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mask(String);

impl Mask {
    /// The mask of a value.
    #[must_use]
    pub(crate) fn of(value: &SecretValue) -> Self {
        let text = value.expose();
        let count = text.chars().count();
        if text.starts_with("-----BEGIN") || text.contains('\n') || count < 12 {
            return Self::hidden();
        }
        let shown = |c: char| {
            if c.is_control() || c.is_whitespace() {
                '•'
            } else {
                c
            }
        };
        let head = text.chars().take(if count < 24 { 0 } else { 6 }).map(shown);
        let tail = text.chars().skip(count - 3).map(shown);
        Self(head.chain(BULLETS.chars()).chain(tail).collect())
    }

    /// The mask that shows nothing.
    #[must_use]
    pub(crate) fn hidden() -> Self {
        Self(BULLETS.to_owned())
    }

    /// A mask that was sealed before. Only `crypto` calls it, with what it opened.
    #[must_use]
    pub(crate) fn from_opened(text: String) -> Self {
        Self(text)
    }

    /// The mask as text.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(text: &str) -> String {
        Mask::of(&SecretValue::parse(text.to_owned().into()).unwrap()).0
    }

    #[test]
    fn shows_by_the_number_of_scalar_values() {
        assert_eq!(mask("12345678901"), "••••");
        assert_eq!(mask("123456789abc"), "••••abc");
        assert_eq!(mask("12345678901234567890xyz"), "••••xyz");
        assert_eq!(mask("sk-proj-4567890123456xyz"), "sk-pro••••xyz");
        assert_eq!(mask(&"é".repeat(12)), "••••ééé");
        assert_eq!(mask(&"é".repeat(11)), "••••");
    }

    #[test]
    fn hides_what_could_break_a_line_or_is_a_private_key() {
        assert_eq!(mask("-----BEGIN PRIVATE KEY----- abcdefghijkl"), "••••");
        assert_eq!(mask("abcdefghijklmnopqrstuvwxyz\n"), "••••");
        assert_eq!(mask("ab\tdefghijklmnopqrstuvwx\u{7}z"), "ab•def••••x•z");
        assert_eq!(
            mask("ab\u{a0}defghijklmnopqrstuvw yz"),
            "ab•def••••\u{2022}yz"
        );
    }
}
