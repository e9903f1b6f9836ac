//! A child process that never outlives the test process.

use super::reaper;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A program that starts with every signal as the system has it. A shell's background ignores SIGINT and SIGQUIT,
/// `nohup` ignores SIGHUP, and a child inherits what its parent ignores.
pub(crate) fn program(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(program);
    command
}

/// A standard output that nobody reads.
pub(crate) fn closed_pipe() -> Stdio {
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    writer.into()
}

pub(crate) struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts it in a process group of its own, without a standard input.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        reaper::watch_process(child.id());
        Self { child, name }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// `None`: it still runs at the deadline.
    pub(crate) fn wait(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.status() {
                reaper::forget_process(self.id());
                return Some(status);
            }
            if Instant::now() >= end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Nothing happens when it has ended already.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.status().is_none() {
            let id = Pid::from_child(&self.child);
            kill_process(id, signal)
                .unwrap_or_else(|error| panic!("no signal reaches {}: {error}", self.name));
        }
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill_9(&mut self) {
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(10))
            .expect("SIGKILL ends a process");
    }

    /// Ends it: SIGQUIT, which lets a server give back what the kernel would keep, then SIGKILL.
    pub(crate) fn end(&mut self) {
        self.signal(Signal::QUIT);
        self.signal(Signal::CONT);
        if self.wait(Duration::from_secs(3)).is_none() {
            self.kill_9();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Where the shell would find a program.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}
