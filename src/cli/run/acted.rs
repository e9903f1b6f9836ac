//! Which values were acted on last.
//!
//! A version's number alone does not tell: after a restored backup another value may have it. So each
//! value is known again by a hash under a random key that never leaves this process.

use std::hash::{BuildHasher, RandomState};

use crate::{
    client::{ResolvedValue, ResolvedValues},
    domain::SecretId,
};

/// The values that were acted on last, without the values.
#[derive(Debug)]
pub(super) struct Acted {
    key: RandomState,
    known: Vec<Known>,
}

#[derive(Debug, PartialEq, Eq)]
struct Known {
    id: SecretId,
    version: u64,
    hash: u64,
}

impl Acted {
    pub(super) fn new(values: &ResolvedValues) -> Self {
        let mut acted = Self {
            key: RandomState::new(),
            known: Vec::new(),
        };
        acted.update(values);
        acted
    }

    pub(super) fn update(&mut self, values: &ResolvedValues) {
        let secrets = values.secrets.iter();
        self.known = secrets.map(|secret| self.known(secret)).collect();
    }

    /// Which are not as they were: `A_KEY has version 3, B_KEY has version 1`; empty when all are.
    pub(super) fn news(&self, values: &ResolvedValues) -> String {
        let secrets = values.secrets.iter();
        let news: Vec<_> = secrets
            .filter(|secret| !self.known.contains(&self.known(secret)))
            .map(|secret| format!("{} has version {}", secret.name.as_str(), secret.version))
            .collect();
        news.join(", ")
    }

    fn known(&self, secret: &ResolvedValue) -> Known {
        Known {
            id: secret.id,
            version: secret.version,
            hash: self.key.hash_one(secret.value.expose()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Cursor, SecretName, SecretValue};

    fn values(version: u64, value: &str) -> ResolvedValues {
        ResolvedValues {
            secrets: vec![ResolvedValue {
                id: SecretId::new(uuid::Uuid::nil()),
                name: SecretName::parse("A_KEY").unwrap(),
                value: SecretValue::parse(value.to_owned().into()).unwrap(),
                version,
                sequence: version,
            }],
            cursor: Cursor::START,
        }
    }

    #[test]
    fn a_version_is_news_once_and_so_is_another_value_under_its_number() {
        let mut acted = Acted::new(&values(1, "one"));
        assert_eq!(acted.news(&values(1, "one")), "");
        assert_eq!(acted.news(&values(2, "one")), "A_KEY has version 2");
        assert_eq!(acted.news(&values(1, "other")), "A_KEY has version 1");
        acted.update(&values(2, "two"));
        assert_eq!(acted.news(&values(2, "two")), "");
        assert!(!format!("{acted:?}").contains("two"));
    }
}
