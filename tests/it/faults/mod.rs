//! Whatever breaks, what was answered is true.

mod clients;
mod commit;
mod database;
mod drain;
mod kills;
mod starts;
