//! Accounts that may do what they must, and nothing else.

mod declare;
