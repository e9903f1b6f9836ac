//! Who calls: API tokens, and the principals that they stand for.
//!
//! In comes the text of a credential; out comes a principal, or a refusal that does not say why. Tokens
//! are stored as digests and compared in constant time.

mod authenticator;
mod jwt;
mod own_tokens;
mod token;

pub(crate) use authenticator::{AuthError, Authenticator, Memory, Principal};
pub(crate) use jwt::{ClaimRule, JwksError, JwksSource, JwtRules, JwtVerifier};
pub(crate) use token::{Token, issue};
