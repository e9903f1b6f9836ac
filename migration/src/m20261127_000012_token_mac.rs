//! `api_tokens.mac`: a keyed digest of the rest of the row, so that nobody without the key can make or change one.
//! The rows that are there get theirs when the key is made (see `keys` in the service).

use sea_orm_migration::prelude::*;

use crate::dialect::run;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            &["ALTER TABLE api_tokens ADD COLUMN mac BYTES NOT NULL DEFAULT ZEROS"],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            &[
                "DELETE FROM service_keys WHERE name = 'token-mac'",
                "ALTER TABLE api_tokens DROP COLUMN mac",
            ],
        )
        .await
    }
}
