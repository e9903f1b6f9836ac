//! `log_head`: the row that a commit locks, and what retention cut. A commit never updates it.

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
            r"CREATE TABLE log_head (
    log TEXT NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL,
    primary_kek_id TEXT,
    cut_epoch BIGINT NOT NULL,
    cut_position BIGINT NOT NULL,
    cut_hash BYTES NOT NULL
)",
            r"INSERT INTO log_head (log, epoch, cut_epoch, cut_position, cut_hash) VALUES ('changes', 1, 0, 0, ZEROS), ('activity', 1, 0, 0, ZEROS)",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &["DROP TABLE log_head"]).await
    }
}
