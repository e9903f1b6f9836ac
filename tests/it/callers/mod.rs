//! Who may call, and what of an owner's each caller sees.

mod issuer;
mod jwt;
mod key_address;
mod narrowed;
mod own_tokens;
