//! `rekey run` and `rekey events tail` beside a real service, over links that break.

mod run;
mod script;
mod tail;
mod watch;

use crate::support::fixture;
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::service::{Client, Deployment, Replica};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
/// Longer than anything that should not happen takes to happen.
const QUIET: Duration = Duration::from_millis(1500);
const OWNER_SCOPES: &[&str] = &["secrets:read", "secrets:write"];
const WORKLOAD_SCOPES: &[&str] = &["secrets:resolve", "events:read"];

/// A service with an owner, a link to it that can break, and a workload's token.
struct Bench {
    // In the order in which they go away.
    proxy: Proxy,
    replica: Replica,
    deployment: Deployment,
    alice: Client,
    owner: String,
    token: String,
}

impl Bench {
    fn new() -> Self {
        let deployment = fixture::sqlite();
        let owner = deployment.token("alice", OWNER_SCOPES);
        let token = deployment.service_token("web", &["alice"], WORKLOAD_SCOPES);
        let replica = deployment.serve();
        let alice = replica.client(&owner);
        let target = replica.base().strip_prefix("http://").unwrap();
        let proxy = Proxy::start(target.parse().unwrap());
        Self {
            proxy,
            replica,
            deployment,
            alice,
            owner,
            token,
        }
    }

    async fn create(&self, name: &str, value: &str) -> String {
        let created = self.alice.create(name, value).await.unwrap();
        created.expect(201).id()
    }

    async fn put(&self, id: &str, value: &str) {
        self.alice.put(id, value).await.unwrap().expect(200);
    }

    /// Stops the service; whoever follows it tries again.
    fn stop(&mut self) {
        assert_eq!(self.replica.terminate(), Some(0));
    }

    /// Starts the service at the same address.
    fn serve_again(&mut self) {
        let (_, port) = self.replica.base().rsplit_once(':').unwrap();
        let port = port.to_owned();
        self.replica = self
            .deployment
            .serve_with(&[("REKEY__SERVER__PORT", &port)]);
        // Without connections to the one before.
        self.alice = self.replica.client(&self.owner);
    }

    /// Starts a command of rekey's that reaches the service by the proxy.
    fn start(&self, arguments: &[&str]) -> Command {
        let mut command = self.deployment.command(arguments);
        command
            .env("REKEY_URL", self.proxy.url(self.replica.base()))
            .env("REKEY_TOKEN", &self.token);
        Command::start(command)
    }

    /// As [`Bench::start`], with the token in a file.
    fn start_with_token_file(&self, arguments: &[&str], file: &Path) -> Command {
        let mut command = self.deployment.command(arguments);
        command
            .env("REKEY_URL", self.proxy.url(self.replica.base()))
            .env("REKEY_TOKEN_FILE", file);
        Command::start(command)
    }

    /// Gives the file another token, and revokes the one before, the other way round if `late`.
    async fn rotate_token(&mut self, file: &Path, late: bool) {
        let (_, rest) = self.token.split_once('_').unwrap();
        let (old, _) = rest.split_once('_').unwrap();
        let old = old.to_owned();
        self.token = self
            .deployment
            .service_token("web", &["alice"], WORKLOAD_SCOPES);
        if late {
            self.deployment.run(&["token", "revoke", &old]);
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
        std::fs::write(file, format!("{}\n", self.token)).unwrap();
        if !late {
            self.deployment.run(&["token", "revoke", &old]);
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
    }

    /// `rekey run --owner alice` with these options, on a shell's line.
    fn run(&self, options: &[&str], line: &str) -> Command {
        let mut arguments = vec!["run", "--owner", "alice"];
        arguments.extend(options);
        arguments.extend(["--", "sh", "-c", line]);
        self.start(&arguments)
    }
}

/// A running command and the lines that it has printed.
struct Command {
    process: Process,
    stdout: Lines,
    stderr: Lines,
}

type Lines = Arc<Mutex<Vec<String>>>;

impl Command {
    fn start(mut command: std::process::Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::spawn(&mut command);
        let stdout = collect(process.child().stdout.take().unwrap());
        let stderr = collect(process.child().stderr.take().unwrap());
        Self {
            process,
            stdout,
            stderr,
        }
    }

    fn stdout(&self) -> Vec<String> {
        self.stdout.lock().unwrap().clone()
    }

    fn stderr(&self) -> String {
        self.stderr.lock().unwrap().join("\n")
    }

    /// Waits until its standard output is these lines.
    async fn prints(&self, lines: &[&str]) {
        self.until(&format!("{lines:?}"), || self.stdout() == lines)
            .await;
    }

    /// Waits until it has said this on standard error.
    async fn says(&self, text: &str) {
        self.until(text, || self.stderr().contains(text)).await;
    }

    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let end = Instant::now() + SOON;
        while !holds() {
            let (stdout, stderr) = (self.stdout(), self.stderr());
            assert!(
                Instant::now() < end,
                "no {what}\n{stdout:#?}\nstderr:\n{stderr}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end; `None` when a signal ended it.
    fn code(&mut self) -> Option<i32> {
        let status = self.process.wait(SOON);
        let status = status.unwrap_or_else(|| panic!("it still runs:\n{}", self.stderr()));
        status.code()
    }
}

fn collect(from: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let collected = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            collected.lock().unwrap().push(line);
        }
    });
    lines
}
