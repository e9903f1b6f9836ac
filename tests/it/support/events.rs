//! The log as a consumer outside reads it: pages, server-sent events, and the proof by the chain.

use super::service::Client;
use orion::hazardous::hash::blake2::blake2b::Blake2b;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use std::collections::VecDeque;
use std::time::Duration;

/// An event, and the bytes that it came in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Logged {
    pub(crate) event: Value,
    pub(crate) bytes: Vec<u8>,
}

impl Logged {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let event = serde_json::from_slice(&bytes).expect("an event is JSON");
        Self { event, bytes }
    }

    pub(crate) fn position(&self) -> u64 {
        self.event["position"].as_u64().expect("a position")
    }

    pub(crate) fn cursor(&self) -> String {
        format!("{}-{}", self.event["epoch"], self.position())
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        self.event[field].as_str().unwrap_or_default()
    }
}

pub(crate) fn positions(events: &[Logged]) -> Vec<u64> {
    events.iter().map(Logged::position).collect()
}

/// A page of `GET /api/v1/events`.
pub(crate) struct Page {
    pub(crate) events: Vec<Logged>,
    pub(crate) next: String,
}

pub(crate) async fn page(client: &Client, query: &str) -> Page {
    let answer = client.events(query).await.expect("an answer").expect(200);
    let next = answer.json()["next"].as_str().expect("a cursor").to_owned();
    Page {
        events: split(&answer.body),
        next,
    }
}

/// All that a client sees of a log, from the first event kept.
pub(crate) async fn all(client: &Client, query: &str) -> Vec<Logged> {
    all_after(client, "0-0", query).await
}

/// All that a client sees of a log after a cursor.
pub(crate) async fn all_after(client: &Client, cursor: &str, query: &str) -> Vec<Logged> {
    let mut events = Vec::new();
    let mut after = cursor.to_owned();
    loop {
        let page = page(client, &format!("limit=1000&after={after}&{query}")).await;
        let last = page.events.len() < 1000;
        events.extend(page.events);
        if last {
            return events;
        }
        after = page.next;
    }
}

/// The events of a page, without touching their bytes.
pub(crate) fn split(page: &[u8]) -> Vec<Logged> {
    let mut rest = page
        .strip_prefix(b"{\"events\":[")
        .expect("a page of events");
    let mut events = Vec::new();
    while rest.first() != Some(&b']') {
        rest = rest.strip_prefix(b",").unwrap_or(rest);
        let mut stream = serde_json::Deserializer::from_slice(rest).into_iter::<Value>();
        let event = stream.next().expect("an event").expect("JSON");
        let end = stream.byte_offset();
        events.push(Logged {
            event,
            bytes: rest[..end].to_vec(),
        });
        rest = &rest[end..];
    }
    events
}

/// Panics unless these are a stretch of one log without a gap, each linked to the one before it. The hash
/// is computed as anybody would: from the parsed event, canonicalised again.
pub(crate) fn assert_chained(events: &[Logged]) {
    let mut before: Option<&Logged> = None;
    for logged in events {
        if let Some(before) = before {
            assert_eq!(logged.position(), before.position() + 1);
            assert_eq!(logged.event["prev_hash"], before.event["hash"]);
        } else if logged.position() == 1 {
            assert_eq!(logged.text("prev_hash"), "0".repeat(64));
        }
        assert_eq!(logged.text("hash"), hash(&logged.event), "{}", logged.event);
        before = Some(logged);
    }
}

/// The hash that an event must have, whatever it says itself.
pub(crate) fn hash(event: &Value) -> String {
    let mut plain = event.clone();
    let fields = plain.as_object_mut().expect("an object");
    fields.retain(|name, _| name != "hash" && name != "prev_hash");
    let before = hex::decode(event["prev_hash"].as_str().expect("a hash")).expect("hex");
    let mut canonical = String::new();
    write_canonical(&plain, &mut canonical);
    let mut state = Blake2b::new(32).expect("a hash of 32 bytes");
    state.update(&before).expect("a short input");
    state.update(canonical.as_bytes()).expect("a short input");
    hex::encode(state.finalize().expect("a hash").as_ref())
}

/// RFC 8785, as far as events need it: whole numbers and ASCII keys.
fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<_> = fields.keys().collect();
            names.sort();
            text.push('{');
            for (index, name) in names.into_iter().enumerate() {
                text.push_str(if index > 0 { "," } else { "" });
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write_canonical(&fields[name], text);
            }
            text.push('}');
        }
        Value::Array(entries) => {
            text.push('[');
            for (index, entry) in entries.iter().enumerate() {
                text.push_str(if index > 0 { "," } else { "" });
                write_canonical(entry, text);
            }
            text.push(']');
        }
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            text.push_str(&plain.to_string());
        }
    }
}

/// What stands between two empty lines of a stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Block {
    pub(crate) id: String,
    /// Nothing: the block only tells a position.
    pub(crate) event: Option<Logged>,
}

/// What came of waiting for a block.
#[derive(Debug, PartialEq)]
pub(crate) enum Came {
    Block(Block),
    /// The server has ended the stream in order.
    End,
    /// The connection broke.
    Broken,
    /// Nothing, within that time.
    Nothing,
}

/// Server-sent events, read block by block.
pub(crate) struct Stream {
    response: Response,
    buffer: Vec<u8>,
    blocks: VecDeque<Block>,
}

impl Stream {
    /// Opens one that the server must grant.
    pub(crate) async fn open(client: &Client, query: &str, last: Option<&str>) -> Self {
        let stream = Self::try_open(client, query, last).await;
        stream.expect("a stream")
    }

    /// Nothing: no answer came, or another.
    pub(crate) async fn try_open(client: &Client, query: &str, last: Option<&str>) -> Option<Self> {
        let mut request = client
            .request(Method::GET, &format!("/api/v1/events?{query}"))
            .timeout(Duration::from_mins(10))
            .header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.ok()?;
        if response.status() != StatusCode::OK {
            return None;
        }
        let headers = response.headers();
        assert_eq!(headers["content-type"], "text/event-stream");
        assert_eq!(headers["cache-control"], "no-store");
        Some(Self {
            response,
            buffer: Vec::new(),
            blocks: VecDeque::new(),
        })
    }

    pub(crate) async fn next(&mut self, within: Duration) -> Came {
        loop {
            if let Some(block) = self.blocks.pop_front() {
                return Came::Block(block);
            }
            match tokio::time::timeout(within, self.response.chunk()).await {
                Ok(Ok(Some(bytes))) => self.take(&bytes),
                Ok(Ok(None)) => {
                    assert_eq!(self.buffer, b"", "it ends within a block");
                    return Came::End;
                }
                Ok(Err(_)) => return Came::Broken,
                Err(_) => return Came::Nothing,
            }
        }
    }

    /// The next block, which must come.
    pub(crate) async fn block(&mut self) -> Block {
        match self.next(Duration::from_secs(20)).await {
            Came::Block(block) => block,
            other @ (Came::End | Came::Broken | Came::Nothing) => {
                panic!("{other:?} instead of a block")
            }
        }
    }

    /// The next events, passing over positions.
    pub(crate) async fn events(&mut self, count: usize) -> Vec<Logged> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.block().await.event);
        }
        events
    }

    fn take(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        while let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
            let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
            self.blocks.push_back(read_block(&block[..end]));
        }
    }
}

/// Panics unless it is `id:` alone, or `id:`, `event:` and `data:` that agree, each in one line.
pub(crate) fn read_block(block: &[u8]) -> Block {
    let text = std::str::from_utf8(block).expect("UTF-8");
    let lines: Vec<_> = text.split('\n').collect();
    let field = |index: usize, name: &str| {
        let line: &str = lines[index];
        let value = line.strip_prefix(name).and_then(|l| l.strip_prefix(": "));
        value
            .unwrap_or_else(|| panic!("no {name} in {text}"))
            .to_owned()
    };
    let id = field(0, "id");
    match lines.len() {
        1 => Block { id, event: None },
        3 => {
            let event = Logged::new(field(2, "data").into_bytes());
            assert_eq!(event.text("type"), field(1, "event"));
            assert_eq!(event.cursor(), id);
            let event = Some(event);
            Block { id, event }
        }
        count => panic!("a block of {count} lines: {text}"),
    }
}
