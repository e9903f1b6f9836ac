//! Whatever breaks, what was answered is true.

mod clients;
mod commit;
mod kills;
mod starts;
