//! Accounts that may do what they must, and nothing else.

mod account;
mod backup;
mod bites;
mod compose;
mod declare;
mod manual;
mod stack;
mod works;
