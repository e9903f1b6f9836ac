//! Who knows callers: API tokens, and JSON Web Tokens as the settings want them.

use std::sync::Arc;

use crate::{
    auth::{Authenticator, ClaimRule, JwksError, JwksSource, JwtRules, JwtVerifier},
    crypto::MacKey,
    settings::Settings,
    store::{Committer, Reader},
};

/// Who knows callers.
///
/// # Errors
/// [`JwksError`] when the file of keys can't be used.
pub(super) async fn authenticator(
    settings: &Settings,
    reader: &Reader,
    token_mac: Arc<MacKey>,
    committer: &Committer,
) -> Result<Arc<Authenticator>, JwksError> {
    let jwt = verifier(settings).await?;
    let authenticator = Arc::new(Authenticator::new(reader.clone(), token_mac, jwt));
    tokio::spawn(Arc::clone(&authenticator).tell_uses(committer.clone()));
    Ok(authenticator)
}

/// Who verifies JSON Web Tokens, if the settings name an issuer, kept up with its keys.
async fn verifier(settings: &Settings) -> Result<Option<Arc<JwtVerifier>>, JwksError> {
    let auth = &settings.auth;
    let source = match (&auth.jwks_path, &auth.jwks_url) {
        (Some(path), _) => JwksSource::File(path.clone()),
        (None, Some(url)) => JwksSource::Address(url.clone()),
        (None, None) => return Ok(None),
    };
    let (Some(issuer), Some(audience)) = (auth.issuer.clone(), auth.audience.clone()) else {
        // The settings refuse that.
        return Ok(None);
    };
    let claims = auth.claims.iter().map(|rule| ClaimRule {
        claim: rule.claim.clone(),
        value: rule.value.clone(),
        owner: rule.owner.clone(),
        scopes: rule.scopes.clone(),
    });
    let rules = JwtRules {
        issuer,
        audience,
        claims: claims.collect(),
    };
    let verifier = Arc::new(JwtVerifier::open(source, rules).await?);
    tokio::spawn(Arc::clone(&verifier).follow());
    Ok(Some(verifier))
}
