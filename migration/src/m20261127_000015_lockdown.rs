//! `log_head.lockdown_since`: since when the service is locked down, in both rows; not at all where it is empty.

use sea_orm_migration::prelude::*;

use crate::dialect::run;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            &["ALTER TABLE log_head ADD COLUMN lockdown_since BIGINT"],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            &["ALTER TABLE log_head DROP COLUMN lockdown_since"],
        )
        .await
    }
}
