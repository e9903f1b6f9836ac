//! `audit_marks`: up to where each log is stored without a gap.

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
                r"CREATE TABLE audit_marks (
    log TEXT NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL,
    position BIGINT NOT NULL,
    hash BYTES NOT NULL
)",
                r"INSERT INTO audit_marks (log, epoch, position, hash) VALUES ('changes', 0, 0, ZEROS), ('activity', 0, 0, ZEROS)",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &["DROP TABLE audit_marks"]).await
    }
}
