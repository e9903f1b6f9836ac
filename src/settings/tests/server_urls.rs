//! What a URL of the database or the broker may hold, and what the drivers get.

use super::*;

/// URLs, and how the refusal of each begins after "must".
const POSTGRES: &str = "\
postgres://db/a?sslmod=verify-full → not have the parameter sslmod; did you mean sslmode?
postgres://db/a?ssl_mode=disable → not have the parameter ssl_mode; did you mean sslmode?
postgres://db/a?SSLMODE=disable → not have the parameter SSLMODE;
postgres://db/a?connect_timeout=3 → not have the parameter connect_timeout;
postgres://db/a?can%20ary=1 → not have the parameter (not shown);
postgres://db/a?sslmode=full → have an sslmode of disable,
postgres://db/a?sslmode=disable&ssl-mode=require → not say sslmode twice
postgres://db/a?application_name=x → not set application_name: rekey sets it itself
postgres://db/a?options=-c%20statement_timeout=0 → not set statement_timeout:
postgres://db/a?options=-cjit=on → not set jit:
postgres://db/a?options=--lock-timeout=0 → not set lock_timeout:
postgres://db/a?options[Synchronous_Commit]=off → not set synchronous_commit:
postgres:///a → name a host
postgres:// → name a host
postgres://db/a?host=other → not say host twice
postgres:///a?host=db&hostaddr=10.0.0.1 → not say host twice
postgres://db:5432/a?port=5433 → not say port twice
postgres://me@db/a?user=you → not say user twice
postgres://me:canary@db/a?password=x → not say password twice
postgres://db/a?dbname=b → not say dbname twice
postgres://db:0/a → have a port from 1 to 65535
postgres://db/a?port=0 → have a port from 1 to 65535
postgres://db/a?port=70000 → have a port from 1 to 65535
postgres://one,two/a → name one host, or an IP address
postgres://256.0.0.1/a → name one host, or an IP address
postgres://me:can/ary@db/a → have %2F in place of a /
postgres://me:can?ary@db/a → have %3F in place of a ?
postgres://me:can#ary@db/a → have %23 in place of a #
postgres://me:1/canary@db/a → have %2F in place of a /
postgres://me:1?canary=1@db/a → have %3F in place of a ?
postgres://db/a#canary → have %23 in place of a #
";

/// The same.
const RABBITMQ: &str = "\
amqps://mq?heartbeat=45 → not set heartbeat: rekey sets it itself
amqps://mq?connection_timeout=9 → not set connection_timeout:
amqps://mq?frame_mx=8192 → not have the parameter frame_mx; did you mean frame_max?
amqps://mq?verify=verify_none → not have the parameter verify; known are frame_max,
amqps://mq?frame_max=many → have a frame_max from 0 to 4294967295
amqps://mq?channel_max=65536 → have a channel_max from 0 to 65535
amqps://mq?auth_mechanism=canary → have an auth_mechanism of plain,
amqps://mq?frame_max=1&frame_max=2 → not say frame_max twice
amqp:// → name a host
amqp:///v → name a host
amqps://mq:0 → have a port from 1 to 65535
amqps://a,b → name one host, or an IP address
amqps://me:can/ary@mq → have %2F in place of a /
amqps://me:can?ary@mq → have %3F in place of a ?
amqps://me:can#ary@mq → have %23 in place of a #
amqp://mq → be amqps://… where the host is another machine, or have the parameter tls=off
amqp://[2001:db8::5]/v → be amqps://… where the host is another machine,
amqp://mq?tls=on → have tls=off where it has the parameter tls
amqps://mq?tls=off → not be amqps://… with tls=off
";

fn rows(table: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    table.lines().map(|row| row.split_once(" → ").unwrap())
}

/// The one fault of a URL, without the setting's name.
fn fault_of(setting: &str, url: &str) -> String {
    let faults = faults(&[&format!("REKEY__{setting}={url}")]);
    assert_eq!(faults.lines().count(), 1, "{faults}");
    assert!(!faults.contains(CANARY), "{faults}");
    let (_, what) = faults.split_once("): ").unwrap();
    what.to_owned()
}

fn database(url: &str) -> DatabaseSettings {
    read(&[&format!("REKEY__DATABASE__URL={url}")]).database
}

fn broker(url: &str) -> BrokerSettings {
    read(&[&format!("REKEY__BROKER__URL={url}")]).broker
}

#[test]
fn a_postgres_url_that_the_driver_would_not_read_as_it_is_written_is_refused_by_name() {
    for (url, expected) in rows(POSTGRES) {
        for setting in ["DATABASE__URL", "AUDIT__DATABASE_URL"] {
            let fault = fault_of(setting, url);
            assert!(
                fault.starts_with(&format!("must {expected}")),
                "{url}: {fault}"
            );
        }
    }
}

#[test]
fn a_broker_url_that_the_driver_would_not_read_as_it_is_written_is_refused_by_name() {
    for (url, expected) in rows(RABBITMQ) {
        let fault = fault_of("BROKER__URL", url);
        assert!(
            fault.starts_with(&format!("must {expected}")),
            "{url}: {fault}"
        );
    }
}

#[test]
fn a_host_that_is_another_machine_needs_tls_unless_the_url_says_otherwise() {
    for (url, tls) in [
        ("postgres://db/a", "on (sslmode=verify-full)"),
        ("postgres://10.0.0.5/a", "on (sslmode=verify-full)"),
        ("postgres://localhost.example/a", "on (sslmode=verify-full)"),
        (
            "postgres:///a?hostaddr=10.0.0.5",
            "on (sslmode=verify-full)",
        ),
        ("postgres://db/a?sslmode=disable", "off (sslmode=disable)"),
        ("postgres://db/a?sslmode=ALLOW", "off (sslmode=allow)"),
        (
            "postgres://db/a?ssl-mode=require",
            "unverified (sslmode=require)",
        ),
        (
            "postgres://db/a?sslmode=verify-ca",
            "on, for any host (sslmode=verify-ca)",
        ),
        (
            "postgres://127.9.9.9/a",
            "unverified, or off (sslmode=prefer)",
        ),
        ("postgres://[::1]/a", "unverified, or off (sslmode=prefer)"),
        (
            "postgres://LocalHost/a",
            "unverified, or off (sslmode=prefer)",
        ),
        (
            "postgres://localhost/a?sslmode=verify-full",
            "on (sslmode=verify-full)",
        ),
        (
            "postgres:///a?host=/run/postgresql",
            "off (sslmode=disable)",
        ),
        ("postgres://%2Frun%2Fpostgresql/a", "off (sslmode=disable)"),
    ] {
        assert_eq!(database(url).tls().as_deref(), Some(tls), "{url}");
    }
    assert_eq!(read(&[]).database.tls(), None);
    for (url, tls) in [
        ("amqps://mq", "on (amqps)"),
        ("amqps://[2001:db8::5]/v", "on (amqps)"),
        ("amqp://me:secret@mq:5672/%2f?tls=off", "off (tls=off)"),
        ("amqp://[::1]", "off (amqp, this machine)"),
        ("amqp://localhost", "off (amqp, this machine)"),
    ] {
        assert_eq!(broker(url).tls().as_deref(), Some(tls), "{url}");
    }
    assert_eq!(read(&[]).broker.tls(), None);
}

#[test]
fn the_driver_of_postgres_gets_host_port_and_tls_in_one_spelling() {
    for (url, expected) in [
        (
            "postgres://db/a",
            "postgres://db/a?host=db&port=5432&sslmode=verify-full",
        ),
        (
            "postgresql://me:p%2Fw@[2001:db8::5]:5433/a?ssl-ca=%2Fca.pem",
            "postgresql://me:p%2Fw@[2001:db8::5]:5433/a?sslrootcert=%2Fca.pem&host=2001%3Adb8%3A%3A5&port=5433&sslmode=verify-full",
        ),
        (
            "postgres:///a?host=[::1]&options=-c%20search_path=b&options[work_mem]=1MB",
            "postgres:///a?options=-c+search_path%3Db&options%5Bwork_mem%5D=1MB&host=%3A%3A1&port=5432&sslmode=prefer",
        ),
        (
            "postgres://my_db.example:5432/a?sslmode=Require",
            "postgres://my_db.example:5432/a?host=my_db.example&port=5432&sslmode=require",
        ),
    ] {
        assert_eq!(database(url).url.expose_secret(), expected);
    }
}
