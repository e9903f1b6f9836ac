//! The chart: changes per second by the number of clients, as an SVG of grouped bars.

use std::fmt::Write as _;

use crate::{
    options::Options,
    table::{Sheet, thousands},
};

const BARS: [(&str, &str, &str); 7] = [
    (
        "postgres/put-many",
        "rekey on PostgreSQL, many secrets",
        "#1f5fa8",
    ),
    (
        "postgres/put-one",
        "rekey on PostgreSQL, one hot secret",
        "#69a5e0",
    ),
    (
        "sqlite/put-many",
        "rekey on SQLite, many secrets",
        "#2f8f6b",
    ),
    (
        "postgres/transaction-many",
        "pgbench, transaction, many rows",
        "#c26a1b",
    ),
    (
        "postgres/cte-many",
        "pgbench, one CTE, many rows",
        "#e5a45c",
    ),
    ("postgres/cte-one", "pgbench, one CTE, one row", "#8d7b68"),
    ("sqlite/etcd", "etcd, put", "#9a4f96"),
];
const BAR: f64 = 22.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 150.0;

pub(crate) fn svg(sheet: &Sheet, options: &Options) -> String {
    let figure = |key: &str, clients: usize| sheet.get(&format!("{key}@{clients}"));
    let is_there = |key: &str| options.clients.iter().any(|n| figure(key, *n).is_some());
    let bars: Vec<_> = BARS.iter().filter(|(key, ..)| is_there(key)).collect();
    let all = options
        .clients
        .iter()
        .flat_map(|n| bars.iter().filter_map(|(key, ..)| figure(key, *n)));
    let top = all.fold(1.0, f64::max);
    let group = (bars.len() as f64 + 1.5) * BAR;
    let (width, height) = (
        LEFT + group * options.clients.len() as f64 + 20.0,
        TOP + HEIGHT + 50.0,
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222222\">\n\
         <title>Changes per second by the number of clients</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    grid(&mut svg, top, width);
    for (index, (key, title, colour)) in bars.iter().enumerate() {
        let y = 16.0 + index as f64 * 18.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>",
            y - 10.0
        );
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{y}\">{title}</text>", LEFT + 18.0);
        for (number, clients) in options.clients.iter().enumerate() {
            let Some(rate) = figure(key, *clients) else {
                continue;
            };
            let x = LEFT + group * number as f64 + BAR * (index as f64 + 0.75);
            let tall = rate / top * HEIGHT;
            let y = TOP + HEIGHT - tall;
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" fill=\"{colour}\">\
                 <title>{title}, {clients} clients: {}</title></rect>",
                BAR - 3.0,
                thousands(rate)
            );
        }
    }
    for (number, clients) in options.clients.iter().enumerate() {
        let x = LEFT + group * (number as f64 + 0.5);
        let y = TOP + HEIGHT + 20.0;
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{clients}</text>"
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{:.0}\">clients</text>\n</svg>",
        TOP + HEIGHT + 40.0
    );
    svg
}

/// The lines of the scale, with their figures.
fn grid(svg: &mut String, top: f64, width: f64) {
    let step = [500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0];
    let step = step
        .into_iter()
        .find(|step| top / step <= 8.0)
        .unwrap_or(50_000.0);
    let mut value = 0.0;
    while value <= top {
        let y = TOP + HEIGHT - value / top * HEIGHT;
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{width:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            thousands(value)
        );
        value += step;
    }
}
