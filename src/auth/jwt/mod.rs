//! JSON Web Tokens (RFC 7519) of an issuer that the settings name.
//!
//! In comes a token's text, and keys from a file or an address of the settings; out comes a principal, or a refusal
//! that does not say why. A token chooses neither its algorithm nor its key's source: no address in it is looked at.

mod claims;
mod keys;

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::Utc;
use serde_json::Value;

use super::authenticator::Principal;
use crate::domain::Timestamp;
pub(crate) use claims::{ClaimRule, JwtRules};
use claims::{Members, ReadClaims, members};
use keys::KeySet;
pub(crate) use keys::{JwksError, JwksSource};

/// No token is longer.
const LONGEST: usize = 8 << 10;

/// How far the issuer's clock may be off.
const LEEWAY: Duration = Duration::from_secs(30);

/// What would say where else a key is, or that the token is no plain one.
const REFUSED_MEMBERS: [&str; 7] = ["crit", "jku", "jwk", "x5u", "x5c", "enc", "zip"];

/// Verifies tokens of one issuer.
#[derive(Debug)]
pub(crate) struct JwtVerifier {
    rules: JwtRules,
    keys: KeySet,
}

impl JwtVerifier {
    /// Reads the keys. Those of an address may come later: until then no token is good.
    ///
    /// # Errors
    /// [`JwksError`] of a file.
    pub(crate) async fn open(source: JwksSource, rules: JwtRules) -> Result<Self, JwksError> {
        let keys = KeySet::open(source).await?;
        Ok(Self { rules, keys })
    }

    /// Keeps up with the keys for as long as the process runs.
    pub(crate) async fn follow(self: Arc<Self>) {
        self.keys.follow().await;
    }

    /// The principal of a token; none where anything is wrong with it.
    pub(crate) async fn verify(&self, text: &str) -> Option<Principal> {
        if text.len() > LONGEST {
            return None;
        }
        let (message, signature) = text.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        let header = object(header)?;
        let (algorithm, kid) = read_header(&header)?;
        let key = self.keys.find(kid).await?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        if key.algorithm() != algorithm || !key.verifies(message.as_bytes(), &signature) {
            return None;
        }
        let payload = object(payload)?;
        let claims = ReadClaims::read(&payload)?;
        self.rules
            .admit(&claims, Timestamp::from(Utc::now()), LEEWAY)
    }
}

/// Whether a text has the form of a token: three parts with dots between them.
#[must_use]
pub(crate) fn has_the_form_of_a_jwt(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// The members of a part, which must be an object that repeats none.
fn object(part: &str) -> Option<Members> {
    members(&URL_SAFE_NO_PAD.decode(part).ok()?)
}

/// The algorithm and the key's ID.
fn read_header(header: &Members) -> Option<(&str, &str)> {
    if REFUSED_MEMBERS
        .iter()
        .any(|name| header.contains_key(*name))
    {
        return None;
    }
    match header.get("typ").map(Value::as_str) {
        None => {}
        // RFC 7515 section 4.1.9, RFC 9068 section 2.1.
        Some(Some(kind)) => {
            let kind = kind.to_ascii_lowercase();
            let kind = kind.strip_prefix("application/").unwrap_or(&kind);
            if !matches!(kind, "jwt" | "at+jwt") {
                return None;
            }
        }
        Some(None) => return None,
    }
    Some((header.get("alg")?.as_str()?, header.get("kid")?.as_str()?))
}
