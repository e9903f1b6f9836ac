//! What the database holds of what a batch is about: one read, under the lock.

use std::collections::{BTreeSet, HashMap, HashSet};

use sea_orm::{FromQueryResult, QueryResult, prelude::Uuid};

use super::{
    StoreError,
    apply::{Limits, StoredVersions},
    chain::{Head, Heads},
    dialect::{Bulk, Rows},
    expiry,
    idempotency::{self, RECORDS, Records},
    rows::{SecretRow, corrupt, signed, unsigned},
    token_changes,
    transaction::Transaction,
    versions,
};
use crate::crypto::MacKey;
use crate::domain::{
    Action, Change, Cursor, Expiry, KeyId, Log, OnceName, Owner, Secret, SecretId, SecretName,
    VersionId, VersionName, Work,
};

/// What was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Present {
    /// The end of each log that the batch appends to.
    pub(super) heads: Heads,
    /// The keys that may seal.
    pub(super) active_keys: HashSet<KeyId>,
    /// The secrets that the batch names, by ID, of any owner: `apply` compares the owner of each change.
    pub(super) secrets: HashMap<SecretId, Secret>,
    /// The versions whose values are to be restored, as far as they are there.
    pub(super) sources: HashSet<(SecretId, VersionName)>,
    /// How many versions each of them has.
    pub(super) versions: HashMap<SecretId, StoredVersions>,
    /// Which of the names that the batch would create are taken.
    pub(super) names: HashSet<(Owner, SecretName)>,
    /// The records of the requests that are made once.
    pub(super) records: Records,
    /// How many secrets the owners who create something have.
    pub(super) counts: HashMap<Owner, u64>,
    /// The codes of the tokens that the batch would revoke and that are not revoked yet, by ID.
    pub(super) tokens: HashMap<String, Vec<u8>>,
}

/// A row of that read. What its columns hold depends on its kind.
#[derive(Debug, FromQueryResult)]
struct FoundRow {
    kind: String,
    id: Option<Uuid>,
    version_id: Option<Uuid>,
    text1: Option<String>,
    text2: Option<String>,
    text3: Option<String>,
    text4: Option<String>,
    number1: Option<i64>,
    number2: Option<i64>,
    number3: Option<i64>,
    number4: Option<i64>,
    number5: Option<i64>,
    bytes1: Option<Vec<u8>>,
    bytes2: Option<Vec<u8>>,
}

/// What a new writing connection of PostgreSQL prepares, for [`look_postgres`].
pub(super) fn prepare_looks() -> String {
    let seen = "(SELECT $1 AS seen) AS r";
    let keys = "(SELECT 'active' AS state) AS r";
    let secrets = "(SELECT u.id, $2 AS kept FROM unnest($3) AS u(id)) AS r";
    let with = |sql: &str, rows| sql.replace("{rows}", rows);
    format!(
        "PREPARE look_changes(BIGINT, BIGINT, UUID[]) AS {} UNION ALL {} UNION ALL {} UNION ALL {}; \
         PREPARE look_activity(BIGINT) AS {}; \
         PREPARE look_records(TEXT[], TEXT[], TEXT[]) AS {}",
        with(CHANGES_HEAD, seen),
        with(KEYS, keys),
        with(SECRETS, secrets),
        with(expiry::EXPIRIES, secrets),
        with(ACTIVITY_HEAD, seen),
        with(RECORDS, "unnest($1, $2, $3) AS r(owner, principal, key)"),
    )
}

/// The statements of a writing connection of PostgreSQL that look at what a batch is about: they go with BEGIN.
/// Texts in them are written in hexadecimal digits: none is a part of the statement.
pub(super) fn look_postgres(works: &[Work], limits: Limits, seen: Heads) -> Vec<String> {
    let mut looks = Vec::new();
    let changes: Vec<&Change> = changes(works).collect();
    if !changes.is_empty() {
        let ids: Vec<String> = wanted(&changes).iter().map(Uuid::to_string).collect();
        looks.push(format!(
            "EXECUTE look_changes({}, {}, '{{{}}}')",
            position(seen.changes),
            kept(limits),
            ids.join(",")
        ));
    }
    looks.extend(idempotency::look_postgres(&once(works)));
    if has_activity(works) {
        let position = position(seen.activity);
        looks.push(format!("EXECUTE look_activity({position})"));
    }
    looks
}

/// The same for SQLite.
pub(super) fn look_sqlite(works: &[Work], limits: Limits, heads: Heads) -> Vec<Bulk<'_>> {
    let mut looks = Vec::new();
    let changes: Vec<&Change> = changes(works).collect();
    let seen = |head| Rows::default().numbers("seen", [position(head)].into_iter());
    if !changes.is_empty() {
        let active = Rows::default().texts("state", ["active"].into_iter());
        looks.extend([
            Bulk::of_some(seen(heads.changes), CHANGES_HEAD),
            Bulk::of_some(active, KEYS),
            secrets(&changes, limits),
            expiry::look(&wanted(&changes)),
        ]);
    }
    looks.push(idempotency::look_sqlite(&once(works)));
    if has_activity(works) {
        looks.push(Bulk::of_some(seen(heads.activity), ACTIVITY_HEAD));
    }
    looks
}

/// Reads what the batch is about, and which key is the primary one. `looked` is what the first look found. Of each
/// log that the batch appends to, it proves that the log still holds the last event that this process saw in it.
///
/// # Errors
/// [`StoreError`], and [`StoreError::LogBroken`] when a log lost that event.
pub(super) async fn read(
    transaction: &Transaction,
    looked: impl Iterator<Item = &QueryResult>,
    (works, records): (&[Work], &MacKey),
    seen: Heads,
) -> Result<(Present, Option<KeyId>), StoreError> {
    let changes: Vec<&Change> = changes(works).collect();
    let mut found = Reading {
        seen,
        records,
        primary: None,
        expiries: Vec::new(),
        present: Present::default(),
    };
    for row in looked {
        found.add(FoundRow::from_query_result(row, "")?)?;
    }
    let queries = vec![
        names(&changes),
        owners(&changes),
        versions::sources(&changes),
        token_changes::look(works),
    ];
    for row in transaction.read::<FoundRow>(queries).await? {
        found.add(row)?;
    }
    found.give_expiries();
    let heads = found.present.heads;
    if (heads.changes.is_none() && !changes.is_empty())
        || (heads.activity.is_none() && has_activity(works))
    {
        return Err(StoreError::Corrupt("log_head"));
    }
    Ok((found.present, found.primary))
}

fn changes(works: &[Work]) -> impl Iterator<Item = &Change> {
    works.iter().flat_map(Work::changes)
}

/// What the requests that are made once are called.
fn once(works: &[Work]) -> BTreeSet<&OnceName> {
    let names = works.iter().filter_map(|work| Some(&work.once()?.name));
    names.collect()
}

fn has_activity(works: &[Work]) -> bool {
    works.iter().any(|work| work.log() == Log::Activity)
}

/// The secrets that are updated or deleted.
fn wanted(changes: &[&Change]) -> BTreeSet<Uuid> {
    let is_there = |change: &&&Change| !matches!(change.action, Action::Create { .. });
    let wanted = changes.iter().filter(is_there);
    wanted.map(|change| change.secret_id.get()).collect()
}

fn kept(limits: Limits) -> i64 {
    signed(limits.versions.max(1))
}

/// No event has position 0: nothing was seen yet.
fn position(seen: Option<Head>) -> i64 {
    signed(seen.map_or(0, |head| head.position))
}

macro_rules! head {
    ($log:literal) => {
        // ORDER BY and LIMIT, not max(): a plan made while the table is empty must not choose the index on
        // (log, owner, position), which would be read from end to end until the next ANALYZE.
        concat!(
            "SELECT '", $log, "' AS kind, CAST(NULL AS UUID) AS id, CAST(NULL AS UUID) AS version_id, \
             h.primary_kek_id AS text1, CAST(h.lockdown_since AS TEXT) AS text2, CAST(NULL AS TEXT) AS text3, \
             CAST(NULL AS TEXT) AS text4, h.epoch AS number1, COALESCE(e.epoch, h.cut_epoch) AS number2, \
             COALESCE(e.position, h.cut_position) AS number3, h.cut_epoch AS number4, \
             h.cut_position AS number5, COALESCE(e.hash, h.cut_hash) AS bytes1, \
             (SELECT s.hash FROM events s WHERE s.log = '", $log, "' AND s.position = r.seen) AS bytes2 \
             FROM {rows} JOIN log_head h ON h.log = '", $log, "' \
             LEFT JOIN (SELECT epoch, position, hash FROM events WHERE log = '", $log, "' \
             ORDER BY position DESC LIMIT 1) e ON TRUE"
        )
    };
}

/// The head of `changes`: its last event, or what retention left of it; the primary key; and the hash of the
/// event that was seen last.
const CHANGES_HEAD: &str = head!("changes");
/// The same of `activity`.
const ACTIVITY_HEAD: &str = head!("activity");

/// The keys that may seal.
const KEYS: &str = "SELECT 'key' AS kind, CAST(NULL AS UUID) AS id, CAST(NULL AS UUID) AS version_id, \
     k.id AS text1, CAST(NULL AS TEXT) AS text2, CAST(NULL AS TEXT) AS text3, \
     CAST(NULL AS TEXT) AS text4, CAST(NULL AS BIGINT) AS number1, CAST(NULL AS BIGINT) AS number2, \
     CAST(NULL AS BIGINT) AS number3, CAST(NULL AS BIGINT) AS number4, \
     CAST(NULL AS BIGINT) AS number5, CAST(NULL AS BYTEA) AS bytes1, CAST(NULL AS BYTEA) AS bytes2 \
     FROM {rows} JOIN keys k ON k.state = r.state";

macro_rules! secrets {
    ($oldest:literal, $join:literal) => {
        concat!(
            "SELECT 'secret' AS kind, s.id AS id, v.version_id AS version_id, s.name AS text1, \
             s.provider AS text2, s.owner AS text3, ",
            $oldest,
            " AS text4, s.version AS number1, s.sequence AS number2, s.created_at AS number3, \
             s.updated_at AS number4, (SELECT count(*) FROM secret_versions b \
             WHERE b.secret_id = s.id AND b.version = s.version - r.kept) AS number5, \
             CAST(NULL AS BYTEA) AS bytes1, CAST(NULL AS BYTEA) AS bytes2 \
             FROM {rows} JOIN secrets s ON s.id = r.id \
             JOIN secret_versions v ON v.secret_id = s.id AND v.version = s.version",
            $join
        )
    };
}

/// The secrets that are updated or deleted, of any owner. `number5` counts the version below those that are kept:
/// there is one only while the limit was higher before.
const SECRETS: &str = secrets!("CAST(NULL AS TEXT)", "");

/// The same on SQLite. `text4` is the key of the oldest version that is kept, where there are as many: its row is
/// overwritten. (PostgreSQL is faster when rows are deleted and inserted: new rows share pages.)
const SECRETS_AND_OLDEST: &str = secrets!(
    "o.kek_id",
    " LEFT JOIN secret_versions o ON o.secret_id = s.id AND o.version = s.version - r.kept + 1"
);

fn secrets<'a>(changes: &[&Change], limits: Limits) -> Bulk<'a> {
    let wanted = wanted(changes);
    let rows = Rows::default()
        .uuids("id", wanted.iter().copied())
        .numbers("kept", wanted.iter().map(|_| kept(limits)));
    Bulk::of_some(rows, SECRETS_AND_OLDEST)
}

/// Which of the names that are to be created are taken.
fn names<'a>(changes: &[&'a Change]) -> Bulk<'a> {
    let wanted: BTreeSet<_> = created(changes).collect();
    let rows = Rows::default()
        .texts("owner", wanted.iter().map(|(owner, _)| owner.as_str()))
        .texts("name", wanted.iter().map(|(_, name)| name.as_str()));
    let sql = "SELECT 'name' AS kind, CAST(NULL AS UUID) AS id, CAST(NULL AS UUID) AS version_id, \
         s.owner AS text1, s.name AS text2, CAST(NULL AS TEXT) AS text3, \
         CAST(NULL AS TEXT) AS text4, CAST(NULL AS BIGINT) AS number1, CAST(NULL AS BIGINT) AS number2, \
         CAST(NULL AS BIGINT) AS number3, CAST(NULL AS BIGINT) AS number4, \
         CAST(NULL AS BIGINT) AS number5, CAST(NULL AS BYTEA) AS bytes1, \
         CAST(NULL AS BYTEA) AS bytes2 \
         FROM {rows} JOIN secrets s ON s.owner = r.owner AND s.name = r.name";
    Bulk::of_some(rows, sql)
}

/// How many secrets each owner has for whom the batch creates one.
fn owners<'a>(changes: &[&'a Change]) -> Bulk<'a> {
    let wanted: BTreeSet<_> = created(changes).map(|(owner, _)| owner).collect();
    let rows = Rows::default().texts("owner", wanted.iter().map(|owner| owner.as_str()));
    let sql = "SELECT 'owner' AS kind, CAST(NULL AS UUID) AS id, CAST(NULL AS UUID) AS version_id, \
         r.owner AS text1, CAST(NULL AS TEXT) AS text2, CAST(NULL AS TEXT) AS text3, \
         CAST(NULL AS TEXT) AS text4, count(*) AS number1, CAST(NULL AS BIGINT) AS number2, CAST(NULL AS BIGINT) AS number3, \
         CAST(NULL AS BIGINT) AS number4, CAST(NULL AS BIGINT) AS number5, \
         CAST(NULL AS BYTEA) AS bytes1, CAST(NULL AS BYTEA) AS bytes2 \
         FROM {rows} JOIN secrets s ON s.owner = r.owner GROUP BY r.owner";
    Bulk::of_some(rows, sql)
}

fn created<'a>(changes: &[&'a Change]) -> impl Iterator<Item = (&'a Owner, &'a SecretName)> {
    changes.iter().filter_map(|change| match &change.action {
        Action::Create { name, .. } => Some((&change.owner, name)),
        Action::Update { .. }
        | Action::SetExpiry { .. }
        | Action::Announce(_)
        | Action::Delete { .. } => None,
    })
}

/// What was read so far.
struct Reading<'a> {
    seen: Heads,
    /// The key of the records' codes.
    records: &'a MacKey,
    primary: Option<KeyId>,
    present: Present,
    /// They come in any order with the secrets.
    expiries: Vec<(SecretId, Option<Expiry>)>,
}

impl Reading<'_> {
    fn give_expiries(&mut self) {
        for (id, expiry) in self.expiries.drain(..) {
            if let Some(secret) = self.present.secrets.get_mut(&id) {
                secret.expiry = expiry;
            }
        }
    }

    fn add(&mut self, row: FoundRow) -> Result<(), StoreError> {
        match &*row.kind {
            "changes" => {
                if let Some(id) = row.text1.as_deref() {
                    self.primary = Some(KeyId::parse(id).map_err(corrupt("log_head"))?);
                }
                self.present.heads.changes = Some(self.head(Log::Changes, row)?);
            }
            "activity" => self.present.heads.activity = Some(self.head(Log::Activity, row)?),
            "key" => {
                let id = KeyId::parse(&present(row.text1, "keys")?).map_err(corrupt("keys"))?;
                self.present.active_keys.insert(id);
            }
            "secret" => {
                let stored = stored(&row)?;
                let secret = secret(row)?;
                self.present.versions.insert(secret.id, stored);
                self.present.secrets.insert(secret.id, secret);
            }
            "record" => {
                let texts = [row.text1, row.text2, row.text3, row.text4];
                let numbers = [row.number1, row.number2, row.number3];
                let (name, record) =
                    idempotency::found(texts, numbers, row.bytes1)?.read(self.records)?;
                self.present.records.insert(name, record);
            }
            "source" => {
                let id = SecretId::new(present(row.id, "secret_versions")?);
                let source = VersionName {
                    version: number(row.number1, "secret_versions")?,
                    version_id: VersionId::new(present(row.version_id, "secret_versions")?),
                };
                self.present.sources.insert((id, source));
            }
            "expiry" => {
                let id = SecretId::new(present(row.id, "secrets")?);
                let expiry = expiry::read(row.number1, [row.number2, row.number3]);
                self.expiries.push((id, expiry));
            }
            "name" => {
                let name = present(row.text2, "secrets")?;
                let name = SecretName::parse(&name).map_err(corrupt("secrets"))?;
                self.present.names.insert((owner(row.text1)?, name));
            }
            "token" => {
                let id = present(row.text1, "api_tokens")?;
                let code = present(row.bytes1, "api_tokens")?;
                self.present.tokens.insert(id, code);
            }
            // What is left: "owner".
            _ => {
                let count = number(row.number1, "secrets")?;
                self.present.counts.insert(owner(row.text1)?, count);
            }
        }
        Ok(())
    }

    fn head(&self, log: Log, row: FoundRow) -> Result<Head, StoreError> {
        let hash = present(row.bytes1, "events")?;
        let head = Head {
            epoch: number(row.number1, "log_head")?,
            last_epoch: number(row.number2, "events")?,
            position: number(row.number3, "events")?,
            hash: hash.try_into().map_err(corrupt("events"))?,
            cut: Cursor {
                epoch: number(row.number4, "log_head")?,
                position: number(row.number5, "log_head")?,
            },
            locked_down: row.text2.is_some(),
        };
        // Retention, here or in another replica, may have removed what was seen long ago.
        if let Some(seen) = self.seen.of(log)
            && seen.position > head.cut.position
            && row.bytes2.as_deref() != Some(seen.hash.as_slice())
        {
            return Err(StoreError::LogBroken(log));
        }
        Ok(head)
    }
}

/// How many versions the secret of a row has.
fn stored(row: &FoundRow) -> Result<StoredVersions, StoreError> {
    Ok(if number(row.number5, "secret_versions")? > 0 {
        StoredVersions::More
    } else if let Some(key) = row.text4.as_deref() {
        StoredVersions::AsMany(KeyId::parse(key).map_err(corrupt("secret_versions"))?)
    } else {
        StoredVersions::Fewer
    })
}

fn secret(row: FoundRow) -> Result<Secret, StoreError> {
    Secret::try_from(SecretRow {
        id: present(row.id, "secrets")?,
        owner: present(row.text3, "secrets")?,
        name: present(row.text1, "secrets")?,
        provider: row.text2,
        version: present(row.number1, "secrets")?,
        version_id: present(row.version_id, "secret_versions")?,
        sequence: present(row.number2, "secrets")?,
        created_at: present(row.number3, "secrets")?,
        updated_at: present(row.number4, "secrets")?,
        expires_at: None,
        expiring_at: None,
        expired_at: None,
    })
}

fn owner(text: Option<String>) -> Result<Owner, StoreError> {
    Owner::parse(&present(text, "secrets")?).map_err(corrupt("secrets"))
}

fn number(number: Option<i64>, table: &'static str) -> Result<u64, StoreError> {
    unsigned(present(number, table)?, table)
}

fn present<T>(value: Option<T>, table: &'static str) -> Result<T, StoreError> {
    value.ok_or(StoreError::Corrupt(table))
}
