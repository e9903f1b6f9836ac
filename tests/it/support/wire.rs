//! A connection of HTTP/1.1 by hand: half requests, and answers that nobody takes.

use super::service::Replica;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that a client uses as it likes.
pub(crate) struct Wire(TcpStream);

impl Wire {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// One whose own buffer takes next to nothing.
    pub(crate) async fn narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self(socket.connect(address).await.unwrap())
    }

    /// Sends bytes, as far as the other end takes them.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// Takes so many bytes, or fewer at the end.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut taken = 0;
        while taken < count {
            match self.0.read(&mut bytes[taken..]).await {
                Ok(more @ 1..) => taken += more,
                Ok(0) | Err(_) => break,
            }
        }
        bytes.truncate(taken);
        bytes
    }

    /// Takes everything until the other end closes, which it must do.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let rest = tokio::time::timeout(PATIENCE, self.take(100 << 20)).await;
        rest.expect("the connection is closed")
    }

    /// Whether the other end closes it within that time; what it sends before does not count.
    pub(crate) async fn is_closed_within(&mut self, limit: Duration) -> bool {
        let rest = tokio::time::timeout(limit, self.take(100 << 20)).await;
        rest.is_ok()
    }

    /// The status of the answer that ends with the connection; nothing when there is none.
    pub(crate) async fn status(&mut self) -> Option<u16> {
        let answer = self.rest().await;
        std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
    }
}

/// Where a replica listens.
pub(crate) fn address(replica: &Replica) -> SocketAddr {
    let address = replica.base().strip_prefix("http://").unwrap();
    address.parse().unwrap()
}

/// The head of a request with a JSON body of that length, which closes its connection.
pub(crate) fn head((method, path): (&str, &str), token: &str, length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: rekey\r\nconnection: close\r\n\
         authorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    )
}
