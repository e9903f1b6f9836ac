//! The progress of a long command, on stderr: a bar on a terminal, plain lines elsewhere.

use std::{
    cell::Cell,
    io::{self, Read},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::say;

/// How often a plain line is written.
const EVERY: Duration = Duration::from_secs(5);
const BAR: &str = "{prefix} [{bar:40}] {human_pos} of {human_len} {msg}, {eta} left";

/// The progress of one piece of work. Dropping it removes the bar.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    written: Cell<Instant>,
}

impl Progress {
    /// The progress of `what`, counted in `unit`, a plural.
    #[expect(
        clippy::expect_used,
        reason = "the template is a constant, and a test draws it"
    )]
    pub(super) fn new(what: impl Into<String>, unit: &'static str) -> Self {
        let style = ProgressStyle::with_template(BAR).expect("the template is valid");
        let bar = ProgressBar::new(0)
            .with_style(style)
            .with_prefix(what.into())
            .with_message(unit);
        Self {
            bar,
            written: Cell::new(Instant::now()),
        }
    }

    /// `done` of `all` are done.
    pub(super) fn report(&self, done: u64, all: u64) {
        self.bar.set_length(all);
        self.bar.set_position(done);
        // The bar is hidden when stderr is not a terminal.
        if self.bar.is_hidden() && (done == all || self.written.get().elapsed() >= EVERY) {
            self.written.set(Instant::now());
            let (what, unit) = (self.bar.prefix(), self.bar.message());
            say(&format!("{what}: {done} of {all} {unit}"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A file whose reading is reported as progress.
#[derive(Debug)]
pub(super) struct ProgressReader<R> {
    file: R,
    done: u64,
    all: u64,
    progress: Progress,
}

impl<R> ProgressReader<R> {
    /// A file of `all` bytes.
    pub(super) fn new(file: R, all: u64, progress: Progress) -> Self {
        Self {
            file,
            done: 0,
            all,
            progress,
        }
    }
}

impl<R: Read> Read for ProgressReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.done += read as u64;
        // A pipe has no length.
        if read > 0 && self.done <= self.all {
            self.progress.report(self.done, self.all);
        }
        Ok(read)
    }
}
