//! The same change by hand, on the same server: pgbench, with rekey's own tables and indexes and rows of its size.
//!
//! It writes what a PUT writes: the secret gets its new version, the version is added, the one that is pushed out
//! is deleted, and the event is appended. Positions come from a sequence, and nothing is hashed or sealed.

use std::{fs, process::Command};

use crate::{
    load::Measured,
    options::Options,
    sizes::{Sizes, bytes},
    support::{
        folder::Folder,
        postgres::{find, psql},
    },
    world::VERSIONS,
};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Script {
    /// A transaction of four statements.
    Transaction,
    /// The same as one statement.
    Cte,
    /// What a GET reads.
    Select,
}

pub(crate) struct Pgbench {
    url: String,
    scripts: Folder,
    rows: usize,
}

/// The secret of a number.
const ID: &str = "lpad(to_hex(:n::int), 32, '0')::uuid";

impl Pgbench {
    /// `url` is a database with rekey's schema and nothing in it.
    pub(crate) fn prepare(url: String, sizes: &Sizes, rows: usize) -> Self {
        let id = "lpad(to_hex(n), 32, '0')::uuid";
        let version = sizes.version_columns();
        let sql = format!(
            "CREATE SEQUENCE positions CACHE 1;
             INSERT INTO secrets (id, owner, name, version, sequence, created_at, updated_at)
             SELECT {id}, 'bench', 'BENCH_' || n, {VERSIONS}, {VERSIONS}, 1, 1 FROM generate_series(1, {rows}) n;
             INSERT INTO secret_versions SELECT {id}, v, {version}
             FROM generate_series(1, {rows}) n, generate_series(1, {VERSIONS}) v;
             ANALYZE"
        );
        psql(&url, &sql);
        let scripts = Folder::new("sql");
        for script in [Script::Transaction, Script::Cte, Script::Select] {
            let text = format!("\\set n random(1, :rows)\n{}\n", script.sql(sizes));
            let file = scripts.join(&format!("{script:?}"));
            fs::write(file, text).expect("a script");
        }
        Self { url, scripts, rows }
    }

    /// Runs a script over all rows, or over one.
    pub(crate) fn run(
        &self,
        script: Script,
        many: bool,
        clients: usize,
        options: &Options,
    ) -> Measured {
        let rows = if many { self.rows } else { 1 };
        if !options.warm_up().is_zero() {
            self.run_for(script, rows, clients, options.warm_up().as_secs());
        }
        // On a busy machine a short run may end before its first transaction.
        let mut lengths = (0..5).map(|doubled| options.seconds().as_secs() << doubled);
        lengths
            .find_map(|seconds| self.run_for(script, rows, clients, seconds))
            .expect("figures of pgbench")
    }

    /// None when no transaction ended in time.
    fn run_for(
        &self,
        script: Script,
        rows: usize,
        clients: usize,
        seconds: u64,
    ) -> Option<Measured> {
        let output = Command::new(find("pgbench"))
            .args(["-n", "-M", "prepared", "-j", "2"])
            .args(["-c", &clients.to_string(), "-T", &seconds.to_string()])
            .args(["-D", &format!("rows={rows}"), "-f"])
            .arg(self.scripts.join(&format!("{script:?}")))
            .arg(&self.url)
            .output()
            .expect("pgbench runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "pgbench {script:?}: {errors}");
        let number = |before: &str| -> Option<f64> {
            let mut lines = text.lines();
            let rest = lines.find_map(|line| line.strip_prefix(before))?;
            let number: f64 = rest.split_whitespace().next()?.parse().ok()?;
            number.is_finite().then_some(number)
        };
        Some(Measured {
            rate: number("tps = ")?,
            p50: number("latency average = ")?,
            ..Measured::default()
        })
    }
}

impl Script {
    fn sql(self, sizes: &Sizes) -> String {
        let version = sizes.version_columns();
        let event = format!("1, {}, {}, NULL", bytes(sizes.body), bytes(32));
        let begin =
            "'changes', nextval('positions'), 1, gen_random_uuid(), 'secret.updated', 'bench'";
        let update = format!(
            "UPDATE secrets SET version = version + 1, sequence = sequence + 1, updated_at = updated_at + 1 \
             WHERE id = {ID} AND owner = 'bench' RETURNING id, version, sequence"
        );
        match self {
            Self::Transaction => format!(
                "BEGIN;\n{update} \\gset\n\
                 DELETE FROM secret_versions WHERE secret_id = :id::uuid AND version = :version::bigint - {VERSIONS};\n\
                 INSERT INTO secret_versions VALUES (:id::uuid, :version::bigint, {version});\n\
                 INSERT INTO events VALUES ({begin}, :id::uuid, :sequence::bigint, :version::bigint, \
                 gen_random_uuid(), {event});\nCOMMIT;"
            ),
            Self::Cte => format!(
                "WITH u AS ({update}), d AS (DELETE FROM secret_versions v USING u \
                 WHERE v.secret_id = u.id AND v.version = u.version - {VERSIONS}), \
                 i AS (INSERT INTO secret_versions SELECT id, version, {version} FROM u) \
                 INSERT INTO events SELECT {begin}, id, sequence, version, gen_random_uuid(), {event} FROM u;"
            ),
            Self::Select => format!(
                "SELECT s.id, s.owner, s.name, s.provider, s.version, s.sequence, s.created_at, s.updated_at, \
                 v.version_id, v.kek_id, v.wrapped_key, v.sealed_mask FROM secrets s \
                 JOIN secret_versions v ON v.secret_id = s.id AND v.version = s.version \
                 WHERE s.owner = 'bench' AND s.id = {ID};"
            ),
        }
    }
}
