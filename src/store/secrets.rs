//! Reads of secrets. The owner stands in each statement's WHERE: another owner's secret is absent.

use sea_orm::{DatabaseConnection, DbBackend, FromQueryResult, Statement, Value};

use super::{
    StoreError,
    rows::{MaskRow, SECRET_COLUMNS, SecretRow},
};
use crate::domain::{Owner, SealedMask, Secret, SecretId, SecretName};

#[derive(Debug, FromQueryResult)]
struct MaskedRow {
    #[sea_orm(nested)]
    secret: SecretRow,
    #[sea_orm(nested)]
    mask: MaskRow,
}

#[derive(Debug, FromQueryResult)]
struct NameRow {
    name: String,
}

fn select(condition: &str) -> String {
    format!(
        "SELECT {SECRET_COLUMNS}, v.kek_id, v.wrapped_key, v.sealed_mask FROM secrets s \
         JOIN secret_versions v ON v.secret_id = s.id AND v.version = s.version \
         WHERE s.owner = $1{condition}"
    )
}

fn statement<const N: usize>(
    db: &DatabaseConnection,
    sql: impl Into<String>,
    values: [Value; N],
) -> Statement {
    let backend: DbBackend = db.get_database_backend();
    Statement::from_sql_and_values(backend, sql, values)
}

fn masked(row: MaskedRow) -> Result<(Secret, SealedMask), StoreError> {
    Ok((row.secret.try_into()?, row.mask.try_into()?))
}

pub(super) async fn list(
    db: &DatabaseConnection,
    owner: &Owner,
) -> Result<Vec<(Secret, SealedMask)>, StoreError> {
    let sql = select(" ORDER BY s.created_at, s.id");
    let statement = statement(db, sql, [owner.as_str().into()]);
    let rows = MaskedRow::find_by_statement(statement).all(db).await?;
    rows.into_iter().map(masked).collect()
}

pub(super) async fn get(
    db: &DatabaseConnection,
    owner: &Owner,
    id: SecretId,
) -> Result<Option<(Secret, SealedMask)>, StoreError> {
    let statement = statement(
        db,
        select(" AND s.id = $2"),
        [owner.as_str().into(), id.get().into()],
    );
    let row = MaskedRow::find_by_statement(statement).one(db).await?;
    row.map(masked).transpose()
}

pub(super) async fn names(
    db: &DatabaseConnection,
    owner: &Owner,
) -> Result<Vec<SecretName>, StoreError> {
    let sql = "SELECT name FROM secrets WHERE owner = $1";
    let statement = statement(db, sql, [owner.as_str().into()]);
    let rows = NameRow::find_by_statement(statement).all(db).await?;
    rows.into_iter()
        .map(|row| SecretName::parse(&row.name).or(Err(StoreError::Corrupt("secrets"))))
        .collect()
}

pub(super) async fn exists(
    db: &DatabaseConnection,
    owner: &Owner,
    id: SecretId,
) -> Result<bool, StoreError> {
    let sql = "SELECT name FROM secrets WHERE owner = $1 AND id = $2";
    let statement = statement(db, sql, [owner.as_str().into(), id.get().into()]);
    Ok(NameRow::find_by_statement(statement)
        .one(db)
        .await?
        .is_some())
}
