//! What it costs to hand out a value, by how that is recorded.

use crate::{
    load::{Kind, Measured},
    options::Options,
    support::{postgres::Postgres, service::Deployment},
    table::{Sheet, Table, medians},
    world::World,
};

pub(crate) fn run(options: &Options, sheet: &mut Sheet) {
    let server = Postgres::shared();
    let records = ["commit", "async", "off"];
    let worlds = records.map(|record| {
        let deployment = Deployment::postgres(&server.database()).raised_limits();
        World::start(
            deployment.set("ACTIVITY__RECORD", record).prepare(),
            10,
            options,
        )
    });
    let clients: &[usize] = if options.is_smoke() { &[16] } else { &[1, 16] };
    let points: Vec<(usize, usize)> = (0..records.len())
        .flat_map(|record| clients.iter().map(move |clients| (record, *clients)))
        .collect();
    let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); points.len()];
    for _ in 0..options.rounds {
        for (index, (record, clients)) in points.iter().enumerate() {
            let world = &worlds[*record];
            let job = world.job(Kind::Resolve, &world.secrets.names, *clients, options);
            measured[index].push(job.run());
        }
    }
    let head = ["activity.record", "clients", "resolves/s", "p50", "p99"];
    let mut table = Table::new("Resolve on PostgreSQL, one name", "", &head);
    for ((record, clients), rounds) in points.iter().zip(&measured) {
        let one = medians(rounds);
        let record = records[*record];
        sheet.put(&format!("resolve/{record}@{clients}"), one.rate);
        table.row(one.row(&[record, &clients.to_string()]));
    }
    sheet.add(table);
}
