//! The sweep of expiries looks every second for what is due.

use sea_orm_migration::prelude::*;

use crate::dialect::run;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = r"CREATE INDEX secrets_expires_at ON secrets (expires_at)
    WHERE expires_at IS NOT NULL AND expired_at IS NULL";
        run(manager, &[sql]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &["DROP INDEX secrets_expires_at"]).await
    }
}
