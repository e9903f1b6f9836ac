//! The command as a process: how it starts, what it inherits, how it is signalled and ended.
//!
//! Which group it is in decides who signals it. In the foreground of a terminal it stays in `run`'s own
//! group: the keyboard's signals (Ctrl-C, Ctrl-\, Ctrl-Z) reach both, so `run` does not pass SIGINT and
//! SIGQUIT on. Anywhere else it leads a group of its own: whatever reaches `run`, also a signal to the
//! whole of `run`'s group, is passed on once, and at a restart nothing of it is left behind.

use std::{ffi::OsString, fs::File, io, process::ExitStatus, time::Duration};

use rustix::{
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

use super::super::connection;
use crate::client::ResolvedValues;

/// The group that the command is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// `run`'s, which is the terminal's foreground.
    Shared,
    /// Its own.
    Own,
}

/// What is started, each time anew.
#[derive(Debug)]
pub(super) struct Recipe {
    command: Vec<OsString>,
    group: Group,
}

/// A process under way.
#[derive(Debug)]
pub(super) struct Child {
    inner: tokio::process::Child,
    id: Pid,
    group: Group,
    signalled: bool,
}

impl Recipe {
    pub(super) fn new(command: Vec<OsString>) -> Self {
        let terminal = File::open("/dev/tty").and_then(|tty| Ok(tcgetpgrp(tty)?));
        let foreground = terminal.is_ok_and(|group| group == getpgrp());
        let group = if foreground {
            Group::Shared
        } else {
            Group::Own
        };
        Self { command, group }
    }

    /// A shell's command in the same place.
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
            signalled: false,
        })
    }
}

impl Child {
    /// Waits for its end.
    ///
    /// # Cancel safety
    /// It can be asked again after the future was dropped, and after its end.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.inner.wait().await
    }

    /// Passes on what `run` got, unless the terminal has done so.
    pub(super) fn forward(&mut self, signal: Signal) {
        self.signalled = true;
        let keyboard = signal == Signal::INT || signal == Signal::QUIT;
        if !(keyboard && self.group == Group::Shared) {
            self.signal(signal);
        }
    }

    /// Whether `run` got a signal for it: what it does now is not the values' doing.
    pub(super) const fn was_signalled(&self) -> bool {
        self.signalled
    }

    /// Sends it a signal; nothing happens when it has ended.
    pub(super) fn signal(&self, signal: Signal) {
        // Until it was waited for, its ID is nobody else's.
        if self.inner.id().is_some() {
            let _ = kill_process(self.id, signal);
        }
    }

    /// Sends a signal to it and to what it has started in its group.
    pub(super) fn signal_all(&self, signal: Signal) {
        match self.group {
            Group::Shared => self.signal(signal),
            Group::Own => drop(kill_process_group(self.id, signal)),
        }
    }

    /// After its end: waits for what it has started in its group, and kills what is still there at
    /// `end`, so that the next start finds ports and files free.
    pub(super) async fn clear(&self, end: Instant) {
        if self.group == Group::Shared {
            return;
        }
        loop {
            // As a container's first process `run` inherits orphans; nobody else waits for them.
            while matches!(waitpgid(self.id, WaitOptions::NOHANG), Ok(Some(_))) {}
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

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::{
        client::ResolvedValue,
        domain::{Cursor, SecretId, SecretName, SecretValue},
    };

    fn start(line: &str) -> Child {
        let secret = ResolvedValue {
            id: SecretId::new(uuid::Uuid::nil()),
            name: SecretName::parse("A_KEY").unwrap(),
            value: SecretValue::parse("canary".to_owned().into()).unwrap(),
            version: 1,
            sequence: 1,
        };
        let values = ResolvedValues {
            secrets: vec![secret],
            cursor: Cursor::START,
        };
        let recipe = Recipe {
            command: Vec::new(),
            group: Group::Own,
        };
        recipe.shell(line).start(&values).unwrap()
    }

    #[tokio::test]
    async fn a_command_finds_its_values_in_the_environment_and_no_token_there() {
        let mut child = start(r#"test "$A_KEY" = canary && test -z "${REKEY_TOKEN+set}""#);
        assert_eq!(child.wait().await.unwrap().code(), Some(0));
    }

    #[tokio::test]
    async fn what_a_command_leaves_in_its_group_is_waited_for_and_then_killed() {
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
        // Whoever adopts orphans reaps it in a moment.
        for _ in 0..500 {
            if test_kill_process_group(child.id).is_err() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("the group is still there");
    }

    #[tokio::test]
    async fn a_signal_reaches_the_command_and_only_as_long_as_it_is_there() {
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
