//! Named points where a test may make the process fail: only with `debug_assertions`, never in a release.
//!
//! `REKEY_FAULT=<name>:<action>[:<count>]` fails when the named point is passed for the `count`-th time
//! (the first, if no count is given): `panic`, `kill` (at once, as by `kill -9`) or `hang` (for ever).

#[cfg(debug_assertions)]
pub(crate) use armed::{check, point};

/// A named point that a test can make fail. Nothing at all in a release build, not even the name: an
/// `async fn` would keep its argument in its state.
#[cfg(not(debug_assertions))]
pub(crate) fn point(_name: &'static str) -> std::future::Ready<()> {
    std::future::ready(())
}

/// A release build has no faults to check.
#[cfg(not(debug_assertions))]
pub(crate) const fn check() {}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };

    static PASSED: AtomicU64 = AtomicU64::new(0);
    #[expect(
        clippy::expect_used,
        reason = "a test with a misspelt fault must fail, and not pass without the fault"
    )]
    static FAULT: LazyLock<Option<Fault>> = LazyLock::new(|| {
        let text = std::env::var_os("REKEY_FAULT")?;
        let fault = text.to_str().and_then(Fault::parse);
        Some(fault.expect("REKEY_FAULT must be <name>:panic|kill|hang[:<count from 1>]"))
    });

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum FaultAction {
        Panic,
        Kill,
        Hang,
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Fault {
        name: String,
        action: FaultAction,
        count: u64,
    }

    impl Fault {
        fn parse(text: &str) -> Option<Self> {
            let mut parts = text.split(':');
            let name = parts.next().filter(|name| !name.is_empty())?.to_owned();
            let action = match parts.next()? {
                "panic" => FaultAction::Panic,
                "kill" => FaultAction::Kill,
                "hang" => FaultAction::Hang,
                _ => return None,
            };
            let count = match parts.next() {
                Some(count) => count.parse().ok().filter(|count| *count > 0)?,
                None => 1,
            };
            parts.next().is_none().then_some(Self {
                name,
                action,
                count,
            })
        }
    }

    /// Reads `REKEY_FAULT` at the start.
    ///
    /// # Panics
    /// When it is not of the documented form.
    pub(crate) fn check() {
        LazyLock::force(&FAULT);
    }

    /// A named point that a test can make fail.
    pub(crate) async fn point(name: &'static str) {
        let Some(fault) = FAULT.as_ref() else {
            return;
        };
        if fault.name != name || PASSED.fetch_add(1, Ordering::Relaxed) + 1 != fault.count {
            return;
        }
        match fault.action {
            #[expect(clippy::expect_used, reason = "a process may always kill itself")]
            FaultAction::Kill => {
                let own = rustix::process::getpid();
                rustix::process::kill_process(own, rustix::process::Signal::KILL)
                    .expect("a signal to itself");
            }
            FaultAction::Hang => std::future::pending().await,
            // Not `panic!`: the lint that forbids it in this crate has this one purpose as its exception.
            FaultAction::Panic => {
                std::panic::resume_unwind(Box::new("a fault injected by a test"));
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_fault_is_read_with_and_without_a_count() {
            let fault = |count| Fault {
                name: "after-rows".to_owned(),
                action: FaultAction::Kill,
                count,
            };
            assert_eq!(Fault::parse("after-rows:kill"), Some(fault(1)));
            assert_eq!(Fault::parse("after-rows:kill:3"), Some(fault(3)));
        }

        #[test]
        fn a_misspelt_fault_is_refused() {
            for bad in [
                "",
                "after-rows",
                ":kill",
                "after-rows:explode",
                "after-rows:kill:",
                "after-rows:kill:0",
                "after-rows:kill:x",
                "after-rows:kill:1:2",
            ] {
                assert_eq!(Fault::parse(bad), None, "{bad}");
            }
        }
    }
}
