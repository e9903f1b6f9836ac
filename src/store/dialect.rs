//! Where the two databases differ: how many rows travel in one statement, and the clock.

use std::borrow::Cow;

use sea_orm::{
    DbBackend,
    prelude::Uuid,
    sqlx::{self, Arguments, error::BoxDynError, postgres::PgArguments, sqlite::SqliteArguments},
};

/// The values of one column, in the order of the rows. None is NULL (PostgreSQL's arrays of them would need
/// another type for each): SQL turns an agreed value into NULL where it must.
#[derive(Debug)]
enum Column<'a> {
    Uuids(Vec<Uuid>),
    Texts(Vec<Cow<'a, str>>),
    Numbers(Vec<i64>),
    Bytes(Vec<&'a [u8]>),
}

impl Column<'_> {
    const fn array(&self) -> &'static str {
        match self {
            Self::Uuids(_) => "uuid[]",
            Self::Texts(_) => "text[]",
            Self::Numbers(_) => "bigint[]",
            Self::Bytes(_) => "bytea[]",
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Uuids(values) => values.len(),
            Self::Texts(values) => values.len(),
            Self::Numbers(values) => values.len(),
            Self::Bytes(values) => values.len(),
        }
    }

    /// Binds the whole column as one array.
    fn bind_all(self, to: &mut PgArguments) -> Result<(), BoxDynError> {
        match self {
            Self::Uuids(values) => to.add(values),
            Self::Texts(values) => to.add(values),
            Self::Numbers(values) => to.add(values),
            Self::Bytes(values) => to.add(values),
        }
    }

    /// Binds the value of one row.
    fn bind_one(&self, row: usize, to: &mut SqliteArguments) -> Result<(), BoxDynError> {
        let missing = || BoxDynError::from("a column is shorter than its rows");
        match self {
            Self::Uuids(values) => to.add(values.get(row).ok_or_else(missing)?),
            Self::Texts(values) => to.add(&**values.get(row).ok_or_else(missing)?),
            Self::Numbers(values) => to.add(values.get(row).ok_or_else(missing)?),
            Self::Bytes(values) => to.add(*values.get(row).ok_or_else(missing)?),
        }
    }
}

/// Rows that a statement reads as the relation `r`, column by column. All columns have the same length.
#[derive(Debug, Default)]
pub(super) struct Rows<'a> {
    columns: Vec<(&'static str, Column<'a>)>,
}

/// SQLite's largest statement, in rows: a power of two.
const SQLITE_ROWS: usize = 128;

/// Statements that go to the database in one message.
#[derive(Debug, Clone, Default)]
pub(super) struct Script {
    pub(super) sql: String,
    /// What is bound to the parameters of all statements together, in their order (SQLite).
    pub(super) arguments: Option<SqliteArguments>,
}

impl From<String> for Script {
    fn from(sql: String) -> Self {
        let arguments = None;
        Self { sql, arguments }
    }
}

impl<'a> Rows<'a> {
    /// Adds a column of UUIDs.
    pub(super) fn uuids(self, name: &'static str, values: impl Iterator<Item = Uuid>) -> Self {
        self.with(name, Column::Uuids(values.collect()))
    }

    /// Adds a column of texts.
    pub(super) fn texts<T: Into<Cow<'a, str>>>(
        self,
        name: &'static str,
        values: impl Iterator<Item = T>,
    ) -> Self {
        self.with(name, Column::Texts(values.map(T::into).collect()))
    }

    /// Adds a column of numbers.
    pub(super) fn numbers(self, name: &'static str, values: impl Iterator<Item = i64>) -> Self {
        self.with(name, Column::Numbers(values.collect()))
    }

    /// Adds a column of bytes.
    pub(super) fn bytes(self, name: &'static str, values: impl Iterator<Item = &'a [u8]>) -> Self {
        self.with(name, Column::Bytes(values.collect()))
    }

    fn with(mut self, name: &'static str, column: Column<'a>) -> Self {
        self.columns.push((name, column));
        debug_assert_eq!(
            self.columns.first().map(|(_, first)| first.len()),
            self.columns.last().map(|(_, last)| last.len())
        );
        self
    }

    fn len(&self) -> usize {
        self.columns.first().map_or(0, |(_, column)| column.len())
    }

    /// The relation on PostgreSQL: its columns as arrays, whose parameters begin with number `first`.
    fn relation(&self, first: usize) -> String {
        let numbered = self.columns.iter().zip(first..);
        let arrays: Vec<String> = numbered
            .map(|((_, column), n)| format!("${n}::{}", column.array()))
            .collect();
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        format!("unnest({}) AS r({})", arrays.join(", "), names.join(", "))
    }

    /// Adds the statements that run `sql` over all rows on SQLite, and returns how many there are. Their row
    /// counts are powers of two, so that there are few texts: what is missing is filled with NULL, which no first
    /// column holds.
    fn sqlite(self, sql: &str, script: &mut Script) -> Result<usize, sqlx::Error> {
        let names: Vec<String> = self
            .columns
            .iter()
            .zip(1..)
            .map(|((name, _), n)| format!("column{n} AS {name}"))
            .collect();
        let row = format!("({})", vec!["?"; self.columns.len()].join(", "));
        let arguments = script.arguments.get_or_insert_default();
        let mut statements = 0;
        for first in (0..self.len()).step_by(SQLITE_ROWS) {
            let end = self.len().min(first + SQLITE_ROWS);
            let count = (end - first).next_power_of_two();
            let relation = format!(
                "(SELECT {} FROM (VALUES {}) WHERE column1 IS NOT NULL) AS r",
                names.join(", "),
                vec![row.as_str(); count].join(", ")
            );
            for row in first..first + count {
                for (_, column) in &self.columns {
                    let bound = if row < end {
                        column.bind_one(row, arguments)
                    } else {
                        arguments.add(None::<i64>)
                    };
                    bound.map_err(sqlx::Error::Encode)?;
                }
            }
            script.sql.push_str(&sql.replace("{rows}", &relation));
            script.sql.push(';');
            statements += 1;
        }
        Ok(statements)
    }
}

/// A statement over rows: `{rows}` in its text stands for the relation.
#[derive(Debug)]
pub(super) struct Bulk<'a> {
    pub(super) rows: Rows<'a>,
    pub(super) sql: &'static str,
    /// How many rows it must write, where that is known.
    pub(super) named: Option<u64>,
}

impl<'a> Bulk<'a> {
    /// A query, or a write of some rows.
    pub(super) fn of_some(rows: Rows<'a>, sql: &'static str) -> Self {
        let named = None;
        Self { rows, sql, named }
    }

    /// A write of as many rows as it is given.
    pub(super) fn of_all(rows: Rows<'a>, sql: &'static str) -> Self {
        let named = Some(rows.len() as u64);
        Self { rows, sql, named }
    }

    /// Without rows there is nothing to run.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 0
    }
}

/// One message for SQLite that runs all of these, and how many statements it has of each.
///
/// # Errors
/// When a column is shorter than the first one: a bug.
pub(super) fn sqlite_script(parts: Vec<Bulk<'_>>) -> Result<(Script, Vec<usize>), sqlx::Error> {
    let mut script = Script::default();
    let counts = parts
        .into_iter()
        .map(|Bulk { rows, sql, .. }| rows.sqlite(sql, &mut script));
    let counts = counts.collect::<Result<_, _>>()?;
    Ok((script, counts))
}

/// One statement of PostgreSQL that reads what all these queries find. They have the same columns.
///
/// # Errors
/// When a column has more bytes than PostgreSQL's protocol can say.
pub(super) fn postgres_union(queries: Vec<Bulk<'_>>) -> Result<(String, PgArguments), sqlx::Error> {
    let (texts, arguments) = postgres_parts(queries)?;
    Ok((texts.join(" UNION ALL "), arguments))
}

/// One statement of PostgreSQL that runs all these writes in their order, and says how many rows each wrote:
/// the columns of its one row.
///
/// The subqueries of a row are run one after the other, and each runs its write to the end. Were that ever to
/// change, a name that is given away and taken in one batch would be refused, and the batch be redone one by
/// one.
///
/// # Errors
/// As [`postgres_union`].
pub(super) fn postgres_writes(writes: Vec<Bulk<'_>>) -> Result<(String, PgArguments), sqlx::Error> {
    let (texts, arguments) = postgres_parts(writes)?;
    let numbered = || texts.iter().zip(1..);
    let writes: Vec<String> = numbered()
        .map(|(text, n)| format!("w{n} AS ({text} RETURNING 1)"))
        .collect();
    let counts: Vec<String> = numbered()
        .map(|(_, n)| format!("(SELECT count(*) FROM w{n})"))
        .collect();
    let sql = format!("WITH {} SELECT {}", writes.join(", "), counts.join(", "));
    Ok((sql, arguments))
}

fn postgres_parts(parts: Vec<Bulk<'_>>) -> Result<(Vec<String>, PgArguments), sqlx::Error> {
    let (mut texts, mut arguments) = (Vec::new(), PgArguments::default());
    for Bulk { rows, sql, .. } in parts {
        texts.push(sql.replace("{rows}", &rows.relation(arguments.len() + 1)));
        for (_, column) in rows.columns {
            let bound = column.bind_all(&mut arguments);
            bound.map_err(sqlx::Error::Encode)?;
        }
    }
    Ok((texts, arguments))
}

/// The name of the secret that an event's row is about, out of its body.
pub(super) fn event_name(backend: DbBackend) -> &'static str {
    if backend == DbBackend::Postgres {
        "(convert_from(body, 'UTF8')::json ->> 'name')"
    } else {
        "json_extract(CAST(body AS TEXT), '$.name')"
    }
}

/// The database's clock in microseconds since 1970, as an expression.
pub(super) fn clock(backend: DbBackend) -> &'static str {
    if backend == DbBackend::Postgres {
        "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
    } else {
        "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: i64) -> Rows<'static> {
        Rows::default()
            .numbers("id", 0..count)
            .texts("name", (0..count).map(|n| n.to_string()))
    }

    fn bulk(count: i64, sql: &'static str) -> Bulk<'static> {
        Bulk::of_some(rows(count), sql)
    }

    #[test]
    fn postgres_reads_all_in_one_fixed_text() {
        let queries = |count| {
            vec![
                bulk(count, "SELECT 1 FROM {rows}"),
                bulk(1, "SELECT 2 FROM {rows}"),
            ]
        };
        let (text, arguments) = postgres_union(queries(1)).unwrap();
        assert_eq!(
            text,
            "SELECT 1 FROM unnest($1::bigint[], $2::text[]) AS r(id, name) UNION ALL \
             SELECT 2 FROM unnest($3::bigint[], $4::text[]) AS r(id, name)"
        );
        assert_eq!(arguments.len(), 4);
        assert_eq!(postgres_union(queries(300)).unwrap().0, text);
    }

    #[test]
    fn postgres_writes_all_in_one_statement_and_counts() {
        let writes = vec![bulk(2, "DELETE FROM a"), bulk(3, "INSERT INTO b")];
        assert_eq!(
            postgres_writes(writes).unwrap().0,
            "WITH w1 AS (DELETE FROM a RETURNING 1), w2 AS (INSERT INTO b RETURNING 1) \
             SELECT (SELECT count(*) FROM w1), (SELECT count(*) FROM w2)"
        );
    }

    #[test]
    fn sqlite_runs_all_in_one_message_of_few_texts() {
        let (script, counts) = sqlite_script(vec![
            bulk(300, "SELECT 1 FROM {rows}"),
            bulk(0, "SELECT 2 FROM {rows}"),
            bulk(3, "SELECT 3 FROM {rows}"),
        ])
        .unwrap();
        assert_eq!(counts, [3, 0, 1]);
        // 300 rows are 128, 128 and 44, which are filled up to 64; 3 are filled up to 4.
        assert_eq!(script.arguments.unwrap().len(), 2 * (128 + 128 + 64 + 4));
        assert!(script.sql.ends_with(
            "SELECT 3 FROM (SELECT column1 AS id, column2 AS name FROM \
             (VALUES (?, ?), (?, ?), (?, ?), (?, ?)) WHERE column1 IS NOT NULL) AS r;"
        ));
        let four = sqlite_script(vec![bulk(4, "SELECT 1 FROM {rows}")])
            .unwrap()
            .0;
        let three = sqlite_script(vec![bulk(3, "SELECT 1 FROM {rows}")])
            .unwrap()
            .0;
        assert_eq!(three.sql, four.sql);
    }
}
