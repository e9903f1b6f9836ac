//! What clients notice while the service also removes old events, expires versions and serves pages at full speed.

use crate::{
    ballast,
    load::{Job, Kind, Measured},
    options::Options,
    sizes::Sizes,
    support::{postgres::Postgres, service::Deployment},
    table::{Sheet, Table, medians, milliseconds, thousands},
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
    let server = Postgres::start_private();
    let deployment = Deployment::postgres(&server.database()).raised_limits();
    let world = World::start(deployment.prepare(), options.secrets);
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
    let world = World::start(deployment, options.secrets);
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
    let note = format!(
        "PUTs by {CLIENTS} clients on PostgreSQL; retention removed events, each secret's versions were cut to 10, and \
         a reader got {} pages of 1,000 events a second.",
        thousands(pages.rate)
    );
    let mut table = Table::new("Beside other work", &note, &["", "PUTs/s", "p50", "p99"]);
    for (title, one) in [("the load alone", without), ("with all of it", with)] {
        let cells = [
            thousands(one.rate),
            milliseconds(one.p50),
            milliseconds(one.p99),
        ];
        table.row(std::iter::once(title.to_owned()).chain(cells).collect());
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
        let reads = kind == Kind::Page;
        Job {
            addresses: vec![address.to_owned()],
            token: if reads {
                self.reader.clone()
            } else {
                self.secrets.token.clone()
            },
            kind,
            secrets: self.secrets.ids.clone(),
            clients: if reads { 1 } else { CLIENTS },
            warm_up: std::time::Duration::ZERO,
            seconds: self.options.seconds(),
            each: None,
        }
    }
}
