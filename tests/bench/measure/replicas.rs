//! One, two and four replicas on one PostgreSQL: the same clients, spread over them.

use crate::{
    load::{Kind, Measured},
    options::Options,
    support::{postgres::Postgres, service::Deployment},
    table::{Sheet, Table, medians},
    world::{World, address},
};

const CLIENTS: usize = 64;
const REPLICAS: [usize; 3] = [1, 2, 4];

pub(crate) fn run(options: &Options, sheet: &mut Sheet) {
    let server = Postgres::shared();
    let deployment = Deployment::postgres(&server.database()).raised_limits();
    let world = World::start(deployment.prepare(), options.secrets, options);
    world.fill(options);
    let mut measured: [Vec<Measured>; REPLICAS.len()] = Default::default();
    for _ in 0..options.rounds {
        for (index, count) in REPLICAS.iter().enumerate() {
            let more: Vec<_> = (1..*count).map(|_| world.deployment.serve()).collect();
            let mut job = world.job(Kind::Put, &world.secrets.ids, CLIENTS, options);
            job.addresses.extend(more.iter().map(address));
            measured[index].push(job.run());
        }
    }
    let note = format!("PUTs over many secrets by {CLIENTS} clients, spread over the replicas.");
    let head = ["replicas", "PUTs/s", "p50", "p99"];
    let mut table = Table::new("Replicas on one PostgreSQL", &note, &head);
    for (count, rounds) in REPLICAS.iter().zip(&measured) {
        let one = medians(rounds);
        sheet.put(&format!("replicas/{count}"), one.rate);
        table.row(one.row(&[&count.to_string()]));
    }
    sheet.add(table);
}
