//! `audit_marks`: up to where each log is stored without gaps, and after what it begins: the log's first
//! event, unless the service's retention had removed some before the consumer first ran.

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
    hash BYTES NOT NULL,
    base_epoch BIGINT NOT NULL,
    base_position BIGINT NOT NULL,
    base_hash BYTES NOT NULL
)",
                r"INSERT INTO audit_marks (log, epoch, position, hash, base_epoch, base_position, base_hash) VALUES ('changes', 0, 0, ZEROS, 0, 0, ZEROS), ('activity', 0, 0, ZEROS, 0, 0, ZEROS)",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &["DROP TABLE audit_marks"]).await
    }
}
