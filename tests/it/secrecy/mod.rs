//! No value where none may be.
