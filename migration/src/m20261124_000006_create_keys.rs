//! `keys`: the key-encryption keys by ID, each with a check value; never their bytes.

use sea_orm_migration::prelude::*;

use crate::dialect::run;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            &[r"CREATE TABLE keys (
    id TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL,
    check_value BYTES NOT NULL,
    created_at BIGINT NOT NULL
)"],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &["DROP TABLE keys"]).await
    }
}
