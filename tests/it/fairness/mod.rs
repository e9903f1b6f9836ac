//! One tenant, or a stranger, can't stop the others.

mod bodies;
mod connections;
mod entries;
mod queue;
mod streams;
mod takers;
