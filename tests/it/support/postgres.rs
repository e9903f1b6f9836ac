//! A private `PostgreSQL`: one for the whole suite, more for tests that kill it.
//!
//! Comes in: nothing but the server's programs. Goes out: a URL per fresh database. It listens on a free loopback
//! port and on a Unix socket in its own folder, syncs like a real one (the service refuses a server that does not),
//! and goes away with the test process.

use super::folder::Folder;
use super::port;
use super::process::{self, Process};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const ACCOUNT: &str = "postgres";

/// Shared memory in the server's folder, where it disappears with it.
const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "max_connections=300",
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "ssl=off",
    "dynamic_shared_memory_type=mmap",
    "timezone=UTC",
    "lc_messages=C",
];

pub(crate) struct Postgres {
    // First, so that it is dropped before the folder.
    process: Process,
    folder: Folder,
    port: u16,
    settings: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Postgres {
    /// The suite's own, started at the first call.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start_private)
    }

    /// One for this test alone: it may be killed.
    pub(crate) fn start_private() -> Self {
        Self::start_private_with(&[])
    }

    /// `settings` are `name=value` and win over the harness's own.
    pub(crate) fn start_private_with(settings: &[&str]) -> Self {
        Self::start_private_in(settings, &[])
    }

    /// The same, with variables in the server's environment.
    pub(crate) fn start_private_in(settings: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = Folder::new("pg");
        own(folder.path());
        initialise(&folder);
        let port = port::free();
        let settings: Vec<_> = SETTINGS
            .iter()
            .chain(settings)
            .map(ToString::to_string)
            .collect();
        let variable = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment: Vec<_> = environment.iter().map(variable).collect();
        let process = spawn(&folder, port, &settings, &environment);
        let mut server = Self {
            process,
            folder,
            port,
            settings,
            environment,
        };
        assert!(
            server.is_up(Duration::from_secs(30)),
            "PostgreSQL does not start:\n{}",
            server.log()
        );
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The folder that holds everything the server writes, its log included.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!(
            "postgres://{ACCOUNT}@{}/{database}?sslmode=disable",
            self.address()
        )
    }

    /// A fresh, empty database.
    pub(crate) fn database(&self) -> String {
        self.create("")
    }

    /// A copy of a database that nobody is connected to.
    pub(crate) fn copy(&self, url: &str) -> String {
        let url = url::Url::parse(url).expect("a database's URL");
        self.create(&format!("TEMPLATE {}", url.path().trim_start_matches('/')))
    }

    fn create(&self, options: &str) -> String {
        let name = format!("t_{}", uuid::Uuid::new_v4().simple());
        let sql = format!("CREATE DATABASE {name} {options}");
        psql(&self.url("postgres"), &sql);
        self.url(&name)
    }

    /// Kills the postmaster; its children notice and follow.
    pub(crate) fn kill_9(&mut self) {
        self.process.kill_9();
    }

    /// Starts it again on the same port and files, and waits until it accepts connections.
    pub(crate) fn restart(&mut self) {
        self.process.end();
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            self.process = spawn(&self.folder, self.port, &self.settings, &self.environment);
            // The old shared memory is in use until the last of the killed server's children is gone.
            if self.is_up(Duration::from_secs(30)) {
                return;
            }
            assert!(
                Instant::now() < end,
                "PostgreSQL does not start again:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts it again as a standby that follows nobody, or as the primary that it was.
    pub(crate) fn restart_as(&mut self, standby: bool) {
        self.process.end();
        let signal = self.folder.join("data/standby.signal");
        if standby {
            std::fs::write(&signal, "").expect("a file for the server");
            own(&signal);
        } else {
            std::fs::remove_file(&signal).expect("the server is a standby");
        }
        self.restart();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// False: it ended instead.
    fn is_up(&mut self, deadline: Duration) -> bool {
        let own = self.process.id().to_string();
        let end = Instant::now() + deadline;
        while self.process.status().is_none() && Instant::now() < end {
            let state = std::fs::read_to_string(self.folder.join("data/postmaster.pid"))
                .unwrap_or_default();
            let mut lines = state.lines();
            let status = ["ready", "standby"];
            if lines.next() == Some(&own)
                && lines
                    .nth(6)
                    .is_some_and(|line| status.contains(&line.trim()))
            {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

/// What the statements print: unaligned, without headers.
pub(crate) fn psql(url: &str, sql: &str) -> String {
    try_psql(url, sql).unwrap_or_else(|error| panic!("psql: {error}"))
}

pub(crate) fn try_psql(url: &str, sql: &str) -> Result<String, String> {
    let output = process::program(find("psql"))
        .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql])
        .output()
        .expect("psql runs");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// A dump, for the search for plaintext: in the server's own files a long value may be compressed.
pub(crate) fn dump(url: &str) -> Vec<u8> {
    let output = process::program(find("pg_dump"))
        .args(["--inserts", "-d", url])
        .output()
        .expect("pg_dump runs");
    assert!(
        output.status.success(),
        "pg_dump: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// The files of an empty server, made once in a test process and copied for each server.
fn initialise(folder: &Folder) {
    static EMPTY: OnceLock<Folder> = OnceLock::new();
    let empty = EMPTY.get_or_init(|| {
        let empty = Folder::new("pg");
        own(empty.path());
        make_files(&empty);
        empty
    });
    let copied = server_program("cp")
        .arg("-R")
        .arg(empty.join("data"))
        .arg(folder.path())
        .status()
        .expect("cp runs");
    assert!(copied.success(), "cp: {copied}");
}

fn make_files(folder: &Folder) {
    let output = server_program("initdb")
        .args([
            "--auth=trust",
            "--no-sync",
            "--no-instructions",
            "--encoding=UTF8",
            "--locale=C",
            "--username",
            ACCOUNT,
        ])
        .arg("-D")
        .arg(folder.join("data"))
        .current_dir(folder.path())
        .output()
        .expect("initdb runs");
    assert!(
        output.status.success(),
        "initdb: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn spawn(
    folder: &Folder,
    port: u16,
    settings: &[String],
    environment: &[(String, String)],
) -> Process {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .expect("a log file");
    let mut command = server_program("postgres");
    command
        .arg("-D")
        .arg(folder.join("data"))
        .args(["-p", &port.to_string()])
        .arg("-k")
        .arg(folder.path());
    for setting in settings {
        command.args(["-c", setting]);
    }
    let errors = log.try_clone().expect("a second handle");
    Process::spawn(
        command
            .current_dir(folder.path())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdout(log)
            .stderr(errors),
    )
}

/// `PostgreSQL` refuses to run as root; `setpriv` replaces itself, so the child's ID is the server's own.
fn server_program(name: &str) -> Command {
    let path = find(name);
    if !rustix::process::geteuid().is_root() {
        return process::program(path);
    }
    let mut command = process::program("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
        .arg(path);
    command
}

/// As root, what the server reads and writes must belong to the account that it runs as.
pub(crate) fn own(folder: &Path) {
    if rustix::process::geteuid().is_root() {
        let accounts = std::fs::read_to_string("/etc/passwd").expect("accounts");
        let mut fields = accounts
            .lines()
            .find(|line| line.starts_with("postgres:"))
            .expect("the account postgres, which Debian's package makes")
            .split(':')
            .skip(2)
            .map(|field| field.parse().expect("a number"));
        std::os::unix::fs::chown(folder, fields.next(), fields.next())
            .expect("root may give a folder away");
    }
}

/// Debian keeps a folder per major version; the highest wins.
pub(crate) fn find(name: &str) -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin").join(name)))
        });
    let newest = debian
        .filter(|(_, path)| path.is_file())
        .max_by_key(|(version, _)| *version);
    newest
        .map(|(_, path)| path)
        .or_else(|| process::on_path(name))
        .unwrap_or_else(|| {
            panic!(
                "{name} is missing: apt-get install postgresql (or, as root: scripts/test packages)"
            )
        })
}
