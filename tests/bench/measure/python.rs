//! What a script does by itself: Python and SQLite in one process, one commit for each change, as durable as rekey.

use serde_json::json;

use crate::{
    load::Measured, options::Options, sizes::Sizes, support::python, support::service::Deployment,
    world::VERSIONS,
};

/// The same tables, and the same rows in them, as rekey's own.
const SCRIPT: &str = r#"
import json, os, random, sqlite3, sys, time
job = json.load(sys.stdin)
sizes, kept = job["sizes"], job["kept"]
db = sqlite3.connect(job["path"], isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("PRAGMA synchronous = FULL")
key, value, mask = (b"x" * sizes[name] for name in ("wrapped_key", "sealed_value", "sealed_mask"))
body, digest = b"x" * sizes["body"], b"x" * 32
def add_version(secret, version):
    db.execute("INSERT INTO secret_versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)",
        (secret, version, os.urandom(16), sizes["kek_id"], key, value, mask, sizes["created_by"]))
if not db.execute("SELECT count(*) FROM secrets").fetchone()[0]:
    db.execute("BEGIN IMMEDIATE")
    for number in range(job["rows"]):
        secret = os.urandom(16)
        db.execute("INSERT INTO secrets (id, owner, name, version, sequence, created_at, updated_at) "
            "VALUES (?, 'bench', ?, ?, ?, 1, 1)", (secret, f"BENCH_{number}", kept, kept))
        for version in range(1, kept + 1):
            add_version(secret, version)
    db.execute("COMMIT")
secrets = [row[0] for row in db.execute("SELECT id FROM secrets")]
position = db.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()[0]
def change():
    global position
    secret = random.choice(secrets)
    position += 1
    db.execute("BEGIN IMMEDIATE")
    version, sequence = db.execute("UPDATE secrets SET version = version + 1, sequence = sequence + 1, "
        "updated_at = ? WHERE id = ? RETURNING version, sequence", (time.time_ns() // 1000, secret)).fetchone()
    db.execute("DELETE FROM secret_versions WHERE secret_id = ? AND version = ?", (secret, version - kept))
    add_version(secret, version)
    db.execute("INSERT INTO events VALUES ('changes', ?, 1, ?, 'secret.updated', 'bench', ?, ?, ?, ?, ?, ?, ?, NULL)",
        (position, os.urandom(16), secret, sequence, version, os.urandom(16), time.time_ns() // 1000, body, digest))
    db.execute("COMMIT")
def changes(seconds):
    times, now = [], time.perf_counter()
    end = now + seconds
    while now < end:
        began = now
        change()
        now = time.perf_counter()
        times.append((now - began) * 1000)
    return sorted(times)
changes(job["warm_up"])
began = time.perf_counter()
times = changes(job["seconds"])
elapsed = time.perf_counter() - began
print(json.dumps({"rate": len(times) / elapsed, "p50": times[len(times) // 2],
    "p99": times[len(times) * 99 // 100], "count": len(times)}))
"#;

pub(crate) struct Python {
    deployment: Deployment,
    sizes: Sizes,
    rows: usize,
}

impl Python {
    pub(crate) fn prepare(sizes: &Sizes, rows: usize) -> Self {
        Self {
            deployment: Deployment::sqlite().prepare(),
            sizes: sizes.clone(),
            rows,
        }
    }

    pub(crate) fn run(&self, options: &Options) -> Measured {
        let path = self.deployment.database().strip_prefix("sqlite://");
        let job = json!({
            "path": path.expect("a SQLite database"),
            "sizes": self.sizes,
            "rows": self.rows,
            "kept": VERSIONS,
            "warm_up": options.warm_up().as_secs(),
            "seconds": options.seconds().as_secs(),
        });
        let printed = python::run(SCRIPT, job.to_string().as_bytes());
        serde_json::from_str(&printed).expect("figures")
    }
}
