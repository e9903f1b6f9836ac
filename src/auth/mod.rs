//! Who calls: API tokens, the principals behind them, and their scopes.
//!
//! In comes the text of a credential; out comes a principal, or a refusal that does not say why. Tokens
//! are stored as digests and compared in constant time.

mod authenticator;
mod scope;
mod token;

pub use authenticator::{AuthError, Authenticator, Principal, PrincipalKind};
pub use scope::{Scope, UnknownScope};
pub use token::{Token, issue};
