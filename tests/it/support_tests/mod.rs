//! Proof that the support does what the other tests take for granted.

mod broker;
mod canary;
mod endings;
mod postgres;
mod proxy;
