//! Two indexes of `events` hold only the events that have what they are for: fewer entries, and on a table whose
//! statistics are old PostgreSQL can't choose them for a look-up by position, which would read them from end to end.

use sea_orm_migration::prelude::*;

use crate::dialect::run;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            &[
                "DROP INDEX events_secret_sequence",
                "DROP INDEX events_owner_position",
                r"CREATE UNIQUE INDEX events_secret_sequence ON events (secret_id, sequence)
    WHERE sequence IS NOT NULL",
                r"CREATE INDEX events_owner_position ON events (log, owner, position)
    WHERE owner IS NOT NULL",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            &[
                "DROP INDEX events_secret_sequence",
                "DROP INDEX events_owner_position",
                r"CREATE UNIQUE INDEX events_secret_sequence ON events (secret_id, sequence)",
                r"CREATE INDEX events_owner_position ON events (log, owner, position)",
            ],
        )
        .await
    }
}
