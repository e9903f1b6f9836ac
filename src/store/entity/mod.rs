//! The tables as SeaORM sees them. Private to `store`: rows become domain types at its border.

#![expect(
    unreachable_pub,
    reason = "SeaORM's macros want public items in a private module"
)]

pub(super) mod api_tokens;
pub(super) mod events;
pub(super) mod keys;
pub(super) mod log_head;
pub(super) mod service_keys;
