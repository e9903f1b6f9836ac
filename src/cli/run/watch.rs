//! `run --watch`: one loop over the command, the signals, the log and the clock.
//!
//! The stream begins at the cursor that the first values came with, so no change falls between. After a
//! change the values are fetched as new as its event or newer, and are acted on once; a change that an
//! earlier fetch has seen causes nothing. A command that fails right after a restart gets the last values
//! with which it ran, which are kept in memory until the new ones have lasted.

use std::{
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    sync::mpsc::{self, Receiver},
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use super::{
    OnChange,
    acted::Acted,
    changes::{Changes, Seen},
    child::{Child, Recipe},
    code, code_of_signal, not_started, say,
    signals::{Signals, ends},
    tasks::{Asker, Fetched, Told},
};
use crate::{
    cli::CommandError,
    client::{ApiClient, LogFollower, ResolvedValues},
    domain::{Cursor, Log, Owner, SecretName},
};

/// What tasks have told and the loop has not yet heard; the stream waits beyond.
const UNHEARD: usize = 64;

/// What `run` was asked to do.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) client: ApiClient,
    pub(super) owner: Owner,
    pub(super) names: Vec<SecretName>,
    pub(super) recipe: Recipe,
    pub(super) on_change: OnChange,
    pub(super) debounce: Duration,
    pub(super) grace: Duration,
    pub(super) healthy_after: Duration,
}

/// A workload under way.
struct Watch {
    recipe: Recipe,
    on_change: OnChange,
    grace: Duration,
    healthy_after: Duration,
    asker: Asker,
    told: Receiver<Told>,
    signals: Signals,
    changes: Changes,
    child: Child,
    stream: AbortHandle,
    /// The values that the command was started with last.
    values: ResolvedValues,
    /// What was acted on last, whatever came of it.
    acted: Acted,
    probation: Option<Probation>,
    /// Values are being fetched, or the command of `exec:` runs: the next change waits.
    busy: bool,
    /// The log has lost the cursor, and a new one is being looked for.
    lost: bool,
    /// Somebody wants it to end: nothing is started any more.
    ending: bool,
}

/// The time after a restart in which a failure is the new values' fault.
struct Probation {
    until: Instant,
    good: ResolvedValues,
}

/// Runs the command until it ends by itself.
pub(super) async fn run(
    plan: Plan,
    values: ResolvedValues,
    mut signals: Signals,
) -> Result<ExitCode, CommandError> {
    // Before anything runs: a token that may not follow is found out here.
    let mut trail = LogFollower::new(plan.client.clone(), Log::Changes, Some(values.cursor));
    tokio::select! {
        biased;
        signal = signals.next() => return Ok(code_of_signal(signal)),
        begun = trail.connect() => begun?,
    }
    let acted = Acted::new(&values);
    let child = match plan.recipe.start(&values) {
        Ok(child) => child,
        Err(error) => return Ok(not_started(&error)),
    };
    let mut changes = Changes::new(plan.owner.clone(), plan.names.clone(), plan.debounce);
    changes.cover(values.cursor);
    let (sender, told) = mpsc::channel(UNHEARD);
    let asker = Asker {
        client: plan.client,
        owner: plan.owner,
        names: plan.names,
        told: sender,
    };
    let watch = Watch {
        recipe: plan.recipe,
        on_change: plan.on_change,
        grace: plan.grace,
        healthy_after: plan.healthy_after,
        stream: asker.follow(trail),
        asker,
        told,
        signals,
        changes,
        child,
        acted,
        values,
        probation: None,
        busy: false,
        lost: false,
        ending: false,
    };
    watch.run().await
}

impl Watch {
    async fn run(mut self) -> Result<ExitCode, CommandError> {
        loop {
            let moment = self.moment();
            let over = tokio::select! {
                // In this order: a signal that also ends the command is known before its end is.
                biased;
                signal = self.signals.next() => {
                    self.pass_on(signal);
                    None
                }
                status = self.child.wait() => self.ended(status?).await,
                Some(told) = self.told.recv() => self.hear(told).await?,
                () = at(moment) => {
                    self.on_time();
                    None
                }
            };
            if let Some(code) = over {
                return Ok(code);
            }
        }
    }

    fn pass_on(&mut self, signal: Signal) {
        self.child.forward(signal);
        self.ending |= signal == Signal::TERM;
    }

    /// When the clock has something to say.
    fn moment(&self) -> Option<Instant> {
        let due = self.changes.due().filter(|_| self.may_fetch());
        let lasted = self.probation.as_ref().map(|probation| probation.until);
        due.into_iter().chain(lasted).min()
    }

    fn may_fetch(&self) -> bool {
        !(self.busy || self.lost || self.ending)
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        self.probation.take_if(|probation| probation.until <= now);
        let due = self.changes.due().is_some_and(|due| due <= now);
        if due && self.may_fetch() {
            self.busy = true;
            self.asker.fetch(self.changes.take());
        }
    }

    async fn hear(&mut self, told: Told) -> Result<Option<ExitCode>, CommandError> {
        match told {
            Told::Event(cursor, fact) => {
                if self.changes.see(cursor, &fact, Instant::now()) == Seen::Deletion {
                    missing();
                }
            }
            Told::Fetched(Fetched::Values(values)) => {
                self.busy = false;
                return self.act(values).await;
            }
            Told::Fetched(Fetched::Missing) => {
                self.busy = false;
                missing();
            }
            Told::Gone => self.begin_anew(),
            Told::Fetched(Fetched::Gone) => {
                self.busy = false;
                self.begin_anew();
            }
            Told::Anew(_, Fetched::Gone) => {
                self.lost = false;
                self.begin_anew();
            }
            Told::Anew(head, Fetched::Missing) => {
                self.go_on(head);
                missing();
            }
            Told::Anew(_, Fetched::Values(values)) => {
                self.go_on(values.cursor);
                return self.act(values).await;
            }
            Told::Done(status) => {
                self.busy = false;
                match status {
                    Ok(status) if status.success() => {}
                    Ok(status) => say(&format!("the command of exec: has failed: {status}")),
                    Err(error) => say(&format!("the command of exec: is lost: {error}")),
                }
            }
        }
        Ok(None)
    }

    /// The log has lost the cursor: after a restored backup, or after a long time away.
    fn begin_anew(&mut self) {
        if !self.lost {
            say("the log does not hold the place any more: the values are fetched anew");
            self.lost = true;
            self.stream.abort();
            self.changes.begin_anew();
            self.asker.begin_anew();
        }
    }

    fn go_on(&mut self, from: Cursor) {
        self.lost = false;
        self.changes.cover(from);
        let trail = LogFollower::new(self.asker.client.clone(), Log::Changes, Some(from));
        self.stream = self.asker.follow(trail);
    }

    /// Does what a change causes, if it is one.
    async fn act(&mut self, values: ResolvedValues) -> Result<Option<ExitCode>, CommandError> {
        self.changes.cover(values.cursor);
        let news = self.acted.news(&values);
        if news.is_empty() || self.ending {
            return Ok(None);
        }
        self.acted.update(&values);
        match self.on_change.clone() {
            OnChange::Restart => {
                say(&format!("{news}: the command is restarted"));
                return self.restart(values).await;
            }
            OnChange::Signal(signal) => {
                say(&format!("{news}: the command gets the signal"));
                self.child.signal(signal);
            }
            OnChange::Exec(line) => {
                say(&format!("{news}: the command of exec: is run"));
                match self.recipe.shell(&line).start(&values) {
                    Ok(child) => {
                        self.busy = true;
                        self.asker.wait(child);
                    }
                    Err(error) => say(&format!("the command of exec: does not start: {error}")),
                }
            }
        }
        Ok(None)
    }

    async fn restart(&mut self, values: ResolvedValues) -> Result<Option<ExitCode>, CommandError> {
        let status = self.stop().await?;
        if self.ending {
            return Ok(Some(code(status)));
        }
        let now = Instant::now();
        let last = std::mem::replace(&mut self.values, values);
        let before = self.probation.take().filter(|it| now < it.until);
        let good = before.map_or(last, |probation| probation.good);
        if self.start().is_some() {
            self.values = good;
            return Ok(self.start());
        }
        let until = now + self.healthy_after;
        self.probation = Some(Probation { until, good });
        Ok(None)
    }

    /// Starts the command with the present values; `Some` when it does not start.
    fn start(&mut self) -> Option<ExitCode> {
        match self.recipe.start(&self.values) {
            Ok(child) => {
                self.child = child;
                None
            }
            Err(error) => Some(not_started(&error)),
        }
    }

    /// SIGTERM, and SIGKILL when the grace is over.
    async fn stop(&mut self) -> std::io::Result<ExitStatus> {
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

    /// The command has ended: so does `run`, unless the new values were to blame.
    async fn ended(&mut self, status: ExitStatus) -> Option<ExitCode> {
        let now = Instant::now();
        let probation = self.probation.take().filter(|it| now < it.until);
        let Some(Probation { good, .. }) = probation else {
            return Some(code(status));
        };
        if status.success() || self.child.was_signalled() || self.ending {
            return Some(code(status));
        }
        say(&format!(
            "the command has failed right after its restart ({status}): it is started again with \
             the last values that it ran with"
        ));
        self.child.clear(now + self.grace).await;
        self.values = good;
        self.start()
    }
}

fn missing() {
    say("a secret is deleted: the command keeps its values until there is one of that name again");
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
