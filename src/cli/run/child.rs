//! The command as a process: how it starts, what it inherits, how it is signalled and ended.
//!
//! Who signals it depends on its process group. In the foreground of a terminal it stays in `run`'s own
//! group: the keyboard's signals (Ctrl-C, Ctrl-\, Ctrl-Z) reach both, so `run` does not pass SIGINT and
//! SIGQUIT on. Anywhere else it leads a group of its own: each signal that reaches `run`, also one to the
//! whole of `run`'s group, is passed on once, and at a restart no process of its group is left behind.

use std::{
    ffi::OsString, fs::File, io, os::unix::process::ExitStatusExt, process::ExitStatus,
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{
        Pid, Signal, WaitOptions, getpgrp, kill_process, kill_process_group,
        test_kill_process_group, waitpgid,
    },
    termios::tcgetpgrp,
};
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use super::{
    super::{connection, say},
    signals,
};
use crate::client::ResolvedValues;

/// The process group that the command is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// `run`'s, which is in the terminal's foreground.
    Shared,
    /// Its own.
    Own,
}

/// The command to start, as often as needed.
#[derive(Debug)]
pub(super) struct CommandSpec {
    command: Vec<OsString>,
    group: Group,
}

/// A running command.
#[derive(Debug)]
pub(super) struct Child {
    inner: tokio::process::Child,
    id: Pid,
    group: Group,
    /// The signals that it was passed on.
    passed_on: Vec<Signal>,
}

impl CommandSpec {
    pub(super) fn new(command: Vec<OsString>) -> Self {
        // An error means that there is no terminal.
        let terminal = File::open("/dev/tty").and_then(|tty| Ok(tcgetpgrp(tty)?));
        let foreground = terminal.is_ok_and(|group| group == getpgrp());
        let group = if foreground {
            Group::Shared
        } else {
            Group::Own
        };
        Self { command, group }
    }

    /// A command for the shell, in the same group.
    pub(super) fn shell(&self, line: &str) -> Self {
        Self {
            command: ["sh", "-c", line].map(OsString::from).into(),
            group: self.group,
        }
    }

    /// Starts it with these values in its environment, and without rekey's token.
    ///
    /// # Errors
    /// The operating system's: not found, not executable, no memory.
    pub(super) fn start(&self, values: &ResolvedValues) -> io::Result<Child> {
        let mut words = self.command.iter();
        let program = words.next().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command
            .args(words)
            .env_remove(connection::TOKEN)
            .env_remove(connection::TOKEN_FILE);
        for secret in &values.secrets {
            command.env(secret.name.as_str(), secret.value.expose());
        }
        if self.group == Group::Own {
            command.process_group(0);
        }
        let inner = command.spawn()?;
        let id = inner.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        Ok(Child {
            id: id.ok_or(io::ErrorKind::NotFound)?,
            inner,
            group: self.group,
            passed_on: Vec::new(),
        })
    }
}

impl Child {
    /// Waits for its end.
    ///
    /// # Cancel safety
    /// It can be called again after the future was dropped, and after the command's end.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.inner.wait().await
    }

    /// Passes on a signal that `run` got, unless the terminal has sent it to the command too.
    pub(super) fn forward(&mut self, signal: Signal) {
        if !self.passed_on.contains(&signal) {
            self.passed_on.push(signal);
        }
        let keyboard = signal == Signal::INT || signal == Signal::QUIT;
        if !(keyboard && self.group == Group::Shared) {
            self.signal(signal);
        }
    }

    /// Whether `run` got a signal for it: what it does after that is not the values' fault.
    pub(super) const fn was_signalled(&self) -> bool {
        !self.passed_on.is_empty()
    }

    /// Sends it a signal; nothing happens when it has ended.
    pub(super) fn signal(&self, signal: Signal) {
        // Until it was waited for, its ID is nobody else's.
        if self.inner.id().is_some() {
            report(signal, kill_process(self.id, signal));
        }
    }

    /// Sends a signal to it and to what it has started in its group.
    pub(super) fn signal_all(&self, signal: Signal) {
        match self.group {
            Group::Shared => self.signal(signal),
            Group::Own => report(signal, kill_process_group(self.id, signal)),
        }
    }

    /// Whether a signal that `run` passed on has ended it, or asked it to end.
    pub(super) fn ended_by_signal(&self, status: ExitStatus) -> bool {
        let by = |signal: &Signal| status.signal() == Some(signal.as_raw());
        self.passed_on
            .iter()
            .any(|signal| signals::ends(*signal) || by(signal))
    }

    /// Ends what is there of its group: SIGTERM, then SIGKILL when the grace is over. Nothing stays behind with the
    /// values in its environment.
    pub(super) async fn end_group(&self, grace: Duration) {
        self.signal_all(Signal::TERM);
        self.clear(Instant::now() + grace).await;
    }

    /// After its end: waits for what it has started in its group, and kills what is still there at
    /// `end`, so that the next start finds ports and files free.
    pub(super) async fn clear(&self, end: Instant) {
        if self.group == Group::Shared {
            return;
        }
        loop {
            // As a container's first process `run` inherits orphans, and no other process waits for them.
            while matches!(waitpgid(self.id, WaitOptions::NOHANG), Ok(Some(_))) {}
            // An error means that no process is left which `run` may signal.
            if test_kill_process_group(self.id).is_err() {
                return;
            }
            if Instant::now() >= end {
                self.signal_all(Signal::KILL);
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Says why a signal was not delivered. That the process has ended is no reason to say anything.
fn report(signal: Signal, sent: rustix::io::Result<()>) {
    if let Err(error) = sent
        && error != Errno::SRCH
    {
        let name = signals::name(signal);
        say(&format!("cannot send {name} to the command: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::known::tests::values, *};

    fn start(line: &str) -> Child {
        let spec = CommandSpec {
            command: Vec::new(),
            group: Group::Own,
        };
        spec.shell(line).start(&values(1, "canary")).unwrap()
    }

    #[tokio::test]
    async fn a_command_finds_its_values_in_the_environment_and_no_token_there() {
        let mut child = start(r#"test "$A_KEY" = canary && test -z "${REKEY_TOKEN+set}""#);
        assert_eq!(child.wait().await.unwrap().code(), Some(0));
    }

    #[tokio::test]
    async fn what_a_command_leaves_in_its_group_is_awaited_and_then_killed() {
        let mut child = start("sleep 0.2 & exit 3");
        let began = Instant::now();
        assert_eq!(child.wait().await.unwrap().code(), Some(3));
        child.clear(began + Duration::from_secs(20)).await;
        assert!(began.elapsed() < Duration::from_secs(10));
        assert!(test_kill_process_group(child.id).is_err());

        let mut child = start("trap '' TERM; sleep 1000 & exit 0");
        child.wait().await.unwrap();
        child.signal_all(Signal::TERM);
        child
            .clear(Instant::now() + Duration::from_millis(100))
            .await;
        // The process that adopts orphans reaps it in a moment.
        for _ in 0..500 {
            if test_kill_process_group(child.id).is_err() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("the group is still there");
    }

    #[tokio::test]
    async fn a_signal_reaches_the_command_only_as_long_as_it_runs() {
        let mut child = start("kill -STOP $$; exit 0");
        assert!(!child.was_signalled());
        child.forward(Signal::TERM);
        child.signal(Signal::CONT);
        let status = child.wait().await.unwrap();
        assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
        assert!(child.was_signalled());
        child.signal(Signal::TERM);
    }
}
