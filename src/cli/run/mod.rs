//! `rekey run`: a command with secrets in its environment, kept up with their changes.
//!
//! In come an owner, names and a command. The values go into the command's environment and nowhere else: not
//! into a log, an error, an argument or a file. rekey's own token is taken out of that environment. The exit
//! code is the command's. What it does not do: hide the values from someone who may read the command's memory.

mod changes;
mod child;
mod known;
mod signals;
mod tasks;
mod watch;

use std::{
    collections::HashSet,
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use clap::Args;
use rustix::process::Signal;

use self::{child::CommandSpec, signals::Signals};
use super::{
    CommandError,
    connection::{self, ConnectionOptions},
    say,
    span::{self, MILLISECONDS, MINUTES, SECONDS},
};
use crate::{
    client::{ApiClient, ResolvedValues},
    domain::{Owner, SecretName},
    settings::names_reserved_by_default,
};

/// How many names one `resolve` takes.
const MOST_NAMES: usize = 100;

#[derive(Debug, Args)]
pub(super) struct RunOptions {
    /// The owner of the secrets.
    #[arg(long, value_parser = Owner::parse)]
    owner: Owner,
    /// A secret's name, which is also the name of its environment variable; repeat it for more.
    #[arg(long = "secret", required = true, value_name = "NAME", value_parser = harmless_name)]
    secrets: Vec<SecretName>,
    #[command(flatten)]
    connection: ConnectionOptions,
    /// Follow the secrets and act when one gets a new value.
    #[arg(long)]
    watch: bool,
    /// What to do then: restart, signal:NAME or exec:CMD.
    ///
    /// `restart` ends the command (SIGTERM, then SIGKILL after --grace) and starts it with the new values.
    /// `signal:HUP` sends it a signal. The environment of a running process cannot be changed, so the command
    /// must fetch the new values itself. `exec:CMD` runs `sh -c CMD` with the new values in its environment;
    /// the command runs on.
    #[arg(
        long,
        requires = "watch",
        default_value = "restart",
        value_name = "ACTION",
        value_parser = on_change
    )]
    on_change: OnChange,
    /// How long to wait for more changes before acting on one.
    #[arg(long, requires = "watch", default_value = "500ms", value_name = "TIME", value_parser = time)]
    debounce: Duration,
    /// How long the command may take to end when it is restarted, and what it has started when a signal ends it.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = time)]
    grace: Duration,
    /// A command that fails sooner after a restart is started again with the last values that worked.
    #[arg(long, requires = "watch", default_value = "5s", value_name = "TIME", value_parser = time)]
    healthy_after: Duration,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What to do after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
enum OnChange {
    Restart,
    Signal(Signal),
    Exec(String),
}

/// A name that steers no program: the value would reach the command before its first line.
fn harmless_name(text: &str) -> Result<SecretName, String> {
    let name = SecretName::parse(text).map_err(|error| error.to_string())?;
    let reserved = names_reserved_by_default();
    if reserved.iter().any(|entry| entry.covers(name.as_str())) {
        return Err(
            "a variable of this name steers shells, loaders or interpreters, so no secret is put into it"
                .to_owned(),
        );
    }
    Ok(name)
}

fn on_change(text: &str) -> Result<OnChange, &'static str> {
    const EXPECTED: &str =
        "must be restart, signal:NAME (HUP, INT, QUIT, TERM, USR1 or USR2) or exec:CMD";
    match text.split_once(':') {
        None if text == "restart" => Ok(OnChange::Restart),
        Some(("signal", name)) => signals::parse(name).map(OnChange::Signal).ok_or(EXPECTED),
        Some(("exec", command)) if !command.is_empty() => Ok(OnChange::Exec(command.to_owned())),
        _ => Err(EXPECTED),
    }
}

/// `500ms`, `10s`, `2m`; `0s` too.
fn time(text: &str) -> Result<Duration, &'static str> {
    const LONGEST: Duration = Duration::from_hours(1);
    span::parse(text, &[MILLISECONDS, SECONDS, MINUTES])
        .filter(|span| *span <= LONGEST)
        .ok_or("must be a number with ms, s or m, such as 500ms, and at most 60m")
}

pub(super) async fn run(mut options: RunOptions) -> Result<ExitCode, CommandError> {
    let client = connection::from_environment(&options.connection)?;
    let mut names = HashSet::new();
    options.secrets.retain(|name| names.insert(name.clone()));
    if options.secrets.len() > MOST_NAMES {
        return Err("a command can have at most 100 secrets".into());
    }
    let mut signals = Signals::new()?;
    let values = tokio::select! {
        biased;
        signal = signals.next() => return Ok(code_of_signal(signal)),
        values = first_values(&client, &options.owner, &options.secrets) => values?,
    };
    if options.watch {
        return watch::run(client, options, values, signals).await;
    }
    let grace = options.grace;
    run_once(&CommandSpec::new(options.command), values, signals, grace).await
}

/// The values that the command starts with.
async fn first_values(
    client: &ApiClient,
    owner: &Owner,
    names: &[SecretName],
) -> Result<ResolvedValues, CommandError> {
    let values = client.resolve(Some(owner), names, None).await;
    values.map_err(|error| {
        if error.is_not_found() {
            let owner = owner.as_str();
            let text = format!(
                "{owner} does not have a secret of each of these names, or the token may not act for {owner}"
            );
            return text.into();
        }
        error.into()
    })
}

/// Runs the command once, without following its secrets.
async fn run_once(
    command: &CommandSpec,
    values: ResolvedValues,
    mut signals: Signals,
    grace: Duration,
) -> Result<ExitCode, CommandError> {
    let mut child = match command.start(&values) {
        Ok(child) => child,
        Err(error) => return Ok(not_started(&error)),
    };
    drop(values);
    let status = loop {
        tokio::select! {
            biased;
            signal = signals.next() => child.forward(signal),
            status = child.wait() => break status?,
        }
    };
    if child.ended_by_signal(status) {
        child.end_group(grace).await;
    }
    Ok(code(status))
}

/// As in a shell: 127 when there is no such command, 126 when it cannot be run.
fn not_started(error: &io::Error) -> ExitCode {
    say(&format!("cannot start the command: {error}"));
    let absent = error.kind() == io::ErrorKind::NotFound;
    ExitCode::from(if absent { 127 } else { 126 })
}

/// The command's own code, or 128 + N when signal N ended it.
#[expect(
    clippy::expect_used,
    reason = "a process that was waited for ended by a code or a signal"
)]
fn code(status: ExitStatus) -> ExitCode {
    let code = match status.code() {
        Some(code) => code,
        None => 128 + status.signal().expect("no code, so a signal ended it"),
    };
    ExitCode::from(u8::try_from(code).expect("codes are bytes, and signals are below 128"))
}

fn code_of_signal(signal: Signal) -> ExitCode {
    code(ExitStatus::from_raw(signal.as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_put_into_a_variable_that_steers_a_program() {
        assert_eq!(
            harmless_name("openai_api_key").unwrap().as_str(),
            "OPENAI_API_KEY"
        );
        for bad in ["LD_PRELOAD", "path", "NODE_OPTIONS", "https_proxy", "1A"] {
            assert!(harmless_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_read() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("0s"), Ok(Duration::ZERO));
        assert_eq!(time("60m"), Ok(Duration::from_hours(1)));
        for bad in ["", "s", "5", "-1s", "+1s", "1h", "61m", "1.5s", "5é"] {
            assert!(time(bad).is_err(), "{bad}");
        }
        assert!(time("99999999999999999999ms").is_err());
    }

    #[test]
    fn actions_are_read() {
        assert_eq!(on_change("restart"), Ok(OnChange::Restart));
        assert_eq!(on_change("signal:HUP"), Ok(OnChange::Signal(Signal::HUP)));
        let usr1 = OnChange::Signal(Signal::USR1);
        assert_eq!(on_change("signal:SIGUSR1"), Ok(usr1));
        let command = OnChange::Exec("a:b c".to_owned());
        assert_eq!(on_change("exec:a:b c"), Ok(command));
        for bad in ["", "reload", "restart:", "signal:", "signal:9", "exec:"] {
            assert!(on_change(bad).is_err(), "{bad}");
        }
        assert!(on_change("signal:KILL").is_err());
    }
}
