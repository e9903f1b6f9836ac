//! What no well-behaved client sends, over raw sockets: every case has the documented answer, none a 5xx, and no
//! answer repeats the marker that stands in the input.

use crate::support::fixture::{ABSENT, LIST, World};
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

const MARKER: &str = "mArKeR7531";
const JSON: &str = "Content-Type: application/json\r\n";
/// A case fails when nothing comes for so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a socket gave until the other side closed it.
struct Raw(Vec<u8>);

impl Raw {
    fn status(&self) -> u16 {
        let line = self.0.split(|byte| *byte == b'\n').next().unwrap();
        let line = String::from_utf8_lossy(line);
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("no status in {line:?}"))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// The documented status with its envelope, and nothing of the input.
    fn assert_is(&self, status: u16, case: &str) {
        let text = self.text();
        assert_eq!(self.status(), status, "{case}: {text}");
        assert!(
            text.contains(&format!(r#"{{"code":{status},"#)),
            "{case}: {text}"
        );
        assert!(text.contains("x-request-id: "), "{case}: {text}");
        self.assert_silent(case);
    }

    fn assert_silent(&self, case: &str) {
        assert!(
            !self.text().contains(MARKER),
            "{case} is repeated: {}",
            self.text()
        );
    }
}

/// Speaks to one service, with a good credential.
struct Peer<'service>(&'service World);

impl Peer<'_> {
    fn connect(&self) -> TcpStream {
        let address = self.0.replica.base().trim_start_matches("http://");
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// The head up to its own headers, which end it.
    fn head(&self, line: &str, headers: &str) -> String {
        let token = &self.0.token;
        format!(
            "{line} HTTP/1.1\r\nHost: rekey\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\n{headers}\r\n"
        )
    }

    /// Sends all, as far as it is taken, and reads to the end.
    fn exchange(&self, bytes: &[u8]) -> Raw {
        let mut stream = self.connect();
        // The other side may have answered and closed before it took everything.
        let _ = stream.write_all(bytes);
        read_to_end(&mut stream)
    }

    /// A complete request with a body of known length.
    fn send(&self, line: &str, headers: &str, body: &[u8]) -> Raw {
        let length = format!("Content-Length: {}\r\n{headers}", body.len());
        let head = self.head(line, &length);
        self.exchange(&[head.as_bytes(), body].concat())
    }

    fn assert_nothing_stored(&self) {
        let listed = self.send(&format!("GET {LIST}"), "", b"").text();
        assert!(listed.ends_with(r#"{"secrets":[],"total":0}"#), "{listed}");
    }

    fn post(&self, body: &[u8]) -> Raw {
        self.send(&format!("POST {LIST}"), JSON, body)
    }
}

/// A reset after the answer ends it, too.
fn read_to_end(stream: &mut TcpStream) -> Raw {
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Raw(answer),
            Ok(read) => answer.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return Raw(answer);
            }
            Err(error) => panic!(
                "no end after {:?}: {error}",
                String::from_utf8_lossy(&answer)
            ),
        }
    }
}

fn with_value(value: &[u8]) -> Vec<u8> {
    [br#"{"name":"A","value":""#, value, br#""}"#].concat()
}

#[test]
fn a_body_that_is_not_one_json_object_is_answered_400() {
    let service = World::sqlite();
    let peer = Peer(&service);
    let good = with_value(MARKER.as_bytes());
    let deep = format!(r#"{{"name":"A","x":{}{MARKER}"#, "[".repeat(100_000));
    let nested = |depth| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"name":"A","value":"{MARKER}","x":{open}{close}}}"#)
    };
    for (case, body) in [
        ("nothing", Vec::new()),
        ("white space", b" \r\n\t".to_vec()),
        ("NUL bytes", vec![0; 64]),
        ("no JSON", MARKER.into()),
        ("a string", format!("\"{MARKER}\"").into()),
        ("a list", format!("[\"{MARKER}\"]").into()),
        ("null", b"null".to_vec()),
        ("half an object", good[..good.len() - 1].to_vec()),
        ("two objects", [&good[..], &good[..]].concat()),
        ("trailing bytes", [&good[..], MARKER.as_bytes()].concat()),
        ("a trailing NUL", [&good[..], b"\0"].concat()),
        (
            "a trailing comma",
            format!(r#"{{"name":"{MARKER}",}}"#).into(),
        ),
        ("a byte order mark", [b"\xef\xbb\xbf", &good[..]].concat()),
        ("UTF-16", good.iter().flat_map(|byte| [*byte, 0]).collect()),
        ("invalid UTF-8", with_value(b"mArKeR7531\xff\xfe")),
        ("an overlong form", with_value(b"mArKeR7531\xc0\xaf")),
        (
            "a surrogate in UTF-8",
            with_value(b"mArKeR7531\xed\xa0\x80"),
        ),
        ("a lone high surrogate", with_value(br"mArKeR7531\ud800")),
        ("a lone low surrogate", with_value(br"mArKeR7531\udc00")),
        (
            "surrogates reversed",
            with_value(br"mArKeR7531\udc00\ud800"),
        ),
        ("a raw newline", with_value(b"mArKeR7531\n")),
        ("a bad escape", with_value(br"mArKeR7531\x41")),
        ("a raw NUL", with_value(b"mArKeR7531\0")),
        ("endless nesting", deep.into()),
        ("nesting over the limit", nested(200).into()),
        (
            "a number without end",
            format!(r#"{{"name":1{}"#, "0".repeat(9_999)).into(),
        ),
        ("a number beyond all", br#"{"name":1e99999}"#.to_vec()),
        ("single quotes", format!("{{'name':'{MARKER}'}}").into()),
        ("a comment", format!("/* {MARKER} */ {{}}").into()),
    ] {
        peer.post(&body).assert_is(400, case);
    }
    assert_eq!(peer.post(nested(100).as_bytes()).status(), 201);
}

#[test]
fn a_repeated_key_is_answered_400_in_whatever_spelling() {
    let service = World::sqlite();
    let peer = Peer(&service);
    for (case, body) in [
        ("twice", r#"{"name":"A","value":"mArKeR7531","value":"y"}"#),
        (
            "escaped",
            r#"{"name":"A","value":"x","\u0076alue":"mArKeR7531"}"#,
        ),
        (
            "unknown",
            r#"{"mArKeR7531":1,"name":"A","value":"x","mArKeR7531":2}"#,
        ),
        ("empty", r#"{"":"mArKeR7531","name":"A","value":"x","":2}"#),
    ] {
        peer.post(body.as_bytes()).assert_is(400, case);
    }
}

#[test]
fn a_media_type_that_is_not_json_in_utf8_is_answered_400() {
    let service = World::sqlite();
    let peer = Peer(&service);
    let line = format!("POST {LIST}");
    let body = with_value(MARKER.as_bytes());
    let twice = format!("{JSON}{JSON}");
    let gzip = format!("{JSON}Content-Encoding: gzip\r\n");
    let named = |media: &str| format!("Content-Type: {media}\r\n");
    for headers in [
        String::new(),
        named(""),
        named(MARKER),
        named("text/json"),
        named("application/x-www-form-urlencoded"),
        named("multipart/form-data; boundary=mArKeR7531"),
        named("application/json; charset=utf-16"),
        named("application/json; mArKeR7531=1"),
        named("application/json\u{a0}"),
        twice,
        gzip.clone(),
        format!("{JSON}Content-Encoding: identity\r\n"),
        format!("{JSON}Content-Encoding: mArKeR7531\r\n"),
    ] {
        peer.send(&line, &headers, &body).assert_is(400, &headers);
    }
    // Really compressed: `gzip` of nothing.
    let empty = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    peer.send(&line, &gzip, empty).assert_is(400, "gzip");
    peer.send(&line, JSON, empty)
        .assert_is(400, "undeclared gzip");
}

#[test]
fn an_id_in_another_form_is_answered_422() {
    let service = World::sqlite();
    let peer = Peer(&service);
    let bare = ABSENT.replace('-', "");
    for id in [
        MARKER,
        "0",
        "null",
        "..",
        "-1",
        "%00",
        "%2e%2e",
        "%F0%28%8C%28",
        "%ff%fe",
        "1%27%20OR%20%271%27%3D%271",
        &bare,
        &format!("%7B{ABSENT}%7D"),
        &format!("urn:uuid:{ABSENT}"),
        &format!("{ABSENT}%20"),
        &format!("{ABSENT}%00"),
        &format!("{ABSENT}0"),
        ABSENT.get(..35).unwrap(),
        &ABSENT.replace('0', "g"),
        &ABSENT.replace('-', "_"),
        &format!("{bare}----"),
        &MARKER.repeat(1_000),
    ] {
        for (method, body) in [
            ("GET", &b""[..]),
            ("DELETE", b""),
            ("PUT", b"{\"value\":\"x\"}"),
        ] {
            let answer = peer.send(&format!("{method} {LIST}/{id}"), JSON, body);
            answer.assert_is(422, id);
            let items = r#""errors":[{"loc":["path","secret_id"]"#;
            assert!(answer.text().contains(items), "{id}");
        }
    }
}

#[test]
fn a_marker_in_path_query_or_header_is_not_repeated() {
    let service = World::sqlite();
    let peer = Peer(&service);
    let long = format!("GET /{MARKER}{}", "x".repeat(30_000));
    let query = format!("GET {LIST}/{ABSENT}/events?before={MARKER}&limit={MARKER}");
    let ids = format!("X-Request-Id: {MARKER}/\r\nX-Request-Id: {MARKER}\r\n");
    let cookies: String = (0..60).fold(String::new(), |mut all, n| {
        let _ = write!(all, "X-{n}: {MARKER}\r\n");
        all
    });
    let put = format!("PUT {LIST}/{ABSENT}");
    for (line, headers, status) in [
        ("GET /mArKeR7531", "", 404),
        (long.as_str(), "", 404),
        ("GET /api/v1/user/secrets%2fmArKeR7531", "", 404),
        ("GET /api/v1/../../mArKeR7531", "", 404),
        ("mArKeR7531 /health", "", 405),
        (&query, "", 422),
        ("GET /mArKeR7531", &ids, 404),
        ("GET /mArKeR7531", &cookies, 404),
        ("GET /mArKeR7531", "X-Api-Key: mArKeR7531\r\n", 401),
        (
            &put,
            "Content-Type: application/json\r\nIf-Match: mArKeR7531\r\n",
            400,
        ),
        (
            &put,
            "Content-Type: application/json\r\nIf-Match: \"mArKeR7531\"\r\n",
            400,
        ),
        (&put, "Content-Type: mArKeR7531\r\n", 400),
    ] {
        peer.send(line, headers, b"").assert_is(status, line);
    }
}

/// What actix refuses below HTTP's semantics has no envelope: a 4xx or a closed connection, and no marker.
#[test]
fn bad_framing_is_refused_without_an_envelope() {
    let service = World::sqlite();
    let peer = Peer(&service);
    let post = format!("POST {LIST}");
    let many: String = (0..200).fold(String::new(), |mut all, n| {
        let _ = write!(all, "X-{n}: {MARKER}\r\n");
        all
    });
    let huge = format!("X-Huge: {}{MARKER}\r\n", "x".repeat(200_000));
    let both = format!("{JSON}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n");
    for (case, bytes) in [
        ("no HTTP", format!("{MARKER}\r\n\r\n")),
        (
            "TLS",
            "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03\r\n\r\n".to_owned(),
        ),
        ("no such version", format!("GET /{MARKER} HTTP/9.9\r\n\r\n")),
        (
            "a NUL in a header",
            peer.head("GET /health", "X-A: mArKeR7531\0\r\n"),
        ),
        (
            "a space before a colon",
            peer.head("GET /health", "X-A : mArKeR7531\r\n"),
        ),
        ("many headers", peer.head("GET /health", &many)),
        ("a huge header", peer.head("GET /health", &huge)),
        (
            "no length",
            peer.head(&post, &format!("{JSON}Content-Length: mArKeR7531\r\n")),
        ),
        (
            "a negative length",
            peer.head(&post, &format!("{JSON}Content-Length: -1\r\n")),
        ),
        (
            "two lengths",
            peer.head(
                &post,
                &format!("{JSON}Content-Length: 1\r\nContent-Length: 2\r\n"),
            ),
        ),
        (
            "length and chunks",
            format!("{}0\r\n\r\n", peer.head(&post, &both)),
        ),
    ] {
        let answer = peer.exchange(bytes.as_bytes());
        answer.assert_silent(case);
        if !answer.0.is_empty() {
            let status = answer.status();
            assert!((400..500).contains(&status), "{case}: {}", answer.text());
        }
    }
    // And it serves on.
    assert_eq!(peer.send("GET /health", "", b"").status(), 200);
}

/// The same for chunks: the answer of the service may be there before the refusal of the framing, or not.
#[test]
fn a_chunk_that_cannot_be_read_changes_nothing() {
    let service = World::sqlite();
    let peer = Peer(&service);
    let chunked = format!("{JSON}Transfer-Encoding: chunked\r\n");
    let head = peer.head(&format!("POST {LIST}"), &chunked);
    for chunks in [
        "mArKeR7531\r\n",
        "5\r\nmArKeR7531\r\n",
        "ffffffffffffffffff\r\nx",
    ] {
        let answer = peer.exchange(format!("{head}{chunks}").as_bytes());
        answer.assert_silent(chunks);
        assert!(answer.0.is_empty() || answer.status() == 400, "{chunks}");
    }
    peer.assert_nothing_stored();
}

#[test]
fn a_body_over_the_limit_is_answered_413_before_it_is_there_in_full() {
    let service = World::sqlite();
    let peer = Peer(&service);
    let line = format!("POST {LIST}");
    // Declared: not one byte of it is waited for.
    let declared = peer.head(&line, &format!("{JSON}Content-Length: 99999999999\r\n"));
    peer.exchange(declared.as_bytes())
        .assert_is(413, "declared");
    // Chunked: the chunks never end.
    let mut stream = peer.connect();
    let head = peer.head(&line, &format!("{JSON}Transfer-Encoding: chunked\r\n"));
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let mut sent = 0;
    while sent < 64 && stream.write_all(chunk.as_bytes()).is_ok() {
        sent += 1;
    }
    read_to_end(&mut stream).assert_is(413, "chunked");
}

#[test]
fn a_body_that_breaks_off_changes_nothing() {
    let service = World::sqlite();
    let peer = Peer(&service);
    let head = peer.head(
        &format!("POST {LIST}"),
        &format!("{JSON}Content-Length: 100\r\n"),
    );
    let mut stream = peer.connect();
    let body = with_value(MARKER.as_bytes());
    stream
        .write_all(&[head.as_bytes(), &body].concat())
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let answer = read_to_end(&mut stream);
    answer.assert_silent("broken off");
    if !answer.0.is_empty() {
        answer.assert_is(400, "broken off");
    }
    peer.assert_nothing_stored();
}

#[test]
fn a_body_that_comes_too_slowly_is_answered_400_and_its_connection_closed() {
    let service = World::with(&[("LIMITS__BODY_SECONDS", "1")]);
    let peer = Peer(&service);
    let keep_alive = peer
        .head(
            &format!("POST {LIST}"),
            &format!("{JSON}Content-Length: 60\r\n"),
        )
        .replace("Connection: close\r\n", "");
    let mut stream = peer.connect();
    let began = Instant::now();
    let part = format!("{keep_alive}{{\"name\":\"{MARKER}");
    stream.write_all(part.as_bytes()).unwrap();
    // Nothing more is sent: the end of the answer is the end of the connection.
    let answer = read_to_end(&mut stream);
    answer.assert_is(400, "a slow body");
    assert!(answer.text().contains("within the time limit"));
    let waited = began.elapsed();
    assert!((1..10).contains(&waited.as_secs()), "{waited:?}");
}
