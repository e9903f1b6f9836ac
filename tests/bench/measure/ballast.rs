//! Rows by the million, made by SQL in a database that no service has used yet.

use crate::{
    sizes::{Sizes, bytes},
    support::postgres::psql,
};

/// The owner of the secrets.
pub(crate) const OWNER: &str = "ballast";

/// Secrets with one version each. They can be changed, but their values don't open.
pub(crate) fn secrets(url: &str, count: usize, sizes: &Sizes) {
    let version = sizes.version_columns();
    let sql = format!(
        "INSERT INTO secrets (id, owner, name, version, sequence, created_at, updated_at)
         SELECT gen_random_uuid(), '{OWNER}', 'BALLAST_' || n, 1, 1, 1, 1 FROM generate_series(1, {count}) n;
         INSERT INTO secret_versions SELECT id, 1, {version} FROM secrets"
    );
    psql(url, &sql);
}

/// Events of secrets that are gone, a hundred days old: the beginning of the log `changes`. The service chains its
/// own to the hash of the last one.
pub(crate) fn events(url: &str, count: usize, sizes: &Sizes) {
    // A page of them is JSON, in which the service finds what it has in its columns.
    let rest = sizes.body.saturating_sub(400);
    let hash = bytes(32);
    let sql = format!(
        "INSERT INTO events (log, position, epoch, id, type, owner, secret_id, sequence, version, version_id,
         occurred_at, body, hash)
         SELECT 'changes', n, 1, id, 'secret.updated', '{OWNER}', secret_id, number, number, version_id,
         (extract(epoch FROM now() - interval '100 days') * 1000000)::bigint,
         convert_to(json_build_object('log', 'changes', 'position', n, 'epoch', 1, 'id', id, 'type', 'secret.updated',
         'owner', '{OWNER}', 'secret_id', secret_id, 'sequence', number, 'version', number, 'version_id', version_id,
         'hash', encode(hash, 'hex'), 'ballast', repeat('x', {rest}))::text, 'UTF8'), hash
         FROM (SELECT n, gen_random_uuid() AS id, md5((n % 100000)::text)::uuid AS secret_id,
         n / 100000 + 1 AS number, gen_random_uuid() AS version_id, {hash}::bytea AS hash
         FROM generate_series(1, {count}) n OFFSET 0) ballast"
    );
    psql(url, &sql);
}

/// What autovacuum would do some time later.
pub(crate) fn settle(url: &str) {
    psql(url, "VACUUM ANALYZE");
    psql(url, "CHECKPOINT");
}
