//! The signals that `run` passes on to its command.

use std::{fs, future::poll_fn, io, task::Poll};

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

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

/// Whether it asks a process to end, unless that has other plans.
pub(super) fn ends(signal: Signal) -> bool {
    signal == Signal::INT || signal == Signal::QUIT || signal == Signal::TERM
}

/// What comes from outside.
#[derive(Debug)]
pub(super) struct Signals(Vec<(Signal, Stream)>);

impl Signals {
    /// From here on none of them ends this process. Those that were ignored when it started stay
    /// ignored, for it and for the command (`nohup`).
    pub(super) fn new() -> io::Result<Self> {
        let ignored = ignored();
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

/// The mask of the signals that this process ignores (Linux; elsewhere none is known).
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
