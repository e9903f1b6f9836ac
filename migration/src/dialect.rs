//! What differs between the two databases: the names of two types, and how bytes are written.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

/// Runs the statements after replacing `UUID`, `BYTES` and `ZEROS` (32 zero bytes) by what the
/// database calls them. SQLite holds UUIDs as BLOBs of 16 bytes.
pub(crate) async fn run(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    let zeros = "00".repeat(32);
    let (uuid, bytes, zeros) = if manager.get_database_backend() == DbBackend::Postgres {
        ("UUID", "BYTEA", format!("'\\x{zeros}'"))
    } else {
        ("BLOB", "BLOB", format!("x'{zeros}'"))
    };
    for statement in statements {
        let sql = statement
            .replace("UUID", uuid)
            .replace("BYTES", bytes)
            .replace("ZEROS", &zeros);
        manager.get_connection().execute_unprepared(&sql).await?;
    }
    Ok(())
}
