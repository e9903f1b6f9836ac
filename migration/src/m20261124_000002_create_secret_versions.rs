//! `secret_versions`: the last versions of each secret, sealed. No foreign key: the commit deletes them with their secret, and a check per row would cost a lock per row.

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
                r"CREATE TABLE secret_versions (
    secret_id UUID NOT NULL,
    version BIGINT NOT NULL,
    version_id UUID NOT NULL,
    kek_id TEXT NOT NULL,
    wrapped_key BYTES NOT NULL,
    sealed_value BYTES NOT NULL,
    sealed_mask BYTES NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (secret_id, version)
)",
                r"CREATE INDEX secret_versions_kek_id ON secret_versions (kek_id)",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &["DROP TABLE secret_versions"]).await
    }
}
