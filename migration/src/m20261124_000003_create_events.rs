//! `events`: both logs: a log is its own outbox, and its last event is its head.

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
                r"CREATE TABLE events (
    log TEXT NOT NULL,
    position BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    id UUID NOT NULL,
    type TEXT NOT NULL,
    owner TEXT,
    secret_id UUID,
    sequence BIGINT,
    version BIGINT,
    version_id UUID,
    occurred_at BIGINT NOT NULL,
    body BYTES NOT NULL,
    hash BYTES NOT NULL,
    traceparent TEXT,
    PRIMARY KEY (log, position)
)",
                r"CREATE UNIQUE INDEX events_secret_sequence ON events (secret_id, sequence)",
                r"CREATE INDEX events_owner_position ON events (log, owner, position)",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &["DROP TABLE events"]).await
    }
}
