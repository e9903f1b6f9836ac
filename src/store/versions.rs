//! Reads of the versions that a secret has. Each is compared with the event that made it: a row that somebody moved
//! or changed is neither shown nor restored.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, FromQueryResult, prelude::Uuid};
use serde::Deserialize;

use super::{
    StoreError,
    dialect::{Bulk, Rows},
    log,
    rows::{MaskRow, corrupt, signed, statement, unsigned},
};
use crate::domain::{
    Change, EventKind, Log, Owner, SealedMask, SealedVersion, SecretId, Timestamp, VersionId,
    VersionName,
};

/// A version that is kept, as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptVersion {
    /// Its number and its ID.
    pub name: VersionName,
    /// Its mask, sealed.
    pub mask: SealedMask,
    /// Who made it: the `actor` of its event.
    pub created_by: serde_json::Value,
    /// When it was made.
    pub created_at: Timestamp,
    /// It has the value that is handed out now.
    pub is_current: bool,
}

/// A version whose value is to be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The owner has no such secret.
    NoSecret,
    /// The secret has no such version, or not any more.
    NotKept {
        /// The secret's present version.
        current: u64,
    },
    /// The version.
    Kept(SealedVersion),
}

#[derive(Debug, FromQueryResult)]
struct VersionRow {
    version: i64,
    #[sea_orm(nested)]
    mask: MaskRow,
    sealed_value: Option<Vec<u8>>,
    created_by: String,
    created_at: i64,
    current_version: i64,
    event: Option<Vec<u8>>,
}

#[derive(Debug, FromQueryResult)]
struct CurrentRow {
    version: i64,
}

/// What the event that made a version says of it.
#[derive(Deserialize)]
struct MadeBy {
    r#type: String,
    secret_id: Uuid,
    owner: String,
    version: u64,
    version_id: Uuid,
    occurred_at: String,
    actor: serde_json::Value,
}

impl MadeBy {
    fn agrees(&self, owner: &Owner, id: SecretId, kept: &KeptVersion) -> bool {
        let Self {
            r#type,
            secret_id,
            owner: event_owner,
            version,
            version_id,
            occurred_at,
            actor,
        } = self;
        let makes = [EventKind::Created, EventKind::Updated];
        makes.iter().any(|kind| kind.as_str() == r#type)
            && *secret_id == id.get()
            && event_owner == owner.as_str()
            && *version == kept.name.version
            && *version_id == kept.name.version_id.get()
            && *occurred_at == kept.created_at.to_string()
            && *actor == kept.created_by
    }
}

/// The version of a row with its sealed value, if that was read and the row is as its event says. Where retention has
/// cut the log, that event may be gone.
fn checked(
    row: VersionRow,
    (owner, id): (&Owner, SecretId),
    was_cut: bool,
) -> Result<(KeptVersion, Option<Vec<u8>>), StoreError> {
    let mask = SealedMask::try_from(row.mask)?;
    let kept = KeptVersion {
        name: VersionName {
            version: unsigned(row.version, "secret_versions")?,
            version_id: mask.version_id,
        },
        mask,
        created_by: serde_json::from_str(&row.created_by).map_err(corrupt("secret_versions"))?,
        created_at: Timestamp::from_micros(row.created_at),
        is_current: row.version == row.current_version,
    };
    let good = match &row.event {
        None => was_cut,
        Some(body) => {
            serde_json::from_slice(body).is_ok_and(|event: MadeBy| event.agrees(owner, id, &kept))
        }
    };
    if good {
        return Ok((kept, row.sealed_value));
    }
    metrics::counter!("rekey_disagreeing_secrets_total").increment(1);
    Err(StoreError::Disagrees(id))
}

/// A secret's versions, newest first, each with the event that made it. A version's number is never above its
/// sequence: so few events are looked at.
fn select(sealed_value: &str, condition: &str) -> String {
    format!(
        "SELECT v.version, v.version_id, v.kek_id, v.wrapped_key, v.sealed_mask, \
         {sealed_value} AS sealed_value, v.created_by, v.created_at, s.version AS current_version, \
         (SELECT e.body FROM events e WHERE e.secret_id = v.secret_id AND e.log = 'changes' \
         AND e.sequence >= v.version AND e.version = v.version ORDER BY e.sequence LIMIT 1) AS event \
         FROM secrets s JOIN secret_versions v ON v.secret_id = s.id \
         WHERE s.owner = $1 AND s.id = $2{condition} ORDER BY v.version DESC"
    )
}

/// The versions of an owner's secret, newest first; none when the secret is absent or another owner's.
pub(super) async fn kept(
    db: &impl ConnectionTrait,
    owner: &Owner,
    id: SecretId,
) -> Result<Option<Vec<KeptVersion>>, StoreError> {
    let was_cut = log::head(db, Log::Changes).await?.cut.position > 0;
    let values = [owner.as_str().into(), id.get().into()];
    let statement = statement(db, select("NULL", ""), values);
    let rows = VersionRow::find_by_statement(statement).all(db).await?;
    let kept = rows
        .into_iter()
        .map(|row| Ok(checked(row, (owner, id), was_cut)?.0))
        .collect::<Result<Vec<_>, StoreError>>()?;
    // A living secret has at least its current version.
    Ok((!kept.is_empty()).then_some(kept))
}

/// The look of a commit at the versions that are to be restored.
pub(super) fn sources<'a>(changes: &[&Change]) -> Bulk<'a> {
    let wanted: BTreeSet<_> = changes
        .iter()
        .filter_map(|change| {
            let source = change.action.restored_from()?;
            Some((change.secret_id.get(), source.version))
        })
        .collect();
    let rows = Rows::default()
        .uuids("id", wanted.iter().map(|(id, _)| *id))
        .numbers(
            "version",
            wanted.iter().map(|(_, version)| signed(*version)),
        );
    let sql = "SELECT 'source' AS kind, v.secret_id AS id, v.version_id AS version_id, \
         CAST(NULL AS TEXT) AS text1, CAST(NULL AS TEXT) AS text2, CAST(NULL AS TEXT) AS text3, \
         CAST(NULL AS TEXT) AS text4, v.version AS number1, CAST(NULL AS BIGINT) AS number2, \
         CAST(NULL AS BIGINT) AS number3, CAST(NULL AS BIGINT) AS number4, CAST(NULL AS BIGINT) AS number5, \
         CAST(NULL AS BYTEA) AS bytes1, CAST(NULL AS BYTEA) AS bytes2 \
         FROM {rows} JOIN secret_versions v ON v.secret_id = r.id AND v.version = r.version";
    Bulk::of_some(rows, sql)
}

/// The mask of a version of an owner's secret; none when either is gone.
pub(super) async fn mask(
    db: &impl ConnectionTrait,
    owner: &Owner,
    (id, version_id): (SecretId, VersionId),
) -> Result<Option<SealedMask>, StoreError> {
    let sql = "SELECT v.version_id, v.kek_id, v.wrapped_key, v.sealed_mask FROM secrets s \
               JOIN secret_versions v ON v.secret_id = s.id \
               WHERE s.owner = $1 AND s.id = $2 AND v.version_id = $3";
    let values = [
        owner.as_str().into(),
        id.get().into(),
        version_id.get().into(),
    ];
    let row = MaskRow::find_by_statement(statement(db, sql, values))
        .one(db)
        .await?;
    row.map(SealedMask::try_from).transpose()
}

/// A version of an owner's secret with its sealed value.
pub(super) async fn source(
    db: &impl ConnectionTrait,
    (owner, id): (&Owner, SecretId),
    version: u64,
) -> Result<Source, StoreError> {
    let was_cut = log::head(db, Log::Changes).await?.cut.position > 0;
    // No version has a number that the column can't hold.
    let number = i64::try_from(version).unwrap_or(i64::MAX);
    let values = [owner.as_str().into(), id.get().into(), number.into()];
    let select = select("v.sealed_value", " AND v.version = $3");
    let row = VersionRow::find_by_statement(statement(db, select, values))
        .one(db)
        .await?;
    if let Some(row) = row {
        let (KeptVersion { mask, .. }, sealed_value) = checked(row, (owner, id), was_cut)?;
        return Ok(Source::Kept(SealedVersion {
            version_id: mask.version_id,
            kek_id: mask.kek_id,
            wrapped_key: mask.wrapped_key,
            sealed_value: sealed_value.ok_or(StoreError::Corrupt("secret_versions"))?,
            sealed_mask: mask.sealed_mask,
        }));
    }
    let sql = "SELECT version FROM secrets WHERE owner = $1 AND id = $2";
    let values = [owner.as_str().into(), id.get().into()];
    let row = CurrentRow::find_by_statement(statement(db, sql, values))
        .one(db)
        .await?;
    row.map_or(Ok(Source::NoSecret), |row| {
        let current = unsigned(row.version, "secrets")?;
        Ok(Source::NotKept { current })
    })
}
