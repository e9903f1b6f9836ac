//! `scripts/bench`: what rekey does in a second and how long things take, next to what people would build by hand.
//!
//! Each part starts private servers of its own, hands its figures and tables in, and ends by itself.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a benchmark fails by panicking, and prints figures for people"
)]
#![allow(
    unreachable_pub,
    reason = "the harness of the tests is shared with the benchmarks"
)]

#[path = "../../it/support/mod.rs"]
#[expect(dead_code, reason = "the benchmarks use a part of what the tests use")]
mod support;

mod attack;
mod ballast;
mod beside;
mod chart;
mod etcd;
mod fairness;
mod growth;
mod latency;
mod load;
mod machine;
mod options;
mod pgbench;
mod points;
mod python;
mod relay;
mod replicas;
mod report;
mod resolve;
mod sizes;
mod slow_sync;
mod streams;
mod table;
mod targets;
mod wire;
mod world;

use std::time::Instant;

use options::{Options, Part, Without};
use table::{Kept, Sheet};

/// A part, the word that leaves it out of a report, and what measures it.
type Row = (Part, Option<Without>, fn(&Options, &mut Sheet));

const PARTS: [Row; 9] = [
    (Part::Points, None, points::run),
    (Part::Streams, Some(Without::Streams), streams::run),
    (Part::Latency, Some(Without::Latency), latency::run),
    (Part::Relay, Some(Without::Relay), relay::run),
    (Part::Resolve, Some(Without::Resolve), resolve::run),
    (Part::Growth, Some(Without::Growth), growth::run),
    (Part::Beside, Some(Without::Beside), beside::run),
    (Part::Fairness, Some(Without::Fairness), fairness::run),
    (Part::Replicas, Some(Without::Replicas), replicas::run),
];

fn main() {
    let options = Options::read();
    if options.part == Part::Load {
        return load::main();
    }
    if options.part == Part::Attack {
        return attack::main();
    }
    let mut sheet = Sheet::default();
    machine::look(&mut sheet);
    let parts: Vec<_> = PARTS
        .iter()
        .filter(|part| is_wanted(part, &options))
        .collect();
    if options.is_smoke() {
        together(&parts, &options, &mut sheet);
    } else {
        measure(&parts, &options, &mut sheet);
    }
    sheet.fact("load average at the end", machine::load());
    if options.is_smoke() {
        return check(&options, &sheet);
    }
    let is_report = options.part == Part::Report;
    println!("\n{}", targets::table(&sheet, is_report));
    if is_report {
        report::write(&options, &sheet);
    }
}

fn is_wanted((part, without, _): &Row, options: &Options) -> bool {
    let is_left_out = without.is_some_and(|without| !options.has(without));
    if options.is_smoke() {
        return *part != Part::Growth;
    }
    *part == options.part || options.part == Part::Report && !is_left_out
}

fn measure(parts: &[&Row], options: &Options, sheet: &mut Sheet) {
    let mut kept = options.keep.as_deref().map(Kept::read).unwrap_or_default();
    for (part, _, run) in parts {
        let name = format!("{part:?}");
        if let Some(measured) = kept.take(&name) {
            eprintln!("{name}: kept");
            sheet.merge(measured);
            continue;
        }
        let began = Instant::now();
        eprintln!("{name} …");
        let mut own = Sheet::default();
        run(options, &mut own);
        if let Some(file) = &options.keep {
            Kept::add(file, &name, &own);
        }
        sheet.merge(own);
        eprintln!("{name}: {} s", began.elapsed().as_secs());
    }
}

/// The first part, and beside it the others two by two: a smoke run is short, and its figures mean nothing.
fn together(parts: &[&Row], options: &Options, sheet: &mut Sheet) {
    let (first, rest) = parts.split_at(1);
    let mut others: [Sheet; 4] = Default::default();
    std::thread::scope(|scope| {
        for (some, other) in rest.chunks(2).zip(&mut others) {
            scope.spawn(|| measure(some, options, other));
        }
        measure(first, options, sheet);
    });
    for other in others {
        sheet.merge(other);
    }
}

/// A smoke run fails when a figure is absent. How good it is does not count.
fn check(options: &Options, sheet: &Sheet) {
    // Growth takes long; etcd and a C compiler need not be there.
    let absent = targets::absent(options, sheet, &["growth/", "sqlite/etcd", "slow/"]);
    assert!(absent.is_empty(), "these figures are absent: {absent:?}");
    // Neither may fail at the end of a long run.
    for text in [
        report::text(&options.out, sheet),
        chart::svg(sheet, options),
    ] {
        assert!(!text.is_empty(), "a page and its chart");
    }
    println!("every figure is there");
}
