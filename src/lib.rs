//! rekey: user secrets, and services that never miss a rotation.
//!
//! The modules in the order in which data meets them. `docs/architecture.md` walks through one PUT.

mod app;
mod cli;
mod http;

mod auth;

mod actor;
mod crypto;
mod keys;

mod store;

mod broker;
mod relay;

mod audit;
mod client;

mod backoff;
mod domain;
mod faults;
mod files;
mod settings;
mod shares;
mod telemetry;

/// The binary's entry.
pub use cli::main;
/// For the tests, which prove the hash chain by themselves.
pub use crypto::blake2b_256;
/// For its documentation, which shows what it forbids.
pub use domain::SecretValue;
