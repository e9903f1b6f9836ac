//! The schema of rekey's database, the same on SQLite and PostgreSQL: one change in each file, each with `down`.

pub use audit::AuditMigrator;
use sea_orm_migration::prelude::MigrationTrait;
pub use sea_orm_migration::{MigrationStatus, MigratorTrait};

mod audit;
mod dialect;
mod m20261124_000001_create_secrets;
mod m20261124_000002_create_secret_versions;
mod m20261124_000003_create_events;
mod m20261124_000004_create_log_head;
mod m20261124_000005_create_relay_cursors;
mod m20261124_000006_create_keys;
mod m20261124_000007_create_instances;
mod m20261124_000008_create_service_keys;
mod m20261124_000009_create_api_tokens;
mod m20261124_000010_create_idempotency_keys;
mod m20261126_000011_index_what_is_there;
mod m20261127_000012_token_mac;
mod m20261127_000014_token_networks;
mod m20261127_000015_lockdown;
mod m20261127_000016_token_secrets;
mod m20261127_000017_index_expiries;

/// The migration after which the database can hold key-encryption keys.
pub const KEYS: &str = "m20261124_000006_create_keys";
/// The migration after which each token's row has a MAC.
pub const TOKEN_MAC: &str = "m20261127_000012_token_mac";

/// Every migration of the service's database, in order.
#[derive(Debug)]
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261124_000001_create_secrets::Migration),
            Box::new(m20261124_000002_create_secret_versions::Migration),
            Box::new(m20261124_000003_create_events::Migration),
            Box::new(m20261124_000004_create_log_head::Migration),
            Box::new(m20261124_000005_create_relay_cursors::Migration),
            Box::new(m20261124_000006_create_keys::Migration),
            Box::new(m20261124_000007_create_instances::Migration),
            Box::new(m20261124_000008_create_service_keys::Migration),
            Box::new(m20261124_000009_create_api_tokens::Migration),
            Box::new(m20261124_000010_create_idempotency_keys::Migration),
            Box::new(m20261126_000011_index_what_is_there::Migration),
            Box::new(m20261127_000012_token_mac::Migration),
            Box::new(m20261127_000014_token_networks::Migration),
            Box::new(m20261127_000015_lockdown::Migration),
            Box::new(m20261127_000016_token_secrets::Migration),
            Box::new(m20261127_000017_index_expiries::Migration),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_migrations_are_there() {
        let files = Migrator::get_migration_files();
        let names: Vec<_> = files
            .iter()
            .map(sea_orm_migration::Migration::name)
            .collect();
        assert!(names.contains(&KEYS) && names.contains(&TOKEN_MAC));
    }
}
