//! What several queries share: their statements, their rows, and how rows become domain types.

use sea_orm::{ConnectionTrait, FromQueryResult, Statement, Value, prelude::Uuid};

use super::{StoreError, expiry};
use crate::domain::{
    KeyId, Owner, Provider, SealedMask, Secret, SecretId, SecretName, Timestamp, VersionId,
};

/// A statement for the connection's database, with a value for each `$n`.
pub(super) fn statement(
    db: &impl ConnectionTrait,
    sql: impl Into<String>,
    values: impl IntoIterator<Item = Value>,
) -> Statement {
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}

/// The columns that [`SecretRow`] reads, from `secrets s` joined with the present version `v`.
pub(super) const SECRET_COLUMNS: &str = "s.id, s.owner, s.name, s.provider, s.version, v.version_id, s.sequence, s.created_at, s.updated_at, s.expires_at, s.expiring_at, s.expired_at";

/// A secret with the ID of its present version.
#[derive(Debug, FromQueryResult)]
pub(super) struct SecretRow {
    pub(super) id: Uuid,
    pub(super) owner: String,
    pub(super) name: String,
    pub(super) provider: Option<String>,
    pub(super) version: i64,
    pub(super) version_id: Uuid,
    pub(super) sequence: i64,
    pub(super) created_at: i64,
    pub(super) updated_at: i64,
    pub(super) expires_at: Option<i64>,
    pub(super) expiring_at: Option<i64>,
    pub(super) expired_at: Option<i64>,
}

impl TryFrom<SecretRow> for Secret {
    type Error = StoreError;

    fn try_from(row: SecretRow) -> Result<Self, StoreError> {
        // Every column by name: a new one does not compile until someone decides.
        let SecretRow {
            id,
            owner,
            name,
            provider,
            version,
            version_id,
            sequence,
            created_at,
            updated_at,
            expires_at,
            expiring_at,
            expired_at,
        } = row;
        Ok(Self {
            id: SecretId::new(id),
            owner: Owner::parse(&owner).map_err(corrupt("secrets"))?,
            name: SecretName::parse(&name).map_err(corrupt("secrets"))?,
            provider: provider
                .as_deref()
                .map(Provider::parse)
                .transpose()
                .map_err(corrupt("secrets"))?,
            version: unsigned(version, "secrets")?,
            version_id: VersionId::new(version_id),
            sequence: unsigned(sequence, "secrets")?,
            created_at: Timestamp::from_micros(created_at),
            updated_at: Timestamp::from_micros(updated_at),
            expiry: expiry::read(expires_at, [expiring_at, expired_at]),
        })
    }
}

/// The parts of a version that its mask is opened with.
#[derive(Debug, FromQueryResult)]
pub(super) struct MaskRow {
    version_id: Uuid,
    kek_id: String,
    wrapped_key: Vec<u8>,
    sealed_mask: Vec<u8>,
}

impl TryFrom<MaskRow> for SealedMask {
    type Error = StoreError;

    fn try_from(row: MaskRow) -> Result<Self, StoreError> {
        let MaskRow {
            version_id,
            kek_id,
            wrapped_key,
            sealed_mask,
        } = row;
        Ok(Self {
            version_id: VersionId::new(version_id),
            kek_id: KeyId::parse(&kek_id).map_err(corrupt("secret_versions"))?,
            wrapped_key,
            sealed_mask,
        })
    }
}

/// The error for a row of a table that can't be read: rekey never wrote it.
pub(super) fn corrupt<E>(table: &'static str) -> impl Fn(E) -> StoreError {
    move |_malformed| StoreError::Corrupt(table)
}

/// A number that rekey only ever writes as a non-negative one.
pub(super) fn unsigned(number: i64, table: &'static str) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(corrupt(table))
}

/// A number as the databases hold it.
pub(super) fn signed(number: u64) -> i64 {
    #[expect(
        clippy::expect_used,
        reason = "versions, sequences and positions count single commits, and parsed cursors hold at most 2^63 - 1"
    )]
    i64::try_from(number).expect("a number below 2^63")
}
