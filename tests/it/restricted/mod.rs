//! Accounts that may do what they must, and nothing else.

mod account;
mod bites;
mod declare;
mod manual;
mod works;
