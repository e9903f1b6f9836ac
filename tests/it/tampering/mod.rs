//! Somebody writes to the database past the service: no credential is won, and no value is handed out that is not
//! the last one.

mod columns;
mod epochs;
mod keys;
mod secrets;
mod tokens;
