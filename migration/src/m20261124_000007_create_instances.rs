//! `instances`: the live replicas and the keys that they hold.

use sea_orm_migration::prelude::*;

use crate::dialect::run;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            &[r"CREATE TABLE instances (
    id UUID NOT NULL PRIMARY KEY,
    key_ids TEXT NOT NULL,
    renewed_at BIGINT NOT NULL
)"],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &["DROP TABLE instances"]).await
    }
}
