//! What commands print on stdout. A reader that has enough (`rekey token list | head -1`) is no failure: a short
//! command goes on to its end and keeps its exit code, one that prints much or without an end ends with code 0.

use std::{
    error::Error,
    fmt::Display,
    io::{self, ErrorKind, Write},
    iter::successors,
};

use serde_json::Value;

use super::CommandError;

/// Nobody reads the output any more.
#[derive(Debug, thiserror::Error)]
#[error("the output is closed")]
struct OutputClosed;

/// The standard output, of which it can be told that nobody reads it any more.
#[derive(Debug)]
pub(super) struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write(bytes).map_err(closed)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush().map_err(closed)
    }
}

fn closed(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::BrokenPipe {
        return io::Error::new(ErrorKind::BrokenPipe, OutputClosed);
    }
    error
}

/// Prints a part of much data.
///
/// # Errors
/// The operating system's; one of which [`was_closed`] is true ends the command with code 0.
pub(super) fn print_part(text: impl Display) -> Result<(), CommandError> {
    writeln!(Output, "{text}")?;
    Ok(Output.flush()?)
}

/// Prints data. If nobody reads it, nothing happens.
///
/// # Errors
/// The operating system's.
pub(super) fn print(text: impl Display) -> Result<(), CommandError> {
    match print_part(text) {
        Err(error) if was_closed(&*error) => Ok(()),
        printed => printed,
    }
}

/// Prints data: as JSON, or as a person reads it.
///
/// # Errors
/// The operating system's.
pub(super) fn print_either(
    as_json: bool,
    json: Value,
    text: impl Display,
) -> Result<(), CommandError> {
    if as_json { print(json) } else { print(text) }
}

/// Whether a command failed only because nobody reads its output any more.
pub(super) fn was_closed(error: &(dyn Error + 'static)) -> bool {
    successors(Some(error), |error| (*error).source()).any(|error| {
        let error = error.downcast_ref::<io::Error>();
        let inside = error.and_then(io::Error::get_ref);
        inside
            .and_then(|inside| inside.downcast_ref::<OutputClosed>())
            .is_some()
    })
}
