//! A log as the service would keep it, and an address that serves it over HTTP as the service does: for
//! what a real service can't be made to do (lose an event, forge one, come back from an old backup).

use super::SOON;
use base64::{Engine, engine::general_purpose::STANDARD};
use rekey::blake2b_256;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

#[derive(Clone)]
pub(super) struct Event {
    pub(super) epoch: u64,
    pub(super) position: u64,
    pub(super) hash: [u8; 32],
    pub(super) body: Vec<u8>,
}

/// The log `changes`.
#[derive(Clone, Default)]
pub(super) struct Log(pub(super) Vec<Event>);

impl Log {
    /// The first `count` events.
    pub(super) fn of(count: u64) -> Self {
        let mut log = Self::default();
        log.grow(1, count, "alice");
        log
    }

    /// Adds events of one epoch after the last; the first of a higher epoch raises it.
    pub(super) fn grow(&mut self, epoch: u64, count: u64, owner: &str) {
        for _ in 0..count {
            let position = self.0.len() as u64 + 1;
            let last = self.0.last();
            let hash = last.map_or([0; 32], |last| last.hash);
            let raised = last.is_some_and(|last| last.epoch < epoch);
            let event = if raised {
                raise(epoch, position, hash)
            } else {
                event(epoch, position, hash, owner)
            };
            self.0.push(event);
        }
    }

    /// An event that claims to be the first of a later epoch.
    pub(super) fn later(&self, epoch: u64) -> Vec<u8> {
        let last = self.0.last().unwrap();
        raise(epoch, last.position + 1, last.hash).body
    }

    /// Another event for a position, which follows the same one.
    pub(super) fn forged(&self, position: usize) -> Vec<u8> {
        let prev = position
            .checked_sub(2)
            .map_or([0; 32], |before| self.0[before].hash);
        event(1, position as u64, prev, "mallory").body
    }

    pub(super) fn bodies(&self) -> Vec<Vec<u8>> {
        self.0.iter().map(|event| event.body.clone()).collect()
    }
}

fn raise(epoch: u64, position: u64, prev_hash: [u8; 32]) -> Event {
    let fields = json!({
        "id": uuid::Uuid::new_v4().to_string(), "type": "epoch.raised", "log": "changes",
        "epoch": epoch, "position": position, "previous_epoch": 1, "owner": null,
        "occurred_at": "2026-04-15T12:00:00.000000Z",
    });
    placed(fields, epoch, position, prev_hash)
}

fn event(epoch: u64, position: u64, prev_hash: [u8; 32], owner: &str) -> Event {
    let secret = position % 2;
    let fields = json!({
        "id": uuid::Uuid::new_v4().to_string(), "type": "secret.updated", "log": "changes",
        "epoch": epoch, "position": position, "sequence": position.div_ceil(2),
        "secret_id": format!("0198f3c2-7a10-7cc0-8000-00000000000{secret}"),
        "owner": owner, "occurred_at": "2026-04-15T12:00:00.000000Z",
    });
    placed(fields, epoch, position, prev_hash)
}

/// The event with both hashes.
fn placed(mut fields: Value, epoch: u64, position: u64, prev_hash: [u8; 32]) -> Event {
    let canonical = |fields: &Value| serde_json_canonicalizer::to_vec(fields).unwrap();
    let hash = blake2b_256(&[&prev_hash, &canonical(&fields)]);
    fields["hash"] = hex::encode(hash).into();
    fields["prev_hash"] = hex::encode(prev_hash).into();
    let body = canonical(&fields);
    Event {
        epoch,
        position,
        hash,
        body,
    }
}

/// Serves a log over HTTP, and the empty log `activity`.
pub(super) struct Twin {
    pub(super) base: String,
    served: Arc<Mutex<Served>>,
    serving: AbortHandle,
}

/// What a twin serves, and what it was asked for.
#[derive(Default)]
struct Served {
    log: Log,
    /// How many of the first events retention has removed.
    cut: usize,
    /// The cursors after which events of `changes` were asked for, oldest first.
    asked: Vec<String>,
    /// How often the head of `changes` was asked for.
    heads: usize,
}

impl Twin {
    pub(super) async fn start(log: &Log) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::new(Mutex::new(Served {
            log: log.clone(),
            ..Served::default()
        }));
        let answered = served.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, answered.clone()));
            }
        });
        Self {
            base,
            served,
            serving: serving.abort_handle(),
        }
    }

    pub(super) fn set(&self, log: &Log) {
        self.served.lock().unwrap().log = log.clone();
    }

    /// Serves a log whose first events retention has removed.
    pub(super) fn set_cut(&self, log: &Log, cut: usize) {
        let mut served = self.served.lock().unwrap();
        served.log = log.clone();
        served.cut = cut;
    }

    /// Takes the cursors after which events were asked for since the last call.
    pub(super) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.served.lock().unwrap().asked)
    }

    /// Waits until the head was asked for so many times more.
    pub(super) async fn is_compared(&self, times: usize) {
        let heads = || self.served.lock().unwrap().heads;
        let (before, end) = (heads(), Instant::now() + SOON);
        while heads() < before + times {
            assert!(Instant::now() < end, "nobody compares");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap()
}

pub(super) fn public_key() -> String {
    format!("ed25519:{}", STANDARD.encode(pair().public_key().as_ref()))
}

/// A checkpoint of the log's end.
fn head(name: &str, log: &Log) -> Value {
    let (epoch, position, hash) = log.0.last().map_or((0, 0, [0; 32]), |last| {
        (last.epoch, last.position, last.hash)
    });
    let mut signed = Vec::new();
    for field in [
        &b"rekey-checkpoint"[..],
        name.as_bytes(),
        &epoch.to_be_bytes(),
        &position.to_be_bytes(),
        &hash,
    ] {
        signed.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
        signed.extend(field);
    }
    json!({
        "log": name, "epoch": epoch, "position": position, "hash": hex::encode(hash),
        "cursor": format!("{epoch}-{position}"),
        "signature": STANDARD.encode(pair().sign(&signed).as_ref()),
    })
}

async fn answer(mut stream: TcpStream, served: Arc<Mutex<Served>>) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut more = [0; 4096];
        match stream.read(&mut more).await {
            Ok(count) if count > 0 => request.extend(&more[..count]),
            _ => return,
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    assert!(
        request
            .to_lowercase()
            .contains("authorization: bearer rekey_")
    );
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let (status, body, first) = {
        let mut served = served.lock().unwrap();
        let (status, body) = render(&path, &mut served);
        let cut = served.cut.checked_sub(1);
        let first = cut.map_or((0, 0), |last| {
            (served.log.0[last].epoch, served.log.0[last].position)
        });
        (status, body, first)
    };
    let head = format!(
        "HTTP/1.1 {status} x\r\nrekey-log-first: {}-{}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        first.0,
        first.1,
        body.len()
    );
    let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
}

fn render(path: &str, served: &mut Served) -> (u16, Vec<u8>) {
    let (path, query) = path.split_once('?').unwrap();
    let of = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).unwrap().1.to_owned()
    };
    let empty = Log::default();
    let name = of("log");
    let (log, cut) = if name == "changes" {
        (&served.log, served.cut)
    } else {
        (&empty, 0)
    };
    if path == "/api/v1/events/head" {
        served.heads += usize::from(name == "changes");
        return (200, head(&name, log).to_string().into());
    }
    assert_eq!(path, "/api/v1/events");
    let after = of("after");
    if name == "changes" {
        served.asked.push(after.clone());
    }
    let (epoch, position) = after.split_once('-').unwrap();
    let (epoch, position): (u64, usize) = (epoch.parse().unwrap(), position.parse().unwrap());
    let known = position == 0 || log.0.get(position - 1).is_some_and(|e| e.epoch == epoch);
    if !known || position < cut {
        return (410, b"{}".to_vec());
    }
    let events: Vec<_> = log.0[position..].iter().take(3).collect();
    let next = events.last().map_or(after.clone(), |last| {
        format!("{}-{}", last.epoch, last.position)
    });
    let bodies: Vec<_> = events.iter().map(|event| event.body.as_slice()).collect();
    let mut page = b"{\"events\":[".to_vec();
    page.extend(bodies.join(&b","[..]));
    page.extend(format!("],\"next\":\"{next}\"}}").bytes());
    (200, page)
}
