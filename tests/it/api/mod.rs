//! The HTTP contract, call by call, against the real binary.
