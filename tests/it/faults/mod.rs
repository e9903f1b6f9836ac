//! Whatever breaks, what was answered is true.

mod clients;
mod commit;
mod drain;
mod kills;
mod starts;
