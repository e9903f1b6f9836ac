//! A client's connection, with its place among those of its address, and with two deadlines that actix-http does
//! not have.
//!
//! actix-http times a connection's first head, its idle time and its end. It waits for ever while a client takes an
//! answer by the byte, and for a later head that never ends. Both end here: an operation that is overdue fails, and
//! actix-http then drops the connection.

use std::{
    cell::Cell,
    collections::HashMap,
    future::poll_fn,
    io,
    net::IpAddr,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use actix_web::rt::net::TcpStream;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use tokio_rustls::server::TlsStream;

use super::caller::Network;
use crate::settings::HttpSettings;

/// How many connections each address has open; none has no entry.
type Open = Arc<Mutex<HashMap<Network, usize>>>;

/// The open connections of each address. Loopback and trusted proxies have as many as they want: many clients stand
/// behind them.
#[derive(Clone)]
pub(super) struct Places {
    most: usize,
    http: Arc<HttpSettings>,
    open: Open,
}

impl Places {
    /// At most so many for each address.
    pub(super) fn new(most: usize, http: &HttpSettings) -> Self {
        Self {
            most,
            http: Arc::new(http.clone()),
            open: Arc::default(),
        }
    }

    /// A place for a connection from this address; none when it has as many as it may have.
    pub(super) fn take(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        if address.is_loopback() || self.http.trusts(address) {
            return Some(Place(None));
        }
        let network = Network::of(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.get(&network).copied().unwrap_or_default();
        if count >= self.most {
            return None;
        }
        open.insert(network, count + 1);
        Some(Place(Some((network, Arc::clone(&self.open)))))
    }
}

/// One connection's place, which is free again when this is dropped.
pub(super) struct Place(Option<(Network, Open)>);

impl Drop for Place {
    fn drop(&mut self) {
        let Some((network, open)) = self.0.take() else {
            return;
        };
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&network);
            }
        }
    }
}

/// The requests of a connection that are being answered.
#[derive(Debug, Clone)]
pub(super) struct Requests(Rc<Activity>);

#[derive(Debug)]
struct Activity {
    /// The connection is under TLS.
    secure: bool,
    under_way: Cell<u32>,
    /// When the last one ended; at first, when the connection began.
    idle_since: Cell<Instant>,
    /// The client has closed its side.
    client_left: Cell<bool>,
}

impl Requests {
    fn none(secure: bool) -> Self {
        Self(Rc::new(Activity {
            secure,
            under_way: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            client_left: Cell::new(false),
        }))
    }

    /// Whether the connection is under TLS of our own.
    pub(super) fn is_secure(&self) -> bool {
        self.0.secure
    }

    /// Counts a request until the value returned is dropped.
    pub(super) fn begin(&self) -> RequestUnderWay {
        self.0.under_way.set(self.0.under_way.get() + 1);
        RequestUnderWay(Rc::clone(&self.0))
    }

    /// Ends when the client has closed its side. Only for what the connection's own task waits for: reading from the
    /// connection wakes that.
    pub(super) async fn client_left(&self) {
        poll_fn(|_| {
            if self.0.client_left.get() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

/// A request that is being answered.
#[must_use = "dropping it ends the request"]
pub(super) struct RequestUnderWay(Rc<Activity>);

impl Drop for RequestUnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
        self.0.idle_since.set(Instant::now());
    }
}

/// What a connection's bytes travel by.
pub(super) enum Transport {
    /// Plain text.
    Plain(TcpStream),
    /// TLS, after its handshake.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// The socket.
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A connection of a client.
pub(super) struct ClientConnection {
    stream: Transport,
    requests: Requests,
    /// How long may pass between two requests.
    idle: Duration,
    /// Wakes the connection when it may have been idle for so long.
    idle_timer: Pin<Box<Sleep>>,
    /// How long a client may take for what it is sent.
    take: Duration,
    /// When it must have taken what waits for it.
    taken_by: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

impl ClientConnection {
    /// A connection that was just accepted.
    pub(super) fn new(stream: Transport, place: Place, (idle, take): (Duration, Duration)) -> Self {
        // The kernel ends a connection whose peer is gone: a quiet stream would hang on for long. Without it such a
        // connection stays until its peer's network says so: no reason to refuse it.
        let _ = SockRef::from(stream.socket()).set_tcp_user_timeout(Some(take));
        let requests = Requests::none(matches!(stream, Transport::Tls(_)));
        let first = requests.0.idle_since.get() + idle;
        Self {
            stream,
            requests,
            idle,
            idle_timer: Box::pin(sleep_until(first)),
            take,
            taken_by: None,
            _place: place,
        }
    }

    /// What counts its requests.
    pub(super) fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// Whether no request was begun for too long. The task is woken when it is time to look again.
    fn is_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        while self.idle_timer.as_mut().poll(cx).is_ready() {
            let activity = &self.requests.0;
            let busy = activity.under_way.get() > 0 || self.taken_by.is_some();
            let since = if busy {
                Instant::now()
            } else {
                activity.idle_since.get()
            };
            let until = since + self.idle;
            if until <= Instant::now() {
                return true;
            }
            self.idle_timer.as_mut().reset(until);
        }
        false
    }

    /// What comes of a write that the client has no room for: in the end, an error.
    fn wait_for_the_client(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let until = Instant::now() + self.take;
        let taken_by = self
            .taken_by
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        taken_by.as_mut().poll(cx).map(|()| {
            tracing::info!("a client that does not take its answer is disconnected");
            Err(io::ErrorKind::TimedOut.into())
        })
    }
}

impl AsyncRead for ClientConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_overdue(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let filled = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if matches!(read, Poll::Ready(Ok(()))) && buffer.filled().len() == filled {
            self.requests.0.client_left.set(true);
        }
        read
    }
}

impl AsyncWrite for ClientConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Pending => self.wait_for_the_client(cx),
            written @ Poll::Ready(_) => written,
        }
    }

    /// actix-http flushes when all that it had to write was written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.taken_by = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        time::timeout,
    };

    use super::*;

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(20);

    /// Both ends of a connection.
    async fn pair(idle: Duration, take: Duration) -> (ClientConnection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let client = client.await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        (
            ClientConnection::new(Transport::Plain(stream), Place(None), (idle, take)),
            client,
        )
    }

    fn places(trusted: &[&str]) -> Places {
        let http = HttpSettings {
            timeout: LONG,
            write_timeout: LONG,
            require_tls: false,
            min_client_versions: vec![],
            trusted_proxies: trusted.iter().map(|net| net.parse().unwrap()).collect(),
            cors_origins: vec![],
        };
        Places::new(2, &http)
    }

    #[test]
    fn each_address_has_its_places_and_gets_them_back() {
        let places = places(&["198.51.100.0/24"]);
        let take = |address: &str| places.take(address.parse().unwrap());
        let one = take("192.0.2.1").unwrap();
        // The same address, as a listener on `::` shows it.
        let two = take("::ffff:192.0.2.1").unwrap();
        assert!(take("192.0.2.1").is_none());
        let other = take("192.0.2.2").unwrap();
        let of_64 = [take("2001:db8::1").unwrap(), take("2001:db8::2").unwrap()];
        assert!(take("2001:db8::3").is_none());
        assert!(take("2001:db8:0:1::1").is_some());
        for uncounted in ["127.0.0.1", "127.9.9.9", "::1", "198.51.100.7"] {
            let many: Vec<_> = (0..9).map(|_| take(uncounted).unwrap()).collect();
            drop(many);
        }
        drop(one);
        let again = take("192.0.2.1").unwrap();
        assert!(take("192.0.2.1").is_none());
        drop((again, two, other, of_64));
        assert!(places.open.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_connection_on_which_no_request_begins_ends() {
        let (mut connection, mut client) = pair(SHORT, LONG).await;
        client.write_all(b"GET / HT").await.unwrap();
        let mut head = [0; 8];
        connection.read_exact(&mut head).await.unwrap();
        let read = timeout(LONG, connection.read(&mut head)).await.unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_connection_whose_request_is_under_way_waits() {
        let (mut connection, _client) = pair(SHORT, LONG).await;
        let request = connection.requests().begin();
        let mut byte = [0];
        let read = timeout(SHORT * 5, connection.read(&mut byte)).await;
        assert!(read.is_err());
        drop(request);
        let read = timeout(LONG, connection.read(&mut byte)).await.unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_closes_its_side_has_left() {
        let (mut connection, mut client) = pair(LONG, LONG).await;
        let requests = connection.requests();
        assert!(timeout(SHORT, requests.client_left()).await.is_err());
        client.shutdown().await.unwrap();
        assert_eq!(connection.read(&mut [0]).await.unwrap(), 0);
        requests.client_left().await;
    }

    #[tokio::test]
    async fn a_client_that_takes_by_the_byte_is_let_go() {
        let (mut connection, mut client) = pair(LONG, SHORT * 5).await;
        let taking = tokio::spawn(async move {
            let mut byte = [0];
            while client.read(&mut byte).await.is_ok_and(|count| count > 0) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let bytes = vec![0; 64 << 20];
        let written = timeout(LONG, connection.write_all(&bytes)).await.unwrap();
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(connection);
        taking.abort();
    }

    #[tokio::test]
    async fn a_client_that_takes_what_it_is_sent_stays() {
        let (mut connection, mut client) = pair(LONG, SHORT * 20).await;
        let taking = tokio::spawn(async move {
            let mut bytes = vec![0; 1 << 20];
            let mut taken = 0;
            while taken < 32 << 20 {
                taken += client.read(&mut bytes).await.unwrap();
            }
        });
        let bytes = vec![0; 4 << 20];
        for _ in 0..8 {
            connection.write_all(&bytes).await.unwrap();
            connection.flush().await.unwrap();
            tokio::time::sleep(SHORT * 3).await;
        }
        timeout(LONG, taking).await.unwrap().unwrap();
    }
}
