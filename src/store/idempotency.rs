//! The records of requests that are made once. Each carries, beside the code of its request, a code over its whole
//! row: a row that rekey did not write answers nobody.

mod answer;

use std::collections::{BTreeSet, HashMap};

use sea_orm::{ConnectionTrait, FromQueryResult, Value};

use super::{
    StoreError,
    dialect::{Bulk, Rows, clock},
    rows::{corrupt, statement},
    transaction::Transaction,
};
use crate::{
    crypto::{MacKey, same_bytes},
    domain::{Answer, HASH_BYTES, IdempotencyKey, Once, OnceName, Owner, Refusal, Timestamp},
};

/// The most expired records that one transaction removes.
const BATCH: u32 = 250;

/// The rows of these names; the relation `r` has the columns `owner`, `principal` and `key`.
pub(super) const RECORDS: &str = "SELECT 'record' AS kind, CAST(NULL AS UUID) AS id, \
     CAST(NULL AS UUID) AS version_id, i.owner AS text1, i.principal AS text2, i.key AS text3, i.answer AS text4, \
     i.status AS number1, i.created_at AS number2, i.expires_at AS number3, CAST(NULL AS BIGINT) AS number4, \
     CAST(NULL AS BIGINT) AS number5, i.mac AS bytes1, CAST(NULL AS BYTEA) AS bytes2 \
     FROM {rows} JOIN idempotency_keys i ON i.owner = r.owner AND i.principal = r.principal AND i.key = r.key";

/// The look at the records of these requests on a writing connection of PostgreSQL, if there are any. Texts are written
/// in hexadecimal digits: none is a part of the statement.
pub(super) fn look_postgres(names: &BTreeSet<&OnceName>) -> Option<String> {
    let column = |of: fn(&OnceName) -> &str| {
        let texts = names.iter().map(|name| {
            let digits = hex::encode(of(name));
            format!("convert_from(decode('{digits}', 'hex'), 'UTF8')")
        });
        format!("ARRAY[{}]", texts.collect::<Vec<_>>().join(","))
    };
    (!names.is_empty()).then(|| {
        format!(
            "EXECUTE look_records({}, {}, {})",
            column(|name| name.owner.as_str()),
            column(|name| &name.principal),
            column(|name| name.key.as_str()),
        )
    })
}

/// The same for SQLite.
pub(super) fn look_sqlite<'a>(names: &BTreeSet<&'a OnceName>) -> Bulk<'a> {
    let rows = Rows::default()
        .texts("owner", names.iter().map(|name| name.owner.as_str()))
        .texts(
            "principal",
            names.iter().map(|name| name.principal.as_str()),
        )
        .texts("key", names.iter().map(|name| name.key.as_str()));
    Bulk::of_some(rows, RECORDS)
}

/// A row of `idempotency_keys`.
#[derive(Debug, Clone, FromQueryResult)]
pub(super) struct RecordRow {
    pub(super) owner: String,
    pub(super) principal: String,
    pub(super) key: String,
    pub(super) mac: Vec<u8>,
    pub(super) status: i64,
    pub(super) answer: String,
    pub(super) created_at: i64,
    pub(super) expires_at: i64,
}

/// What became of a request that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// The code of the request.
    pub(super) request: [u8; HASH_BYTES],
    /// What it answered.
    pub(super) answer: Answer,
    /// Until when that is answered again.
    pub(super) expires_at: Timestamp,
}

/// What a row turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StoredRecord {
    /// A row that rekey wrote.
    Good(Record),
    /// A row whose code does not hold.
    Altered,
}

/// The records that a batch is about.
pub(super) type Records = HashMap<OnceName, StoredRecord>;

/// Why it is not known what a request has answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnsweredError {
    /// It was another request, or the record can't be trusted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The database can't be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a request gets that may have been made before: its answer, or nothing when it is to be made now.
///
/// # Errors
/// [`Refusal::KeyReused`] and [`Refusal::RecordAltered`].
pub(super) fn answered(
    once: &Once,
    record: Option<&StoredRecord>,
    now: Timestamp,
) -> Result<Option<Answer>, Refusal> {
    match record {
        None => Ok(None),
        Some(StoredRecord::Altered) => Err(Refusal::RecordAltered),
        Some(StoredRecord::Good(record)) if record.expires_at <= now => Ok(None),
        Some(StoredRecord::Good(record)) if same_bytes(&record.request, &once.request) => {
            Ok(Some(record.answer.clone()))
        }
        Some(StoredRecord::Good(_)) => Err(Refusal::KeyReused),
    }
}

/// A record that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewRecord<'a> {
    pub(super) once: &'a Once,
    pub(super) answer: Answer,
    pub(super) created_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

const TABLE: &str = "idempotency_keys";

impl RecordRow {
    fn of(record: &NewRecord<'_>, key: &MacKey) -> Self {
        let (status, answer) = answer::columns(&record.answer);
        let OnceName {
            owner,
            principal,
            key: name,
        } = &record.once.name;
        let mut row = Self {
            owner: owner.as_str().to_owned(),
            principal: principal.clone(),
            key: name.as_str().to_owned(),
            mac: record.once.request.to_vec(),
            status,
            answer,
            created_at: record.created_at.micros(),
            expires_at: record.expires_at.micros(),
        };
        let code = row.code(&record.once.request, key);
        row.mac.extend_from_slice(&code);
        row
    }

    /// The code of the row: over the code of its request, and every other column.
    fn code(&self, request: &[u8], key: &MacKey) -> [u8; HASH_BYTES] {
        let Self {
            owner,
            principal,
            key: name,
            mac: _,
            status,
            answer,
            created_at,
            expires_at,
        } = self;
        key.code(&[
            b"record",
            owner.as_bytes(),
            principal.as_bytes(),
            name.as_bytes(),
            request,
            &status.to_be_bytes(),
            answer.as_bytes(),
            &created_at.to_be_bytes(),
            &expires_at.to_be_bytes(),
        ])
    }

    /// The record of the row.
    pub(super) fn read(self, key: &MacKey) -> Result<(OnceName, StoredRecord), StoreError> {
        let owner = Owner::parse(&self.owner).map_err(corrupt(TABLE))?;
        let name = OnceName {
            key: IdempotencyKey::parse_stored(&self.key).map_err(corrupt(TABLE))?,
            principal: self.principal.clone(),
            owner: owner.clone(),
        };
        let Some((request, code)) = self.mac.split_first_chunk::<HASH_BYTES>() else {
            return Ok((name, altered()));
        };
        if !same_bytes(&self.code(request, key), code) {
            return Ok((name, altered()));
        }
        let record = Record {
            request: *request,
            answer: answer::read(&self.answer, &owner)?,
            expires_at: Timestamp::from_micros(self.expires_at),
        };
        Ok((name, StoredRecord::Good(record)))
    }
}

fn altered() -> StoredRecord {
    tracing::error!(
        "a record of an idempotency key was not written by rekey, or was changed: its request is refused"
    );
    metrics::counter!("rekey_altered_records_total").increment(1);
    StoredRecord::Altered
}

/// The rows of new records.
pub(super) fn rows(records: &[NewRecord<'_>], key: &MacKey) -> Vec<RecordRow> {
    let row = |record| RecordRow::of(record, key);
    records.iter().map(row).collect()
}

/// Writes the rows, over those that have expired.
pub(super) fn insert(rows: &[RecordRow]) -> Bulk<'_> {
    let all = || rows.iter();
    let columns = Rows::default()
        .texts("owner", all().map(|row| row.owner.as_str()))
        .texts("principal", all().map(|row| row.principal.as_str()))
        .texts("key", all().map(|row| row.key.as_str()))
        .bytes("mac", all().map(|row| row.mac.as_slice()))
        .numbers("status", all().map(|row| row.status))
        .texts("answer", all().map(|row| row.answer.as_str()))
        .numbers("created_at", all().map(|row| row.created_at))
        .numbers("expires_at", all().map(|row| row.expires_at));
    // WHERE TRUE: without it SQLite takes ON for a part of the FROM.
    let sql = "INSERT INTO idempotency_keys \
               (owner, principal, key, mac, status, answer, created_at, expires_at) \
               SELECT r.owner, r.principal, r.key, r.mac, r.status, r.answer, r.created_at, r.expires_at \
               FROM {rows} WHERE TRUE \
               ON CONFLICT (owner, principal, key) DO UPDATE SET mac = excluded.mac, \
               status = excluded.status, answer = excluded.answer, created_at = excluded.created_at, \
               expires_at = excluded.expires_at";
    Bulk::of_all(columns, sql)
}

/// The record of a request, for one that can't be handed to the commit.
pub(super) async fn find(
    db: &impl ConnectionTrait,
    name: &OnceName,
    key: &MacKey,
) -> Result<Option<StoredRecord>, StoreError> {
    let sql = "SELECT owner, principal, key, mac, status, answer, created_at, expires_at \
               FROM idempotency_keys WHERE owner = $1 AND principal = $2 AND key = $3";
    let values: [Value; 3] = [
        name.owner.as_str().into(),
        name.principal.as_str().into(),
        name.key.as_str().into(),
    ];
    let row = RecordRow::find_by_statement(statement(db, sql, values))
        .one(db)
        .await?;
    row.map(|row| Ok(row.read(key)?.1)).transpose()
}

/// Removes a batch of expired records, by the database's clock, and returns how many it removed. The lock of `changes`
/// is held.
pub(super) async fn remove_expired(transaction: &Transaction) -> Result<u64, StoreError> {
    let clock = clock(transaction.get_database_backend());
    let sql = format!(
        "DELETE FROM idempotency_keys WHERE (owner, principal, key) IN \
         (SELECT e.owner, e.principal, e.key FROM idempotency_keys e WHERE e.expires_at <= {clock} \
         ORDER BY e.expires_at LIMIT {BATCH})"
    );
    let removed = transaction.execute_unprepared(&sql).await?;
    Ok(removed.rows_affected())
}

/// Whether there are records: they rest on their key.
pub(super) async fn exist(db: &impl ConnectionTrait) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM idempotency_keys LIMIT 1";
    let row = db.query_one_raw(statement(db, sql, [])).await?;
    Ok(row.is_some())
}

/// Removes all records: their key is lost.
pub(super) async fn remove_all(transaction: &Transaction) -> Result<(), StoreError> {
    let sql = "DELETE FROM idempotency_keys";
    transaction.execute_unprepared(sql).await?;
    Ok(())
}

/// A row as the look of a commit finds it, by the columns of [`RECORDS`].
pub(super) fn found(
    texts: [Option<String>; 4],
    [status, created_at, expires_at]: [Option<i64>; 3],
    mac: Option<Vec<u8>>,
) -> Result<RecordRow, StoreError> {
    let [owner, principal, key, answer] = texts;
    let text = |text: Option<String>| text.ok_or(StoreError::Corrupt(TABLE));
    let number = |number: Option<i64>| number.ok_or(StoreError::Corrupt(TABLE));
    Ok(RecordRow {
        owner: text(owner)?,
        principal: text(principal)?,
        key: text(key)?,
        mac: mac.ok_or(StoreError::Corrupt(TABLE))?,
        status: number(status)?,
        answer: text(answer)?,
        created_at: number(created_at)?,
        expires_at: number(expires_at)?,
    })
}
