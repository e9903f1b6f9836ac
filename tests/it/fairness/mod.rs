//! One tenant, or a stranger, can't stop the others.

mod bodies;
mod entries;
mod queue;
mod streams;
