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

mod ballast;
mod beside;
mod chart;
mod etcd;
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

use options::{Options, Part, Without};
use table::Sheet;

type Run = fn(&Options, &mut Sheet);

const PARTS: [(Part, Option<Without>, Run); 8] = [
    (Part::Points, None, points::run),
    (Part::Streams, Some(Without::Streams), streams::run),
    (Part::Latency, Some(Without::Latency), latency::run),
    (Part::Relay, Some(Without::Relay), relay::run),
    (Part::Resolve, Some(Without::Resolve), resolve::run),
    (Part::Growth, Some(Without::Growth), growth::run),
    (Part::Beside, Some(Without::Beside), beside::run),
    (Part::Replicas, Some(Without::Replicas), replicas::run),
];

fn main() {
    let options = Options::read();
    if options.part == Part::Load {
        return load::main();
    }
    let mut sheet = Sheet::default();
    machine::look(&mut sheet);
    for (part, without, run) in PARTS {
        let is_left_out = without.is_some_and(|without| !options.has(without));
        let is_wanted = match options.part {
            Part::Report => !is_left_out,
            Part::Smoke => part != Part::Growth,
            one => one == part,
        };
        if is_wanted {
            eprintln!("measuring: {part:?}");
            run(&options, &mut sheet);
        }
    }
    sheet.fact("load average at the end", machine::load());
    match options.part {
        Part::Smoke => check(&options, &sheet),
        Part::Report => {
            println!("\n{}", targets::table(&sheet, true));
            report::write(&options, &sheet);
        }
        _ => println!("\n{}", targets::table(&sheet, false)),
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
