//! The statements that write a plan, each over many rows at once.

use super::{
    StoreError,
    apply::{NewVersion, Writes},
    dialect::{Bulk, Rows},
    idempotency, log,
    rows::signed,
    token_changes,
    transaction::Transaction,
};
use crate::{
    crypto::MacKey,
    domain::{Secret, Timestamp},
};

/// Writes what the plan says, with codes under this key for its records: deletions and updates before inserts.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn write(
    transaction: &Transaction,
    writes: &Writes<'_>,
    records: &MacKey,
) -> Result<(), StoreError> {
    let records = idempotency::rows(&writes.records, records);
    transaction
        .write(vec![
            delete_all_versions(writes),
            delete_versions(writes),
            delete_surplus(writes),
            overwrite_versions(writes),
            delete_secrets(writes),
            update_secrets(writes),
            insert_secrets(writes),
            insert_versions(writes),
            log::insert(&writes.events),
            idempotency::insert(&records),
            token_changes::revoke_rows(&writes.tokens),
            token_changes::insert_rows(&writes.tokens),
        ])
        .await
}

fn delete_all_versions<'a>(writes: &Writes<'a>) -> Bulk<'a> {
    let rows = Rows::default().uuids("id", writes.deleted.iter().map(|id| id.get()));
    let sql = "DELETE FROM secret_versions WHERE secret_id IN (SELECT r.id FROM {rows})";
    Bulk::of_some(rows, sql)
}

/// Not all that are named need be there: a secret has fewer versions than are kept when the limit was lower.
fn delete_versions<'a>(writes: &Writes<'a>) -> Bulk<'a> {
    let deleted = writes.pushed_out.iter().flat_map(|pushed_out| {
        let id = pushed_out.secret_id.get();
        pushed_out
            .versions
            .clone()
            .map(move |version| (id, signed(version)))
    });
    let rows = Rows::default()
        .uuids("secret_id", deleted.clone().map(|(id, _)| id))
        .numbers("version", deleted.map(|(_, version)| version));
    let sql = "DELETE FROM secret_versions WHERE (secret_id, version) IN \
               (SELECT r.secret_id, r.version FROM {rows})";
    Bulk::of_some(rows, sql)
}

/// There may be any number of them, once: the database walks through the secret's versions.
fn delete_surplus<'a>(writes: &Writes<'a>) -> Bulk<'a> {
    let surplus = || writes.surplus.iter();
    let rows = Rows::default()
        .uuids("secret_id", surplus().map(|s| s.secret_id.get()))
        .numbers("highest", surplus().map(|s| signed(s.highest)));
    let sql = "DELETE FROM secret_versions WHERE (secret_id, version) IN \
               (SELECT v.secret_id, v.version FROM {rows} JOIN secret_versions v \
                ON v.secret_id = r.secret_id AND v.version <= r.highest)";
    Bulk::of_some(rows, sql)
}

fn delete_secrets<'a>(writes: &Writes<'a>) -> Bulk<'a> {
    let rows = Rows::default().uuids("id", writes.deleted.iter().map(|id| id.get()));
    let sql = "DELETE FROM secrets WHERE id IN (SELECT r.id FROM {rows})";
    Bulk::of_all(rows, sql)
}

/// The columns of the secrets' expiries.
fn expiries<'a>(secrets: &[Secret]) -> Rows<'a> {
    let expiries = || secrets.iter().map(|secret| secret.expiry);
    // No time is written as 0, which no expiry is.
    let time = |time: Option<Timestamp>| time.map_or(0, Timestamp::micros);
    let at = expiries().map(|expiry| time(expiry.map(|expiry| expiry.at)));
    let expiring = expiries().map(|expiry| time(expiry.and_then(|expiry| expiry.expiring_at)));
    let expired = expiries().map(|expiry| time(expiry.and_then(|expiry| expiry.expired_at)));
    Rows::default()
        .numbers("expires_at", at)
        .numbers("expiring_at", expiring)
        .numbers("expired_at", expired)
}

fn update_secrets<'a>(writes: &Writes<'a>) -> Bulk<'a> {
    let secrets = || writes.updated.iter();
    let rows = expiries(&writes.updated)
        .uuids("id", secrets().map(|secret| secret.id.get()))
        .numbers("version", secrets().map(|secret| signed(secret.version)))
        .numbers("sequence", secrets().map(|secret| signed(secret.sequence)))
        .numbers("updated_at", secrets().map(|s| s.updated_at.micros()));
    let sql = "UPDATE secrets SET version = r.version, sequence = r.sequence, \
               updated_at = r.updated_at, expires_at = NULLIF(r.expires_at, 0), \
               expiring_at = NULLIF(r.expiring_at, 0), expired_at = NULLIF(r.expired_at, 0) FROM {rows} WHERE secrets.id = r.id";
    Bulk::of_all(rows, sql)
}

fn insert_secrets<'a>(writes: &'a Writes<'_>) -> Bulk<'a> {
    let secrets = || writes.created.iter();
    // No provider is written as '', which no provider is.
    let provider = |secret: &'a Secret| secret.provider.as_ref().map_or("", |p| p.as_str());
    let rows = expiries(&writes.created)
        .uuids("id", secrets().map(|secret| secret.id.get()))
        .texts("owner", secrets().map(|secret| secret.owner.as_str()))
        .texts("name", secrets().map(|secret| secret.name.as_str()))
        .texts("provider", secrets().map(provider))
        .numbers("version", secrets().map(|secret| signed(secret.version)))
        .numbers("sequence", secrets().map(|secret| signed(secret.sequence)))
        .numbers("created_at", secrets().map(|s| s.created_at.micros()))
        .numbers("updated_at", secrets().map(|s| s.updated_at.micros()));
    let sql = "INSERT INTO secrets \
               (id, owner, name, provider, version, sequence, created_at, updated_at, \
                expires_at, expiring_at, expired_at) \
               SELECT r.id, r.owner, r.name, NULLIF(r.provider, ''), r.version, r.sequence, \
               r.created_at, r.updated_at, NULLIF(r.expires_at, 0), NULLIF(r.expiring_at, 0), \
               NULLIF(r.expired_at, 0) FROM {rows}";
    Bulk::of_all(rows, sql)
}

/// The columns of new versions, beside what says which rows they are.
fn versions<'a>(rows: Rows<'a>, new: &(impl Iterator<Item = NewVersion<'a>> + Clone)) -> Rows<'a> {
    let sealed = || new.clone().map(|version| version.sealed);
    rows.numbers("version", new.clone().map(|v| signed(v.version)))
        .uuids("version_id", sealed().map(|s| s.version_id.get()))
        .bytes("wrapped_key", sealed().map(|s| s.wrapped_key.as_slice()))
        .bytes("sealed_value", sealed().map(|s| s.sealed_value.as_slice()))
        .bytes("sealed_mask", sealed().map(|s| s.sealed_mask.as_slice()))
        .texts("created_by", new.clone().map(|v| v.created_by.to_json()))
        .numbers("created_at", new.clone().map(|v| v.created_at.micros()))
}

/// The key stays the same, so it is not named: SQLite then leaves the index of keys alone.
fn overwrite_versions<'a>(writes: &'a Writes<'_>) -> Bulk<'a> {
    let overwritten = || writes.overwritten.iter();
    let rows = Rows::default()
        .uuids("secret_id", overwritten().map(|o| o.new.secret_id.get()))
        .numbers("old", overwritten().map(|o| signed(o.old)));
    let rows = versions(rows, &overwritten().map(|o| o.new));
    let sql = "UPDATE secret_versions SET version = r.version, version_id = r.version_id, \
               wrapped_key = r.wrapped_key, sealed_value = r.sealed_value, \
               sealed_mask = r.sealed_mask, created_by = r.created_by, created_at = r.created_at \
               FROM {rows} WHERE secret_versions.secret_id = r.secret_id \
               AND secret_versions.version = r.old";
    Bulk::of_all(rows, sql)
}

fn insert_versions<'a>(writes: &'a Writes<'_>) -> Bulk<'a> {
    let new = || writes.versions.iter().copied();
    let rows = Rows::default()
        .uuids("secret_id", new().map(|v| v.secret_id.get()))
        .texts("kek_id", new().map(|v| v.sealed.kek_id.as_str()));
    let rows = versions(rows, &new());
    let sql = "INSERT INTO secret_versions \
               (secret_id, version, version_id, kek_id, wrapped_key, sealed_value, sealed_mask, \
                created_by, created_at) \
               SELECT r.secret_id, r.version, r.version_id, r.kek_id, r.wrapped_key, \
               r.sealed_value, r.sealed_mask, r.created_by, r.created_at FROM {rows}";
    Bulk::of_all(rows, sql)
}
