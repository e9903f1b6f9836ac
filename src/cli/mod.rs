//! The command line: one file a command. Data goes to stdout, talk and logs to stderr.

mod audit;
mod connection;
mod database;
mod embedded;
mod events;
mod healthcheck;
mod import;
mod keys;
mod migrate;
mod progress;
mod run;
mod serve;
mod tail;
mod token;

use std::{
    error::Error,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::LazyLock,
};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{
    domain::{ErrorChain, Log},
    settings::{LogFormat, Settings},
};

/// Version and commit; the commit is what `REKEY_COMMIT` held when the binary was built.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let commit = option_env!("REKEY_COMMIT").unwrap_or("unknown");
    format!("{} (commit {commit})", env!("CARGO_PKG_VERSION"))
});

/// A command's failure: its chain of causes is printed, and the exit code is 1.
type CommandError = Box<dyn Error + Send + Sync>;

/// User secrets whose rotations nobody misses.
#[derive(Debug, Parser)]
#[command(
    name = "rekey",
    after_help = "Without a command: rekey serve.\n\nExample: rekey --config rekey.toml serve"
)]
struct Line {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct Common {
    /// A settings file, over the defaults and below the environment.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print data as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    #[command(after_help = "Example: REKEY__SERVER__PORT=9000 rekey serve")]
    Serve,
    /// The database's schema.
    #[command(after_help = "Example: rekey migrate up")]
    Migrate {
        #[command(subcommand)]
        action: migrate::Action,
    },
    /// API tokens.
    #[command(
        after_help = "Example: rekey token create --owner alice --scope secrets:read --expires-in 90d"
    )]
    Token {
        #[command(subcommand)]
        action: token::Action,
    },
    /// Key-encryption keys.
    #[command(after_help = "Example: rekey keys generate")]
    Keys {
        #[command(subcommand)]
        action: keys::Action,
    },
    /// The log of changes.
    #[command(after_help = "Example: rekey events tail --follow")]
    Events {
        #[command(subcommand)]
        action: events::Action,
    },
    /// Run a command with secrets in its environment, over HTTP.
    #[command(
        after_help = "Reads REKEY_URL, and REKEY_TOKEN or REKEY_TOKEN_FILE; no settings. The token needs the \
                      scope secrets:resolve, with --watch events:read too.\n\n\
                      Example: rekey run --owner alice --secret OPENAI_API_KEY --watch -- ./server --port 80"
    )]
    Run(run::Run),
    /// Create and update secrets from a .env file, all or none.
    #[command(
        after_help = "In single quotes a value stands as it is; a $ is never substituted.\n\nExample: rekey import prod.env --owner alice"
    )]
    Import(import::Import),
    /// The audit consumer, and the proof that it makes.
    #[command(after_help = "Example: rekey audit verify")]
    Audit {
        #[command(subcommand)]
        action: audit::Action,
    },
    /// Exit code 0 when the service is ready: a container's health check.
    #[command(after_help = "Example: rekey healthcheck http://127.0.0.1:8080")]
    Healthcheck {
        /// The service's address; that of the settings unless given.
        url: Option<String>,
    },
}

/// Runs the command line of this process. Exit code 0: done, 1: failed, 2: wrong usage.
#[must_use]
pub fn main() -> ExitCode {
    let command = Line::command().version(VERSION.as_str());
    let matches = command.get_matches();
    match Line::from_arg_matches(&matches)
        .map_err(CommandError::from)
        .and_then(run)
    {
        Ok(code) => code,
        Err(error) => {
            say(&ErrorChain(&*error).to_string());
            ExitCode::FAILURE
        }
    }
}

fn run(line: Line) -> Result<ExitCode, CommandError> {
    let Common { config, json } = line.common;
    let config = config.as_deref();
    match line.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(operate(config)?),
        Command::Migrate { action } => {
            database::block_on(migrate::run(&operate(config)?, action, json))
        }
        Command::Token { action } => {
            database::block_on(token::run(&operate(config)?, action, json))
        }
        Command::Keys { action } => database::block_on(keys::run(&operate(config)?, action, json)),
        Command::Events { action } => database::block_on(events::run(config, action, json)),
        Command::Import(import) => database::block_on(import::run(operate(config)?, import, json)),
        Command::Audit { action } => match action.offline() {
            Some((file, key)) => audit::verify_offline(file, key, json),
            None => database::block_on(audit::run(&operate(config)?, action, json)),
        },
        Command::Run(asked) => {
            // What a child inherits stays as it is: core limit and umask.
            crate::telemetry::init(LogFormat::Pretty);
            crate::telemetry::harden_parent()?;
            database::block_on(run::run(asked))
        }
        Command::Healthcheck { url } => {
            database::block_on(healthcheck::run(&operate(config)?, url))
        }
    }
}

/// The settings, for a command on what they name; and this process made ready for it.
fn operate(config: Option<&Path>) -> Result<Settings, CommandError> {
    let settings = Settings::load(config)?;
    crate::telemetry::init(settings.log.format);
    crate::telemetry::harden_process()?;
    // Whatever rekey makes is its own: databases, keys, tokens.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    Ok(settings)
}

/// Makes this process ready for a command that only speaks HTTP: it reads no settings.
fn listen() -> Result<(), CommandError> {
    crate::telemetry::init(LogFormat::Pretty);
    Ok(crate::telemetry::harden_process()?)
}

/// Reads a log's name from an option.
fn log_name(text: &str) -> Result<Log, &'static str> {
    Log::parse(text).or(Err("allowed are changes and activity"))
}

/// Prints data on stdout.
fn print(text: &str) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Writes a line for the reader on stderr.
fn say(text: &str) {
    // Nothing can be done about a closed stderr.
    let _ = writeln!(std::io::stderr(), "rekey: {text}");
}
