//! `api_tokens.secrets`: the names and prefixes that a token is narrowed to, separated by spaces; all secrets where it
//! is empty. An owner lists its own tokens by `name`, with
//! the time when each was last used.

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
                "ALTER TABLE api_tokens ADD COLUMN secrets TEXT NOT NULL DEFAULT ''",
                "ALTER TABLE api_tokens ADD COLUMN last_used_at BIGINT",
                "CREATE INDEX api_tokens_name ON api_tokens (name)",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            &[
                "DROP INDEX api_tokens_name",
                "ALTER TABLE api_tokens DROP COLUMN last_used_at",
                "ALTER TABLE api_tokens DROP COLUMN secrets",
            ],
        )
        .await
    }
}
