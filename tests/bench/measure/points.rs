//! Requests per second: every contestant at every number of clients, once a round.

use std::collections::BTreeMap;

use crate::{
    etcd::Etcd,
    load::{Kind, Measured},
    options::{Options, Without},
    pgbench::{Pgbench, Script},
    python::Python,
    sizes::Sizes,
    slow_sync::SlowPostgres,
    support::{
        postgres::{Postgres, psql},
        service::Deployment,
    },
    table::{Sheet, Table, medians, thousands},
    world::{Secrets, World},
};

/// How many secrets the caller has whose list is read.
const LISTED: usize = 20;

/// Where it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Postgres,
    SlowPostgres,
    Sqlite,
}

#[derive(Debug, Clone, Copy)]
enum Who {
    /// One kind of request over many secrets, or over one.
    Rekey(Kind, Many),
    Pgbench(Script, Many),
    Etcd,
    Python,
}

type Many = bool;

/// The name of a line, and the number of clients.
type At = (&'static str, usize);

/// One line of a table: its name in the figures, who it is, where.
struct Series {
    key: &'static str,
    title: &'static str,
    place: Place,
    who: Who,
}

const fn series(key: &'static str, title: &'static str, place: Place, who: Who) -> Series {
    Series {
        key,
        title,
        place,
        who,
    }
}

#[rustfmt::skip] // A table.
const SERIES: &[Series] = {
    use {
        Kind::{Get, List, Put, Refuse, Resolve},
        Place::{Postgres, SlowPostgres, Sqlite},
        Script::{Cte, Select, Transaction},
        Who::{Etcd, Pgbench, Python, Rekey},
    };
    &[
        series("postgres/put-many", "rekey: PUT, many secrets", Postgres, Rekey(Put, true)),
        series("postgres/put-one", "rekey: PUT, one hot secret", Postgres, Rekey(Put, false)),
        series("postgres/transaction-many", "pgbench: transaction, many rows", Postgres, Pgbench(Transaction, true)),
        series("postgres/transaction-one", "pgbench: transaction, one row", Postgres, Pgbench(Transaction, false)),
        series("postgres/cte-many", "pgbench: one CTE, many rows", Postgres, Pgbench(Cte, true)),
        series("postgres/cte-one", "pgbench: one CTE, one row", Postgres, Pgbench(Cte, false)),
        series("postgres/get", "rekey: GET of a secret", Postgres, Rekey(Get, true)),
        series("postgres/select", "pgbench: SELECT of such a row", Postgres, Pgbench(Select, true)),
        series("postgres/list", "rekey: GET of the list (20 secrets)", Postgres, Rekey(List, true)),
        series("postgres/resolve", "rekey: POST resolve, one name", Postgres, Rekey(Resolve, true)),
        series("postgres/refuse", "rekey: 405 to a good credential", Postgres, Rekey(Refuse, true)),
        series("slow/put-many", "rekey: PUT, many secrets", SlowPostgres, Rekey(Put, true)),
        series("slow/put-one", "rekey: PUT, one hot secret", SlowPostgres, Rekey(Put, false)),
        series("slow/transaction-many", "pgbench: transaction, many rows", SlowPostgres, Pgbench(Transaction, true)),
        series("slow/cte-many", "pgbench: one CTE, many rows", SlowPostgres, Pgbench(Cte, true)),
        series("sqlite/put-many", "rekey: PUT, many secrets", Sqlite, Rekey(Put, true)),
        series("sqlite/put-one", "rekey: PUT, one hot secret", Sqlite, Rekey(Put, false)),
        series("sqlite/python", "Python: the same change, one commit each", Sqlite, Python),
        series("sqlite/etcd", "etcd: put over its JSON gateway", Sqlite, Etcd),
        series("sqlite/get", "rekey: GET of a secret", Sqlite, Rekey(Get, true)),
        series("sqlite/list", "rekey: GET of the list (20 secrets)", Sqlite, Rekey(List, true)),
        series("sqlite/resolve", "rekey: POST resolve, one name", Sqlite, Rekey(Resolve, true)),
        series("sqlite/refuse", "rekey: 405 to a good credential", Sqlite, Rekey(Refuse, true)),
    ]
};

const PLACES: [(Place, &str); 3] = [
    (Place::Postgres, "PostgreSQL, with the disk as it is"),
    (
        Place::SlowPostgres,
        "PostgreSQL, with 1 ms added to each of its syncs",
    ),
    (Place::Sqlite, "SQLite, and what others use in its place"),
];

/// The service and pgbench on one server.
struct Site {
    world: World,
    listed: Secrets,
    pgbench: Option<Pgbench>,
}

impl Site {
    fn postgres(server: &Postgres, options: &Options) -> Self {
        let deployment = Deployment::postgres(&server.database()).raised_limits();
        let deployment = deployment.prepare();
        let by_hand = server.copy(deployment.database());
        let mut site = Self::of(deployment, options);
        let sizes = Sizes::of(site.world.deployment.database());
        site.pgbench = Some(Pgbench::prepare(by_hand, &sizes, options.secrets));
        site
    }

    fn of(deployment: Deployment, options: &Options) -> Self {
        let world = World::start(deployment, options.secrets, options);
        world.fill(options);
        let listed = Secrets::create(
            (&world.deployment, &world.replica),
            "lister",
            LISTED,
            options,
        );
        Self {
            world,
            listed,
            pgbench: None,
        }
    }
}

struct Sites {
    postgres: Site,
    slow: Option<Site>,
    sqlite: Site,
    etcd: Option<Etcd>,
    python: Option<Python>,
}

impl Sites {
    fn site(&self, place: Place) -> Option<&Site> {
        match place {
            Place::Postgres => Some(&self.postgres),
            Place::SlowPostgres => self.slow.as_ref(),
            Place::Sqlite => Some(&self.sqlite),
        }
    }

    /// One after the other.
    fn measure_all(
        &self,
        series: impl Iterator<Item = &'static Series>,
        clients: usize,
        options: &Options,
    ) -> Vec<(At, Measured)> {
        let measure = |series: &'static Series| {
            let is_python = matches!(series.who, Who::Python);
            let at = (series.key, if is_python { 1 } else { clients });
            Some((at, self.measure(series, clients, options)?))
        };
        series.filter_map(measure).collect()
    }

    /// Those of one place beside those of the others: a smoke run is short, and its figures mean nothing.
    fn measure_at_once(&self, clients: usize, options: &Options) -> Vec<(At, Measured)> {
        let of = |place| SERIES.iter().filter(move |series| series.place == place);
        std::thread::scope(|scope| {
            let lanes = PLACES.map(|(place, _)| {
                scope.spawn(move || self.measure_all(of(place), clients, options))
            });
            let figures = lanes.map(|lane| lane.join().expect("the figures of a place"));
            figures.into_iter().flatten().collect()
        })
    }

    /// None where the contestant is not there, or where the number of clients means nothing to it.
    fn measure(&self, series: &Series, clients: usize, options: &Options) -> Option<Measured> {
        let site = self.site(series.place)?;
        let secrets = &site.world.secrets;
        Some(match series.who {
            Who::Rekey(kind, many) => {
                let named = if kind == Kind::Resolve {
                    &secrets.names
                } else {
                    &secrets.ids
                };
                let some = if many { named } else { &named[..1] };
                let mut job = site.world.job(kind, some, clients, options);
                if kind == Kind::List {
                    job.token.clone_from(&site.listed.token);
                }
                job.run()
            }
            Who::Pgbench(script, many) => {
                site.pgbench.as_ref()?.run(script, many, clients, options)
            }
            Who::Etcd => self.etcd.as_ref()?.run(&secrets.ids, clients, options),
            // It is one client, whatever the others are: once a round.
            Who::Python if options.clients.first() != Some(&clients) => return None,
            Who::Python => self.python.as_ref()?.run(options),
        })
    }
}

pub(crate) fn run(options: &Options, sheet: &mut Sheet) {
    let server = Postgres::start_private();
    let version = psql(&server.url("postgres"), "SHOW server_version");
    sheet.fact("PostgreSQL", version);
    let slow = if options.has(Without::SlowDisk) {
        SlowPostgres::start()
    } else {
        None
    };
    let postgres = Site::postgres(&server, options);
    let rows = Sizes::of(postgres.world.deployment.database());
    let sites = Sites {
        slow: slow
            .as_ref()
            .map(|slow| Site::postgres(&slow.server, options)),
        sqlite: Site::of(Deployment::sqlite().raised_limits().prepare(), options),
        etcd: if options.has(Without::Etcd) {
            Etcd::start()
        } else {
            None
        },
        python: options
            .has(Without::Python)
            .then(|| Python::prepare(&rows, options.secrets)),
        postgres,
    };
    let mut measured: BTreeMap<At, Vec<Measured>> = BTreeMap::new();
    for round in 1..=options.rounds {
        for clients in &options.clients {
            eprintln!(
                "points: round {round} of {}, {clients} clients",
                options.rounds
            );
            let figures = if options.is_smoke() {
                sites.measure_at_once(*clients, options)
            } else {
                sites.measure_all(SERIES.iter(), *clients, options)
            };
            for (at, one) in figures {
                measured.entry(at).or_default().push(one);
            }
        }
    }
    let medians = measured
        .into_iter()
        .map(|(at, rounds)| (at, medians(&rounds)));
    tables(&medians.collect(), options, sheet);
}

fn tables(medians: &BTreeMap<At, Measured>, options: &Options, sheet: &mut Sheet) {
    for ((key, clients), one) in medians {
        sheet.put(&format!("{key}@{clients}"), one.rate);
        sheet.put(&format!("{key}@{clients} p50"), one.p50);
        sheet.put(&format!("{key}@{clients} p99"), one.p99);
    }
    let note = "Requests or transactions per second, and in brackets p50 and p99 in milliseconds; of pgbench the mean.";
    for (place, title) in PLACES {
        let mut head = vec!["clients".to_owned()];
        head.extend(options.clients.iter().map(ToString::to_string));
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let mut table = Table::new(title, note, &head);
        for series in SERIES.iter().filter(|series| series.place == place) {
            let cell = |clients: &usize| {
                medians
                    .get(&(series.key, *clients))
                    .map_or("–".to_owned(), cell)
            };
            let cells = options.clients.iter().map(cell);
            table.row(
                std::iter::once(series.title.to_owned())
                    .chain(cells)
                    .collect(),
            );
        }
        sheet.add(table);
    }
}

fn cell(one: &Measured) -> String {
    let rate = thousands(one.rate);
    if one.p99 > 0.0 {
        format!("{rate} ({:.2}, {:.2})", one.p50, one.p99)
    } else {
        format!("{rate} (~{:.2})", one.p50)
    }
}
