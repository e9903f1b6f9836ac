//! `service_keys`: the service's own keys, sealed.

use sea_orm_migration::prelude::*;

use crate::dialect::run;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            &[r"CREATE TABLE service_keys (
    name TEXT NOT NULL PRIMARY KEY,
    kek_id TEXT NOT NULL,
    sealed BYTES NOT NULL,
    created_at BIGINT NOT NULL
)"],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &["DROP TABLE service_keys"]).await
    }
}
