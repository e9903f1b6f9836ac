//! A service whose answers the test gives, one by one: for the order in which they arrive.

use super::SOON;
use std::{io, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

/// Takes every request and answers none by itself.
pub(super) struct Script {
    pub(super) base: String,
    asked: UnboundedReceiver<Asked>,
    /// Requests that came before those that were waited for.
    waiting: Vec<Asked>,
}

/// A request that waits for its answer.
pub(super) struct Asked {
    /// Head and body.
    request: String,
    link: TcpStream,
}

impl Script {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (asks, asked) = unbounded_channel();
        tokio::spawn(async move {
            while let Ok((link, _)) = listener.accept().await {
                let asks = asks.clone();
                tokio::spawn(async move {
                    if let Some(request) = read(link).await {
                        let _ = asks.send(request);
                    }
                });
            }
        });
        Self {
            base,
            asked,
            waiting: Vec::new(),
        }
    }

    /// The first request that has this text in it and was not taken yet.
    pub(super) async fn asked(&mut self, text: &str) -> Asked {
        let is_meant = |asked: &Asked| asked.request.contains(text);
        if let Some(place) = self.waiting.iter().position(is_meant) {
            return self.waiting.remove(place);
        }
        loop {
            let next = timeout(SOON, self.asked.recv()).await;
            let next = next.unwrap_or_else(|_| panic!("nobody asks for {text}"));
            let next = next.unwrap();
            if is_meant(&next) {
                return next;
            }
            self.waiting.push(next);
        }
    }
}

impl Asked {
    /// Answers, and ends the connection.
    pub(super) async fn answer(self, status: u16, body: &str) {
        self.try_answer(status, body).await.unwrap();
    }

    /// Answers, if anybody still waits for it.
    pub(super) async fn try_answer(mut self, status: u16, body: &str) -> io::Result<()> {
        let head = format!(
            "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = head + body;
        self.link.write_all(answer.as_bytes()).await
    }

    /// Begins a stream of events, which ends when the connection is dropped.
    pub(super) async fn stream(mut self, cursor: &str) -> TcpStream {
        let head = "HTTP/1.1 200 x\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n";
        let start = format!("{head}id: {cursor}\n\n");
        self.link.write_all(start.as_bytes()).await.unwrap();
        self.link
    }
}

/// Reads one request with its body.
async fn read(mut link: TcpStream) -> Option<Asked> {
    let mut request = Vec::new();
    loop {
        let mut more = [0; 4096];
        let read = timeout(Duration::from_mins(1), link.read(&mut more)).await;
        match read.ok()?.ok()? {
            0 => return None,
            count => request.extend(&more[..count]),
        }
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        if body.len() >= length {
            let request = text.into_owned();
            return Some(Asked { request, link });
        }
    }
}
