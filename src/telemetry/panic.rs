//! The panic hook: the place of a panic, never its message.

use std::panic;

/// Replaces the hook of the process.
pub(super) fn set_hook() {
    panic::set_hook(Box::new(|panicked| {
        if let Some(place) = panicked.location() {
            tracing::error!(%place, "panicked");
        }
    }));
}
