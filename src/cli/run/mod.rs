//! `rekey run`: a command with its secrets in the environment, kept up with their changes.
//!
//! In come an owner, names and a command; the values go into the command's environment and nowhere
//! else: not into a log, an error, an argument or a file, and rekey's own token is taken out. The exit
//! code is the command's. What it does not do: keep the values from whoever may read the command's memory.

mod acted;
mod changes;
mod child;
mod signals;
mod tasks;
mod watch;

use std::{
    ffi::OsString,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use clap::Args;
use rustix::process::Signal;

use self::{child::Recipe, signals::Signals, watch::Plan};
use super::{CommandError, connection, say};
use crate::{
    client::{ApiClient, ClientError, ResolvedValues},
    domain::{Owner, SecretName},
};

/// How many names one `resolve` takes.
const MOST_NAMES: usize = 100;

#[derive(Debug, Args)]
pub(super) struct Run {
    /// Whose secrets they are.
    #[arg(long, value_parser = Owner::parse)]
    owner: Owner,
    /// A secret by its name, which is also the environment variable's; repeat it for several.
    #[arg(long = "secret", required = true, value_name = "NAME", value_parser = SecretName::parse)]
    secrets: Vec<SecretName>,
    /// Follow the secrets and act when one has a new value.
    #[arg(long)]
    watch: bool,
    /// What to do then: restart, signal:NAME or exec:CMD.
    ///
    /// `restart` ends the command (SIGTERM, after --grace SIGKILL) and starts it with the new values.
    /// `signal:HUP` sends the signal; a running process's environment cannot be changed, so the command
    /// has to fetch the values itself. `exec:CMD` runs CMD by `sh -c` with the new values in its
    /// environment and lets the command run on.
    #[arg(
        long,
        requires = "watch",
        default_value = "restart",
        value_name = "ACTION",
        value_parser = on_change
    )]
    on_change: OnChange,
    /// How long to wait for more changes before acting on one.
    #[arg(long, requires = "watch", default_value = "500ms", value_name = "TIME", value_parser = span)]
    debounce: Duration,
    /// How long the command may take to end when it is restarted.
    #[arg(long, requires = "watch", default_value = "10s", value_name = "TIME", value_parser = span)]
    grace: Duration,
    /// A restarted command that fails sooner is started again with the last values that worked.
    #[arg(long, requires = "watch", default_value = "5s", value_name = "TIME", value_parser = span)]
    healthy_after: Duration,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What a change causes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum OnChange {
    Restart,
    Signal(Signal),
    Exec(String),
}

fn on_change(text: &str) -> Result<OnChange, &'static str> {
    const ALLOWED: &str =
        "allowed is restart, signal:NAME (HUP, INT, QUIT, TERM, USR1, USR2) or exec:CMD";
    match text.split_once(':') {
        None if text == "restart" => Ok(OnChange::Restart),
        Some(("signal", name)) => signals::parse(name).map(OnChange::Signal).ok_or(ALLOWED),
        Some(("exec", command)) if !command.is_empty() => Ok(OnChange::Exec(command.to_owned())),
        _ => Err(ALLOWED),
    }
}

/// `500ms`, `10s`, `2m`; `0s` too.
fn span(text: &str) -> Result<Duration, &'static str> {
    const ALLOWED: &str = "allowed is a number with ms, s or m, at most 60m";
    const LONGEST: Duration = Duration::from_hours(1);
    let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let unit = match text.strip_prefix(digits) {
        Some("ms") => 1,
        Some("s") => 1000,
        Some("m") => 60_000,
        _ => return Err(ALLOWED),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = digits.parse().or(Err(ALLOWED))?;
    let span = Duration::from_millis(number.checked_mul(unit).ok_or(ALLOWED)?);
    (plain && span <= LONGEST).then_some(span).ok_or(ALLOWED)
}

pub(super) async fn run(mut run: Run) -> Result<ExitCode, CommandError> {
    let client = connection::from_environment()?;
    let mut names = Vec::new();
    for name in run.secrets.drain(..) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.len() > MOST_NAMES {
        return Err("at most 100 secrets fit into one command's environment".into());
    }
    let mut signals = Signals::new()?;
    let first = tokio::select! {
        biased;
        signal = signals.next() => return Ok(code_of_signal(signal)),
        first = first(&client, &run.owner, &names) => first?,
    };
    let recipe = Recipe::new(std::mem::take(&mut run.command));
    if !run.watch {
        return alone(&recipe, first, signals).await;
    }
    let plan = Plan {
        client,
        owner: run.owner,
        names,
        recipe,
        on_change: run.on_change,
        debounce: run.debounce,
        grace: run.grace,
        healthy_after: run.healthy_after,
    };
    watch::run(plan, first, signals).await
}

/// The values that the command starts with.
async fn first(
    client: &ApiClient,
    owner: &Owner,
    names: &[SecretName],
) -> Result<ResolvedValues, CommandError> {
    let resolved = client.resolve(Some(owner), names, None).await;
    resolved.map_err(|error: ClientError| {
        if error.is_not_found() {
            return "there is no secret of one of these names, or the token does not act for the \
                    owner"
                .into();
        }
        error.into()
    })
}

/// Runs the command once.
async fn alone(
    recipe: &Recipe,
    values: ResolvedValues,
    mut signals: Signals,
) -> Result<ExitCode, CommandError> {
    let mut child = match recipe.start(&values) {
        Ok(child) => child,
        Err(error) => return Ok(not_started(&error)),
    };
    drop(values);
    loop {
        tokio::select! {
            biased;
            signal = signals.next() => child.forward(signal),
            status = child.wait() => return Ok(code(status?)),
        }
    }
}

/// As a shell has it: 127 when there is no such command, 126 when it cannot be run.
fn not_started(error: &std::io::Error) -> ExitCode {
    say(&format!("the command does not start: {error}"));
    let absent = error.kind() == std::io::ErrorKind::NotFound;
    ExitCode::from(if absent { 127 } else { 126 })
}

/// The command's own code, 128 + N when signal N ended it.
fn code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;

    let code = status
        .code()
        .or_else(|| status.signal().map(|number| 128 + number));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

fn code_of_signal(signal: Signal) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal.as_raw()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(span("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(span("0s"), Ok(Duration::ZERO));
        assert_eq!(span("60m"), Ok(Duration::from_hours(1)));
        for bad in [
            "",
            "s",
            "5",
            "-1s",
            "+1s",
            "1h",
            "61m",
            "1.5s",
            "99999999999999999999ms",
            "5é",
        ] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn actions_are_read() {
        assert_eq!(on_change("restart"), Ok(OnChange::Restart));
        assert_eq!(on_change("signal:HUP"), Ok(OnChange::Signal(Signal::HUP)));
        assert_eq!(
            on_change("signal:SIGUSR1"),
            Ok(OnChange::Signal(Signal::USR1))
        );
        let command = OnChange::Exec("a:b c".to_owned());
        assert_eq!(on_change("exec:a:b c"), Ok(command));
        for bad in [
            "",
            "reload",
            "restart:",
            "signal:",
            "signal:KILL",
            "signal:9",
            "exec:",
        ] {
            assert!(on_change(bad).is_err(), "{bad}");
        }
    }
}
