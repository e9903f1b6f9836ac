//! The real binary, run as an operator runs it: settings by environment, keys, schema and tokens by its commands.
//!
//! A [`Deployment`] is what replicas share (folder, database, keyring, broker), a [`Replica`] is one running process,
//! a [`Client`] speaks HTTP to it. Everything goes away with its owner, or with the test process.

use super::document::{self, Exchange};
use super::folder::Folder;
use super::postgres::try_psql;
use super::process::{self, Process};
use super::python;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_rekey");
const START: Duration = Duration::from_secs(30);
const DRAIN: Duration = Duration::from_secs(25);

/// Under this, no test meets a limit that it does not mean to meet.
const RAISED: &[(&str, &str)] = &[
    ("LIMITS__RATE_PER_SECOND", "1000000"),
    ("LIMITS__BURST", "1000000"),
    ("LIMITS__FAILED_PER_MINUTE", "1000000"),
    ("LIMITS__SECRETS_PER_OWNER", "10000"),
    ("LIMITS__STREAMS_PER_CALLER", "10000"),
];

/// What every replica of one service shares.
pub(crate) struct Deployment {
    folder: Arc<Folder>,
    variables: Vec<(String, String)>,
    replicas: AtomicUsize,
}

impl Deployment {
    /// As a newcomer gets it: `serve` makes database, key and token itself, in `data/`.
    pub(crate) fn embedded() -> Self {
        let folder = Arc::new(Folder::new("app"));
        Self {
            folder,
            variables: Vec::new(),
            replicas: AtomicUsize::default(),
        }
        .set("SERVER__PORT", "0")
    }

    /// On a `SQLite` file of its own, with a keyring of its own. [`Deployment::prepare`] makes both.
    pub(crate) fn sqlite() -> Self {
        let this = Self::embedded();
        let database = format!("sqlite://{}", this.folder.join("rekey.db").display());
        this.on(&database)
    }

    /// On a database of [`super::postgres`], reached directly or through a proxy.
    pub(crate) fn postgres(url: &str) -> Self {
        Self::embedded().on(url)
    }

    fn on(self, database: &str) -> Self {
        let keyring = self.keyring().display().to_string();
        self.set("DATABASE__URL", database)
            .set("KEYRING__PATH", &keyring)
    }

    pub(crate) fn broker(self, url: &str, exchange: &str) -> Self {
        self.set("BROKER__URL", url)
            .set("BROKER__EXCHANGE", exchange)
    }

    pub(crate) fn raised_limits(self) -> Self {
        RAISED
            .iter()
            .fold(self, |this, (key, value)| this.set(key, value))
    }

    /// Everything it can log.
    pub(crate) fn traced(self) -> Self {
        self.environment("RUST_LOG", "trace")
    }

    /// One setting, as in `set("COMMIT__TIMEOUT_MS", "500")`.
    pub(crate) fn set(self, key: &str, value: &str) -> Self {
        self.environment(&format!("REKEY__{key}"), value)
    }

    /// One variable of the environment; the last of a name counts.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What a variable is set to.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        let mut all = self.variables.iter().rev();
        all.find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Makes the key and the schema.
    pub(crate) fn prepare(self) -> Self {
        self.run(&["keys", "generate"]);
        self.run(&["migrate", "up"]);
        self
    }

    /// Takes over another deployment's key and, on `SQLite`, its database: nobody may be at work in it.
    pub(crate) fn copy_of(self, original: &Self) -> Self {
        for entry in std::fs::read_dir(original.folder()).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let name = path.file_name().expect("a name").to_str().expect("UTF-8");
                std::fs::copy(&path, self.folder.join(name)).expect("a copy");
            }
        }
        let (from, to) = (original.keyring(), self.keyring());
        let (from_folder, to_folder) = (
            from.parent().expect("a folder"),
            to.parent().expect("a folder"),
        );
        std::fs::create_dir(to_folder).expect("a folder for the key");
        let permissions = std::fs::metadata(from_folder)
            .expect("a folder")
            .permissions();
        std::fs::set_permissions(to_folder, permissions).expect("permissions");
        std::fs::copy(from, to).expect("a copy of the key");
        self
    }

    /// The database's URL.
    pub(crate) fn database(&self) -> &str {
        let url = self.variable("REKEY__DATABASE__URL");
        url.expect("a deployment with a database")
    }

    /// Runs SQL on the database by hand, past the service. Returns a line for each row, with `|` between the columns.
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.try_sql(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The same, or what the database says against it.
    pub(crate) fn try_sql(&self, sql: &str) -> Result<String, String> {
        match self.database().strip_prefix("sqlite://") {
            Some(path) => {
                let script = "import sqlite3, sys\n\
                              with sqlite3.connect(sys.stdin.readline().strip()) as db:\n \
                              for row in db.execute(sys.stdin.read()): print(*row, sep='|')";
                python::try_run(script, format!("{path}\n{sql}").as_bytes())
            }
            None => try_psql(self.database(), sql),
        }
    }

    /// The folder that the service runs in: its data, keyring and standard error.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn keyring(&self) -> PathBuf {
        self.folder.join("keys/keyring.json")
    }

    /// The token that the embedded default has made at its first start.
    pub(crate) fn embedded_token(&self) -> String {
        let token = std::fs::read_to_string(self.folder.join("data/token")).expect("data/token");
        token.trim_end().to_owned()
    }

    pub(crate) fn token(&self, owner: &str, scopes: &[&str]) -> String {
        self.issue(&["--owner", owner], scopes)
    }

    /// `acts_for` holds owners, or `*` for all.
    pub(crate) fn service_token(&self, name: &str, acts_for: &[&str], scopes: &[&str]) -> String {
        let mut who = vec!["--service", name];
        for owner in acts_for {
            who.extend(["--act-for", owner]);
        }
        self.issue(&who, scopes)
    }

    fn issue(&self, who: &[&str], scopes: &[&str]) -> String {
        let mut arguments = vec!["token", "create"];
        arguments.extend(who);
        for scope in scopes {
            arguments.extend(["--scope", scope]);
        }
        let printed = self.run(&arguments);
        let token = printed.trim_end().to_owned();
        assert!(
            token.starts_with("rekey_") && token.lines().count() == 1,
            "the token alone is on stdout"
        );
        token
    }

    /// What a command prints; panics when it fails.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "rekey {}: {}\n{errors}",
            arguments.join(" "),
            output.status
        );
        String::from_utf8(output.stdout).expect("UTF-8 on stdout")
    }

    pub(crate) fn try_run(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs")
    }

    /// A command with this deployment's settings, still to be started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(BINARY);
        command.args(arguments);
        command
    }

    /// Another program in this deployment's folder, with its settings in the environment.
    pub(crate) fn program(&self, program: &str) -> Command {
        let mut command = process::program(program);
        command
            .current_dir(self.folder.path())
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("RUST_BACKTRACE", "1")
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn serve(&self) -> Replica {
        self.serve_with(&[])
    }

    /// One more replica; `variables` are for it alone and win over the deployment's. Panics unless it listens.
    pub(crate) fn serve_with(&self, variables: &[(&str, &str)]) -> Replica {
        self.try_serve_with(variables)
            .unwrap_or_else(|errors| panic!("the service does not start:\n{errors}"))
    }

    /// What it says on standard error, when it ends instead of listening.
    pub(crate) fn try_serve_with(&self, variables: &[(&str, &str)]) -> Result<Replica, String> {
        let number = self.replicas.fetch_add(1, Ordering::SeqCst);
        let errors = self.folder.join(&format!("stderr-{number}.log"));
        let mut command = self.command(&["serve"]);
        command.envs(variables.iter().copied());
        command
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).expect("a log file"));
        let mut process = Process::spawn(&mut command);
        let (stdout, first) = read_stdout(&mut process);
        let listening = first.recv_timeout(START).ok().and_then(|line| {
            let address = line.strip_prefix("listening on ")?;
            Some(address.to_owned())
        });
        let mut replica = Replica {
            process,
            _folder: self.folder.clone(),
            base: String::new(),
            errors,
            stdout,
        };
        let Some(base) = listening else {
            replica.process.end();
            return Err(format!(
                "stdout: {:?}\nstderr: {}",
                replica.stdout(),
                replica.stderr()
            ));
        };
        replica.base = base;
        Ok(replica)
    }
}

type Lines = Arc<Mutex<Vec<String>>>;

/// Collects its lines; the receiver gets the first, or nothing when it ends before.
fn read_stdout(process: &mut Process) -> (Lines, mpsc::Receiver<String>) {
    let stdout = process.child().stdout.take().expect("a piped stdout");
    let lines = Lines::default();
    let (sender, first) = mpsc::channel();
    let collected = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            collected.lock().unwrap().push(line.clone());
            let _ = sender.send(line);
        }
    });
    (lines, first)
}

/// One running process.
pub(crate) struct Replica {
    // First, so that it is dropped before the folder.
    process: Process,
    _folder: Arc<Folder>,
    base: String,
    errors: PathBuf,
    stdout: Lines,
}

impl Replica {
    /// `http://HOST:PORT`.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn client(&self, token: &str) -> Client {
        Client::new(&self.base, token)
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn kill_9(&mut self) {
        self.process.kill_9();
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Sends SIGTERM and waits until it has drained; its exit code, `None` when a signal ended it.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        self.process.signal(Signal::TERM);
        self.exit_code(DRAIN)
    }

    /// Waits until it ends by itself.
    pub(crate) fn exit_code(&mut self, deadline: Duration) -> Option<i32> {
        let status = self.process.wait(deadline);
        status
            .unwrap_or_else(|| panic!("it still runs after {deadline:?}:\n{}", self.stderr()))
            .code()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.errors).unwrap_or_default()).into_owned()
    }

    /// Its lines up to now.
    pub(crate) fn stdout(&self) -> Vec<String> {
        self.stdout.lock().unwrap().clone()
    }

    /// How long it took until `/ready` said 200; panics at the deadline.
    pub(crate) async fn ready(&self, deadline: Duration) -> Duration {
        let client = Client::anonymous(&self.base);
        let began = Instant::now();
        loop {
            if client
                .send(client.request(Method::GET, "/ready"))
                .await
                .is_ok_and(|answer| answer.status == 200)
            {
                return began.elapsed();
            }
            assert!(
                began.elapsed() < deadline,
                "not ready after {deadline:?}:\n{}",
                self.stderr()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Replica {
    /// A test that fails shows what its service said last.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.stderr();
            let lines: Vec<_> = said.lines().rev().take(40).collect();
            eprintln!("the service {} said last:", self.base);
            for line in lines.iter().rev() {
                eprintln!("  {line}");
            }
        }
    }
}

/// What came back, whatever its status.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Panics, showing the body, unless the status is this one.
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("an ASCII header"))
    }

    /// The `id` of the secret that it shows.
    pub(crate) fn id(&self) -> String {
        self.json()["id"].as_str().expect("an id").to_owned()
    }
}

type Sent = Result<Answer, reqwest::Error>;

/// Speaks for one token. An `Err` means that no answer came.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    headers: HeaderMap,
}

impl Client {
    pub(crate) fn new(base: &str, token: &str) -> Self {
        Self::anonymous(base).with("authorization", &format!("Bearer {token}"))
    }

    /// Without a credential.
    pub(crate) fn anonymous(base: &str) -> Self {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .expect("an HTTP client");
        Self {
            http,
            base: base.to_owned(),
            headers: HeaderMap::new(),
        }
    }

    /// The same, with one header more on every request: `with("if-match", "\"3\"")`.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut this = self.clone();
        let name: HeaderName = name.parse().expect("a header's name");
        this.headers.insert(
            name,
            HeaderValue::from_str(value).expect("a header's value"),
        );
        this
    }

    /// The same on another replica.
    pub(crate) fn on(&self, base: &str) -> Self {
        Self {
            base: base.to_owned(),
            ..self.clone()
        }
    }

    /// Any request, to be completed and then given to [`Client::send`] (or sent as it is, to read a stream).
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .headers(self.headers.clone())
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Sent {
        let request = request.build()?;
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = self.http.execute(request).await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let answer = Answer {
            status,
            headers,
            body: response.bytes().await?.to_vec(),
        };
        document::validate(&Exchange {
            method: &method,
            path: &path,
            status,
            headers: &answer.headers,
            body: &answer.body,
        });
        Ok(answer)
    }

    pub(crate) async fn create(&self, name: &str, value: &str) -> Sent {
        self.post(
            "/api/v1/user/secrets",
            &json!({"name": name, "value": value}),
        )
        .await
    }

    pub(crate) async fn put(&self, id: &str, value: &str) -> Sent {
        let request = self.request(Method::PUT, &format!("/api/v1/user/secrets/{id}"));
        self.send(request.json(&json!({"value": value}))).await
    }

    pub(crate) async fn get(&self, id: &str) -> Sent {
        self.fetch(&format!("/api/v1/user/secrets/{id}")).await
    }

    pub(crate) async fn list(&self) -> Sent {
        self.fetch("/api/v1/user/secrets").await
    }

    pub(crate) async fn delete(&self, id: &str) -> Sent {
        self.send(self.request(Method::DELETE, &format!("/api/v1/user/secrets/{id}")))
            .await
    }

    /// `query` without the question mark: `after=1-7&limit=10`.
    pub(crate) async fn events(&self, query: &str) -> Sent {
        self.fetch(&format!("/api/v1/events?{query}")).await
    }

    pub(crate) async fn resolve(&self, body: &Value) -> Sent {
        self.post("/api/v1/secrets/resolve", body).await
    }

    pub(crate) async fn fetch(&self, path: &str) -> Sent {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Sent {
        self.send(self.request(Method::POST, path).json(body)).await
    }
}
