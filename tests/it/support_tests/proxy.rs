use crate::support::postgres::{Postgres, psql, try_psql};
use crate::support::proxy::{Ending, Fault, Moment, Proxy, Reach, Trigger};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);
const A_WHILE: Duration = Duration::from_millis(200);

/// Answers each piece that it gets with `ok`, and keeps what it got.
struct Server {
    address: SocketAddr,
    got: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let got = Arc::new(Mutex::new(Vec::new()));
        let kept = got.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = kept.clone();
                std::thread::spawn(move || answer(stream, &kept));
            }
        });
        Self { address, got }
    }

    fn got(&self) -> String {
        String::from_utf8(self.got.lock().unwrap().clone()).unwrap()
    }
}

fn answer(mut stream: TcpStream, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        kept.lock().unwrap().extend_from_slice(&buffer[..count]);
        if stream.write_all(b"ok").is_err() {
            break;
        }
    }
}

struct Talk(TcpStream);

impl Talk {
    fn with(proxy: &Proxy) -> Self {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(A_WHILE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    fn say(&mut self, text: &str) -> &mut Self {
        self.0.write_all(text.as_bytes()).unwrap();
        self
    }

    /// What comes within [`A_WHILE`].
    fn hear(&mut self) -> Result<String, ErrorKind> {
        let mut buffer = [0; 16];
        let count = self.0.read(&mut buffer).map_err(|error| error.kind())?;
        Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
    }
}

fn trigger(moment: Moment, fault: Fault) -> Trigger {
    Trigger {
        text: "COMMIT",
        moment,
        fault,
        reach: Reach::Link,
    }
}

const CLOSED: Result<String, ErrorKind> = Ok(String::new());
const RESET: Result<String, ErrorKind> = Err(ErrorKind::ConnectionReset);
const SILENCE: Result<String, ErrorKind> = Err(ErrorKind::WouldBlock);

#[test]
fn it_forwards_and_counts() {
    let (server, proxy) = start();
    let mut talk = Talk::with(&proxy);
    assert_eq!(talk.say("hello").hear().unwrap(), "ok");
    assert_eq!((proxy.accepted(), proxy.open()), (1, 1));
    assert_eq!((proxy.bytes_to_server(), proxy.bytes_to_client()), (5, 2));
    assert_eq!(server.got(), "hello");
    let url = proxy.url("postgres://postgres@127.0.0.1:1/db?sslmode=disable");
    assert_eq!(
        url,
        format!("postgres://postgres@{}/db?sslmode=disable", proxy.address())
    );
}

#[test]
fn a_stalled_link_is_silent_until_it_passes_again_and_loses_nothing() {
    let (server, proxy) = start();
    let mut old = Talk::with(&proxy);
    assert_eq!(old.say("one").hear().unwrap(), "ok");
    proxy.stall();
    let mut new = Talk::with(&proxy);
    assert_eq!(old.say("two").hear(), SILENCE);
    assert_eq!(new.say("three").hear(), SILENCE);
    assert_eq!(server.got(), "one");
    proxy.pass();
    assert_eq!(
        (old.hear().unwrap(), new.hear().unwrap()),
        ("ok".to_owned(), "ok".to_owned())
    );
}

#[test]
fn links_break_by_fin_or_by_reset_and_new_ones_work() {
    let (_server, proxy) = start();
    for (ending, seen) in [(Ending::Fin, CLOSED), (Ending::Reset, RESET)] {
        let mut talk = Talk::with(&proxy);
        assert_eq!(talk.say("one").hear().unwrap(), "ok");
        proxy.break_links(ending);
        assert_eq!(talk.hear(), seen);
        assert_eq!(Talk::with(&proxy).say("two").hear().unwrap(), "ok");
    }
}

#[test]
fn refused_links_end_until_it_passes_again() {
    let (_server, proxy) = start();
    proxy.refuse(Ending::Reset);
    assert_eq!(Talk::with(&proxy).hear(), RESET);
    proxy.refuse(Ending::Fin);
    assert_eq!(Talk::with(&proxy).hear(), CLOSED);
    proxy.pass();
    assert_eq!(Talk::with(&proxy).say("one").hear().unwrap(), "ok");
}

#[tokio::test]
async fn before_the_text_the_server_never_sees_it() {
    for (fault, seen) in [
        (Fault::Cut, CLOSED),
        (Fault::Reset, RESET),
        (Fault::Stall, SILENCE),
    ] {
        let (server, proxy) = start();
        let mut fired = proxy.arm(trigger(Moment::Before, fault));
        let mut talk = Talk::with(&proxy);
        assert_eq!(talk.say("BEGIN").hear().unwrap(), "ok");
        assert!(!fired.has_fired());
        assert_eq!(talk.say("COMMIT").hear(), seen, "{fault:?}");
        assert!(fired.wait(SOON).await);
        assert_eq!(server.got(), "BEGIN", "{fault:?}");
        // Once: a new link is whole.
        assert_eq!(Talk::with(&proxy).say("COMMIT").hear().unwrap(), "ok");
    }
}

#[tokio::test]
async fn after_the_text_the_server_has_it_and_the_answer_is_lost() {
    for moment in [Moment::After, Moment::Answered] {
        for (fault, seen) in [
            (Fault::Cut, CLOSED),
            (Fault::Reset, RESET),
            (Fault::Stall, SILENCE),
        ] {
            let (server, proxy) = start();
            let mut fired = proxy.arm(trigger(moment, fault));
            let mut talk = Talk::with(&proxy);
            assert_eq!(talk.say("BEGIN").hear().unwrap(), "ok");
            assert_eq!(talk.say("COMMIT").hear(), seen, "{moment:?} {fault:?}");
            assert!(fired.wait(SOON).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(server.got(), "BEGINCOMMIT", "{moment:?} {fault:?}");
        }
    }
}

#[tokio::test]
async fn a_text_in_two_pieces_is_seen_and_one_that_stalls_goes_on_when_it_passes() {
    let (server, proxy) = start();
    let mut fired = proxy.arm(trigger(Moment::Before, Fault::Stall));
    let mut talk = Talk::with(&proxy);
    assert_eq!(talk.say("xCOM").hear().unwrap(), "ok");
    assert_eq!(talk.say("MITx").hear(), SILENCE);
    assert!(fired.wait(SOON).await);
    assert_eq!(server.got(), "xCOM");
    proxy.pass();
    assert_eq!(talk.hear().unwrap(), "ok");
    assert_eq!(server.got(), "xCOMMITx");
}

#[tokio::test]
async fn a_trigger_may_take_every_link_along() {
    let (_server, proxy) = start();
    let mut fired = proxy.arm(Trigger {
        reach: Reach::All,
        ..trigger(Moment::After, Fault::Stall)
    });
    let (mut one, mut two) = (Talk::with(&proxy), Talk::with(&proxy));
    assert_eq!(two.say("hello").hear().unwrap(), "ok");
    assert_eq!(one.say("COMMIT").hear(), SILENCE);
    assert!(fired.wait(SOON).await);
    assert_eq!(two.say("hello").hear(), SILENCE);
    assert_eq!(Talk::with(&proxy).say("hello").hear(), SILENCE);
}

fn start() -> (Server, Proxy) {
    let server = Server::start();
    let proxy = Proxy::start(server.address);
    (server, proxy)
}

#[tokio::test]
async fn a_real_commit_is_kept_or_not_by_the_moment_of_the_break() {
    let server = Postgres::shared();
    let database = server.database();
    psql(&database, "CREATE TABLE notes (text text)");
    let proxy = Proxy::start(server.address());
    for (moment, kept) in [(Moment::Before, "0"), (Moment::Answered, "1")] {
        let mut fired = proxy.arm(trigger(moment, Fault::Reset));
        let lost = try_psql(
            &proxy.url(&database),
            "BEGIN; INSERT INTO notes VALUES ('x'); COMMIT",
        );
        assert!(lost.is_err() && fired.wait(SOON).await, "{lost:?}");
        assert_eq!(
            psql(&database, "SELECT count(*) FROM notes"),
            kept,
            "{moment:?}"
        );
    }
}

#[test]
fn orders_that_come_while_links_begin_hold_nothing_up() {
    let server = Server::start();
    let proxy = Arc::new(Proxy::start(server.address));
    let ordered = Arc::new(AtomicBool::new(true));
    // Not joined: were orders held up, it would never end.
    std::thread::spawn({
        let (proxy, ordered) = (proxy.clone(), ordered.clone());
        move || {
            while ordered.load(Ordering::Relaxed) {
                proxy.pass();
            }
        }
    });
    for _ in 0..1000 {
        let mut talk = Talk::with(&proxy);
        // Only a link that is held up for ever hears nothing for so long.
        talk.0.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(talk.say("hello").hear().unwrap(), "ok");
    }
    ordered.store(false, Ordering::Relaxed);
}
