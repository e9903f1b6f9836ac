//! The audit consumer: what the broker delivers is stored once, and what was stored is proved.

mod proof;
mod serve;
mod twin;

use crate::support::{process::Process, service::Deployment};
use rustix::process::Signal;
use std::{
    fs::File,
    path::PathBuf,
    process::Output,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(30);
/// A broker that was killed elects the leaders of its queues anew.
const LATE: Duration = Duration::from_mins(3);

/// A running `rekey audit serve`.
struct Consumer {
    process: Process,
    errors: PathBuf,
}

impl Consumer {
    /// Returns when it consumes.
    async fn start(deployment: &Deployment, variables: &[(&str, &str)]) -> Self {
        let this = Self::launch(deployment, variables);
        this.says("consuming", 1).await;
        this
    }

    fn launch(deployment: &Deployment, variables: &[(&str, &str)]) -> Self {
        let name = format!("audit-{}.log", uuid::Uuid::new_v4().simple());
        let errors = deployment.folder().join(name);
        let mut command = deployment.command(&["audit", "serve"]);
        command
            .envs(variables.iter().copied())
            .stderr(File::create(&errors).unwrap());
        Self {
            process: Process::spawn(&mut command),
            errors,
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Waits until its log holds a text so many times.
    async fn says(&self, text: &str, times: usize) {
        let end = Instant::now() + LATE;
        while self.log().matches(text).count() < times {
            assert!(Instant::now() < end, "{text} in:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn terminate(&mut self) -> Option<i32> {
        self.process.signal(Signal::TERM);
        let status = self.process.wait(SOON);
        status
            .unwrap_or_else(|| panic!("it still runs:\n{}", self.log()))
            .code()
    }
}

/// The stored events of a log, oldest first.
fn stored(deployment: &Deployment, log: &str) -> Vec<Vec<u8>> {
    let output = deployment.try_run(&["audit", "tail", "--limit", "10000", "--log", log]);
    let mut lines: Vec<_> = output
        .stdout
        .split(|b| *b == b'\n')
        .map(Vec::from)
        .collect();
    lines.pop();
    lines
}

/// Waits until so many events of `changes` are stored.
async fn stores(deployment: &Deployment, count: usize) -> Vec<Vec<u8>> {
    stores_of("changes", deployment, count).await
}

async fn stores_of(log: &str, deployment: &Deployment, count: usize) -> Vec<Vec<u8>> {
    let end = Instant::now() + SOON;
    loop {
        let events = stored(deployment, log);
        if events.len() >= count {
            assert_eq!(events.len(), count);
            return events;
        }
        assert!(
            Instant::now() < end,
            "{} of {count} are stored",
            events.len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What it prints of the first bad position of each log that does not hold; none when all is proved.
fn first_bad(output: &Output) -> Vec<u64> {
    let text = String::from_utf8_lossy(&output.stdout);
    let bad: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("first bad position: "))
        .map(|position| position.parse().unwrap())
        .collect();
    let code = i32::from(!bad.is_empty());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}{errors}");
    bad
}
