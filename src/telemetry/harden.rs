//! Keeps the process's memory, which holds keys and values, out of core files and debuggers.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// No core files and, on Linux, no `ptrace` by processes of the same user. Before the first key
/// is read.
///
/// # Errors
/// The operating system refuses.
pub(crate) fn harden_process() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    harden_parent()
}

/// As [`harden_process`], for a process whose child runs somebody's command: nothing is changed that
/// the child would inherit. On Linux a process without `ptrace` leaves no core file either.
///
/// # Errors
/// The operating system refuses.
pub(crate) fn harden_parent() -> io::Result<()> {
    // Undone in a child by its `execve`.
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, getrlimit};

    use super::*;

    #[test]
    fn a_hardened_process_leaves_no_core() {
        harden_process().unwrap();
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        #[cfg(target_os = "linux")]
        {
            use rustix::process::{DumpableBehavior, dumpable_behavior};
            assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
        }
    }
}
