//! The rows of key-encryption keys: IDs, states and check values, never key bytes.

use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, IntoActiveModel,
    QueryFilter, QueryOrder,
};

use super::{
    StoreError, commit,
    entity::{keys, log_head},
    rows::{corrupt, statement, unsigned},
    transaction::Transaction,
};
use crate::domain::{KeyId, KeyState, Log, Timestamp};

/// A key that versions are sealed under, or were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredKey {
    /// Its ID.
    pub id: KeyId,
    /// What it may still do.
    pub state: KeyState,
    /// Whether new versions are sealed under it.
    pub primary: bool,
    /// 32 zero bytes, sealed under it.
    pub check_value: Vec<u8>,
}

pub(super) async fn all(db: &impl ConnectionTrait) -> Result<Vec<StoredKey>, StoreError> {
    let head = log_head::Entity::find_by_id(Log::Changes.as_str())
        .one(db)
        .await?
        .ok_or(StoreError::Corrupt("log_head"))?;
    let rows = keys::Entity::find()
        .order_by_asc(keys::Column::CreatedAt)
        .all(db)
        .await?;
    rows.into_iter()
        .map(
            |keys::Model {
                 id,
                 state,
                 check_value,
                 created_at: _,
             }| {
                Ok(StoredKey {
                    primary: head.primary_kek_id.as_deref() == Some(id.as_str()),
                    id: KeyId::parse(&id).map_err(corrupt("keys"))?,
                    state: KeyState::parse(&state).map_err(corrupt("keys"))?,
                    check_value,
                })
            },
        )
        .collect()
}

/// Registers a key as the first and primary one, under the lock, unless another process was faster.
pub(super) async fn insert_first(
    transaction: &Transaction,
    id: &KeyId,
    check_value: Vec<u8>,
    now: Timestamp,
) -> Result<(), StoreError> {
    commit::lock(transaction, Log::Changes).await?;
    if keys::Entity::find().one(transaction).await?.is_some() {
        return Ok(());
    }
    let row = keys::Model {
        id: id.as_str().to_owned(),
        state: KeyState::Active.as_str().to_owned(),
        check_value,
        created_at: now.micros(),
    };
    keys::Entity::insert(row.into_active_model())
        .exec_without_returning(transaction)
        .await?;
    log_head::Entity::update_many()
        .set(log_head::ActiveModel {
            primary_kek_id: Set(Some(id.as_str().to_owned())),
            ..Default::default()
        })
        .filter(log_head::Column::Log.eq(Log::Changes.as_str()))
        .exec(transaction)
        .await?;
    Ok(())
}

/// How many versions a key still seals.
pub(super) async fn versions_under(
    db: &impl ConnectionTrait,
    id: &KeyId,
) -> Result<u64, StoreError> {
    #[derive(FromQueryResult)]
    struct CountRow {
        versions: i64,
    }
    let sql = "SELECT count(*) AS versions FROM secret_versions WHERE kek_id = $1";
    let values = [id.as_str().into()];
    let statement = statement(db, sql, values);
    let row = CountRow::find_by_statement(statement).one(db).await?;
    let CountRow { versions } = row.ok_or(StoreError::Corrupt("secret_versions"))?;
    unsigned(versions, "secret_versions")
}
