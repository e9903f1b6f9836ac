//! What the parts hand in: figures by name, and tables for people, which are Markdown.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::load::Measured;

/// All that one run found out.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Sheet {
    figures: BTreeMap<String, f64>,
    pub(crate) tables: Vec<Table>,
    /// Versions, and what else stands beside the tables.
    pub(crate) facts: Vec<(String, String)>,
}

impl Sheet {
    pub(crate) fn put(&mut self, name: &str, figure: f64) {
        assert!(figure.is_finite() && figure >= 0.0, "{name} is {figure}");
        self.figures.insert(name.to_owned(), figure);
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.figures.get(name).copied()
    }

    /// Prints a table and keeps it.
    pub(crate) fn add(&mut self, table: Table) {
        println!("\n{table}");
        self.tables.push(table);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.figures.extend(other.figures);
        self.tables.extend(other.tables);
        for (name, text) in other.facts {
            self.fact(&name, text);
        }
    }

    pub(crate) fn fact(&mut self, name: &str, text: impl Into<String>) {
        self.facts.retain(|(known, _)| known != name);
        self.facts.push((name.to_owned(), text.into()));
    }
}

/// The parts that were measured so far, by name, in a file: a long run that is cut short loses one part.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Kept(BTreeMap<String, Sheet>);

impl Kept {
    /// What the file holds, if there is one.
    pub(crate) fn read(file: &Path) -> Self {
        let text = fs::read(file).unwrap_or_else(|_not_there| b"{}".to_vec());
        serde_json::from_slice(&text).expect("a file that this program wrote")
    }

    pub(crate) fn take(&mut self, part: &str) -> Option<Sheet> {
        self.0.remove(part)
    }

    /// Adds a part to what the file holds.
    pub(crate) fn add(file: &Path, part: &str, sheet: &Sheet) {
        let mut kept = serde_json::to_value(Self::read(file)).expect("JSON");
        kept[part] = serde_json::to_value(sheet).expect("JSON");
        fs::write(file, kept.to_string()).expect("the file can be written");
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Table {
    title: String,
    note: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: &str, note: &str, head: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            note: note.to_owned(),
            rows: vec![head.iter().map(ToString::to_string).collect()],
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.title)?;
        if !self.note.is_empty() {
            writeln!(f, "{}\n", self.note)?;
        }
        for (number, row) in self.rows.iter().enumerate() {
            for (column, cell) in row.iter().enumerate() {
                write!(f, "| {cell:<width$} ", width = self.width(column))?;
            }
            writeln!(f, "|")?;
            if number == 0 {
                for column in 0..row.len() {
                    write!(f, "| {} ", "-".repeat(self.width(column)))?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// The middle one; of an even number the lower of the two.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[(numbers.len() - 1) / 2]
}

/// The median of each figure over the rounds.
pub(crate) fn medians(rounds: &[Measured]) -> Measured {
    let of = |figure: fn(&Measured) -> f64| median(rounds.iter().map(figure).collect());
    Measured {
        rate: of(|one| one.rate),
        p50: of(|one| one.p50),
        p99: of(|one| one.p99),
        ..Measured::default()
    }
}

/// A whole number with its thousands set apart.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn milliseconds(number: f64) -> String {
    format!("{number:.2} ms")
}
