//! RabbitMQ: the publisher of the relay, and the consumer of the audit.
//!
//! In come events as the log keeps them; out go CloudEvents 1.0 in binary mode, and back come their bodies.
//! Each has one connection with one channel. What it does not do: it never reconnects by itself, and it keeps
//! nothing that was not confirmed.

mod connection;
mod consumer;
mod message;
mod publisher;

pub(crate) use connection::{BrokerError, BrokerTarget};
pub(crate) use consumer::Consumer;
pub(crate) use message::Message;
pub(crate) use publisher::{Confirm, Publisher, Verdict};
