//! The columns that say when a secret expires, and which secrets are to be told of.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, FromQueryResult, prelude::Uuid};

use super::{
    StoreError,
    dialect::{Bulk, Rows, clock},
    log,
    rows::{SECRET_COLUMNS, SecretRow, statement},
    secrets::{LAST_EVENT, check},
};
use crate::domain::{ErrorChain, Expiry, Log, Owner, Secret, SecretId, Timestamp};

/// The most secrets that are told of at once.
const BATCH: u32 = 100;

/// When those secrets of a batch expire that do: the relation `r` has the column `id`.
pub(super) const EXPIRIES: &str = "SELECT 'expiry' AS kind, s.id AS id, CAST(NULL AS UUID) AS version_id, \
     CAST(NULL AS TEXT) AS text1, CAST(NULL AS TEXT) AS text2, CAST(NULL AS TEXT) AS text3, \
     CAST(NULL AS TEXT) AS text4, s.expires_at AS number1, s.expiring_at AS number2, s.expired_at AS number3, \
     CAST(NULL AS BIGINT) AS number4, CAST(NULL AS BIGINT) AS number5, \
     CAST(NULL AS BYTEA) AS bytes1, CAST(NULL AS BYTEA) AS bytes2 \
     FROM {rows} JOIN secrets s ON s.id = r.id WHERE s.expires_at IS NOT NULL";

/// The same for SQLite.
pub(super) fn look<'a>(secrets: &BTreeSet<Uuid>) -> Bulk<'a> {
    Bulk::of_some(
        Rows::default().uuids("id", secrets.iter().copied()),
        EXPIRIES,
    )
}

/// An expiry from its columns.
pub(super) fn read(
    expires_at: Option<i64>,
    [expiring, expired]: [Option<i64>; 2],
) -> Option<Expiry> {
    expires_at.map(|at| Expiry {
        at: Timestamp::from_micros(at),
        expiring_at: expiring.map(Timestamp::from_micros),
        expired_at: expired.map(Timestamp::from_micros),
    })
}

/// A secret that is to be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DueSecret {
    /// Whose it is.
    pub owner: Owner,
    /// The secret.
    pub id: SecretId,
    /// When it expires.
    pub expiry: Expiry,
}

#[derive(Debug, FromQueryResult)]
struct DueRow {
    #[sea_orm(nested)]
    secret: SecretRow,
    last_event: Option<Vec<u8>>,
}

/// The secrets of which something may be told, by the database's clock; those that expire first come first. Of a row
/// that is not as its last event says nothing is told: it is logged, and whoever asks for the value gets none.
pub(super) async fn due(
    db: &impl ConnectionTrait,
    lead_micros: i64,
) -> Result<Vec<DueSecret>, StoreError> {
    let head = log::head(db, Log::Changes).await?;
    let clock = clock(db.get_database_backend());
    let sql = format!(
        "SELECT {SECRET_COLUMNS}, {LAST_EVENT} FROM secrets s \
         JOIN secret_versions v ON v.secret_id = s.id AND v.version = s.version \
         WHERE s.expires_at IS NOT NULL AND s.expired_at IS NULL AND (s.expires_at <= {clock} \
         OR (s.expiring_at IS NULL AND s.expires_at <= {clock} + {lead_micros})) \
         ORDER BY s.expires_at LIMIT {BATCH}"
    );
    let rows = DueRow::find_by_statement(statement(db, sql, []))
        .all(db)
        .await?;
    let mut due = Vec::new();
    for row in rows {
        let secret = Secret::try_from(row.secret)?;
        if let Err(error) = check(&secret, row.last_event.as_deref(), &head) {
            tracing::error!(error = %ErrorChain(&error), "an expiry is not told of");
            continue;
        }
        if let Some(expiry) = secret.expiry {
            due.push(DueSecret {
                owner: secret.owner,
                id: secret.id,
                expiry,
            });
        }
    }
    Ok(due)
}
