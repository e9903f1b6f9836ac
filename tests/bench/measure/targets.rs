//! The targets, as data, and what came of them.

use crate::{
    options::Options,
    table::{Sheet, Table},
};

struct Target {
    area: &'static str,
    what: &'static str,
    measured: Measured,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Measured {
    /// A figure by its name.
    Figure(&'static str),
    /// One figure divided by another.
    Ratio(&'static str, &'static str),
}

#[derive(Clone, Copy)]
enum Bound {
    Least(f64),
    Most(f64),
}

const fn target(
    area: &'static str,
    what: &'static str,
    measured: Measured,
    bound: Bound,
) -> Target {
    Target {
        area,
        what,
        measured,
        bound,
    }
}

use Bound::{Least, Most};
use Measured::{Figure, Ratio};

const POSTGRES: &str = "PostgreSQL, many secrets";
const SLOW: &str = "the same, 1 ms added to each sync";
const HOT: &str = "PostgreSQL, one hot secret, 64 clients";
const ETCD: &str = "against etcd's put";
const SQLITE: &str = "SQLite over HTTP, 64 clients";
const GET: &str = "GET, 64 clients";
const P99: &str = "p99 of PUTs, 64 clients";
const RELAY: &str = "relay, with confirms, events/s";
const GROWTH: &str = "cost per PUT, against 10³ secrets";
const FAIRNESS: &str = "a tenant beside a hostile one";
const REPLICAS: &str = "replicas on one PostgreSQL";

#[rustfmt::skip] // A table.
const TARGETS: &[Target] = &[
    target(POSTGRES, "1 client / pgbench's transaction", Ratio("postgres/put-many@1", "postgres/transaction-many@1"), Least(0.9)),
    target(POSTGRES, "16 clients / pgbench's transaction", Ratio("postgres/put-many@16", "postgres/transaction-many@16"), Least(1.2)),
    target(POSTGRES, "64 clients / pgbench's transaction", Ratio("postgres/put-many@64", "postgres/transaction-many@64"), Least(2.0)),
    target(POSTGRES, "64 clients / pgbench's CTE", Ratio("postgres/put-many@64", "postgres/cte-many@64"), Least(0.8)),
    target(SLOW, "1 client / pgbench's transaction", Ratio("slow/put-many@1", "slow/transaction-many@1"), Least(0.9)),
    target(SLOW, "16 clients / pgbench's transaction", Ratio("slow/put-many@16", "slow/transaction-many@16"), Least(1.2)),
    target(SLOW, "64 clients / pgbench's transaction", Ratio("slow/put-many@64", "slow/transaction-many@64"), Least(2.0)),
    target(SLOW, "64 clients / pgbench's CTE", Ratio("slow/put-many@64", "slow/cte-many@64"), Least(0.9)),
    target(HOT, "/ many secrets", Ratio("postgres/put-one@64", "postgres/put-many@64"), Least(0.9)),
    target(HOT, "/ pgbench's CTE on one row", Ratio("postgres/put-one@64", "postgres/cte-one@64"), Least(6.0)),
    target(ETCD, "PostgreSQL, 16 clients", Ratio("postgres/put-many@16", "sqlite/etcd@16"), Least(1.1)),
    target(ETCD, "PostgreSQL, 64 clients", Ratio("postgres/put-many@64", "sqlite/etcd@64"), Least(1.1)),
    target(ETCD, "SQLite, 1 client", Ratio("sqlite/put-many@1", "sqlite/etcd@1"), Least(0.9)),
    target(ETCD, "SQLite, 16 clients", Ratio("sqlite/put-many@16", "sqlite/etcd@16"), Least(1.0)),
    target(ETCD, "SQLite, 64 clients", Ratio("sqlite/put-many@64", "sqlite/etcd@64"), Least(1.0)),
    target(SQLITE, "/ Python in process", Ratio("sqlite/put-many@64", "sqlite/python@1"), Least(1.5)),
    target(GET, "SQLite / 405 to a good credential", Ratio("sqlite/get@64", "sqlite/refuse@64"), Least(0.4)),
    target(GET, "PostgreSQL / pgbench's SELECT", Ratio("postgres/get@64", "postgres/select@64"), Least(0.6)),
    target(P99, "PostgreSQL / p50", Ratio("postgres/put-many@64 p99", "postgres/put-many@64 p50"), Most(3.0)),
    target(P99, "SQLite / p50", Ratio("sqlite/put-many@64 p99", "sqlite/put-many@64 p50"), Most(3.0)),
    target(RELAY, "over 200 secrets", Figure("relay/200"), Least(15_000.0)),
    target(RELAY, "on one secret", Figure("relay/1"), Least(15_000.0)),
    target("200 → message, 500 PUT/s", "p50 in ms", Figure("latency/p50"), Most(2.0)),
    target(GROWTH, "10⁵ secrets", Ratio("growth/1e5", "growth/1e3"), Most(1.3)),
    target(GROWTH, "10⁶ secrets", Ratio("growth/1e6", "growth/1e3"), Most(1.3)),
    target(GROWTH, "10⁷ rows in the log", Ratio("growth/log", "growth/1e3"), Most(1.3)),
    target("10⁶ secrets at rest", "resident memory in MiB", Figure("growth/memory"), Most(64.0)),
    target("beside other work", "p99 with / without", Ratio("beside/with", "beside/without"), Most(1.5)),
    target(FAIRNESS, "p99 of PUT, beside / alone", Ratio("fairness/beside", "fairness/alone"), Most(3.0)),
    target(FAIRNESS, "requests refused", Figure("fairness/refused"), Most(0.0)),
    target(FAIRNESS, "peak memory in MiB", Figure("fairness/memory"), Most(256.0)),
    target("a flood of /ready", "p99 of GET, beside / alone", Ratio("fairness/get-beside", "fairness/get-alone"), Most(1.5)),
    target(REPLICAS, "two / one", Ratio("replicas/2", "replicas/1"), Least(0.9)),
    target(REPLICAS, "four / one", Ratio("replicas/4", "replicas/1"), Least(0.9)),
    target("1,000 open streams", "resident memory of each in KiB", Figure("streams/memory"), Most(32.0)),
    target("1,000 open streams", "statements per commit, with / without", Ratio("streams/statements-all", "streams/statements-none"), Most(1.1)),
];

impl Measured {
    fn names(self) -> Vec<&'static str> {
        match self {
            Self::Figure(name) => vec![name],
            Self::Ratio(one, other) => vec![one, other],
        }
    }

    fn of(self, sheet: &Sheet) -> Option<f64> {
        match self {
            Self::Figure(name) => sheet.get(name),
            Self::Ratio(one, other) => Some(sheet.get(one)? / sheet.get(other)?),
        }
    }
}

impl Bound {
    fn verdict(self, figure: f64) -> &'static str {
        let is_met = match self {
            Self::Least(bound) => figure >= bound,
            Self::Most(bound) => figure <= bound,
        };
        if is_met { "PASS" } else { "FAIL" }
    }

    fn text(self) -> String {
        match self {
            Self::Least(bound) => format!("≥ {bound}"),
            Self::Most(bound) => format!("≤ {bound}"),
        }
    }
}

/// One line for each target; with `all`, for those too that this run did not measure.
pub(crate) fn table(sheet: &Sheet, all: bool) -> Table {
    let mut table = Table::new("Targets", "", &["", "what", "target", "measured", ""]);
    for target in TARGETS {
        let (measured, verdict) = match target.measured.of(sheet) {
            Some(figure) if figure >= 100.0 => {
                (format!("{figure:.0}"), target.bound.verdict(figure))
            }
            Some(figure) => (format!("{figure:.2}"), target.bound.verdict(figure)),
            None if all => ("–".to_owned(), "not measured"),
            None => continue,
        };
        let cells = [
            target.area,
            target.what,
            &target.bound.text(),
            &measured,
            verdict,
        ];
        table.row(cells.map(str::to_owned).to_vec());
    }
    table
}

/// The figures that the targets need and a run with these numbers of clients lacks, but for those that begin with one
/// of these words.
pub(crate) fn absent(options: &Options, sheet: &Sheet, but: &[&str]) -> Vec<&'static str> {
    let names = TARGETS.iter().flat_map(|target| target.measured.names());
    let expected = names.filter(|name| {
        let clients = name
            .split_once('@')
            .and_then(|(_, rest)| rest.split(' ').next());
        let clients = clients.and_then(|clients| clients.parse().ok());
        clients.is_none_or(|clients: usize| options.clients.contains(&clients))
            && !but.iter().any(|begin| name.starts_with(begin))
    });
    expected.filter(|name| sheet.get(name).is_none()).collect()
}
