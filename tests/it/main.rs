//! The integration tests: one binary, so that every test shares one `PostgreSQL` and one `RabbitMQ`.
//!
//! `support` runs the servers and the service, `support_tests` proves that it does what its users take for granted.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod api;
mod architecture;
mod audit;
mod backup;
mod callers;
mod chaos;
mod cli;
mod contract;
mod delivery;
mod events;
mod expiry;
mod fairness;
mod faults;
mod idempotency;
mod import;
mod keyring;
mod lockdown;
mod logs;
mod metrics;
mod ordering;
mod output;
mod private;
mod relay;
mod resolve;
mod restricted;
mod retention;
mod secrecy;
mod sets;
mod support;
mod support_tests;
mod tampering;
mod tls;
mod tokens;
mod upgrade;
mod versions;
mod workloads;
