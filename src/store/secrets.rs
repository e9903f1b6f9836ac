//! Reads of secrets. The owner is in each statement's WHERE: another owner's secret is absent.

use sea_orm::{ConnectionTrait, FromQueryResult, Value};

use super::{
    StoreError, log,
    rows::{MaskRow, SECRET_COLUMNS, SecretRow, corrupt, statement},
};
use crate::domain::{Cursor, Log, Owner, SealedMask, SealedVersion, Secret, SecretId, SecretName};

#[derive(Debug, FromQueryResult)]
struct MaskedRow {
    #[sea_orm(nested)]
    secret: SecretRow,
    #[sea_orm(nested)]
    mask: MaskRow,
}

#[derive(Debug, FromQueryResult)]
struct SecretNameRow {
    name: String,
}

fn select(condition: &str) -> String {
    format!(
        "SELECT {SECRET_COLUMNS}, v.kek_id, v.wrapped_key, v.sealed_mask FROM secrets s \
         JOIN secret_versions v ON v.secret_id = s.id AND v.version = s.version \
         WHERE s.owner = $1{condition}"
    )
}

fn masked(row: MaskedRow) -> Result<(Secret, SealedMask), StoreError> {
    Ok((row.secret.try_into()?, row.mask.try_into()?))
}

pub(super) async fn list(
    db: &impl ConnectionTrait,
    owner: &Owner,
) -> Result<Vec<(Secret, SealedMask)>, StoreError> {
    let sql = select(" ORDER BY s.created_at, s.id");
    let statement = statement(db, sql, [owner.as_str().into()]);
    let rows = MaskedRow::find_by_statement(statement).all(db).await?;
    rows.into_iter().map(masked).collect()
}

pub(super) async fn get(
    db: &impl ConnectionTrait,
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
    db: &impl ConnectionTrait,
    owner: &Owner,
) -> Result<Vec<SecretName>, StoreError> {
    let sql = "SELECT name FROM secrets WHERE owner = $1";
    let statement = statement(db, sql, [owner.as_str().into()]);
    let rows = SecretNameRow::find_by_statement(statement).all(db).await?;
    rows.into_iter()
        .map(|row| SecretName::parse(&row.name).map_err(corrupt("secrets")))
        .collect()
}

/// Which of an owner's secrets a caller asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// Those with these names.
    Names(Vec<SecretName>),
    /// Those with these IDs.
    Ids(Vec<SecretId>),
}

/// A secret with its sealed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SealedSecret {
    /// The secret.
    pub secret: Secret,
    /// Its current version.
    pub sealed: SealedVersion,
}

/// What a caller asked for, and the cursor after which the log has all later changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolution {
    /// The head of `changes`, read before the secrets.
    pub head: Cursor,
    /// All of them, in the order asked; none when one is absent.
    pub secrets: Option<Vec<SealedSecret>>,
}

#[derive(Debug, FromQueryResult)]
struct SealedRow {
    #[sea_orm(nested)]
    secret: SecretRow,
    #[sea_orm(nested)]
    mask: MaskRow,
    sealed_value: Vec<u8>,
}

impl TryFrom<SealedRow> for SealedSecret {
    type Error = StoreError;

    fn try_from(row: SealedRow) -> Result<Self, StoreError> {
        let mask = SealedMask::try_from(row.mask)?;
        Ok(Self {
            secret: row.secret.try_into()?,
            sealed: SealedVersion {
                version_id: mask.version_id,
                kek_id: mask.kek_id,
                wrapped_key: mask.wrapped_key,
                sealed_value: row.sealed_value,
                sealed_mask: mask.sealed_mask,
            },
        })
    }
}

/// Reads the head, then all secrets in one statement: a change that the statement misses comes after the
/// head, and a change set is seen whole or not at all.
pub(super) async fn resolve(
    db: &impl ConnectionTrait,
    owner: &Owner,
    selection: &Selection,
) -> Result<Resolution, StoreError> {
    let head = log::head(db, Log::Changes).await?.cursor();
    let (column, values): (_, Vec<Value>) = match selection {
        Selection::Names(names) => ("name", names.iter().map(|n| n.as_str().into()).collect()),
        Selection::Ids(ids) => ("id", ids.iter().map(|id| id.get().into()).collect()),
    };
    let places: Vec<String> = (2..values.len() + 2).map(|n| format!("${n}")).collect();
    let sql = format!(
        "SELECT {SECRET_COLUMNS}, v.kek_id, v.wrapped_key, v.sealed_mask, v.sealed_value \
         FROM secrets s JOIN secret_versions v ON v.secret_id = s.id AND v.version = s.version \
         WHERE s.owner = $1 AND s.{column} IN ({})",
        places.join(", ")
    );
    let values = std::iter::once(owner.as_str().into()).chain(values);
    let statement = statement(db, sql, values);
    let rows = SealedRow::find_by_statement(statement).all(db).await?;
    let mut found = rows
        .into_iter()
        .map(SealedSecret::try_from)
        .collect::<Result<Vec<_>, _>>()?;
    let mut take = |is: &dyn Fn(&Secret) -> bool| {
        let index = found.iter().position(|one| is(&one.secret))?;
        Some(found.swap_remove(index))
    };
    let secrets = match selection {
        Selection::Names(names) => names
            .iter()
            .map(|name| take(&|s| s.name == *name))
            .collect(),
        Selection::Ids(ids) => ids.iter().map(|id| take(&|s| s.id == *id)).collect(),
    };
    Ok(Resolution { head, secrets })
}

pub(super) async fn exists(
    db: &impl ConnectionTrait,
    owner: &Owner,
    id: SecretId,
) -> Result<bool, StoreError> {
    let sql = "SELECT name FROM secrets WHERE owner = $1 AND id = $2";
    let statement = statement(db, sql, [owner.as_str().into(), id.get().into()]);
    Ok(SecretNameRow::find_by_statement(statement)
        .one(db)
        .await?
        .is_some())
}
