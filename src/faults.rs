//! Places where a test may make the process fail: only with `debug_assertions`, never in a release.
//!
//! `REKEY_FAULT=<name>:<action>[:<count>]` fails at the `count`-th passage (1 unless said) of the named
//! point: `panic`, `kill` (at once, as by `kill -9`) or `hang` (for ever).

/// A named place that a test can make fail. Nothing at all in a release build, not even the name: an
/// `async fn` would keep its argument in its state.
#[cfg(not(debug_assertions))]
pub(crate) fn point(_name: &'static str) -> std::future::Ready<()> {
    std::future::ready(())
}

/// A named place that a test can make fail.
#[cfg(debug_assertions)]
pub(crate) async fn point(name: &'static str) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };

    static PASSED: AtomicU64 = AtomicU64::new(0);
    static FAULT: LazyLock<Option<(String, String, u64)>> = LazyLock::new(|| {
        let text = std::env::var("REKEY_FAULT").ok()?;
        let mut parts = text.split(':');
        let (name, action) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let count = parts.next().and_then(|n| n.parse().ok()).unwrap_or(1);
        Some((name, action, count))
    });

    let Some((at, action, count)) = FAULT.as_ref() else {
        return;
    };
    if at != name || PASSED.fetch_add(1, Ordering::Relaxed) + 1 != *count {
        return;
    }
    match action.as_str() {
        "kill" => {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
        "hang" => std::future::pending().await,
        // Not `panic!`: the lint that forbids it in this crate has this one purpose as its exception.
        _ => std::panic::resume_unwind(Box::new("a fault injected by a test")),
    }
}
