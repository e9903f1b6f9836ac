//! rekey.
pub mod actor;
pub mod auth;
pub mod crypto;
pub mod domain;
mod faults;
pub mod settings;
pub mod store;
pub mod telemetry;
