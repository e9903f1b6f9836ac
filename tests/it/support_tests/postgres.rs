use crate::support::postgres::{Postgres, dump, psql, try_psql};

#[test]
fn each_database_is_fresh_and_the_server_syncs() {
    let server = Postgres::shared();
    let (one, two) = (server.database(), server.database());
    psql(&one, "CREATE TABLE notes (text text)");
    assert_eq!(
        psql(
            &two,
            "SELECT count(*) FROM pg_tables WHERE tablename = 'notes'"
        ),
        "0"
    );
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        assert_eq!(psql(&one, &format!("SHOW {setting}")), "on", "{setting}");
    }
    assert_eq!(psql(&one, "SHOW ssl"), "off");
}

#[test]
fn a_killed_server_comes_back_with_what_was_committed() {
    let mut server = Postgres::start_private();
    let database = server.database();
    psql(
        &database,
        "CREATE TABLE notes (text text); INSERT INTO notes VALUES ('kept')",
    );
    server.kill_9();
    assert!(try_psql(&database, "SELECT 1").is_err());
    server.restart();
    assert_eq!(psql(&database, "SELECT text FROM notes"), "kept");
}

#[test]
fn a_dump_shows_the_rows() {
    let server = Postgres::shared();
    let database = server.database();
    psql(
        &database,
        "CREATE TABLE notes (text text); INSERT INTO notes VALUES ('a needle')",
    );
    let dump = String::from_utf8(dump(&database)).unwrap();
    assert!(dump.contains("a needle"), "{dump}");
}
