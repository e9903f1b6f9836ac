//! The signals that this process ignored when it started, such as SIGHUP under `nohup`.

use std::{fs, io};

use rustix::process::Signal;

/// A set of signals.
#[derive(Debug, Clone, Copy)]
pub(super) struct IgnoredSignals(u64);

impl IgnoredSignals {
    /// Whether the signal is one of them.
    pub(super) const fn holds(self, signal: Signal) -> bool {
        self.0 & (1 << (signal.as_raw() - 1)) != 0
    }
}

/// Must be called before the process handles any of them. Without `/proc` they are not known, and count as none.
pub(super) fn read() -> io::Result<IgnoredSignals> {
    match fs::read_to_string("/proc/self/status") {
        Ok(status) => mask(&status).map(IgnoredSignals).ok_or_else(|| {
            let text = "/proc/self/status does not say which signals are ignored";
            io::Error::new(io::ErrorKind::InvalidData, text)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(IgnoredSignals(0)),
        Err(error) => Err(error),
    }
}

fn mask(status: &str) -> Option<u64> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = "Name:\trekey\nSigIgn:\t0000000000001003\nSigCgt:\t0000000000000000\n";
        assert_eq!(mask(status), Some(0x1003));
        assert!(IgnoredSignals(0x1003).holds(Signal::HUP));
        assert!(!IgnoredSignals(0x1003).holds(Signal::TERM));
        assert_eq!(mask("Name:\trekey\n"), None);
        assert_eq!(mask("SigIgn:\tx\n"), None);
    }
}
