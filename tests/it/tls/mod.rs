//! What crosses a network is encrypted, to the machine that was meant.

mod serve;
mod servers;
mod tokens;
