//! The page of a report: `docs/performance.md`, with its chart beside it.

use std::{fs, path::Path};

use chrono::Utc;

use crate::{
    chart,
    options::Options,
    table::{Sheet, Table},
    targets,
};

const HOW: &str = "\
`scripts/bench report` has written this page from one run of each part on private servers; nothing in it was edited by hand.

- **The load** is a process of its own on the same machine: clients that each keep a connection, send a request, wait for its whole answer,
  and send the next. A warm-up is not counted. An answer with another status than expected would have ended the run.
- **Contestants take turns.** A round measures all of them at all numbers of clients, one after the other; each figure is the median of the
  rounds. So a slow minute of the machine meets all of them.
- **Durable** means durable: PostgreSQL with `fsync` and `synchronous_commit`, SQLite with `synchronous=FULL`, etcd as it is by default.
- **pgbench makes the same change by hand**: one UPDATE, one DELETE of the version that is pushed out, and two INSERTs, into the same tables
  with the same indexes and rows of the same size, prepared; as a transaction of four statements, and as one statement (CTE). It seals
  nothing, hashes nothing, authenticates nobody, and its positions may have gaps. Python makes the same change on SQLite, in process.
- **The ceiling of HTTP** is a 405 to a caller with a good credential: everything that a request costs before its handler.
- **With 1 ms added**, a small library makes each sync of that PostgreSQL a millisecond longer, as on a slower disk.
";

/// Writes the page and the chart.
pub(crate) fn write(options: &Options, sheet: &Sheet) {
    let (page, chart) = (&options.out, options.out.with_extension("svg"));
    fs::write(page, text(&chart, sheet)).expect("the page can be written");
    fs::write(&chart, chart::svg(sheet, options)).expect("the chart can be written");
}

/// The page; its chart is beside it.
pub(crate) fn text(chart: &Path, sheet: &Sheet) -> String {
    let name = chart.file_name().and_then(|name| name.to_str());
    let name = name.expect("a name in UTF-8");
    let tables: Vec<String> = sheet.tables.iter().map(ToString::to_string).collect();
    format!(
        "# Performance\n\n{HOW}\n## Results\n\n{}\nA target that is missed stays in the table; [profiles](profiles.md) say where the time goes.\n\n\
         ![Changes per second by the number of clients]({name})\n\n{}\n{}",
        targets::table(sheet, true),
        tables.join("\n"),
        facts(sheet)
    )
}

fn facts(sheet: &Sheet) -> Table {
    let mut table = Table::new("The machine and the run", "", &["", ""]);
    let date = Utc::now().format("%Y-%m-%d").to_string();
    let run = [("date".to_owned(), date), ("command".to_owned(), command())];
    for (name, text) in sheet.facts.iter().chain(&run) {
        table.row(vec![name.clone(), text.clone()]);
    }
    table
}

/// The command line without what `cargo bench` adds, and without paths.
fn command() -> String {
    let mut words = vec!["`scripts/bench".to_owned()];
    let mut given = std::env::args().skip(1);
    while let Some(word) = given.next() {
        if ["--out", "--keep"].contains(&&*word) {
            given.next();
        } else if !["--bench", "--out=", "--keep="]
            .iter()
            .any(|known| word.starts_with(known))
        {
            words.push(word);
        }
    }
    words.join(" ") + "`"
}
