//! `docs/operate.md`, carried out: its statements, taken out of the page as they stand.

use crate::support::fixture::ALL;
use crate::support::postgres::{Postgres, psql};
use crate::support::rabbitmq::RabbitMq;
use crate::support::service::{Deployment, Replica};
use std::sync::OnceLock;

const PAGE: &str = include_str!("../../../docs/operate.md");
/// The page's names: its roles and databases are the server's, its virtual host becomes one of the tests'.
const PASSWORD: &str = "secret";

/// An installation by that page.
pub(super) struct Installation {
    pub(super) deployment: Deployment,
    pub(super) vhost: String,
    pub(super) alice: String,
    pub(super) auditor: String,
    pub(super) public_key: String,
}

impl Installation {
    /// Made once.
    pub(super) fn get() -> &'static Self {
        static MADE: OnceLock<Installation> = OnceLock::new();
        MADE.get_or_init(Self::make)
    }

    fn make() -> Self {
        let guest = RabbitMq::shared().vhost();
        let vhost = guest.rsplit_once('/').expect("a virtual host").1.to_owned();
        for line in broker_lines(PAGE) {
            apply(RabbitMq::shared(), &line, &vhost);
        }
        let mut blocks = sql_blocks(PAGE);
        let after_migration = blocks.remove(2);
        assert_eq!(after_migration.role, "rekey_migrate");
        for block in blocks {
            block.run(Postgres::shared());
        }
        let deployment = Deployment::postgres(&url("rekey_migrate", "rekey"))
            .broker(&broker_url("rekey", &vhost), "secrets.events")
            .set("EVENTS__RETAIN_DAYS", "30")
            .raised_limits()
            .prepare();
        // Twice does no harm.
        after_migration.run(Postgres::shared());
        after_migration.run(Postgres::shared());
        let listed = deployment.run(&["keys", "list", "--json"]);
        let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
        let key = listed["checkpoint_public_key"].as_str();
        Self {
            alice: deployment.token("alice", &ALL),
            auditor: deployment.service_token("audit", &["*"], &["events:read"]),
            public_key: key.expect("a key before the first start").to_owned(),
            vhost,
            deployment,
        }
    }

    /// The service under its own accounts. `database` is the role's URL, direct or through a proxy.
    pub(super) fn serve(&self, database: &str) -> Replica {
        self.deployment
            .serve_with(&[("REKEY__DATABASE__URL", database)])
    }
}

/// A role's URL of a database.
pub(super) fn url(role: &str, database: &str) -> String {
    let url = Postgres::shared().url(database);
    url.replace("//postgres@", &format!("//{role}@"))
}

/// A user's URL of the virtual host.
pub(super) fn broker_url(user: &str, vhost: &str) -> String {
    let address = RabbitMq::shared().address();
    format!("amqp://{user}:{PASSWORD}@{address}/{vhost}")
}

/// A block of SQL with its first line, `-- in the database D, as R`.
pub(super) struct Block {
    pub(super) database: String,
    pub(super) role: String,
    pub(super) statements: Vec<String>,
}

impl Block {
    pub(super) fn run(&self, server: &Postgres) {
        let role = match self.role.as_str() {
            "a superuser" => "postgres",
            role => role,
        };
        let url = server.url(&self.database);
        let url = url.replace("//postgres@", &format!("//{role}@"));
        for statement in &self.statements {
            psql(&url, statement);
        }
    }
}

pub(super) fn sql_blocks(page: &str) -> Vec<Block> {
    let blocks = page.split("```sql\n").skip(1).map(|rest| {
        let (block, _) = rest.split_once("```").expect("the end of a block");
        let (first, statements) = block.split_once('\n').expect("a first line");
        let place = first.strip_prefix("-- in the database ");
        let (database, role) = place
            .and_then(|place| place.split_once(", as "))
            .unwrap_or_else(|| panic!("a block begins with {first}"));
        let statements = statements.lines().map(|line| {
            assert!(line.ends_with(';'), "one statement a line: {line}");
            line.to_owned()
        });
        Block {
            database: database.to_owned(),
            role: role.to_owned(),
            statements: statements.collect(),
        }
    });
    blocks.collect()
}

/// The arguments of each `rabbitmqctl`, without the quotes.
pub(super) fn broker_lines(page: &str) -> Vec<Vec<String>> {
    let lines = page
        .lines()
        .filter_map(|line| line.strip_prefix("rabbitmqctl "));
    lines
        .map(|line| {
            let words = line.split(' ');
            words
                .map(|word| word.trim_matches('\'').to_owned())
                .collect()
        })
        .collect()
}

fn apply(broker: &RabbitMq, line: &[String], vhost: &str) {
    let mut line: Vec<&str> = line.iter().map(String::as_str).collect();
    if let ["add_user", _] = line[..] {
        // What an operator types.
        line.push(PASSWORD);
    } else if let [_, "-p", place @ "/", ..] = &mut line[..] {
        *place = vhost;
    } else {
        panic!("what does this line do? {line:?}");
    }
    broker.ctl(&line);
}

#[test]
fn the_page_names_every_table_of_the_service() {
    Installation::get();
    let sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'";
    let tables = psql(&url("rekey_migrate", "rekey"), sql);
    assert!(tables.lines().count() > 9, "{tables}");
    for table in tables.lines() {
        assert!(
            PAGE.contains(&format!("`{table}`")),
            "docs/operate.md does not say what the service may do with {table}: decide it"
        );
    }
}
