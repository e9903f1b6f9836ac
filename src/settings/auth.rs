//! `auth.*`: whose JSON Web Tokens are good, and who they are.

use super::{layers::SettingReader, sections::AuthSettings};
use crate::domain::{Owner, Scope};

/// One entry of `auth.claims`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClaimSetting {
    /// The claim.
    pub claim: String,
    /// What it must be, or begin with where a `*` is at the end.
    pub value: String,
    /// Who has it.
    pub owner: Owner,
    /// What it allows.
    pub scopes: Vec<Scope>,
}

impl AuthSettings {
    /// Refuses keys without what their tokens must say, and two sources of keys.
    pub(super) fn check(&self, reader: &mut SettingReader) {
        let source = match (&self.jwks_path, &self.jwks_url) {
            (Some(_), Some(_)) => {
                reader.refuse("auth.jwks_url", "empty where auth.jwks_path is set");
                return;
            }
            (Some(_), None) => Some("auth.jwks_path"),
            (None, Some(_)) => Some("auth.jwks_url"),
            (None, None) => None,
        };
        for (key, given) in [
            ("auth.issuer", self.issuer.is_some()),
            ("auth.audience", self.audience.is_some()),
        ] {
            match source {
                Some(source) if !given => reader.refuse(key, &format!("set where {source} is set")),
                None if given => {
                    let rule = "empty unless auth.jwks_path or auth.jwks_url is set";
                    reader.refuse(key, rule);
                }
                Some(_) | None => {}
            }
        }
        if source.is_none() && !self.claims.is_empty() {
            let rule = "empty unless auth.jwks_path or auth.jwks_url is set";
            reader.refuse("auth.claims", rule);
        }
    }
}
