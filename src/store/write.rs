//! The statements that write a plan, each over many rows at once.

use sea_orm::{ConnectionTrait, DatabaseTransaction};

use super::{
    StoreError,
    apply::Writes,
    dialect::{Kind, Rows},
    log,
    rows::signed,
};

/// Step 4: writes what the plan says, deletions and updates before inserts.
pub(super) async fn write(
    transaction: &DatabaseTransaction,
    writes: &Writes,
) -> Result<(), StoreError> {
    let steps = [
        delete_versions(writes),
        delete_secrets(writes),
        update_secrets(writes),
        insert_secrets(writes),
        insert_versions(writes)?,
        log::insert(&writes.events),
    ];
    for (rows, sql) in steps {
        run(transaction, rows, sql).await?;
    }
    Ok(())
}

/// Runs a statement over all rows.
pub(super) async fn run(
    transaction: &DatabaseTransaction,
    rows: Rows,
    sql: &str,
) -> Result<(), StoreError> {
    for statement in rows.statements(transaction.get_database_backend(), sql) {
        transaction.execute_raw(statement).await?;
    }
    Ok(())
}

type Step = (Rows, &'static str);

fn delete_versions(writes: &Writes) -> Step {
    let mut rows = Rows::new(&[
        ("secret_id", Kind::Uuid),
        ("lowest", Kind::Number),
        ("highest", Kind::Number),
    ]);
    for id in &writes.deleted {
        rows.push([id.get().into(), 0_i64.into(), i64::MAX.into()]);
    }
    for (id, versions) in &writes.pushed_out {
        let (lowest, highest) = (signed(*versions.start()), signed(*versions.end()));
        rows.push([id.get().into(), lowest.into(), highest.into()]);
    }
    let sql = "DELETE FROM secret_versions WHERE (secret_id, version) IN \
               (SELECT v.secret_id, v.version FROM {rows} \
                JOIN secret_versions v ON v.secret_id = r.secret_id \
                AND v.version BETWEEN r.lowest AND r.highest)";
    (rows, sql)
}

fn delete_secrets(writes: &Writes) -> Step {
    let mut rows = Rows::new(&[("id", Kind::Uuid)]);
    for id in &writes.deleted {
        rows.push([id.get().into()]);
    }
    (
        rows,
        "DELETE FROM secrets WHERE id IN (SELECT r.id FROM {rows})",
    )
}

fn update_secrets(writes: &Writes) -> Step {
    let mut rows = Rows::new(&[
        ("id", Kind::Uuid),
        ("version", Kind::Number),
        ("sequence", Kind::Number),
        ("updated_at", Kind::Number),
    ]);
    for secret in &writes.updated {
        rows.push([
            secret.id.get().into(),
            signed(secret.version).into(),
            signed(secret.sequence).into(),
            secret.updated_at.micros().into(),
        ]);
    }
    let sql = "UPDATE secrets SET version = r.version, sequence = r.sequence, \
               updated_at = r.updated_at FROM {rows} WHERE secrets.id = r.id";
    (rows, sql)
}

fn insert_secrets(writes: &Writes) -> Step {
    let mut rows = Rows::new(&[
        ("id", Kind::Uuid),
        ("owner", Kind::Text),
        ("name", Kind::Text),
        ("provider", Kind::Text),
        ("version", Kind::Number),
        ("sequence", Kind::Number),
        ("created_at", Kind::Number),
        ("updated_at", Kind::Number),
    ]);
    for secret in &writes.created {
        // No provider is written as '', which no provider is.
        let provider = secret.provider.as_ref().map_or("", |p| p.as_str());
        rows.push([
            secret.id.get().into(),
            secret.owner.as_str().into(),
            secret.name.as_str().into(),
            provider.into(),
            signed(secret.version).into(),
            signed(secret.sequence).into(),
            secret.created_at.micros().into(),
            secret.updated_at.micros().into(),
        ]);
    }
    let sql = "INSERT INTO secrets \
               (id, owner, name, provider, version, sequence, created_at, updated_at) \
               SELECT r.id, r.owner, r.name, NULLIF(r.provider, ''), r.version, r.sequence, \
               r.created_at, r.updated_at FROM {rows}";
    (rows, sql)
}

fn insert_versions(writes: &Writes) -> Result<Step, StoreError> {
    let mut rows = Rows::new(&[
        ("secret_id", Kind::Uuid),
        ("version", Kind::Number),
        ("version_id", Kind::Uuid),
        ("kek_id", Kind::Text),
        ("wrapped_key", Kind::Bytes),
        ("sealed_value", Kind::Bytes),
        ("sealed_mask", Kind::Bytes),
        ("created_by", Kind::Text),
        ("created_at", Kind::Number),
    ]);
    for version in &writes.versions {
        let created_by = serde_json::to_string(&version.created_by)
            .or(Err(StoreError::Corrupt("secret_versions")))?;
        rows.push([
            version.secret_id.get().into(),
            signed(version.version).into(),
            version.sealed.version_id.get().into(),
            version.sealed.kek_id.as_str().into(),
            version.sealed.wrapped_key.clone().into(),
            version.sealed.sealed_value.clone().into(),
            version.sealed.sealed_mask.clone().into(),
            created_by.into(),
            version.created_at.micros().into(),
        ]);
    }
    let sql = "INSERT INTO secret_versions \
               (secret_id, version, version_id, kek_id, wrapped_key, sealed_value, sealed_mask, \
                created_by, created_at) \
               SELECT r.secret_id, r.version, r.version_id, r.kek_id, r.wrapped_key, \
               r.sealed_value, r.sealed_mask, r.created_by, r.created_at FROM {rows}";
    Ok((rows, sql))
}
