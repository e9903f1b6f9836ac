//! The signals that `run` passes on to its command.

use std::{future::poll_fn, io, task::Poll};

use rustix::process::Signal;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

use crate::cli::ignored_signals;

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
        let ignored = ignored_signals::read()?;
        let streams = PASSED_ON
            .into_iter()
            .filter(|(signal, _)| !ignored.holds(*signal))
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
}
