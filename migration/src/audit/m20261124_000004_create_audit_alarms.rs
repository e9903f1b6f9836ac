//! `audit_alarms`: events that contradict a stored event.

use sea_orm_migration::prelude::*;

use crate::dialect::run;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            &[r"CREATE TABLE audit_alarms (
    log TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    position BIGINT NOT NULL,
    hash BYTES NOT NULL,
    body BYTES NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (log, epoch, position, hash)
)"],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &["DROP TABLE audit_alarms"]).await
    }
}
