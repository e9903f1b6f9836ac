//! What the accounts may not do is refused, and for want of a permission.

use super::account::{Account, refused};
use super::manual::{Installation, broker_url, url};
use crate::support::postgres::{Postgres, psql, try_psql};
use crate::support::rabbitmq::RabbitMq;

/// How many of these are about the schema: its owner may do them.
const SCHEMA: usize = 14;
/// What the service's role tries. Each would work for a superuser.
const FORBIDDEN: &[&str] = &[
    // The schema.
    "CREATE TABLE planted (id int)",
    "CREATE TEMPORARY TABLE planted (id int)",
    "CREATE SCHEMA planted",
    "CREATE FUNCTION planted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "CREATE TRIGGER planted BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE RULE planted AS ON INSERT TO events DO INSTEAD NOTHING",
    "CREATE INDEX planted ON events (epoch)",
    "ALTER TABLE events ADD COLUMN planted int",
    "ALTER TABLE events DISABLE TRIGGER ALL",
    "ALTER TABLE secrets ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY planted ON secrets USING (false)",
    "DROP TABLE secrets",
    "TRUNCATE secrets",
    "COMMENT ON TABLE secrets IS 'planted'",
    // The log's past, and who may do what.
    "UPDATE events SET body = body",
    "UPDATE events SET occurred_at = 0",
    "UPDATE log_head SET epoch = epoch + 1",
    "UPDATE log_head SET primary_kek_id = NULL",
    "INSERT INTO log_head SELECT * FROM log_head",
    "DELETE FROM log_head",
    "UPDATE api_tokens SET scopes = scopes",
    "UPDATE api_tokens SET expires_at = NULL",
    "DELETE FROM api_tokens",
    "INSERT INTO keys SELECT * FROM keys",
    "UPDATE keys SET state = 'retired'",
    "DELETE FROM keys",
    "INSERT INTO service_keys SELECT * FROM service_keys",
    "UPDATE service_keys SET sealed = sealed",
    "DELETE FROM service_keys",
    "DELETE FROM relay_cursors",
    "DELETE FROM seaql_migrations",
    // The server.
    "SET ROLE rekey_migrate",
    "SET SESSION AUTHORIZATION postgres",
    "SET session_replication_role = replica",
    "CREATE ROLE planted",
    "CREATE DATABASE planted",
    "ALTER SYSTEM SET fsync = off",
    "SELECT pg_read_file('PG_VERSION')",
    "COPY secrets TO PROGRAM 'cat'",
    "COPY secrets TO '/tmp/planted'",
    "SELECT rolpassword FROM pg_authid",
];

fn assert_denied(role: &str, statement: &str, tried: Result<String, String>) {
    match tried {
        Ok(_) => panic!("{role} may: {statement}"),
        Err(text) => {
            let denied = ["permission denied", "must be owner", "must be superuser"];
            let denied = denied.iter().any(|reason| text.contains(reason));
            assert!(denied, "{role}: {statement}: {text}");
        }
    }
}

#[test]
fn the_services_role_can_change_neither_schema_nor_log_nor_tokens_nor_keys() {
    Installation::get();
    let service = url("rekey", "rekey");
    for statement in FORBIDDEN {
        // Should one be allowed, it does not last.
        let tried = format!("BEGIN; {statement}; ROLLBACK");
        let tried =
            if statement.starts_with("CREATE DATABASE") || statement.starts_with("ALTER SYSTEM") {
                (*statement).to_owned()
            } else {
                tried
            };
        assert_denied("rekey", statement, try_psql(&service, &tried));
    }
    // The list means what it says: the owner of the schema may do what the service may not.
    let owner = url("rekey_migrate", "rekey");
    for statement in FORBIDDEN.iter().take(SCHEMA) {
        if !statement.contains("TEMPORARY") && !statement.contains("SCHEMA planted") {
            psql(&owner, &format!("BEGIN; {statement}; ROLLBACK"));
        }
    }
}

#[test]
fn no_role_is_a_superuser_or_reaches_another_ones_database() {
    Installation::get();
    let strong = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'rekey%' AND \
                  (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)";
    assert_eq!(psql(&Postgres::shared().url("rekey"), strong), "");
    let member = "SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member \
                  WHERE r.rolname LIKE 'rekey%'";
    assert_eq!(psql(&Postgres::shared().url("rekey"), member), "0");
    for (role, database) in [
        ("rekey_audit", "rekey"),
        ("rekey", "rekey_audit"),
        ("rekey_migrate", "rekey_audit"),
    ] {
        let tried = try_psql(&url(role, database), "SELECT 1");
        assert_denied(role, database, tried);
    }
    assert_denied(
        "rekey_migrate",
        "CREATE ROLE",
        try_psql(&url("rekey_migrate", "rekey"), "CREATE ROLE planted"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_user_of_the_broker_can_publish_events_and_nothing_else() {
    let installation = Installation::get();
    let service = Account::connect(&broker_url("rekey", &installation.vhost)).await;
    let audit = Account::connect(&broker_url("rekey_audit", &installation.vhost)).await;
    // The queues are there: what is refused is not merely missing.
    service.declares_exchange("secrets.events").await.unwrap();
    audit.declares("rekey.audit.dead").await.unwrap();
    refused("get", service.gets("rekey.audit.dead").await);
    refused("consume", service.consumes("rekey.audit.dead").await);
    refused("purge", service.purges("rekey.audit.dead").await);
    refused("delete a queue", service.deletes("rekey.audit.dead").await);
    refused("declare a queue", service.declares("own").await);
    refused("bind", service.binds("rekey.audit.dead", "secret.#").await);
    refused(
        "declare an exchange",
        service.declares_exchange("other").await,
    );
    refused(
        "past the exchange",
        service.publishes("", "rekey.audit.dead").await,
    );
    refused(
        "another topic",
        service.publishes("secrets.events", "other.key").await,
    );
    service
        .publishes("secrets.events", "secret.updated.nobody.none")
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_consumers_user_can_read_events_and_publish_none() {
    let installation = Installation::get();
    let service = Account::connect(&broker_url("rekey", &installation.vhost)).await;
    service.declares_exchange("secrets.events").await.unwrap();
    let audit = Account::connect(&broker_url("rekey_audit", &installation.vhost)).await;
    audit.declares("rekey.audit.dead").await.unwrap();
    let alice = Account::connect(&broker_url("alice", &installation.vhost)).await;
    alice.declares("alice.two").await.unwrap();

    refused(
        "publish",
        audit
            .publishes("secrets.events", "secret.updated.alice.1")
            .await,
    );
    refused("past the exchange", audit.publishes("", "alice.two").await);
    refused(
        "declare the exchange",
        audit.declares_exchange("secrets.events").await,
    );
    refused(
        "delete the exchange",
        audit.deletes_exchange("secrets.events").await,
    );
    refused("declare a queue", audit.declares("other").await);
    refused("another one's queue", audit.gets("alice.two").await);
    refused(
        "another topic",
        audit.binds("rekey.audit.dead", "other.#").await,
    );
    audit
        .binds("rekey.audit.dead", "secret.updated.nobody.#")
        .await
        .unwrap();

    // A subscriber sees its owner's changes, and can't ask for more.
    for key in [
        "#",
        "secret.#",
        "secret.*.*.*",
        "secret.*.bob.*",
        "secret.updated.#",
        "activity.#",
    ] {
        refused(key, alice.binds("alice.two", key).await);
    }
    refused(
        "publish",
        alice
            .publishes("secrets.events", "secret.updated.alice.1")
            .await,
    );
    refused("the audit queue", alice.gets("rekey.audit.dead").await);
    alice.binds("alice.two", "secret.*.alice.*").await.unwrap();
}

#[test]
fn no_user_of_the_broker_is_an_administrator() {
    Installation::get();
    let listed = RabbitMq::shared().ctl(&["list_users"]);
    for user in ["rekey", "rekey_audit", "alice"] {
        assert!(
            listed.lines().any(|line| line == format!("{user}\t[]")),
            "{listed}"
        );
    }
}
