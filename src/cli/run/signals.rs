//! The signals that `run` passes on to its command.

use std::{fs, future::poll_fn, io, task::Poll};

use rustix::process::Signal;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

const PASSED_ON: [(Signal, &str); 6] = [
    (Signal::HUP, "HUP"),
    (Signal::INT, "INT"),
    (Signal::QUIT, "QUIT"),
    (Signal::TERM, "TERM"),
    (Signal::USR1, "USR1"),
    (Signal::USR2, "USR2"),
];

/// A signal by its name, with or without `SIG`.
pub(super) fn parse(name: &str) -> Option<Signal> {
    let bare = name.strip_prefix("SIG").unwrap_or(name);
    let found = PASSED_ON.iter().find(|(_, name)| *name == bare);
    found.map(|(signal, _)| *signal)
}

/// A signal's name: `SIGHUP`; its number when it has none here.
pub(super) fn name(signal: Signal) -> String {
    let found = PASSED_ON.iter().find(|(known, _)| *known == signal);
    match found {
        Some((_, name)) => format!("SIG{name}"),
        None => format!("signal {}", signal.as_raw()),
    }
}

/// Whether it asks a process to end.
pub(super) fn ends(signal: Signal) -> bool {
    signal == Signal::INT || signal == Signal::QUIT || signal == Signal::TERM
}

/// The signals from outside.
#[derive(Debug)]
pub(super) struct Signals(Vec<(Signal, SignalStream)>);

impl Signals {
    /// From here on no signal that is passed on ends this process. Those that were ignored when it started
    /// (`nohup`) stay ignored, and the command inherits that.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn new() -> io::Result<Self> {
        let ignored = ignored()?;
        let streams = PASSED_ON
            .into_iter()
            .filter(|(signal, _)| ignored & (1 << (signal.as_raw() - 1)) == 0)
            .map(|(passed, _)| Ok((passed, signal(SignalKind::from_raw(passed.as_raw()))?)))
            .collect::<io::Result<_>>()?;
        Ok(Self(streams))
    }

    /// The next one.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (signal, stream) in &mut self.0 {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// The mask of the signals that this process ignores. Without `/proc` it is not known, and counts as empty.
fn ignored() -> io::Result<u64> {
    match fs::read_to_string("/proc/self/status") {
        Ok(status) => mask(&status).ok_or_else(|| {
            let text = "/proc/self/status does not say which signals are ignored";
            io::Error::new(io::ErrorKind::InvalidData, text)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
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
    fn a_signal_has_a_name() {
        assert_eq!(parse("HUP"), Some(Signal::HUP));
        assert_eq!(parse("SIGUSR2"), Some(Signal::USR2));
        assert_eq!(parse("KILL"), None);
        assert_eq!(name(Signal::TERM), "SIGTERM");
        assert_eq!(name(Signal::KILL), "signal 9");
    }

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = "Name:\trekey\nSigIgn:\t0000000000001003\nSigCgt:\t0000000000000000\n";
        assert_eq!(mask(status), Some(0x1003));
        assert_eq!(mask("Name:\trekey\n"), None);
        assert_eq!(mask("SigIgn:\tx\n"), None);
    }
}
