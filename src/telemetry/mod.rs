//! The log on stderr, the panic hook, the protection of the process's memory.
//! In: `log.format`, `RUST_LOG`. Out: one line an event, JSON or for people.
//!
//! Promise: whatever `RUST_LOG` says, only rekey's own targets log below `warn`. Libraries log
//! what they carry (statements, frames, bodies), so the cap is compiled in. A panic shows its
//! place and never its message, because messages quote values.
//!
//! What it does not do: redact. What must not be logged has types that cannot be printed.

mod harden;
pub(crate) mod metrics;

use std::io::{self, IsTerminal as _};
use std::panic;

use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, filter_fn};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt, registry};

use crate::settings::LogFormat;

pub(crate) use harden::{harden_parent, harden_process};

/// rekey's own targets begin with the crate's name; only `RUST_LOG` decides about them.
const OWN: &str = "rekey";
/// The most that other crates may log, and those that quote what they carry even there. The
/// first that fits counts.
const CAP: LevelFilter = LevelFilter::WARN;
const CAPS: [(&str, LevelFilter); 3] = [
    // At warn a returned message, payload and all. At error panic messages, and errors that reach the relay and the
    // audit consumer too: they say once that a connection failed, and not at each attempt.
    ("lapin", LevelFilter::OFF),
    ("amq_protocol", LevelFilter::ERROR),
    // At warn the value of each parameter of `database.url` that it does not know.
    ("sqlx_postgres::options", LevelFilter::ERROR),
];

#[derive(Clone, Copy)]
enum Look {
    Coloured,
    Plain,
    Json,
}

/// Starts the log on stderr and sets the panic hook. Later calls change nothing.
///
/// Not for tests in the process: a failed assertion would show its place only. They take
/// `lines`.
pub(crate) fn init(format: LogFormat) {
    let coloured = std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let look = match (format, io::stderr().is_terminal()) {
        (LogFormat::Auto | LogFormat::Pretty, true) if coloured => Look::Coloured,
        (LogFormat::Auto, true) | (LogFormat::Pretty, _) => Look::Plain,
        (LogFormat::Auto, false) | (LogFormat::Json, _) => Look::Json,
    };
    let directives = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let writer = BoxMakeWriter::new(io::stderr);
    // An error means that the log was started before.
    let _ = lines(look, &directives, writer).try_init();
    set_panic_hook();
}

/// The hook of the process shows the place of a panic, never its message.
fn set_panic_hook() {
    panic::set_hook(Box::new(|panicked| {
        if let Some(place) = panicked.location() {
            tracing::error!(%place, "panicked");
        }
    }));
}

fn lines(
    look: Look,
    directives: &str,
    writer: BoxMakeWriter,
) -> impl Subscriber + Send + Sync + use<> {
    let lines = fmt::layer()
        .with_writer(writer)
        // Else an error of the writer is written to stderr, which panics when that is closed.
        .log_internal_errors(false);
    let lines = match look {
        Look::Coloured => lines.with_ansi(true).boxed(),
        Look::Plain => lines.with_ansi(false).boxed(),
        Look::Json => {
            let lines = lines.json().flatten_event(true);
            lines.with_span_list(false).boxed()
        }
    };
    let wanted = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse_lossy(directives);
    registry().with(lines.with_filter(wanted.and(filter_fn(is_allowed))))
}

fn is_allowed(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= cap(metadata.target())
}

fn cap(target: &str) -> LevelFilter {
    if is_within(target, OWN) {
        return LevelFilter::TRACE;
    }
    let mut caps = CAPS.iter();
    let special = caps.find(|(module, _)| is_within(target, module));
    special.map_or(CAP, |(_, cap)| *cap)
}

fn is_within(target: &str, module: &str) -> bool {
    let rest = target.strip_prefix(module);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(look: Look, directives: &str, log: impl FnOnce()) -> String {
        let written = Lines::default();
        let writer = written.clone();
        let writer = BoxMakeWriter::new(move || writer.clone());
        with_default(lines(look, directives, writer), log);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn log_everywhere() {
        tracing::trace!(target: "rekey::actor", "own-trace");
        tracing::info!(target: "rekey", "own-info");
        tracing::info!(target: "rekeyed", "stranger-info");
        tracing::info!(target: "sqlx::query", "sqlx-info");
        tracing::warn!(target: "sqlx::query", "sqlx-warn");
        tracing::warn!(target: "sqlx_postgres::options::parse", "parameter-warn");
        tracing::warn!(target: "lapin::returned_messages", "lapin-warn");
        tracing::error!(target: "lapin::channels", "lapin-error");
        tracing::error!(target: "lapin::thread", "lapin-panic");
        tracing::info_span!(target: "sqlx::query", "sqlx-span").in_scope(|| {
            tracing::info!(target: "rekey", "in-span");
        });
    }

    #[test]
    fn no_directive_lets_a_library_log_what_it_carries() {
        for directives in ["trace", "sqlx=trace,lapin=trace,rekey=trace,rekeyed=trace"] {
            let log = logged(Look::Plain, directives, log_everywhere);
            for shown in ["own-trace", "own-info", "in-span"] {
                assert!(log.contains(shown), "{shown} in {log}");
            }
            let hidden = "stranger-info sqlx-info sqlx-span parameter-warn lapin-warn lapin-error lapin-panic";
            for hidden in hidden.split(' ') {
                assert!(!log.contains(hidden), "{hidden} in {log}");
            }
        }
        let log = logged(Look::Plain, "trace", log_everywhere);
        assert!(log.contains("sqlx-warn"), "{log}");
    }

    #[test]
    fn without_a_directive_it_is_info() {
        let log = logged(Look::Plain, "", log_everywhere);
        let is_info = log.contains("own-info") && !log.contains("own-trace");
        assert!(is_info, "{log}");
    }

    #[test]
    fn a_directive_can_silence_rekey() {
        assert_eq!(logged(Look::Plain, "off", log_everywhere), "");
    }

    #[test]
    fn json_is_one_flat_object_a_line() {
        let log = logged(Look::Json, "", || {
            tracing::info!(secret.id = "a\nb", "two\nlines");
        });
        let line: serde_json::Value = serde_json::from_str(&log).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["target"], "rekey::telemetry::tests");
        assert_eq!(line["message"], "two\nlines");
        assert_eq!(line["secret.id"], "a\nb");
        assert_eq!(log.matches('\n').count(), 1);
    }

    #[test]
    fn a_panic_shows_its_place_only() {
        let log = logged(Look::Plain, "", || {
            let before = panic::take_hook();
            set_panic_hook();
            let caught = panic::catch_unwind(|| panic!("hunter2"));
            panic::set_hook(before);
            assert!(caught.is_err());
        });
        assert!(log.contains(concat!("place=", file!(), ":")), "{log}");
        assert!(!log.contains("hunter2"), "{log}");
    }
}
