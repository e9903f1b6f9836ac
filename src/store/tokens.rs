//! The rows of API tokens.

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, DatabaseConnection, EntityTrait,
    IntoActiveModel, QueryFilter, QueryOrder,
};

use super::{StoreError, entity::api_tokens};
use crate::domain::{Owner, Timestamp};

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenKind {
    /// An owner's.
    Owner(Owner),
    /// A service's, which acts for owners.
    Service {
        /// The service's name.
        name: String,
        /// The owners it acts for; `*` alone is all.
        acts_for: Vec<String>,
    },
}

/// A row of `api_tokens`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredToken {
    /// The token's public ID.
    pub id: String,
    /// BLAKE2b-256 of the whole token.
    pub digest: Vec<u8>,
    /// Whose it is.
    pub kind: TokenKind,
    /// The scopes' names.
    pub scopes: Vec<String>,
    /// A label, to recognise the token later; may be empty.
    pub label: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ends, if it does by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// Owners can't be separated by spaces (they may hold some), but no owner holds a control character.
const SEPARATOR: &str = "\n";

fn split(text: &str, separator: &str) -> Vec<String> {
    text.split(separator)
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
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
            scopes,
            label,
            created_at,
            expires_at,
            revoked_at,
        } = row;
        let corrupt = StoreError::Corrupt("api_tokens");
        let kind = match kind.as_str() {
            "owner" => TokenKind::Owner(Owner::parse(&name).or(Err(corrupt))?),
            "service" => TokenKind::Service {
                name,
                acts_for: split(&acts_for, SEPARATOR),
            },
            _ => return Err(corrupt),
        };
        Ok(Self {
            id,
            digest,
            kind,
            scopes: split(&scopes, " "),
            label,
            created_at: Timestamp::from_micros(created_at),
            expires_at: expires_at.map(Timestamp::from_micros),
            revoked_at: revoked_at.map(Timestamp::from_micros),
        })
    }
}

pub(super) async fn find(
    db: &DatabaseConnection,
    id: &str,
) -> Result<Option<StoredToken>, StoreError> {
    let row = api_tokens::Entity::find_by_id(id).one(db).await?;
    row.map(StoredToken::try_from).transpose()
}

pub(super) async fn all(db: &DatabaseConnection) -> Result<Vec<StoredToken>, StoreError> {
    let rows = api_tokens::Entity::find()
        .order_by_asc(api_tokens::Column::CreatedAt)
        .order_by_asc(api_tokens::Column::Id)
        .all(db)
        .await?;
    rows.into_iter().map(StoredToken::try_from).collect()
}

pub(super) async fn insert(
    db: &impl sea_orm::ConnectionTrait,
    token: StoredToken,
) -> Result<(), StoreError> {
    let (kind, name, acts_for) = match token.kind {
        TokenKind::Owner(owner) => ("owner", owner.as_str().to_owned(), String::new()),
        TokenKind::Service { name, acts_for } => ("service", name, acts_for.join(SEPARATOR)),
    };
    let row = api_tokens::Model {
        id: token.id,
        digest: token.digest,
        kind: kind.to_owned(),
        name,
        acts_for,
        scopes: token.scopes.join(" "),
        label: token.label,
        created_at: token.created_at.micros(),
        expires_at: token.expires_at.map(Timestamp::micros),
        revoked_at: token.revoked_at.map(Timestamp::micros),
    };
    api_tokens::Entity::insert(row.into_active_model())
        .exec_without_returning(db)
        .await?;
    Ok(())
}

/// Revokes a token and returns it; none when no active token has this ID.
pub(super) async fn revoke(
    db: &impl sea_orm::ConnectionTrait,
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
