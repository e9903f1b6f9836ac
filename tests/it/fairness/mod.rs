//! One tenant, or a stranger, can't stop the others.

mod entries;
mod queue;
