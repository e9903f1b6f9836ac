//! `docker-compose.yml`: its scripts make an installation that works, and its statements are those of
//! `docs/operate.md`. (`scripts/compose-smoke` runs the file itself.)

use super::account::{Account, refused};
use super::manual::{broker_lines, sql_blocks};
use super::stack::{Stack, script, values};
use crate::support::folder::Folder;
use crate::support::postgres::psql;
use crate::support::process::{Process, program};
use crate::support::service::Replica;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

const PAGE: &str = include_str!("../../../docs/operate.md");
const SOON: Duration = Duration::from_secs(30);

/// Waits until the audit consumer has proved its copy.
async fn audited(stack: &Stack, service: &Replica) {
    let deployment = stack
        .deployment("audit")
        .set("AUDIT__URL", service.base())
        .set("AUDIT__DATABASE_URL", "sqlite://audit.db");
    let mut command = deployment.command(&["audit", "serve"]);
    let _consumer = Process::spawn(&mut command);
    let end = Instant::now() + SOON;
    loop {
        let output = deployment.try_run(&["audit", "verify"]);
        if output.status.success() {
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(!text.contains("not checked"), "the key is pinned: {text}");
            return;
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(Instant::now() < end, "{text}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Panics unless each volume is its reader's.
fn assert_given_away(stack: &Stack) {
    let given = std::fs::read_to_string(stack.folder.join("given")).unwrap();
    for line in [
        "-R 999:999 postgres",
        "-R 999:999 rabbitmq",
        "-R 10001:10001 migrate",
        "-R 10001:10001 rekey",
        "-R 10001:10001 audit",
    ] {
        assert!(
            given.lines().any(|given| given == line),
            "{line} in {given}"
        );
    }
}

/// Panics unless each account of the broker has its own password, and may do what docs/operate.md says.
async fn assert_accounts(stack: &Stack) {
    let url = |user: &str, password: &str| {
        format!("amqp://{user}:{password}@{}/%2f", stack.rabbitmq.address())
    };
    let password = |file: &str| {
        let url = stack.read(file);
        let url = url::Url::parse(&url).unwrap();
        url.password().unwrap().to_owned()
    };
    let audit = Account::connect(&url("rekey_audit", &password("audit/broker-url"))).await;
    refused(
        "publish",
        audit
            .publishes("secrets.events", "secret.updated.me.1")
            .await,
    );
    let service = Account::connect(&url("rekey", &password("rekey/broker-url"))).await;
    refused("read", service.gets("rekey.audit").await);
    let operator =
        Account::connect(&url("operator", &stack.read("rabbitmq/operator-password"))).await;
    operator.declares("mine").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_scripts_make_a_stack_that_works_and_change_nothing_when_they_run_again() {
    let stack = Stack::start();
    let said = stack.up().concat();
    assert!(
        said.contains("init: wrote rekey/keyring.json with the key "),
        "{said}"
    );
    for line in said.lines() {
        assert!(
            line.contains(": "),
            "a line that does not say who speaks: {line}"
        );
    }
    assert_given_away(&stack);
    let definitions = stack.folder.join("secrets/rabbitmq/definitions.json");
    stack
        .rabbitmq
        .ctl(&["import_definitions", definitions.to_str().unwrap()]);

    let (_deployment, replica) = stack.serve();
    let client = replica.client(&stack.read("rekey/token"));
    let created = client
        .create("COMPOSE_KEY", "sk-compose")
        .await
        .unwrap()
        .expect(201);
    client
        .put(&created.id(), "sk-next")
        .await
        .unwrap()
        .expect(200);
    replica.ready(SOON).await;
    audited(&stack, &replica).await;

    assert_accounts(&stack).await;

    let before = stack.secrets();
    let said = stack.up().concat();
    assert_eq!(
        said,
        "migrate: the first token: docker compose exec rekey cat ROOT/rekey/token\n"
            .replace("ROOT", stack.folder.join("secrets").to_str().unwrap())
    );
    assert_eq!(stack.secrets(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_gets_new_tokens_and_the_pinned_key_stays() {
    let stack = Stack::start();
    stack.up();
    let (token, pinned) = (stack.read("rekey/token"), stack.read("audit/public-key"));
    let server = stack.postgres.url("postgres");
    psql(&server, "DROP DATABASE rekey WITH (FORCE)");
    psql(&server, "DROP ROLE rekey");
    psql(&server, "DROP ROLE rekey_migrate");
    stack.new_database();

    let said = stack.up().concat();
    assert!(
        said.contains("the checkpoint key is not the one that the audit consumer knows"),
        "{said}"
    );
    assert_eq!(stack.read("audit/public-key"), pinned);
    let fresh = stack.read("rekey/token");
    assert_ne!(fresh, token);
    let (_deployment, replica) = stack.serve();
    replica.client(&fresh).list().await.unwrap().expect(200);
    replica.client(&token).list().await.unwrap().expect(401);

    // A token that was revoked is replaced too, and one that works is kept.
    let id = fresh.split('_').nth(1).unwrap();
    let migrate = stack.deployment("migrate");
    migrate.run(&["token", "revoke", id]);
    stack.run("migrate");
    let next = stack.read("rekey/token");
    assert_ne!(next, fresh);
    stack.run("migrate");
    assert_eq!(stack.read("rekey/token"), next);
    // A keyring that is lost is never replaced.
    std::fs::remove_file(stack.folder.join("secrets/rekey/keyring.json")).unwrap();
    let output = stack.try_run("init");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("restore it from a backup"), "{text}");
}

#[test]
fn the_file_and_the_page_have_the_same_statements() {
    let about = |line: &&str| {
        ["GRANT ", "REVOKE ", "ALTER SCHEMA "]
            .iter()
            .any(|word| line.starts_with(word))
    };
    let blocks = sql_blocks(PAGE);
    for (name, block) in [("accounts", &blocks[1]), ("grants", &blocks[2])] {
        let script = script(name);
        let statements: Vec<_> = script.lines().filter(about).collect();
        assert_eq!(statements, block.statements, "{name}");
    }
    let text = script("init");
    let (_, json) = text.split_once("keep rabbitmq/definitions.json '").unwrap();
    let json = json
        .split_once("}'")
        .unwrap()
        .0
        .replace("'\"$", "")
        .replace("\"'", "");
    let definitions: serde_json::Value = serde_json::from_str(&format!("{json}}}")).unwrap();
    let of = |list: &str, user: &str| {
        let list = definitions[list].as_array().unwrap().iter();
        list.filter(|row| row["user"] == user)
            .cloned()
            .collect::<Vec<_>>()
    };
    let mut compared = 0;
    for line in broker_lines(PAGE) {
        let line: Vec<_> = line.iter().map(String::as_str).collect();
        match line[..] {
            ["set_permissions", "-p", "/", user, configure, write, read] if user != "alice" => {
                let row = serde_json::json!({"vhost": "/", "user": user, "configure": configure, "write": write, "read": read});
                assert_eq!(of("permissions", user), [row]);
                compared += 1;
            }
            [
                "set_topic_permissions",
                "-p",
                "/",
                user,
                exchange,
                write,
                read,
            ] if user != "alice" => {
                let row = serde_json::json!({"vhost": "/", "user": user, "exchange": exchange, "write": write, "read": read});
                assert_eq!(of("topic_permissions", user), [row]);
                compared += 1;
            }
            _ => {}
        }
    }
    assert_eq!(compared, 4);
    let administrators = definitions["users"].as_array().unwrap().iter();
    let administrators = administrators.filter(|user| user["tags"] != serde_json::json!([]));
    assert_eq!(
        administrators
            .map(|user| user["name"].clone())
            .collect::<Vec<_>>(),
        ["operator"]
    );
}

#[test]
fn the_audit_consumer_does_not_see_the_database() {
    assert_eq!(values("audit", "networks"), ["events"]);
    assert_eq!(values("rabbitmq", "networks"), ["events"]);
    assert_eq!(values("postgres", "networks"), ["database"]);
    assert_eq!(values("migrate", "networks"), ["database"]);
    assert_eq!(values("rekey", "networks"), ["database", "events"]);
    for (name, volume) in [
        ("rekey", "migrate-secrets"),
        ("audit", "rekey-secrets"),
        ("audit", "migrate-secrets"),
    ] {
        let mounted = values(name, "volumes");
        assert!(
            !mounted.iter().any(|mount| mount.starts_with(volume)),
            "{name}: {mounted:?}"
        );
    }
}

#[test]
fn a_shell_script_is_checked_out_with_line_feeds_on_every_system() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut scripts = 0;
    for folder in ["scripts", ".ci"].map(|folder| root.join(folder)) {
        let attributes = std::fs::read_to_string(folder.join(".gitattributes"));
        let attributes = attributes.expect("a file of attributes beside the scripts");
        assert!(attributes.lines().any(|line| line == "* text eol=lf"));
        for entry in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(!text.contains('\r'));
            scripts += usize::from(text.starts_with("#!"));
        }
    }
    assert!(scripts >= 5, "{scripts} scripts are found");
}

/// What `scripts/compose-smoke` says where `docker` answers this.
fn smoke(docker: &str) -> String {
    let folder = Folder::new("smoke");
    for name in ["docker", "docker-compose"] {
        let path = folder.join(name);
        std::fs::write(
            &path,
            format!("#!/bin/sh\nprogram={name}\n{docker}\nexit 1\n"),
        )
        .unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/compose-smoke");
    let path = format!(
        "{}:{}",
        folder.path().display(),
        std::env::var("PATH").unwrap()
    );
    let mut command = program("bash");
    let output = command.arg(script).env("PATH", path).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_smoke_test_refuses_versions_that_are_too_old() {
    // Compose 1 is a program of its own, and knows the option, too.
    let one = r#"[ "$program $1" = "docker-compose version" ] && echo 1.29.2 && exit 0"#;
    let said = smoke(one);
    assert!(
        said.contains("compose 2.24 or newer is needed, and this is 1.29.2"),
        "{said}"
    );
    let old = r#"[ "$1" = compose ] && echo v2.20.3 && exit 0"#;
    let said = smoke(old);
    assert!(
        said.contains("compose 2.24 or newer is needed, and this is v2.20.3"),
        "{said}"
    );
    let engine = r#"[ "$1" = compose ] && echo 2.26.1-4 && exit 0
[ "$1" = version ] && echo 24.0.7 && exit 0"#;
    let said = smoke(engine);
    assert!(
        said.contains("docker engine 25.0 or newer is needed, and this is 24.0.7"),
        "{said}"
    );
    let newer = r#"[ "$1" = compose ] && echo 10.0.1 && exit 0"#;
    let said = smoke(newer);
    assert!(said.contains("a docker engine is needed"), "{said}");
}
