//! `docker-compose.yml` on this machine: its scripts, taken out of the file and run against real servers. Its volumes
//! are folders, and its servers have other addresses.

use crate::support::folder::Folder;
use crate::support::postgres::{self, Postgres, psql};
use crate::support::process::program;
use crate::support::rabbitmq::RabbitMq;
use crate::support::service::{BINARY, Deployment, Replica};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

const FILE: &str = include_str!("../../../docker-compose.yml");
/// Who may log in without a password, as in the image: nobody but the superuser, for the tests.
const AUTHENTICATION: &str = "local all all trust\n\
                              host all postgres 127.0.0.1/32 trust\n\
                              host all all 127.0.0.1/32 scram-sha-256\n";

/// The lines of a service.
fn service(name: &str) -> Vec<&'static str> {
    let services = FILE.split_once("\nservices:\n").expect("services").1;
    let mut lines = services
        .lines()
        .skip_while(|line| *line != format!("  {name}:"));
    lines.next().unwrap_or_else(|| panic!("no service {name}"));
    lines
        .take_while(|line| line.is_empty() || line.starts_with("   "))
        .collect()
}

/// The script of a service, as its shell gets it.
pub(super) fn script(name: &str) -> String {
    let lines = service(name)
        .into_iter()
        .skip_while(|line| line.trim() != "- |");
    let lines = lines
        .skip(1)
        .take_while(|line| line.is_empty() || line.starts_with("        "));
    let lines = lines.map(|line| line.get(8..).unwrap_or_default());
    let script: String = lines.flat_map(|line| [line, "\n"]).collect();
    assert!(!script.is_empty(), "{name} has no script");
    script.replace("$$", "$")
}

/// The values of a key that holds a list or a map, in a block or on its line.
pub(super) fn values(name: &str, key: &str) -> Vec<String> {
    let lines = service(name);
    let at = lines
        .iter()
        .position(|line| line.starts_with(&format!("    {key}:")));
    let at = at.unwrap_or_else(|| panic!("{name} has no {key}"));
    let bare = |line: &'static str| line.split_once(" #").map_or(line, |(line, _)| line);
    let inline = bare(lines[at]).split_once(": ").map(|(_, rest)| rest);
    if let Some(inline) = inline {
        let inline = inline.trim_matches(['{', '}', '[', ']', ' ']);
        return inline.split(", ").map(str::to_owned).collect();
    }
    let block = lines[at + 1..]
        .iter()
        .take_while(|line| line.starts_with("      "));
    let block = block.map(|line| bare(line).trim().trim_start_matches("- "));
    block
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// The stack, with nothing in its volumes.
pub(super) struct Stack {
    pub(super) folder: Folder,
    pub(super) postgres: Postgres,
    pub(super) rabbitmq: RabbitMq,
}

impl Stack {
    pub(super) fn start() -> Self {
        let stack = Self {
            folder: Folder::new("compose"),
            postgres: Postgres::start_private(),
            rabbitmq: RabbitMq::start_private(),
        };
        std::fs::write(
            stack.postgres.folder().join("data/pg_hba.conf"),
            AUTHENTICATION,
        )
        .unwrap();
        psql(&stack.postgres.url("postgres"), "SELECT pg_reload_conf()");
        for folder in ["bin", "secrets", "audit-data", "moved"] {
            std::fs::create_dir(stack.folder.join(folder)).unwrap();
        }
        for volume in values("init", "volumes") {
            let name = volume.split(':').next().unwrap();
            std::fs::create_dir_all(stack.volume(name)).unwrap();
        }
        // Only root may give files away. What it would do is written down.
        let note = stack.folder.join("given");
        let chown = format!("#!/bin/sh\necho \"$@\" >> {}\n", note.display());
        let shim = stack.folder.join("bin/chown");
        std::fs::write(&shim, chown).unwrap();
        std::fs::set_permissions(shim, std::fs::Permissions::from_mode(0o755)).unwrap();
        stack.new_database();
        stack
    }

    /// What the image makes of an empty `postgres-data`.
    pub(super) fn new_database(&self) {
        psql(&self.postgres.url("postgres"), "CREATE DATABASE rekey");
    }

    fn volume(&self, name: &str) -> PathBuf {
        match name.strip_suffix("-secrets") {
            Some(reader) => self.folder.join("secrets").join(reader),
            None => self.folder.join(name),
        }
    }

    pub(super) fn read(&self, file: &str) -> String {
        let path = self.folder.join("secrets").join(file);
        let text = std::fs::read_to_string(&path);
        text.unwrap_or_else(|error| panic!("{file}: {error}"))
            .trim_end()
            .to_owned()
    }

    /// A text of the service, with the paths of its mounts on this machine.
    fn with_paths(&self, name: &str, text: &str) -> String {
        let mut mounts = BTreeMap::new();
        if name == "init" {
            mounts.insert("/secrets".to_owned(), self.folder.join("secrets"));
            mounts.insert("/audit-data".to_owned(), self.volume("audit-data"));
        } else {
            let own = FILE.split_once("\nx-psql:").unwrap().1;
            let own = own.split("\n\n").next().unwrap();
            let volumes = if service(name).contains(&"    <<: *psql") {
                let line = own.lines().find(|line| line.contains("-secrets:/"));
                vec![line.unwrap().trim().trim_start_matches("- ").to_owned()]
            } else {
                values(name, "volumes")
            };
            for volume in volumes {
                let mut parts = volume.split(':');
                let (volume, mount) = (parts.next().unwrap(), parts.next().unwrap());
                mounts.insert(mount.to_owned(), self.volume(volume));
            }
        }
        // In two passes: a path on this machine may hold the name of another mount.
        let mut text = text.to_owned();
        for (number, mount) in mounts.keys().enumerate() {
            text = text.replace(mount, &format!("\u{1}{number}\u{2}"));
        }
        for (number, path) in mounts.values().enumerate() {
            text = text.replace(&format!("\u{1}{number}\u{2}"), path.to_str().unwrap());
        }
        text
    }

    /// The environment of a service. A file that names a server is replaced by one with the server's address here.
    fn environment(&self, name: &str) -> Vec<(String, String)> {
        let variables = values(name, "environment");
        let variables = variables.iter().map(|line| {
            let (key, value) = line.split_once(": ").unwrap();
            (key, value.trim_matches('"'))
        });
        variables
            .map(|(key, value)| {
                let mut value = self.with_paths(name, value);
                let named = key.ends_with("__URL__FILE") || key == "PGPASSFILE";
                if named {
                    value = self.moved(&format!("{name}-{key}"), Path::new(&value));
                }
                (
                    key.to_owned(),
                    value.replace("http://rekey:8080", "http://127.0.0.1:1"),
                )
            })
            .collect()
    }

    fn moved(&self, name: &str, file: &Path) -> String {
        let text = std::fs::read_to_string(file).unwrap();
        let (postgres, rabbitmq) = (self.postgres.address(), self.rabbitmq.address());
        let text = text
            .replace("postgres:5432", &postgres.to_string())
            .replace("rabbitmq:5672", &rabbitmq.to_string());
        let path = self.folder.join("moved").join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs a service's script to its end.
    pub(super) fn try_run(&self, name: &str) -> Output {
        let mut command = program("bash");
        let client = postgres::find("psql");
        let path = std::env::var("PATH").unwrap();
        let folders = [
            self.folder.join("bin"),
            Path::new(BINARY).parent().unwrap().to_owned(),
            client.parent().unwrap().to_owned(),
        ];
        let folders = folders.map(|folder| folder.to_str().unwrap().to_owned());
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", format!("{}:{path}", folders.join(":")));
        if name != "init" {
            command.envs(self.environment(name));
            let address = self.postgres.address();
            command.env("PGHOST", address.ip().to_string());
            command.env("PGPORT", address.port().to_string());
        }
        let script = self.with_paths(name, &script(name));
        let command = command.args(["-euo", "pipefail", "-c", &script]);
        command.output().expect("bash runs")
    }

    /// What it prints.
    pub(super) fn run(&self, name: &str) -> String {
        let output = self.try_run(name);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert!(output.status.success(), "{name}: {text}");
        for secret in self.secrets() {
            assert!(!text.contains(&secret), "{name} prints a secret: {text}");
        }
        text
    }

    /// Everything that must be in no output.
    pub(super) fn secrets(&self) -> BTreeSet<String> {
        let mut secrets = BTreeSet::new();
        for reader in std::fs::read_dir(self.folder.join("secrets")).unwrap() {
            for file in std::fs::read_dir(reader.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                if path.ends_with("public-key") {
                    continue;
                }
                let text = std::fs::read_to_string(path).unwrap();
                let words =
                    text.split(|c: char| !(c.is_ascii_alphanumeric() || "_+/=".contains(c)));
                secrets.extend(words.filter(|word| word.len() > 40).map(str::to_owned));
            }
        }
        secrets
    }

    /// The scripts from `init` to `grants`.
    pub(super) fn up(&self) -> Vec<String> {
        let all = ["init", "accounts", "migrate", "grants"];
        all.iter().map(|name| self.run(name)).collect()
    }

    pub(super) fn deployment(&self, name: &str) -> Deployment {
        let variables = self.environment(name);
        let deployment = Deployment::embedded();
        variables
            .iter()
            .fold(deployment, |deployment, (key, value)| {
                deployment.environment(key, value)
            })
    }

    pub(super) fn serve(&self) -> (Deployment, Replica) {
        let deployment = self.deployment("rekey");
        let replica = deployment.serve();
        (deployment, replica)
    }
}
