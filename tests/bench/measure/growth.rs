//! What a PUT costs when there are many secrets, or when the log is long; and the memory that secrets at rest take.

use std::{thread::sleep, time::Duration};

use crate::{
    ballast,
    load::{Job, Kind, Measured},
    options::Options,
    sizes::Sizes,
    support::{
        postgres::{Postgres, psql},
        service::Deployment,
    },
    table::{Sheet, Table, medians},
    world::{Secrets, World, address, resident},
};

const CLIENTS: usize = 64;
/// The secrets that are changed.
const CHANGED: usize = 1000;

/// A database of one size.
struct Size {
    key: &'static str,
    title: &'static str,
    secrets: usize,
    events: usize,
}

const SIZES: [Size; 4] = [
    Size {
        key: "growth/1e3",
        title: "10³ secrets",
        secrets: 0,
        events: 0,
    },
    Size {
        key: "growth/1e5",
        title: "10⁵ secrets",
        secrets: 100_000,
        events: 0,
    },
    Size {
        key: "growth/1e6",
        title: "10⁶ secrets",
        secrets: 1_000_000,
        events: 0,
    },
    Size {
        key: "growth/log",
        title: "10⁷ rows in the log",
        secrets: 0,
        events: 10_000_000,
    },
];
const MOST_SECRETS: usize = 2;

struct Grown {
    deployment: Deployment,
    secrets: Secrets,
}

impl Grown {
    fn prepare(server: &Postgres, size: &Size, sizes: &Sizes, options: &Options) -> Self {
        let deployment = Deployment::postgres(&server.database()).raised_limits();
        let deployment = deployment.prepare();
        let url = deployment.database();
        ballast::secrets(url, size.secrets, sizes);
        ballast::events(url, size.events, sizes);
        ballast::settle(url);
        let world = World::start(deployment, CHANGED, options);
        world.fill(options);
        let World {
            deployment,
            secrets,
            ..
        } = world;
        Self {
            deployment,
            secrets,
        }
    }

    /// Runs a load against a service that has just started; and its resident memory afterwards, in MiB.
    fn measure(&self, secrets: &Secrets, options: &Options) -> (Measured, f64) {
        let replica = self.deployment.serve();
        let (address, work) = (address(&replica), (Kind::Put, &*secrets.ids));
        let job = Job::new(options, &address, &secrets.token, work, CLIENTS);
        let measured = job.run();
        sleep(Duration::from_secs(2));
        (measured, resident(replica.id()) / 1024.0)
    }

    /// Many of the secrets that SQL made.
    fn anywhere(&self) -> Secrets {
        let sql = format!(
            "SELECT id FROM secrets WHERE owner = '{}' ORDER BY id LIMIT 200000",
            ballast::OWNER
        );
        let ids = psql(self.deployment.database(), &sql);
        Secrets {
            token: self.deployment.token(ballast::OWNER, &["secrets:write"]),
            ids: ids.lines().map(str::to_owned).collect(),
            names: Vec::new(),
        }
    }
}

pub(crate) fn run(options: &Options, sheet: &mut Sheet) {
    let server = Postgres::start_private();
    let sizes = {
        let deployment = Deployment::postgres(&server.database()).raised_limits();
        let world = World::start(deployment.prepare(), 1, options);
        Sizes::of(world.deployment.database())
    };
    let grown = SIZES.each_ref().map(|size| {
        eprintln!("growth: {}", size.title);
        Grown::prepare(&server, size, &sizes, options)
    });
    let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); SIZES.len()];
    let mut memory: f64 = 0.0;
    for _ in 0..options.rounds {
        for (index, one) in grown.iter().enumerate() {
            let (figures, resident) = one.measure(&one.secrets, options);
            measured[index].push(figures);
            if index == MOST_SECRETS {
                memory = memory.max(resident);
            }
        }
    }
    let most = &grown[MOST_SECRETS];
    let (anywhere, busy) = most.measure(&most.anywhere(), options);
    let rows: Vec<_> = measured.iter().map(|rounds| medians(rounds)).collect();
    for (size, one) in SIZES.iter().zip(&rows) {
        sheet.put(size.key, 1e6 / one.rate);
    }
    sheet.put("growth/memory", memory);
    sheet.add(table(&rows, &anywhere, (memory, busy)));
}

fn table(rows: &[Measured], anywhere: &Measured, (memory, busy): (f64, f64)) -> Table {
    let note = format!(
        "PUTs by {CLIENTS} clients on PostgreSQL, over 1,000 secrets; the last line over 200,000 of the 10⁶, whose \
         rows are cold at first. With 10⁶ secrets the service holds {memory:.1} MiB of resident memory 2 s after the load, \
         and {busy:.1} MiB after that of the last line."
    );
    let head = ["", "microseconds per PUT", "PUTs/s", "p50", "p99"];
    let mut table = Table::new("Growth", &note, &head);
    let titles = SIZES.iter().map(|size| size.title);
    let titles = titles.chain(["10⁶ secrets, all over"]);
    for (title, one) in titles.zip(rows.iter().chain([anywhere])) {
        table.row(one.row(&[title, &format!("{:.0}", 1e6 / one.rate)]));
    }
    table
}
