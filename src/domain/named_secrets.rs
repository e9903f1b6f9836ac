//! The secrets that a credential is narrowed to, by their names.

use std::sync::Arc;

use super::{ParseError, SecretName};

/// What a prefix ends in.
const ANY_END: char = '*';

/// The most names and prefixes that a credential may list.
pub(crate) const MOST_NAMED: usize = 100;

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NamePattern {
    /// The secret of this name.
    Exactly(SecretName),
    /// All secrets whose names begin so.
    Beginning(SecretName),
}

impl NamePattern {
    fn parse(text: &str) -> Result<Self, ParseError> {
        // A star alone would narrow nothing: there the list is left out.
        match text.strip_suffix(ANY_END) {
            Some(beginning) => SecretName::parse(beginning).map(Self::Beginning),
            None => SecretName::parse(text).map(Self::Exactly),
        }
    }

    fn covers(&self, name: &str) -> bool {
        match self {
            Self::Exactly(own) => own.as_str() == name,
            Self::Beginning(own) => name.starts_with(own.as_str()),
        }
    }

    /// Whether it covers all that another one does.
    fn includes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exactly(_), Self::Beginning(_)) => false,
            (_, Self::Exactly(name) | Self::Beginning(name)) => self.covers(name.as_str()),
        }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Exactly(name) => name.as_str().to_owned(),
            Self::Beginning(name) => format!("{}{ANY_END}", name.as_str()),
        }
    }
}

/// The secrets that a credential may read, resolve and change: all, or those that a list names. Any other is absent
/// to it. A clone copies no list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NamedSecrets(Option<Arc<[NamePattern]>>);

impl NamedSecrets {
    /// All secrets.
    pub(crate) const ALL: Self = Self(None);

    /// Reads a list of names in any letter case, and of prefixes, which end in `*`. An empty list stands for all
    /// secrets.
    ///
    /// # Errors
    /// [`ParseError`] of the first entry that is neither, [`ParseError::TooLong`] for a list of too many.
    pub(crate) fn parse<T: AsRef<str>>(list: &[T]) -> Result<Self, ParseError> {
        if list.len() > MOST_NAMED {
            return Err(ParseError::TooLong);
        }
        let patterns = list.iter().map(|one| NamePattern::parse(one.as_ref()));
        let patterns: Arc<[_]> = patterns.collect::<Result<_, _>>()?;
        Ok(Self((!patterns.is_empty()).then_some(patterns)))
    }

    /// What any of several lists covers.
    #[must_use]
    pub(crate) fn union(lists: &[Self]) -> Self {
        let all = lists.iter().any(Self::is_all);
        let patterns = lists.iter().filter_map(|list| list.0.as_deref());
        let patterns = patterns.flatten().cloned().collect();
        Self((!all).then_some(patterns))
    }

    /// Whether it is all secrets.
    #[must_use]
    pub(crate) const fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a secret of this name is among them.
    #[must_use]
    pub(crate) fn covers(&self, name: &SecretName) -> bool {
        self.covers_text(name.as_str())
    }

    /// Whether a secret of this name, as it is stored, is among them.
    #[must_use]
    pub(crate) fn covers_text(&self, name: &str) -> bool {
        let patterns = self.0.as_ref();
        patterns.is_none_or(|patterns| patterns.iter().any(|one| one.covers(name)))
    }

    /// Whether all of `others` are among them. Of each entry there, one entry here must cover it whole.
    #[must_use]
    pub(crate) fn include(&self, others: &Self) -> bool {
        match (&self.0, &others.0) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(others)) => others
                .iter()
                .all(|other| own.iter().any(|one| one.includes(other))),
        }
    }

    /// The list that [`NamedSecrets::parse`] reads, in upper case.
    #[must_use]
    pub(crate) fn to_list(&self) -> Vec<String> {
        let patterns = self.0.iter().flat_map(|patterns| patterns.iter());
        patterns.map(NamePattern::to_text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SecretName {
        SecretName::parse(text).unwrap()
    }

    fn list(list: &[&str]) -> NamedSecrets {
        NamedSecrets::parse(list).unwrap()
    }

    #[test]
    fn a_list_covers_its_names_and_what_begins_with_its_prefixes() {
        let named = list(&["openai_api_key", "CI_*"]);
        assert_eq!(named.to_list(), ["OPENAI_API_KEY", "CI_*"]);
        for inside in ["OPENAI_API_KEY", "CI_", "ci_token"] {
            assert!(named.covers(&name(inside)), "{inside}");
        }
        for outside in ["OPENAI_API_KEY2", "OPENAI", "CI", "XCI_A", "_"] {
            assert!(!named.covers(&name(outside)), "{outside}");
        }
    }

    #[test]
    fn an_empty_list_is_all_secrets() {
        let all = list(&[]);
        assert_eq!(all, NamedSecrets::ALL);
        assert!(all.is_all() && all.covers(&name("ANY")) && all.to_list().is_empty());
    }

    #[test]
    fn a_list_includes_no_more_than_it_covers() {
        let wide = list(&["CI_*", "A"]);
        for narrow in [&["CI_*"][..], &["CI_X*", "A"], &["CI_B"], &["A"]] {
            assert!(wide.include(&list(narrow)), "{narrow:?}");
        }
        for wider in [&["C*"][..], &["A*"], &["CI_A", "B"], &[]] {
            assert!(!wide.include(&list(wider)), "{wider:?}");
        }
        assert!(NamedSecrets::ALL.include(&NamedSecrets::ALL));
        assert!(NamedSecrets::ALL.include(&wide));
    }

    #[test]
    fn an_entry_is_a_name_or_a_prefix() {
        for bad in ["", "*", "A*B", "**", "A **", "1A", "A-*", "Ä*"] {
            assert!(NamedSecrets::parse(&[bad]).is_err(), "{bad}");
        }
        let most = vec!["A"; MOST_NAMED];
        assert!(NamedSecrets::parse(&most).is_ok());
        let more = vec!["A"; MOST_NAMED + 1];
        assert_eq!(NamedSecrets::parse(&more), Err(ParseError::TooLong));
    }
}
