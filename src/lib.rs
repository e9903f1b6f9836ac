//! rekey: user secrets, and services that never miss a rotation.
//!
//! The modules in the order in which data meets them. `docs/architecture.md` walks through one PUT.

pub mod app;
pub mod cli;
pub mod http;

pub mod auth;

pub mod actor;
pub mod crypto;
pub mod keys;

pub mod store;

pub mod broker;
pub mod relay;

pub mod audit;
pub mod client;

mod backoff;
pub mod domain;
mod faults;
mod files;
pub mod settings;
pub mod telemetry;
