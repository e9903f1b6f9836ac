//! `audit_epochs`: the raised epochs that the operator has accepted. `audit_waiting`: events that claim an epoch or
//! a position which no checkpoint has reached yet.

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
                r"CREATE TABLE audit_epochs (
    log TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    label TEXT NOT NULL,
    accepted_at BIGINT NOT NULL,
    PRIMARY KEY (log, epoch)
)",
                r"CREATE TABLE audit_waiting (
    log TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    position BIGINT NOT NULL,
    hash BYTES NOT NULL,
    body BYTES NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (log, epoch, position, hash)
)",
                r"CREATE INDEX audit_events_version ON audit_events (secret_id, version) WHERE sequence IS NOT NULL",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            &[
                "DROP INDEX audit_events_version",
                "DROP TABLE audit_waiting",
                "DROP TABLE audit_epochs",
            ],
        )
        .await
    }
}
