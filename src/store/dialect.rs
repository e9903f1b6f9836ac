//! Where the two databases differ: how many rows travel in one statement, and the clock.

use sea_orm::{DbBackend, Statement, Value, sea_query::ArrayType};

/// The type of a column of [`Rows`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Uuid,
    Text,
    Number,
    Bytes,
}

impl Kind {
    const fn postgres(self) -> &'static str {
        match self {
            Self::Uuid => "uuid[]",
            Self::Text => "text[]",
            Self::Number => "bigint[]",
            Self::Bytes => "bytea[]",
        }
    }

    const fn array(self) -> ArrayType {
        match self {
            Self::Uuid => ArrayType::Uuid,
            Self::Text => ArrayType::String,
            Self::Number => ArrayType::BigInt,
            Self::Bytes => ArrayType::Bytes,
        }
    }
}

/// Rows that a statement reads as the relation `r`. No value is NULL (arrays can't hold one): SQL turns
/// an agreed value into NULL where it must.
#[derive(Debug)]
pub(super) struct Rows {
    columns: &'static [(&'static str, Kind)],
    rows: Vec<Vec<Value>>,
}

/// SQLite's largest statement, in rows. Statements come in powers of two, so that there are few texts.
const SQLITE_ROWS: usize = 128;

impl Rows {
    pub(super) fn new(columns: &'static [(&'static str, Kind)]) -> Self {
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row: one value for each column, in their order.
    pub(super) fn push(&mut self, row: impl Into<Vec<Value>>) {
        let row = row.into();
        debug_assert_eq!(row.len(), self.columns.len());
        self.rows.push(row);
    }

    /// The statements that run `sql` over all rows, where `{rows}` in `sql` stands for the relation.
    /// On PostgreSQL that is one statement of fixed text (`unnest`); on SQLite a few, whose row counts
    /// are powers of two. None at all without rows.
    pub(super) fn statements(self, backend: DbBackend, sql: &str) -> Vec<Statement> {
        if self.rows.is_empty() {
            Vec::new()
        } else if backend == DbBackend::Postgres {
            vec![self.unnest(sql)]
        } else {
            self.values(backend, sql)
        }
    }

    fn unnest(self, sql: &str) -> Statement {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        let arrays: Vec<String> = self
            .columns
            .iter()
            .zip(1..)
            .map(|((_, kind), n)| format!("${n}::{}", kind.postgres()))
            .collect();
        let relation = format!("unnest({}) AS r({})", arrays.join(", "), names.join(", "));
        let mut columns: Vec<Vec<Value>> = self.columns.iter().map(|_| Vec::new()).collect();
        for row in self.rows {
            for (column, value) in columns.iter_mut().zip(row) {
                column.push(value);
            }
        }
        let values = columns
            .into_iter()
            .zip(self.columns)
            .map(|(column, (_, kind))| Value::Array(kind.array(), Some(Box::new(column))));
        Statement::from_sql_and_values(
            DbBackend::Postgres,
            sql.replace("{rows}", &relation),
            values,
        )
    }

    fn values(self, backend: DbBackend, sql: &str) -> Vec<Statement> {
        let names: Vec<String> = self
            .columns
            .iter()
            .zip(1..)
            .map(|((name, _), n)| format!("column{n} AS {name}"))
            .collect();
        let row = format!("({})", vec!["?"; self.columns.len()].join(", "));
        let mut statements = Vec::new();
        let mut rows = self.rows.into_iter();
        while rows.len() > 0 {
            // The largest power of two that the rest fills: at least 1.
            let count = (rows.len().next_power_of_two()
                >> usize::from(!rows.len().is_power_of_two()))
            .min(SQLITE_ROWS);
            let relation = format!(
                "(SELECT {} FROM (VALUES {})) AS r",
                names.join(", "),
                vec![row.as_str(); count].join(", ")
            );
            statements.push(Statement::from_sql_and_values(
                backend,
                sql.replace("{rows}", &relation),
                rows.by_ref().take(count).flatten().collect::<Vec<_>>(),
            ));
        }
        statements
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

    fn rows(count: i64) -> Rows {
        let mut rows = Rows::new(&[("id", Kind::Number), ("name", Kind::Text)]);
        for n in 0..count {
            rows.push([n.into(), n.to_string().into()]);
        }
        rows
    }

    #[test]
    fn postgres_takes_any_number_of_rows_in_one_fixed_text() {
        let sql = "SELECT * FROM {rows}";
        let one = rows(1).statements(DbBackend::Postgres, sql);
        let many = rows(300).statements(DbBackend::Postgres, sql);
        assert_eq!(
            one[0].sql,
            "SELECT * FROM unnest($1::bigint[], $2::text[]) AS r(id, name)"
        );
        assert_eq!((many.len(), &many[0].sql), (1, &one[0].sql));
    }

    #[test]
    fn sqlite_takes_powers_of_two() {
        let statements = rows(300).statements(DbBackend::Sqlite, "SELECT * FROM {rows}");
        let counts: Vec<usize> = statements
            .iter()
            .map(|s| s.values.as_ref().unwrap().0.len() / 2)
            .collect();
        assert_eq!(counts, [128, 128, 32, 8, 4]);
        assert_eq!(
            rows(1).statements(DbBackend::Sqlite, "SELECT * FROM {rows}")[0].sql,
            "SELECT * FROM (SELECT column1 AS id, column2 AS name FROM (VALUES (?, ?))) AS r"
        );
        assert!(rows(0).statements(DbBackend::Sqlite, "").is_empty());
    }
}
