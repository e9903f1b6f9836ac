//! The rows of API tokens.

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel,
    QueryFilter, QueryOrder,
};

use super::{StoreError, entity::api_tokens};
use crate::domain::{ActsFor, Grant, Grantee, Owner, Scope, Timestamp};

/// A row of `api_tokens`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredToken {
    /// The token's public ID.
    pub id: String,
    /// BLAKE2b-256 of the whole token.
    pub digest: Vec<u8>,
    /// What it grants, and to whom.
    pub grant: Grant,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

const CORRUPT: StoreError = StoreError::Corrupt("api_tokens");

/// Owners can't be separated by spaces (they may hold some), but no owner holds a control character.
const SEPARATOR: &str = "\n";

fn grantee(kind: &str, name: String, acts_for: &str) -> Result<Grantee, StoreError> {
    match kind {
        // The parsers' errors say what was typed wrongly; nobody typed a row.
        "owner" => Ok(Grantee::Owner(Owner::parse(&name).or(Err(CORRUPT))?)),
        "service" => {
            let list: Vec<&str> = acts_for.split(SEPARATOR).collect();
            // As for an owner.
            let acts_for = ActsFor::parse(&list).or(Err(CORRUPT))?;
            Ok(Grantee::Service { name, acts_for })
        }
        _ => Err(CORRUPT),
    }
}

fn scopes(text: &str) -> Result<Vec<Scope>, StoreError> {
    let names = text.split(' ').filter(|name| !name.is_empty());
    // `UnknownScope` lists the names for a person who typed one; nobody typed a row.
    names.map(|name| name.parse().or(Err(CORRUPT))).collect()
}

impl TryFrom<api_tokens::Model> for StoredToken {
    type Error = StoreError;

    fn try_from(row: api_tokens::Model) -> Result<Self, StoreError> {
        let api_tokens::Model {
            id,
            digest,
            kind,
            name,
            acts_for,
            scopes: scope_names,
            label,
            created_at,
            expires_at,
            revoked_at,
        } = row;
        let grant = Grant {
            grantee: grantee(&kind, name, &acts_for)?,
            scopes: scopes(&scope_names)?,
            label,
            created_at: Timestamp::from_micros(created_at),
            expires_at: expires_at.map(Timestamp::from_micros),
        };
        Ok(Self {
            id,
            digest,
            grant,
            revoked_at: revoked_at.map(Timestamp::from_micros),
        })
    }
}

pub(super) async fn find(
    db: &impl ConnectionTrait,
    id: &str,
) -> Result<Option<StoredToken>, StoreError> {
    let row = api_tokens::Entity::find_by_id(id).one(db).await?;
    row.map(StoredToken::try_from).transpose()
}

pub(super) async fn all(db: &impl ConnectionTrait) -> Result<Vec<StoredToken>, StoreError> {
    let rows = api_tokens::Entity::find()
        .order_by_asc(api_tokens::Column::CreatedAt)
        .order_by_asc(api_tokens::Column::Id)
        .all(db)
        .await?;
    rows.into_iter().map(StoredToken::try_from).collect()
}

pub(super) async fn insert(
    db: &impl ConnectionTrait,
    token: StoredToken,
) -> Result<(), StoreError> {
    let StoredToken {
        id,
        digest,
        grant,
        revoked_at,
    } = token;
    let Grant {
        grantee,
        scopes,
        label,
        created_at,
        expires_at,
    } = grant;
    let acts_for = grantee.acts_for().map(ActsFor::to_list);
    let scopes: Vec<_> = scopes.into_iter().map(Scope::as_str).collect();
    let row = api_tokens::Model {
        id,
        digest,
        kind: grantee.kind().to_owned(),
        name: grantee.name().to_owned(),
        // An owner's token has an empty list.
        acts_for: acts_for.unwrap_or_default().join(SEPARATOR),
        scopes: scopes.join(" "),
        label,
        created_at: created_at.micros(),
        expires_at: expires_at.map(Timestamp::micros),
        revoked_at: revoked_at.map(Timestamp::micros),
    };
    api_tokens::Entity::insert(row.into_active_model())
        .exec_without_returning(db)
        .await?;
    Ok(())
}

/// Revokes a token and returns it; none when no active token has this ID.
pub(super) async fn revoke(
    db: &impl ConnectionTrait,
    id: &str,
    now: Timestamp,
) -> Result<Option<StoredToken>, StoreError> {
    let row = api_tokens::Entity::find_by_id(id)
        .filter(api_tokens::Column::RevokedAt.is_null())
        .one(db)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mut row = row.into_active_model();
    row.revoked_at = Set(Some(now.micros()));
    StoredToken::try_from(row.update(db).await?).map(Some)
}
