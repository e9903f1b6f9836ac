//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};

/// Measures what rekey does in a second and how long things take, next to what people would build by hand.
///
/// Private servers on free loopback ports; everything ends with the program.
#[derive(Parser)]
#[command(name = "scripts/bench")]
pub(crate) struct Options {
    /// What to measure
    pub(crate) part: Part,
    /// How long each point is measured
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How long each point runs before it is measured
    #[arg(long, default_value_t = 2)]
    warm_up: u64,
    /// How often each point is measured; the figures are the medians
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// How many clients ask at once
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    pub(crate) clients: Vec<usize>,
    /// How many secrets "many" are
    #[arg(long, default_value_t = 1000)]
    pub(crate) secrets: usize,
    /// What a report leaves out
    #[arg(long, value_delimiter = ',')]
    without: Vec<Without>,
    /// The page that a report is written to; its chart is written beside it
    #[arg(long, default_value = "docs/performance.md")]
    pub(crate) out: PathBuf,
    /// A file that keeps each part as soon as it is measured; what it holds already is not measured again
    #[arg(long)]
    pub(crate) keep: Option<PathBuf>,
    /// What `cargo bench` adds to every command line
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// All parts, and the page with their tables
    Report,
    /// Requests per second, next to pgbench, etcd, and Python with SQLite
    Points,
    /// 1,000 open streams: memory each, database statements per commit
    Streams,
    /// From a 200 to the message at a consumer, at 500 PUT/s
    Latency,
    /// Events per second from the log to a consumer
    Relay,
    /// Resolves per second with each activity.record
    Resolve,
    /// What a PUT costs when there are many secrets, or a long log
    Growth,
    /// Retention, expiry of versions and a reader of pages beside the load
    Beside,
    /// What one tenant notices beside a hostile one and a flood of strangers, and the service's peak memory
    Fairness,
    /// One, two and four replicas on one database
    Replicas,
    /// All parts but growth in a short form: whether they work, not how fast
    Smoke,
    #[value(hide = true)]
    Load,
    #[value(hide = true)]
    Attack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Without {
    SlowDisk,
    Etcd,
    Python,
    Streams,
    Latency,
    Relay,
    Resolve,
    Growth,
    Beside,
    Fairness,
    Replicas,
}

impl Options {
    /// As asked; a smoke run has its own figures.
    pub(crate) fn read() -> Self {
        let mut options = Self::parse();
        if options.is_smoke() {
            options.seconds = 2;
            options.warm_up = 0;
            options.rounds = 1;
            options.clients = vec![64];
            options.secrets = 100;
        }
        options
    }

    pub(crate) fn is_smoke(&self) -> bool {
        self.part == Part::Smoke
    }

    pub(crate) fn has(&self, what: Without) -> bool {
        !self.without.contains(&what)
    }

    pub(crate) fn seconds(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs(self.warm_up)
    }

    /// How much of something to use: less of it in a smoke run.
    pub(crate) fn scaled(&self, whole: usize, smoke: usize) -> usize {
        if self.is_smoke() { smoke } else { whole }
    }
}
