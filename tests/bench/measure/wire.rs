//! One keep-alive connection of HTTP/1.1, made to cost little: it shares the processors with what it measures.
//!
//! Prepared bytes go out, a status and a body of known length come back. Anything else is a failure.

use std::ops::Range;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    body: Range<usize>,
}

impl Wire {
    pub(crate) async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self {
            stream,
            buffer: vec![0; 16 << 10],
            body: 0..0,
        }
    }

    /// Sends a request, and returns the status when the whole answer is there.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> u16 {
        let sent = self.stream.write_all(request).await;
        sent.expect("the server takes a request");
        let mut filled = 0;
        let (status, body) = loop {
            filled += self.read(filled).await;
            if let Some(head) = head(&self.buffer[..filled]) {
                break head;
            }
        };
        while filled < body.end {
            filled += self.read(filled).await;
        }
        assert_eq!(filled, body.end, "an answer has no more than its length");
        self.body = body;
        status
    }

    /// The body of the last answer.
    pub(crate) fn body(&self) -> &[u8] {
        &self.buffer[self.body.clone()]
    }

    async fn read(&mut self, filled: usize) -> usize {
        if filled == self.buffer.len() {
            self.buffer.resize(filled * 2, 0);
        }
        let count = self.stream.read(&mut self.buffer[filled..]).await;
        let count = count.expect("the server answers");
        assert!(count > 0, "the server closed a connection");
        count
    }
}

/// The status, and where the body is, once the whole head is there.
fn head(bytes: &[u8]) -> Option<(u16, Range<usize>)> {
    const LENGTH: &[u8] = b"content-length:";
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let status = std::str::from_utf8(&bytes[9..12]).expect("a status");
    let length = bytes[..end]
        .split(|byte| *byte == b'\n')
        .find(|line| line.len() > LENGTH.len() && line[..LENGTH.len()].eq_ignore_ascii_case(LENGTH))
        .unwrap_or_else(|| panic!("no length: {}", String::from_utf8_lossy(bytes)));
    let length = std::str::from_utf8(&length[LENGTH.len()..]).expect("a length");
    let length: usize = length.trim().parse().expect("a length");
    let status = status.parse().expect("a status");
    Some((status, end + 4..end + 4 + length))
}
