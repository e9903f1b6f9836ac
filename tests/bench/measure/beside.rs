//! What clients notice while the service also removes old events, expires versions and serves pages at full speed.

use std::time::Duration;

use crate::{
    ballast,
    load::{Job, Kind, Measured},
    options::Options,
    sizes::Sizes,
    support::{
        postgres::{Postgres, psql},
        service::Deployment,
    },
    table::{Sheet, Table, medians, thousands},
    world::{Secrets, World, address},
};

const CLIENTS: usize = 64;
/// More than retention removes in a second.
const REMOVED_PER_SECOND: usize = 20_000;

struct Beside<'a> {
    deployment: Deployment,
    secrets: Secrets,
    reader: String,
    options: &'a Options,
}

pub(crate) fn run(options: &Options, sheet: &mut Sheet) {
    let server = Postgres::shared();
    let deployment = Deployment::postgres(&server.database()).raised_limits();
    let world = World::start(deployment.prepare(), options.secrets, options);
    let sizes = Sizes::of(world.deployment.database());
    drop(world);
    // No warm-up: most versions that are too many go with the first PUTs.
    let seconds = options.seconds().as_secs() as usize + 2;
    let deployment = Deployment::postgres(&server.database()).raised_limits();
    let deployment = deployment.prepare();
    ballast::events(
        deployment.database(),
        seconds * options.rounds * REMOVED_PER_SECOND,
        &sizes,
    );
    ballast::settle(deployment.database());
    let world = World::start(deployment, options.secrets, options);
    let World {
        deployment,
        secrets,
        replica,
    } = world;
    drop(replica);
    let beside = Beside {
        reader: deployment.service_token("reader", &["*"], &["events:read"]),
        deployment,
        secrets,
        options,
    };
    let (mut without, mut with, mut pages) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        without.push(beside.without());
        let (measured, read) = beside.with();
        with.push(measured);
        pages.push(read);
    }
    let (without, with, pages) = (medians(&without), medians(&with), medians(&pages));
    sheet.put("beside/without", without.p99);
    sheet.put("beside/with", with.p99);
    let cut = "SELECT cut_position FROM log_head WHERE log = 'changes'";
    let removed: f64 = psql(beside.deployment.database(), cut)
        .parse()
        .expect("a position");
    assert!(removed > 0.0, "retention removed events");
    let note = format!(
        "PUTs by {CLIENTS} clients on PostgreSQL. Retention removed {} events, each secret's versions were cut to 10, and \
         a reader got {} pages of 200 events a second.",
        thousands(removed),
        thousands(pages.rate)
    );
    let mut table = Table::new("Beside other work", &note, &["", "PUTs/s", "p50", "p99"]);
    for (title, one) in [("the load alone", without), ("with all of it", with)] {
        table.row(one.row(&[title]));
    }
    sheet.add(table);
}

impl Beside<'_> {
    /// Keeps every version, so that the next part has some to expire.
    fn without(&self) -> Measured {
        let keeping = [("REKEY__LIMITS__VERSIONS", "1000")];
        let replica = self.deployment.serve_with(&keeping);
        self.job(Kind::Put, &address(&replica)).run()
    }

    fn with(&self) -> (Measured, Measured) {
        let removing = [
            ("REKEY__LIMITS__VERSIONS", "10"),
            ("REKEY__EVENTS__RETAIN_DAYS", "30"),
        ];
        let replica = self.deployment.serve_with(&removing);
        let pages = self.job(Kind::Page, &address(&replica)).start();
        let measured = self.job(Kind::Put, &address(&replica)).run();
        (measured, pages.finish())
    }

    fn job(&self, kind: Kind, address: &str) -> Job {
        let (token, clients) = if kind == Kind::Page {
            (&self.reader, 1)
        } else {
            (&self.secrets.token, CLIENTS)
        };
        let work = (kind, &*self.secrets.ids);
        let job = Job::new(self.options, address, token, work, clients);
        Job {
            warm_up: Duration::ZERO,
            ..job
        }
    }
}
