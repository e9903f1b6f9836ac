//! `api_tokens`: API tokens: only their digests.

use sea_orm_migration::prelude::*;

use crate::dialect::run;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            &[r"CREATE TABLE api_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    digest BYTES NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    acts_for TEXT NOT NULL,
    scopes TEXT NOT NULL,
    label TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT
)"],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &["DROP TABLE api_tokens"]).await
    }
}
