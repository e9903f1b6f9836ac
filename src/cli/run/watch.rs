//! `run --watch`: one loop over the command, the signals, the log and the clock.
//!
//! The stream begins at the cursor that the first values came with, so no change is missed in between. After a
//! change the values are fetched, as new as its event or newer, and acted on once. A change that an earlier
//! fetch has seen causes nothing. A command that fails right after a restart gets the last values with which
//! it worked, which are kept in memory until the new ones have proved themselves.

use std::{
    io,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    sync::mpsc::Receiver,
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use super::{
    OnChange, RunOptions,
    changes::{Changes, Relevance},
    child::{Child, CommandSpec},
    code, code_of_signal,
    known::KnownValues,
    not_started, say,
    signals::{Signals, ends, name},
    tasks::{FetchOutcome, GONE, TaskReport, Tasks, generation},
};
use crate::{
    cli::CommandError,
    client::{ApiClient, LogFollower, ResolvedValues},
    domain::{Cursor, Log},
};

/// Keeps the command up with its values.
struct Supervisor {
    command: CommandSpec,
    on_change: OnChange,
    grace: Duration,
    healthy_after: Duration,
    tasks: Tasks,
    reports: Receiver<TaskReport>,
    signals: Signals,
    changes: Changes,
    child: Child,
    stream: AbortHandle,
    /// The values that the command was last started with.
    values: ResolvedValues,
    /// The values that were last acted on, whatever came of it.
    known: KnownValues,
    probation: Option<Probation>,
    /// Values are being fetched: the next change waits.
    fetching: bool,
    /// The exec command that runs: the next change waits.
    hook: Option<Child>,
    /// The values that came while it ran.
    next: Option<ResolvedValues>,
    /// The log has lost the cursor, and a new one is being fetched.
    lost: bool,
    /// The command was asked to end: nothing is started any more.
    ending: bool,
}

/// The time after a restart in which a failure is blamed on the new values.
struct Probation {
    until: Instant,
    good: ResolvedValues,
}

/// Runs the command until it ends by itself.
pub(super) async fn run(
    client: ApiClient,
    options: RunOptions,
    values: ResolvedValues,
    mut signals: Signals,
) -> Result<ExitCode, CommandError> {
    let command = CommandSpec::new(options.command);
    // Before anything runs: a token that may not follow the log fails here.
    let mut follower = LogFollower::new(client.clone(), Log::Changes, Some(values.cursor));
    tokio::select! {
        biased;
        signal = signals.next() => return Ok(code_of_signal(signal)),
        connected = follower.connect() => connected?,
    }
    let child = match command.start(&values) {
        Ok(child) => child,
        Err(error) => return Ok(not_started(&error)),
    };
    let (owner, names) = (options.owner, options.secrets);
    let mut changes = Changes::new(owner.clone(), names.clone(), options.debounce);
    changes.cover(values.cursor);
    let (sender, reports) = generation();
    let tasks = Tasks {
        client,
        owner,
        names,
        reports: sender,
    };
    let supervisor = Supervisor {
        command,
        on_change: options.on_change,
        grace: options.grace,
        healthy_after: options.healthy_after,
        stream: tasks.follow(follower),
        tasks,
        reports,
        signals,
        changes,
        child,
        known: KnownValues::new(&values),
        values,
        probation: None,
        fetching: false,
        hook: None,
        next: None,
        lost: false,
        ending: false,
    };
    supervisor.run().await
}

impl Supervisor {
    async fn run(mut self) -> Result<ExitCode, CommandError> {
        loop {
            let moment = self.moment();
            let end = tokio::select! {
                // In this order: a signal that also ends the command is noticed before the command's end.
                biased;
                signal = self.signals.next() => {
                    self.pass_on(signal);
                    None
                }
                status = self.child.wait() => self.ended(status?).await,
                status = end_of(&mut self.hook) => self.hook_ended(status).await?,
                Some(report) = self.reports.recv() => self.handle(report).await?,
                () = at(moment) => {
                    self.on_time();
                    None
                }
            };
            if let Some(code) = end {
                return Ok(code);
            }
        }
    }

    fn pass_on(&mut self, signal: Signal) {
        self.child.forward(signal);
        self.ending |= signal == Signal::TERM;
    }

    /// When `on_time` has something to do.
    fn moment(&self) -> Option<Instant> {
        let due = self.changes.due().filter(|_| self.may_fetch());
        let proved = self.probation.as_ref().map(|probation| probation.until);
        due.into_iter().chain(proved).min()
    }

    fn may_fetch(&self) -> bool {
        !(self.fetching || self.hook.is_some() || self.lost || self.ending)
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        self.probation.take_if(|probation| probation.until <= now);
        let due = self.changes.due().is_some_and(|due| due <= now);
        if due && self.may_fetch() {
            self.fetching = true;
            self.tasks.fetch(self.changes.take());
        }
    }

    async fn handle(&mut self, report: TaskReport) -> Result<Option<ExitCode>, CommandError> {
        match report {
            TaskReport::Event(cursor, event) => {
                let relevance = self.changes.see(cursor, &event, Instant::now());
                if relevance == Relevance::Deletion {
                    say_deleted();
                }
            }
            TaskReport::Lost(why) => self.start_over(why),
            TaskReport::Fetched(outcome) => {
                self.fetching = false;
                return self.fetched(outcome).await;
            }
            TaskReport::StartedOver(head, outcome) => {
                self.lost = false;
                match &outcome {
                    FetchOutcome::Values(values) => self.follow_from(values.cursor),
                    FetchOutcome::Missing => self.follow_from(head),
                    FetchOutcome::Gone => {}
                }
                return self.fetched(outcome).await;
            }
        }
        Ok(None)
    }

    async fn fetched(&mut self, outcome: FetchOutcome) -> Result<Option<ExitCode>, CommandError> {
        match outcome {
            FetchOutcome::Values(values) => return self.act(values).await,
            FetchOutcome::Missing => say_deleted(),
            FetchOutcome::Gone => self.start_over(GONE),
        }
        Ok(None)
    }

    /// Fetches a new cursor and the values there. Whatever was under way before is not heard any more: it may
    /// bring older values.
    fn start_over(&mut self, why: &str) {
        say(&format!("{why}; fetching the values again"));
        (self.tasks.reports, self.reports) = generation();
        self.lost = true;
        self.fetching = false;
        self.next = None;
        self.stream.abort();
        self.changes.start_over();
        self.tasks.start_over();
    }

    fn follow_from(&mut self, cursor: Cursor) {
        self.changes.cover(cursor);
        let client = self.tasks.client.clone();
        let follower = LogFollower::new(client, Log::Changes, Some(cursor));
        self.stream = self.tasks.follow(follower);
    }

    /// Acts on values, if one of them is new.
    async fn act(&mut self, values: ResolvedValues) -> Result<Option<ExitCode>, CommandError> {
        self.changes.cover(values.cursor);
        if self.hook.is_some() {
            self.next = Some(values);
            return Ok(None);
        }
        let new = self.known.describe_new(&values);
        if new.is_empty() || self.ending {
            return Ok(None);
        }
        self.known = KnownValues::new(&values);
        match self.on_change.clone() {
            OnChange::Restart => {
                say(&format!("{new}: restarting the command"));
                return self.restart(values).await;
            }
            OnChange::Signal(signal) => {
                say(&format!("{new}: sending {} to the command", name(signal)));
                self.child.signal(signal);
            }
            OnChange::Exec(line) => {
                say(&format!("{new}: running the exec command"));
                match self.command.shell(&line).start(&values) {
                    Ok(hook) => self.hook = Some(hook),
                    Err(error) => say(&format!("cannot start the exec command: {error}")),
                }
            }
        }
        Ok(None)
    }

    async fn hook_ended(
        &mut self,
        status: io::Result<ExitStatus>,
    ) -> Result<Option<ExitCode>, CommandError> {
        self.hook = None;
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => say(&format!("the exec command failed: {status}")),
            Err(error) => say(&format!("cannot wait for the exec command: {error}")),
        }
        match self.next.take() {
            Some(values) => self.act(values).await,
            None => Ok(None),
        }
    }

    async fn restart(&mut self, values: ResolvedValues) -> Result<Option<ExitCode>, CommandError> {
        let status = self.stop().await?;
        if self.ending {
            return Ok(Some(code(status)));
        }
        let now = Instant::now();
        let last = std::mem::replace(&mut self.values, values);
        let earlier = self.probation.take().filter(|it| now < it.until);
        // Values that have not proved themselves are not good.
        let good = earlier.map_or(last, |probation| probation.good);
        if self.start().is_some() {
            self.values = good;
            return Ok(self.start());
        }
        let until = now + self.healthy_after;
        self.probation = Some(Probation { until, good });
        Ok(None)
    }

    /// Starts the command with the present values; `Some` when it cannot be started.
    fn start(&mut self) -> Option<ExitCode> {
        match self.command.start(&self.values) {
            Ok(child) => {
                self.child = child;
                None
            }
            Err(error) => Some(not_started(&error)),
        }
    }

    /// Ends the command: SIGTERM, then SIGKILL when the grace is over.
    async fn stop(&mut self) -> io::Result<ExitStatus> {
        let end = Instant::now() + self.grace;
        let mut killed = false;
        self.child.signal_all(Signal::TERM);
        let status = loop {
            tokio::select! {
                biased;
                signal = self.signals.next() => {
                    self.child.forward(signal);
                    self.ending |= ends(signal);
                }
                status = self.child.wait() => break status?,
                () = sleep_until(end), if !killed => {
                    killed = true;
                    self.child.signal_all(Signal::KILL);
                }
            }
        };
        self.child.clear(end).await;
        Ok(status)
    }

    /// The command has ended, and so does `run`, unless the new values are to blame.
    async fn ended(&mut self, status: ExitStatus) -> Option<ExitCode> {
        let now = Instant::now();
        let probation = self.probation.take().filter(|it| now < it.until);
        let blamed = !(status.success() || self.child.was_signalled() || self.ending);
        let Some(Probation { good, .. }) = probation.filter(|_| blamed) else {
            if self.child.ended_by_signal(status) {
                self.child.end_group(self.grace).await;
                if let Some(hook) = self.hook.take() {
                    hook.end_group(self.grace).await;
                }
            }
            return Some(code(status));
        };
        say(&format!(
            "the command failed right after its restart ({status}); starting it again with the \
             last values that worked"
        ));
        self.child.clear(now + self.grace).await;
        self.values = good;
        self.start()
    }
}

fn say_deleted() {
    say(
        "a secret was deleted; the command keeps its values until there is a secret of that name again",
    );
}

/// Waits for the end of a process; for ever without one.
async fn end_of(process: &mut Option<Child>) -> io::Result<ExitStatus> {
    match process {
        Some(process) => process.wait().await,
        None => std::future::pending().await,
    }
}

/// Waits for a moment; for ever without one.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
