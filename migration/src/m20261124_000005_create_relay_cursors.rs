//! `relay_cursors`: how far each log was published, and which relay may publish it.

use sea_orm_migration::prelude::*;

use crate::dialect::run;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(
            manager,
            &[r"CREATE TABLE relay_cursors (
    exchange TEXT NOT NULL,
    log TEXT NOT NULL,
    position BIGINT NOT NULL,
    holder UUID,
    lease_number BIGINT NOT NULL,
    leased_until BIGINT NOT NULL,
    PRIMARY KEY (exchange, log)
)"],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &["DROP TABLE relay_cursors"]).await
    }
}
