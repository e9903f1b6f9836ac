//! The rows of API tokens. Each carries a MAC over all its other columns: a row that rekey did not write is no
//! token.

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel,
    PaginatorTrait, QueryFilter, QueryOrder,
};

use super::{StoreError, entity::api_tokens};
use crate::{
    crypto::{MacKey, same_bytes},
    domain::{ActsFor, Grant, Grantee, NamedSecrets, Networks, Owner, Scope, Timestamp},
};

/// A token, as `api_tokens` keeps it.
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
    /// When it was last used, to a minute. No code covers that.
    pub last_used_at: Option<Timestamp>,
}

/// What a row of `api_tokens` turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenRow {
    /// A row that rekey wrote.
    Good(Box<StoredToken>),
    /// A row whose MAC does not hold: somebody else wrote or changed it.
    Forged,
}

/// All tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenRows {
    /// Those that rekey wrote, oldest first.
    pub good: Vec<StoredToken>,
    /// How many rows somebody else wrote or changed.
    pub forged: usize,
}

/// What became of a revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Revocation {
    /// The token is revoked.
    Done,
    /// No active token has this ID.
    NotActive,
    /// The row is not one that rekey wrote.
    Forged,
}

const CORRUPT: StoreError = StoreError::Corrupt("api_tokens");

/// Owners can't be separated by spaces (they may hold some), but no owner holds a control character.
pub(super) const SEPARATOR: &str = "\n";

/// The code of a row: over every other column but `last_used_at`, in the table's order. A time is a big-endian i64 in microseconds
/// since 1970, and an absent one is empty.
///
/// A column that the table was given later is covered where it is not empty, by two further fields: its name and what
/// it holds. So the codes of rows that were there before stay good. No two rows have the same fields: the first ten are
/// always there, and each of the others says which one it is.
fn code(row: &api_tokens::Model, key: &MacKey) -> Vec<u8> {
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
        mac: _,
        networks,
        secrets,
        last_used_at: _,
    } = row;
    let time = |time: &Option<i64>| time.map_or_else(Vec::new, |time| time.to_be_bytes().to_vec());
    let created_at = created_at.to_be_bytes();
    let (expires_at, revoked_at) = (time(expires_at), time(revoked_at));
    let mut fields: Vec<&[u8]> = vec![
        id.as_bytes(),
        digest,
        kind.as_bytes(),
        name.as_bytes(),
        acts_for.as_bytes(),
        scopes.as_bytes(),
        label.as_bytes(),
        &created_at,
        &expires_at,
        &revoked_at,
    ];
    if !networks.is_empty() {
        fields.extend([b"networks".as_slice(), networks.as_bytes()]);
    }
    if !secrets.is_empty() {
        fields.extend([b"secrets".as_slice(), secrets.as_bytes()]);
    }
    key.code(&fields).to_vec()
}

fn read(row: api_tokens::Model, key: &MacKey) -> Result<TokenRow, StoreError> {
    if same_bytes(&code(&row, key), &row.mac) {
        Ok(TokenRow::Good(Box::new(row.try_into()?)))
    } else {
        Ok(TokenRow::Forged)
    }
}

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

fn networks(text: &str) -> Result<Networks, StoreError> {
    let list = text.split(' ').filter(|network| !network.is_empty());
    // As for scopes.
    let list = list.map(|network| Networks::parse_one(network).or(Err(CORRUPT)));
    Ok(Networks::new(list.collect::<Result<_, _>>()?))
}

fn secrets(text: &str) -> Result<NamedSecrets, StoreError> {
    let list: Vec<&str> = text.split(' ').filter(|name| !name.is_empty()).collect();
    // As for scopes.
    NamedSecrets::parse(&list).or(Err(CORRUPT))
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
            mac: _,
            networks: network_list,
            secrets: secret_list,
            last_used_at,
        } = row;
        let grant = Grant {
            grantee: grantee(&kind, name, &acts_for)?,
            scopes: scopes(&scope_names)?,
            label,
            created_at: Timestamp::from_micros(created_at),
            expires_at: expires_at.map(Timestamp::from_micros),
            networks: networks(&network_list)?,
            secrets: secrets(&secret_list)?,
        };
        Ok(Self {
            id,
            digest,
            grant,
            revoked_at: revoked_at.map(Timestamp::from_micros),
            last_used_at: last_used_at.map(Timestamp::from_micros),
        })
    }
}

/// A token's row, written anew with its code.
pub(super) fn to_row(token: StoredToken, key: &MacKey) -> api_tokens::Model {
    let StoredToken {
        id,
        digest,
        grant,
        revoked_at,
        last_used_at,
    } = token;
    let Grant {
        grantee,
        scopes,
        label,
        created_at,
        expires_at,
        networks,
        secrets,
    } = grant;
    let acts_for = grantee.acts_for().map(ActsFor::to_list);
    let scopes: Vec<_> = scopes.into_iter().map(Scope::as_str).collect();
    let mut row = api_tokens::Model {
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
        mac: Vec::new(),
        networks: networks.to_list().join(" "),
        secrets: secrets.to_list().join(" "),
        last_used_at: last_used_at.map(Timestamp::micros),
    };
    row.mac = code(&row, key);
    row
}

/// An owner's tokens that are not revoked, oldest first. Rows that rekey did not write are none.
pub(super) async fn of_owner(
    db: &impl ConnectionTrait,
    owner: &Owner,
    key: &MacKey,
) -> Result<Vec<StoredToken>, StoreError> {
    let rows = api_tokens::Entity::find()
        .filter(api_tokens::Column::Name.eq(owner.as_str()))
        .filter(api_tokens::Column::Kind.eq("owner"))
        .filter(api_tokens::Column::RevokedAt.is_null())
        .order_by_asc(api_tokens::Column::CreatedAt)
        .order_by_asc(api_tokens::Column::Id)
        .all(db)
        .await?;
    let mut tokens = Vec::new();
    for row in rows {
        if let TokenRow::Good(token) = read(row, key)? {
            tokens.push(*token);
        }
    }
    Ok(tokens)
}

pub(super) async fn find(
    db: &impl ConnectionTrait,
    id: &str,
    key: &MacKey,
) -> Result<Option<TokenRow>, StoreError> {
    let row = api_tokens::Entity::find_by_id(id).one(db).await?;
    row.map(|row| read(row, key)).transpose()
}

async fn rows(db: &impl ConnectionTrait) -> Result<Vec<api_tokens::Model>, StoreError> {
    let rows = api_tokens::Entity::find()
        .order_by_asc(api_tokens::Column::CreatedAt)
        .order_by_asc(api_tokens::Column::Id)
        .all(db)
        .await?;
    Ok(rows)
}

pub(super) async fn all(db: &impl ConnectionTrait, key: &MacKey) -> Result<TokenRows, StoreError> {
    let mut found = TokenRows {
        good: Vec::new(),
        forged: 0,
    };
    for row in rows(db).await? {
        match read(row, key)? {
            TokenRow::Good(token) => found.good.push(*token),
            TokenRow::Forged => found.forged += 1,
        }
    }
    Ok(found)
}

/// How many rows there are, whoever wrote them.
pub(super) async fn count(db: &impl ConnectionTrait) -> Result<u64, StoreError> {
    Ok(api_tokens::Entity::find().count(db).await?)
}

/// Gives every row its code, and says how many there are.
pub(super) async fn give_codes(
    db: &impl ConnectionTrait,
    key: &MacKey,
) -> Result<usize, StoreError> {
    let rows = rows(db).await?;
    let count = rows.len();
    for row in rows {
        let mac = code(&row, key);
        let mut row = row.into_active_model();
        row.mac = Set(mac);
        row.update(db).await?;
    }
    Ok(count)
}

pub(super) async fn insert(
    db: &impl ConnectionTrait,
    token: StoredToken,
    key: &MacKey,
) -> Result<(), StoreError> {
    api_tokens::Entity::insert(to_row(token, key).into_active_model())
        .exec_without_returning(db)
        .await?;
    Ok(())
}

/// Whose tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Those that act for this owner alone.
    Owner(Owner),
    /// Those of the service of this name.
    Service(String),
}

/// What was revoked of somebody's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RevokedTokens {
    /// The tokens, oldest first.
    pub tokens: Vec<StoredToken>,
    /// How many rows of that name somebody else wrote or changed.
    pub forged: usize,
}

/// Revokes all of somebody's tokens that are not revoked yet, and returns them.
pub(super) async fn revoke_all(
    db: &impl ConnectionTrait,
    whose: &Whose,
    now: Timestamp,
    key: &MacKey,
) -> Result<RevokedTokens, StoreError> {
    let (kind, name) = match whose {
        Whose::Owner(owner) => ("owner", owner.as_str()),
        Whose::Service(name) => ("service", name.as_str()),
    };
    let mut revoked = RevokedTokens {
        tokens: Vec::new(),
        forged: 0,
    };
    for row in rows(db).await? {
        let id = row.id.clone();
        if row.kind != kind || row.name != name || row.revoked_at.is_some() {
            continue;
        }
        match revoke(db, &id, now, key).await? {
            (Revocation::Forged, _) => revoked.forged += 1,
            (_, token) => revoked.tokens.extend(token),
        }
    }
    Ok(revoked)
}

/// Revokes a token and returns it with what became of it.
pub(super) async fn revoke(
    db: &impl ConnectionTrait,
    id: &str,
    now: Timestamp,
    key: &MacKey,
) -> Result<(Revocation, Option<StoredToken>), StoreError> {
    let mut token = match find(db, id, key).await? {
        Some(TokenRow::Good(token)) if token.revoked_at.is_none() => *token,
        Some(TokenRow::Good(_)) | None => return Ok((Revocation::NotActive, None)),
        Some(TokenRow::Forged) => return Ok((Revocation::Forged, None)),
    };
    token.revoked_at = Some(now);
    let row = to_row(token.clone(), key);
    // Only this row as it was read: one that somebody changed meanwhile is not written over.
    let changed = api_tokens::Entity::update_many()
        .set(api_tokens::ActiveModel {
            revoked_at: Set(row.revoked_at),
            mac: Set(row.mac),
            ..Default::default()
        })
        .filter(api_tokens::Column::Id.eq(id))
        .filter(api_tokens::Column::RevokedAt.is_null())
        .exec(db)
        .await?;
    if changed.rows_affected != 1 {
        return Err(StoreError::RowCount);
    }
    Ok((Revocation::Done, Some(token)))
}
