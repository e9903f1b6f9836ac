//! Who may call, and what of an owner's each caller sees.

mod narrowed;
mod own_tokens;
