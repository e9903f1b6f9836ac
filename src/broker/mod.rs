//! RabbitMQ: one connection, one topic exchange, one channel with confirms.
//!
//! In come events as the log keeps them; out go CloudEvents 1.0 in binary mode. What it does not do: it
//! never reconnects by itself, and keeps nothing that was not confirmed.

mod message;
mod publisher;

pub use message::{Message, MessageError};
pub use publisher::{BrokerError, BrokerTarget, Confirm, Publisher, Verdict};
