//! The signals that end a service in good order.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use super::ignored_signals;

/// Waits for the first SIGTERM, SIGINT or SIGHUP, also when it comes before the wait. From the call on they no longer
/// end the process at once. SIGHUP stays ignored if it was ignored when the process started (`nohup`).
pub(super) fn asked() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let heeded = !ignored_signals::read()?.holds(Signal::HUP);
    let mut hangup = heeded.then(|| signal(SignalKind::hangup())).transpose()?;
    Ok(async move {
        let disconnected = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = disconnected => {}
        }
    })
}
