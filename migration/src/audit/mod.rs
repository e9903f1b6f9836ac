//! The schema of the audit consumer's own database: it has its own table of applied migrations, so
//! that it may share a database with the service and still knows nothing of it.

use sea_orm_migration::prelude::{Alias, DynIden, IntoIden, MigrationTrait, MigratorTrait};

mod m20261124_000001_create_audit_events;
mod m20261124_000002_create_audit_marks;
mod m20261124_000003_create_audit_checkpoints;
mod m20261124_000004_create_audit_alarms;
mod m20261127_000005_create_audit_epochs;

/// Every migration of the audit consumer's database, in order.
#[derive(Debug)]
pub struct AuditMigrator;

impl MigratorTrait for AuditMigrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261124_000001_create_audit_events::Migration),
            Box::new(m20261124_000002_create_audit_marks::Migration),
            Box::new(m20261124_000003_create_audit_checkpoints::Migration),
            Box::new(m20261124_000004_create_audit_alarms::Migration),
            Box::new(m20261127_000005_create_audit_epochs::Migration),
        ]
    }

    fn migration_table_name() -> DynIden {
        Alias::new("audit_migrations").into_iden()
    }
}
