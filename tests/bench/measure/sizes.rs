//! What a row of rekey holds, read from a running service's database: the references write rows of the same size.

use serde::Serialize;

use crate::support::postgres::psql;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sizes {
    pub(crate) kek_id: String,
    pub(crate) created_by: String,
    pub(crate) wrapped_key: usize,
    pub(crate) sealed_value: usize,
    pub(crate) sealed_mask: usize,
    pub(crate) body: usize,
}

impl Sizes {
    /// Of the newest change in the database of a service.
    pub(crate) fn of(url: &str) -> Self {
        let sql = "SELECT kek_id, created_by, octet_length(wrapped_key), octet_length(sealed_value), \
                   octet_length(sealed_mask), octet_length(body) FROM events e \
                   JOIN secret_versions v ON v.secret_id = e.secret_id AND v.version = e.version \
                   WHERE log = 'changes' ORDER BY position DESC LIMIT 1";
        let row = psql(url, sql);
        let cells: Vec<&str> = row.split('|').collect();
        let size = |column: usize| cells[column].parse().expect("a size");
        Self {
            kek_id: cells[0].to_owned(),
            created_by: cells[1].to_owned(),
            wrapped_key: size(2),
            sealed_value: size(3),
            sealed_mask: size(4),
            body: size(5),
        }
    }

    /// The columns of a version after its IDs, as SQL.
    pub(crate) fn version_columns(&self) -> String {
        format!(
            "gen_random_uuid(), '{}', {}, {}, {}, '{}', 1",
            self.kek_id,
            bytes(self.wrapped_key),
            bytes(self.sealed_value),
            bytes(self.sealed_mask),
            self.created_by
        )
    }
}

/// So many bytes, as SQL.
pub(crate) fn bytes(count: usize) -> String {
    format!("'\\x{}'::bytea", "78".repeat(count))
}
