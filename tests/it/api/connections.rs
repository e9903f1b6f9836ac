//! What a connection is to its client: how an answer ends, and how long it is kept.

use crate::support::fixture::{LIST, World};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

struct Link(TcpStream);

impl Link {
    /// Sends a request with Alice's token; `head` is its first line and more headers.
    async fn ask(world: &World, head: &str) -> Self {
        let address = world.replica.base().strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{head}\r\nauthorization: Bearer {}\r\n\r\n", world.token);
        stream.write_all(request.as_bytes()).await.unwrap();
        Self(stream)
    }

    /// What comes next; nothing at the end of the connection.
    async fn piece(&mut self) -> String {
        let mut piece = vec![0; 65_536];
        let count = timeout(SOON, self.0.read(&mut piece)).await;
        let count = count.expect("something comes").unwrap();
        String::from_utf8(piece[..count].to_vec()).unwrap()
    }

    /// Everything through this text.
    async fn through(&mut self, text: &str) -> String {
        let mut came = String::new();
        while !came.contains(text) {
            let piece = self.piece().await;
            assert!(!piece.is_empty(), "no {text} in {came}");
            came.push_str(&piece);
        }
        came
    }

    async fn rest(&mut self) -> String {
        let mut came = String::new();
        loop {
            let piece = self.piece().await;
            if piece.is_empty() {
                return came;
            }
            came.push_str(&piece);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http_1_0_gets_no_chunks() {
    let mut world = World::sqlite();
    world.alice.create("A", "one").await.unwrap().expect(201);
    let stream = "GET /api/v1/events?after=0-0 HTTP/1.0\r\naccept: text/event-stream";
    let kept = format!("{stream}\r\nconnection: keep-alive");
    let mut links = Vec::new();
    for head in [stream, &kept] {
        let mut link = Link::ask(&world, head).await;
        let came = link.through("secret.created").await;
        let came = came + &link.through("\n\n").await;
        let (head, body) = came.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
        for header in ["transfer-encoding", "content-length", "keep-alive"] {
            assert!(!head.contains(header), "{head}");
        }
        assert!(
            body.starts_with("id: 0-0\n\nid: 1-1\nevent: secret.created\ndata: {"),
            "{body}"
        );
        links.push(link);
    }
    for path in [
        LIST,
        "/api/v1/nothing",
        "/openapi.json",
        "/docs",
        "/metrics",
    ] {
        let mut link = Link::ask(&world, &format!("GET {path} HTTP/1.0")).await;
        let came = link.rest().await;
        let (head, body) = came.split_once("\r\n\r\n").unwrap();
        assert!(!head.contains("transfer-encoding"), "{head}");
        let length = format!("\r\ncontent-length: {}\r\n", body.len());
        assert!(format!("{head}\r\n").contains(&length), "{head}");
    }
    // At the end of a stream its connection ends.
    let code = tokio::task::block_in_place(|| world.replica.terminate());
    assert_eq!(code, Some(0));
    for mut link in links {
        // What it said in the meantime is not chunked either.
        assert_eq!(link.rest().await.replace("id: 1-1\n\n", ""), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_kept_as_long_as_the_setting_says() {
    let kept = async |world: &World| {
        let mut link = Link::ask(world, &format!("GET {LIST} HTTP/1.1\r\nhost: a")).await;
        link.through("}").await;
        let began = Instant::now();
        timeout(Duration::from_secs(5), link.rest()).await.ok()?;
        Some(began.elapsed())
    };
    let short = World::with(&[("SERVER__KEEP_ALIVE_SECONDS", "2")]);
    let span = kept(&short).await.expect("it ends");
    assert!(span > Duration::from_secs(1), "{span:?}");
    assert_eq!(kept(&World::with(&[])).await, None);
}
