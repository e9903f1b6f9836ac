//! The command line: one file for each command. Data goes to stdout, messages and logs to stderr.

mod audit;
mod backup;
mod connection;
mod database;
mod embedded;
mod events;
mod finding;
mod healthcheck;
mod ignored_signals;
mod import;
mod keys;
mod lockdown;
mod migrate;
mod output;
mod progress;
mod run;
mod serve;
mod shutdown;
mod span;
mod tail;
mod token;

use std::{
    error::Error,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::LazyLock,
};

use clap::{Args, Parser, Subcommand};

use audit::AuditCommand;
use output::{print, print_either};

use crate::{
    domain::{ErrorChain, Log},
    settings::{LogFormat, Settings},
};

/// Version and commit. The commit is what `REKEY_COMMIT` held when the binary was built.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let commit = option_env!("REKEY_COMMIT").unwrap_or("unknown");
    format!("{} (commit {commit})", env!("CARGO_PKG_VERSION"))
});

/// Why a command failed. The error is printed with its causes, and the exit code is 1.
type CommandError = Box<dyn Error + Send + Sync>;

/// User secrets, for services that never miss a rotation.
#[derive(Debug, Parser)]
#[command(
    name = "rekey",
    version = VERSION.as_str(),
    after_help = "Without a command, rekey runs the service.\n\n\
                  Example:\n  rekey --config rekey.toml serve"
)]
struct CommandLine {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct GlobalOptions {
    /// A settings file. It overrides the defaults, and the environment overrides it.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    config: Option<PathBuf>,
    /// Print data as JSON.
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    #[command(
        after_help = "Settings come from the built-in defaults, then from a file, then from the environment\n\
                      (REKEY__SECTION__KEY).\n\n\
                      Example:\n  rekey serve --config rekey.toml"
    )]
    Serve,
    /// Change the database's schema, or show its state.
    #[command(after_help = "Example:\n  rekey migrate up")]
    #[command(subcommand)]
    Migrate(migrate::MigrateCommand),
    /// Create, list and revoke API tokens.
    #[command(
        after_help = "Example:\n  rekey token create --owner alice --scope secrets:read --expires-in 90d"
    )]
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Generate and list key-encryption keys.
    #[command(after_help = "Example:\n  rekey keys generate")]
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Let no value leave and make no change, until it is off.
    #[command(
        after_help = "Tokens and keys can still be created and revoked, and secrets and events be listed.\n\n\
                      Example:\n  rekey lockdown on"
    )]
    #[command(subcommand)]
    Lockdown(lockdown::LockdownCommand),
    /// Copy a SQLite database into a new file while the service writes, and verify the copy.
    #[command(
        after_help = "The copy is one moment of the database: every commit up to it, none by half. The keyring is not in it.\n\
                      PostgreSQL has pg_dump; docs/operate.md has the commands for both, and for the restore.\n\n\
                      Example:\n  rekey backup rekey-monday.db"
    )]
    Backup(backup::BackupOptions),
    /// Read the log of events.
    #[command(after_help = "Example:\n  rekey events tail --follow")]
    #[command(subcommand)]
    Events(events::EventsCommand),
    /// Run a command with secrets in its environment.
    #[command(
        after_help = "The secrets are fetched over HTTP. Set REKEY_URL to the service's address, and REKEY_TOKEN to the\n\
                      token or REKEY_TOKEN_FILE to a file that holds it. No settings are read. The token needs the\n\
                      scope secrets:resolve, and with --watch events:read too.\n\n\
                      Example:\n  rekey run --owner alice --secret OPENAI_API_KEY --watch -- ./server --port 80"
    )]
    Run(run::RunOptions),
    /// Create and update secrets from a .env file, all or none.
    #[command(
        after_help = "Lines are taken if docker compose, node's and Python's dotenv read them alike; others are refused\n\
                      with the way to write them. A value in single quotes is taken as it is. Nothing is substituted.\n\
                      A value that is the current one already is left.\n\n\
                      Example:\n  rekey import prod.env --owner alice --dry-run"
    )]
    Import(import::ImportOptions),
    /// Keep a second copy of the logs, and prove that nothing is missing.
    #[command(after_help = "Example:\n  rekey audit verify")]
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Check whether the service is ready: exit code 0 if it is, 1 if it is not.
    #[command(after_help = "Example:\n  rekey healthcheck http://127.0.0.1:8080")]
    Healthcheck {
        /// The service's address [default: the one that the settings name].
        url: Option<String>,
    },
}

/// Runs the command line of this process. Exit code 0: done, 1: failed, 2: wrong usage.
#[must_use]
pub fn main() -> ExitCode {
    match run(CommandLine::parse()) {
        Ok(code) => code,
        Err(error) if output::was_closed(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            say(&ErrorChain(&*error).to_string());
            ExitCode::FAILURE
        }
    }
}

fn run(line: CommandLine) -> Result<ExitCode, CommandError> {
    crate::faults::check();
    let GlobalOptions { config, json } = line.global;
    let config = config.as_deref();
    // `rekey` alone is `rekey serve`.
    let command = line.command.unwrap_or(Command::Serve);
    // Before the first setting is read: it may be a key.
    if matches!(command, Command::Run(_)) {
        // The child inherits core limit and umask: they stay as they are.
        crate::telemetry::harden_parent()?;
    } else {
        crate::telemetry::harden_process()?;
    }
    match command {
        Command::Serve => serve::run(prepare(config)?),
        Command::Migrate(command) => {
            database::block_on(migrate::run(&prepare(config)?, command, json))
        }
        Command::Token(command) => database::block_on(token::run(&prepare(config)?, command, json)),
        Command::Keys(command) => database::block_on(keys::run(&prepare(config)?, command, json)),
        Command::Lockdown(command) => database::block_on(lockdown::run(&prepare(config)?, command)),
        Command::Backup(options) => {
            database::block_on(backup::run(&prepare(config)?, options, json))
        }
        Command::Events(command) => database::block_on(events::run(config, command, json)),
        Command::Import(options) => {
            database::block_on(import::run(prepare(config)?, options, json))
        }
        // No settings, no database, no network.
        Command::Audit(AuditCommand::Verify {
            offline: Some(file),
            public_key: Some(key),
            ..
        }) => audit::verify_offline(&file, &key, json),
        Command::Audit(command) => database::block_on(audit::run(&prepare(config)?, command, json)),
        Command::Run(options) => {
            crate::telemetry::init(LogFormat::Pretty);
            database::block_on(run::run(options))
        }
        Command::Healthcheck { url } => {
            database::block_on(healthcheck::run(&prepare(config)?, url))
        }
    }
}

/// Reads the settings and prepares this process for a command that works by them.
fn prepare(config: Option<&Path>) -> Result<Settings, CommandError> {
    let settings = Settings::load(config)?;
    crate::telemetry::init(settings.log.format);
    // Databases, keys and tokens: every file that rekey makes is for its own user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    Ok(settings)
}

/// Reads a log's name from an option.
fn log_name(text: &str) -> Result<Log, &'static str> {
    Log::parse(text).map_err(|_unknown| "must be changes or activity")
}

/// Writes a message on stderr.
fn say(text: &str) {
    // Nothing can be done about a closed stderr.
    let _ = writeln!(std::io::stderr(), "rekey: {text}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// The lines of a help text that are command lines.
    fn examples(command: &clap::Command) -> Vec<String> {
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_else(|| panic!("{} has no example", command.get_name()));
        let (_, examples) = help
            .split_once("Example:\n")
            .unwrap_or_else(|| panic!("no \"Example:\" in the help of {}", command.get_name()));
        examples
            .lines()
            .map(|line| line.trim().to_owned())
            .collect()
    }

    fn check(command: &clap::Command, path: &[&str]) {
        for example in examples(command) {
            let words = example.split(' ').map(|word| word.trim_matches('\''));
            let words: Vec<_> = words.collect();
            assert_eq!(words.first(), Some(&"rekey"), "{example}");
            assert!(path.iter().all(|name| words.contains(name)), "{example}");
            if let Err(error) = CommandLine::try_parse_from(&words) {
                panic!("{example}: {error}");
            }
        }
        for subcommand in command.get_subcommands() {
            check(subcommand, &[path, &[subcommand.get_name()]].concat());
        }
    }

    #[test]
    fn every_command_has_an_example_that_it_understands() {
        let command = CommandLine::command();
        command.clone().debug_assert();
        check(&command, &[]);
    }

    #[test]
    fn an_error_says_what_a_log_may_be_called() {
        assert_eq!(log_name("activity"), Ok(Log::Activity));
        assert_eq!(log_name("Changes"), Err("must be changes or activity"));
    }
}
