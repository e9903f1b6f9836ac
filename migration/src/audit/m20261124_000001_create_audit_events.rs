//! `audit_events`: the events of both logs, exactly as they were received.

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
                r"CREATE TABLE audit_events (
    log TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    position BIGINT NOT NULL,
    type TEXT NOT NULL,
    owner TEXT,
    secret_id UUID,
    sequence BIGINT,
    version BIGINT,
    occurred_at BIGINT NOT NULL,
    hash BYTES NOT NULL,
    prev_hash BYTES NOT NULL,
    body BYTES NOT NULL,
    traceparent TEXT,
    PRIMARY KEY (log, epoch, position)
)",
                r"CREATE INDEX audit_events_position ON audit_events (log, position, epoch)",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &["DROP TABLE audit_events"]).await
    }
}
