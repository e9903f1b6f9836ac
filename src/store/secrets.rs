//! Reads of secrets. The owner is in each statement's WHERE: another owner's secret is absent. Before a value is
//! handed out, its row is compared with the secret's last event.

use chrono::Utc;
use sea_orm::{ConnectionTrait, FromQueryResult, Value, prelude::Uuid};
use serde::Deserialize;

use super::{
    StoreError,
    chain::Head,
    log,
    rows::{MaskRow, SECRET_COLUMNS, SecretRow, corrupt, statement},
};
use crate::domain::{
    Cursor, EventKind, Log, Owner, Provider, SealedMask, SealedVersion, Secret, SecretId,
    SecretName, Timestamp,
};

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

impl Selection {
    /// How many secrets it names.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Names(names) => names.len(),
            Self::Ids(ids) => ids.len(),
        }
    }
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
    /// No value may leave.
    pub locked_down: bool,
}

#[derive(Debug, FromQueryResult)]
struct SealedRow {
    #[sea_orm(nested)]
    secret: SecretRow,
    #[sea_orm(nested)]
    mask: MaskRow,
    sealed_value: Vec<u8>,
    last_event: Option<Vec<u8>>,
}

/// What the last event of a secret says of it.
#[derive(Deserialize)]
struct LastEvent {
    r#type: String,
    secret_id: Uuid,
    owner: String,
    name: String,
    provider: Option<String>,
    version: u64,
    version_id: Uuid,
    sequence: u64,
    occurred_at: String,
    expires_at: Option<String>,
}

impl LastEvent {
    /// Whether the secret's row is as this event left it.
    fn agrees(&self, secret: &Secret) -> bool {
        let Self {
            r#type,
            secret_id,
            owner,
            name,
            provider,
            version,
            version_id,
            sequence,
            occurred_at,
            expires_at,
        } = self;
        let told = [EventKind::Expiring, EventKind::Expired].map(|kind| kind.as_str() == r#type);
        let [expiring, expired] = told;
        let flags = secret
            .expiry
            .map(|expiry| (expiry.expiring_at, expiry.expired_at));
        let flags = flags.map_or((false, false), |(one, other)| {
            (one.is_some(), other.is_some())
        });
        r#type != EventKind::Deleted.as_str()
            && *secret_id == secret.id.get()
            && owner == secret.owner.as_str()
            && name == secret.name.as_str()
            && provider.as_deref() == secret.provider.as_ref().map(Provider::as_str)
            && *version == secret.version
            && *version_id == secret.version_id.get()
            && *sequence == secret.sequence
            && *occurred_at == secret.updated_at.to_string()
            && *expires_at == secret.expires_at().map(|at| at.to_string())
            // What tells of an expiry is the secret's last event until the expiry changes.
            && flags == (expiring || expired, expired)
    }
}

/// The body of the last event of a secret `s`.
pub(super) const LAST_EVENT: &str = "(SELECT e.body FROM events e WHERE e.secret_id = s.id \
     AND e.sequence IS NOT NULL AND e.log = 'changes' ORDER BY e.sequence DESC LIMIT 1) AS last_event";

/// Refuses a secret whose row is not as its last event says. Where retention has cut the log, that event may be gone.
///
/// # Errors
/// [`StoreError::Disagrees`], which is counted.
pub(super) fn check(
    secret: &Secret,
    last_event: Option<&[u8]>,
    head: &Head,
) -> Result<(), StoreError> {
    let good = match last_event {
        None => head.cut.position > 0,
        Some(body) => {
            serde_json::from_slice(body).is_ok_and(|event: LastEvent| event.agrees(secret))
        }
    };
    if good {
        return Ok(());
    }
    metrics::counter!("rekey_disagreeing_secrets_total").increment(1);
    Err(StoreError::Disagrees(secret.id))
}

impl SealedRow {
    /// The secret, if its row is as its last event says.
    fn checked(mut self, head: &Head) -> Result<SealedSecret, StoreError> {
        let last_event = self.last_event.take();
        let found = SealedSecret::try_from(self)?;
        check(&found.secret, last_event.as_deref(), head)?;
        Ok(found)
    }
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
/// head, and a change set is seen whole or not at all. The statement reads each secret's last event, too.
pub(super) async fn resolve(
    db: &impl ConnectionTrait,
    owner: &Owner,
    selection: &Selection,
) -> Result<Resolution, StoreError> {
    let head = log::head(db, Log::Changes).await?;
    let (column, values): (_, Vec<Value>) = match selection {
        Selection::Names(names) => ("name", names.iter().map(|n| n.as_str().into()).collect()),
        Selection::Ids(ids) => ("id", ids.iter().map(|id| id.get().into()).collect()),
    };
    let places: Vec<String> = (2..values.len() + 2).map(|n| format!("${n}")).collect();
    let sql = format!(
        "SELECT {SECRET_COLUMNS}, v.kek_id, v.wrapped_key, v.sealed_mask, v.sealed_value, \
         {LAST_EVENT} \
         FROM secrets s JOIN secret_versions v ON v.secret_id = s.id AND v.version = s.version \
         WHERE s.owner = $1 AND s.{column} IN ({})",
        places.join(", ")
    );
    let values = std::iter::once(owner.as_str().into()).chain(values);
    let statement = statement(db, sql, values);
    let rows = SealedRow::find_by_statement(statement).all(db).await?;
    let mut found = rows
        .into_iter()
        .map(|row| row.checked(&head))
        .collect::<Result<Vec<_>, _>>()?;
    // An expired secret is absent.
    let now = Timestamp::from(Utc::now());
    found.retain(|one| !one.secret.has_expired(now));
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
    Ok(Resolution {
        head: head.cursor(),
        secrets,
        locked_down: head.locked_down,
    })
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
