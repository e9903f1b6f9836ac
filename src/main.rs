//! rekey.
fn main() {}
