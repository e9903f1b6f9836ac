//! Accounts that may do what they must, and nothing else.

mod account;
mod bites;
mod compose;
mod declare;
mod manual;
mod stack;
mod works;
