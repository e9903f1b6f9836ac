//! rekey.
pub mod domain;
