//! The values that were acted on last.
//!
//! A version's number alone does not identify a value: after a restored backup another value may have it. So
//! each value is recognised by a hash under a random key that never leaves this process.

use std::hash::{BuildHasher, RandomState};

use crate::{
    client::{ResolvedValue, ResolvedValues},
    domain::SecretId,
};

/// Recognises the values that were acted on last, without keeping them.
#[derive(Debug)]
pub(super) struct KnownValues {
    key: RandomState,
    fingerprints: Vec<Fingerprint>,
}

#[derive(Debug, PartialEq, Eq)]
struct Fingerprint {
    id: SecretId,
    version: u64,
    hash: u64,
}

impl KnownValues {
    pub(super) fn new(values: &ResolvedValues) -> Self {
        let key = RandomState::new();
        let secrets = values.secrets.iter();
        let fingerprints = secrets.map(|secret| Fingerprint::of(secret, &key));
        Self {
            fingerprints: fingerprints.collect(),
            key,
        }
    }

    /// Says which values are new: `A_KEY has version 3, B_KEY has version 1`; empty when none is.
    pub(super) fn describe_new(&self, values: &ResolvedValues) -> String {
        let secrets = values.secrets.iter();
        let new: Vec<_> = secrets
            .filter(|secret| {
                !self
                    .fingerprints
                    .contains(&Fingerprint::of(secret, &self.key))
            })
            .map(|secret| format!("{} has version {}", secret.name.as_str(), secret.version))
            .collect();
        new.join(", ")
    }
}

impl Fingerprint {
    fn of(secret: &ResolvedValue, key: &RandomState) -> Self {
        Self {
            id: secret.id,
            version: secret.version,
            hash: key.hash_one(secret.value.expose()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::{Cursor, SecretName, SecretValue};

    /// One secret, `A_KEY`.
    pub(in super::super) fn values(version: u64, value: &str) -> ResolvedValues {
        ResolvedValues {
            secrets: vec![ResolvedValue {
                id: SecretId::new(uuid::Uuid::nil()),
                name: SecretName::parse("A_KEY").unwrap(),
                value: SecretValue::parse(value.to_owned().into()).unwrap(),
                version,
            }],
            cursor: Cursor::START,
        }
    }

    #[test]
    fn a_version_is_new_once_and_so_is_another_value_under_its_number() {
        let mut known = KnownValues::new(&values(1, "one"));
        assert_eq!(known.describe_new(&values(1, "one")), "");
        assert_eq!(known.describe_new(&values(2, "one")), "A_KEY has version 2");
        assert_eq!(
            known.describe_new(&values(1, "other")),
            "A_KEY has version 1"
        );
        known = KnownValues::new(&values(2, "two"));
        assert_eq!(known.describe_new(&values(2, "two")), "");
        assert!(!format!("{known:?}").contains("two"));
    }
}
