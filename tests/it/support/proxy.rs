//! A TCP link between the service and a server that breaks on demand.
//!
//! Comes in: the server's address. Goes out: an address of its own that stands for it. At first it forwards; a test
//! then stalls it, delays it, breaks what is open, refuses what is new, or arms a [`Trigger`] that breaks a link at
//! the moment when a given text passes from the client to the server.

use super::background;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// In order, by FIN.
    Fin,
    /// At once, by RST.
    Reset,
}

/// What happens to a link, seen from both its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Cut,
    Reset,
    /// Nothing passes any more, and both connections stay open.
    Stall,
}

/// When a trigger acts on the bytes that contain its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The server never sees them (a stall holds them back until [`Proxy::pass`]).
    Before,
    /// The server gets them; whether it has acted on them when the link breaks is open.
    After,
    /// The server has answered them, and the answer is lost.
    Answered,
}

/// Which links a trigger breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The one that it saw the text on; a new connection works.
    Link,
    /// All, new ones too, until [`Proxy::pass`].
    All,
}

/// Acts once. A prepared statement's text passes only when it is prepared, `BEGIN` and `COMMIT` pass each time.
#[derive(Clone, Debug)]
pub(crate) struct Trigger {
    pub(crate) text: &'static str,
    pub(crate) moment: Moment,
    pub(crate) fault: Fault,
    pub(crate) reach: Reach,
}

/// Tells when a trigger has acted.
pub(crate) struct Fired(watch::Receiver<bool>);

impl Fired {
    pub(crate) fn has_fired(&self) -> bool {
        *self.0.borrow()
    }

    /// False: not within the deadline.
    pub(crate) async fn wait(&mut self, deadline: Duration) -> bool {
        matches!(
            tokio::time::timeout(deadline, self.0.wait_for(|fired| *fired)).await,
            Ok(Ok(_))
        )
    }
}

pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: AbortHandle,
}

struct Shared {
    target: SocketAddr,
    control: watch::Sender<Control>,
    triggers: Mutex<Vec<(Trigger, watch::Sender<bool>)>>,
    accepted: AtomicU64,
    open: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
    /// Round trips on links on which `BEGIN` has passed.
    turns: AtomicU64,
}

/// What a test has ordered for all links.
#[derive(Clone, Copy)]
struct Control {
    mode: Mode,
    /// Rises when the links open at that time must end.
    breaks: u64,
    ending: Ending,
    /// Rises when the links open at that time must stall.
    stalls: u64,
    /// Rises with each `pass`, which also frees links that a trigger stalled.
    passes: u64,
}

#[derive(Clone, Copy)]
enum Mode {
    Pass,
    Delay(Duration),
    Stall,
    Refuse,
}

impl Proxy {
    pub(crate) fn start(target: SocketAddr) -> Self {
        let control = Control {
            mode: Mode::Pass,
            breaks: 0,
            ending: Ending::Fin,
            stalls: 0,
            passes: 0,
        };
        let shared = Arc::new(Shared {
            target,
            control: watch::Sender::new(control),
            triggers: Mutex::default(),
            accepted: AtomicU64::default(),
            open: AtomicU64::default(),
            to_server: AtomicU64::default(),
            to_client: AtomicU64::default(),
            turns: AtomicU64::default(),
        });
        let listener =
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port for the proxy");
        listener
            .set_nonblocking(true)
            .expect("a listener that does not block");
        let address = listener.local_addr().expect("the proxy's address");
        let accepting = background::runtime().spawn(accept(listener, shared.clone()));
        Self {
            address,
            shared,
            listener: accepting.abort_handle(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's URL with this proxy in its place.
    pub(crate) fn url(&self, server: &str) -> String {
        let mut url = url::Url::parse(server).expect("a server's URL");
        url.set_ip_host(self.address.ip())
            .expect("a URL with a host");
        url.set_port(Some(self.address.port()))
            .expect("a URL with a port");
        url.into()
    }

    /// Forwards, also what was stalled.
    pub(crate) fn pass(&self) {
        self.order(|control| {
            control.mode = Mode::Pass;
            control.passes += 1;
        });
    }

    /// Forwards each piece that much later.
    pub(crate) fn delay(&self, time: Duration) {
        self.order(|control| control.mode = Mode::Delay(time));
    }

    /// A black hole: nothing passes, nothing is closed, and new connections are taken without an answer.
    pub(crate) fn stall(&self) {
        self.order(|control| control.mode = Mode::Stall);
    }

    /// A black hole for the links that are open, for good; new ones work.
    pub(crate) fn stall_links(&self) {
        self.order(|control| control.stalls += 1);
    }

    /// Ends the links that are open; new ones work.
    pub(crate) fn break_links(&self, ending: Ending) {
        self.order(|control| {
            control.breaks += 1;
            control.ending = ending;
        });
    }

    /// Ends the links that are open, and each new one at once, until [`Proxy::pass`].
    pub(crate) fn refuse(&self, ending: Ending) {
        self.order(|control| {
            control.mode = Mode::Refuse;
            control.breaks += 1;
            control.ending = ending;
        });
    }

    pub(crate) fn arm(&self, trigger: Trigger) -> Fired {
        let (sender, receiver) = watch::channel(false);
        self.shared.triggers.lock().unwrap().push((trigger, sender));
        Fired(receiver)
    }

    pub(crate) fn disarm(&self) {
        self.shared.triggers.lock().unwrap().clear();
    }

    /// Connections taken since the start.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections open at this moment.
    pub(crate) fn open(&self) -> u64 {
        self.shared.open.load(Ordering::SeqCst)
    }

    pub(crate) fn bytes_to_server(&self) -> u64 {
        self.shared.to_server.load(Ordering::SeqCst)
    }

    pub(crate) fn bytes_to_client(&self) -> u64 {
        self.shared.to_client.load(Ordering::SeqCst)
    }

    /// Round trips since the start on links that begin transactions: how often the client spoke after the server
    /// had, or at first.
    pub(crate) fn turns(&self) -> u64 {
        self.shared.turns.load(Ordering::SeqCst)
    }

    fn order(&self, change: impl FnOnce(&mut Control)) {
        self.shared.control.send_modify(change);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("a listener for the runtime");
    // Dropped with this task, and every link with it.
    let mut links = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        links.spawn(serve(client, shared.clone()));
        while links.try_join_next().is_some() {}
    }
}

/// One link from its first byte to its last.
async fn serve(client: TcpStream, shared: Arc<Shared>) {
    shared.open.fetch_add(1, Ordering::SeqCst);
    let _open = Open(shared.clone());
    let orders = watch::Sender::new(Order::Run);
    let spoken = Spoken::default();
    let mut watcher = Watcher::new(&shared, &orders);
    if let Err(end) = watcher.running().await {
        return close(client, end.client).await;
    }
    let Ok(server) = TcpStream::connect(shared.target).await else {
        return close(client, Ending::Reset).await;
    };
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("TCP_NODELAY");
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut up = Direction {
        from: from_client,
        to: to_server,
        watcher: watcher.clone(),
        shared: &shared,
        passed: &shared.to_server,
        orders: &orders,
        spoken: &spoken,
        tail: Vec::new(),
    };
    let mut down = Direction {
        from: from_server,
        to: to_client,
        watcher: watcher.clone(),
        shared: &shared,
        passed: &shared.to_client,
        orders: &orders,
        spoken: &spoken,
        tail: Vec::new(),
    };
    tokio::join!(up.run_to_server(), down.run_to_client());
    let client = up
        .from
        .reunite(down.to)
        .expect("the two halves of one stream");
    let server = down
        .from
        .reunite(up.to)
        .expect("the two halves of one stream");
    let end = watcher.ended().unwrap_or(End {
        client: Ending::Fin,
        server: Ending::Fin,
    });
    tokio::join!(close(client, end.client), close(server, end.server));
}

struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn close(mut stream: TcpStream, ending: Ending) {
    match ending {
        Ending::Reset => drop(stream.set_zero_linger()),
        Ending::Fin => {
            // Unread bytes would turn the FIN into a reset: take them until the other side closes too.
            let _ = stream.shutdown().await;
            let mut rest = [0; 4096];
            let drain = async { while matches!(stream.read(&mut rest).await, Ok(1..)) {} };
            let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
        }
    }
}

/// What a trigger, or one end's failure, has ordered for one link.
#[derive(Clone, Copy)]
enum Order {
    Run,
    /// Until `Control::passes` is higher than this.
    Stall(u64),
    /// The server's next bytes are lost; then comes the fault.
    LoseAnswer(Fault, Reach),
    End(End),
}

#[derive(Clone, Copy)]
struct End {
    client: Ending,
    server: Ending,
}

/// What holds for one link now.
#[derive(Clone)]
struct Watcher {
    control: watch::Receiver<Control>,
    orders: watch::Receiver<Order>,
    born: u64,
    stalls: u64,
}

impl Watcher {
    fn new(shared: &Shared, orders: &watch::Sender<Order>) -> Self {
        let control = shared.control.subscribe();
        // Looked at once: a second look beside the first waits for an order in between, which waits for the first.
        let Control { breaks, stalls, .. } = *control.borrow();
        Self {
            control,
            orders: orders.subscribe(),
            born: breaks,
            stalls,
        }
    }

    fn ended(&self) -> Option<End> {
        let control = *self.control.borrow();
        let order = *self.orders.borrow();
        if let Order::End(end) = order {
            return Some(end);
        }
        let refused = matches!(control.mode, Mode::Refuse) || control.breaks > self.born;
        refused.then_some(End {
            client: control.ending,
            server: control.ending,
        })
    }

    fn stalled(&self) -> bool {
        let control = *self.control.borrow();
        let order = *self.orders.borrow();
        matches!(control.mode, Mode::Stall)
            || control.stalls > self.stalls
            || matches!(order, Order::Stall(passes) if control.passes <= passes)
    }

    /// Waits while the link is stalled.
    async fn running(&mut self) -> Result<(), End> {
        loop {
            self.see();
            if let Some(end) = self.ended() {
                return Err(end);
            }
            if !self.stalled() {
                return Ok(());
            }
            self.change().await;
        }
    }

    /// Waits until the link ends.
    async fn end(&mut self) {
        loop {
            self.see();
            if self.ended().is_some() {
                return;
            }
            self.change().await;
        }
    }

    fn see(&mut self) {
        self.control.mark_unchanged();
        self.orders.mark_unchanged();
    }

    async fn change(&mut self) {
        // Neither sender goes away before the link does.
        tokio::select! {
            _ = self.control.changed() => {}
            _ = self.orders.changed() => {}
        }
    }

    fn delay(&self) -> Option<Duration> {
        match self.control.borrow().mode {
            Mode::Delay(time) => Some(time),
            Mode::Pass | Mode::Stall | Mode::Refuse => None,
        }
    }
}

/// Who speaks on a link.
#[derive(Default)]
struct Spoken {
    /// The server spoke last.
    server: AtomicBool,
    /// It begins transactions.
    begins: AtomicBool,
}

/// One direction of a link.
struct Direction<'link> {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    watcher: Watcher,
    shared: &'link Shared,
    passed: &'link AtomicU64,
    orders: &'link watch::Sender<Order>,
    spoken: &'link Spoken,
    /// The end of what passed before, in which a trigger's text may begin.
    tail: Vec<u8>,
}

impl Direction<'_> {
    async fn run_to_server(&mut self) {
        let mut buffer = vec![0; 16 * 1024];
        while let Some(count) = self.receive(&mut buffer).await {
            let bytes = &buffer[..count];
            if bytes.windows(5).any(|window| window == b"BEGIN") {
                self.spoken.begins.store(true, Ordering::SeqCst);
            }
            let turn = self.spoken.server.swap(false, Ordering::SeqCst);
            if turn && self.spoken.begins.load(Ordering::SeqCst) {
                self.shared.turns.fetch_add(1, Ordering::SeqCst);
            }
            let Some((trigger, fired)) = self.triggered(bytes) else {
                if self.send(bytes).await {
                    continue;
                }
                return;
            };
            let sent = match trigger.moment {
                Moment::Before => {
                    self.fault(trigger.fault, trigger.reach);
                    fired.send_replace(true);
                    self.send(bytes).await
                }
                Moment::After => {
                    let sent = self.send(bytes).await;
                    self.fault_after(trigger.fault, trigger.reach);
                    fired.send_replace(true);
                    sent
                }
                Moment::Answered => {
                    self.orders
                        .send_replace(Order::LoseAnswer(trigger.fault, trigger.reach));
                    let sent = self.send(bytes).await;
                    self.answer_lost().await;
                    fired.send_replace(true);
                    sent
                }
            };
            if !sent {
                return;
            }
        }
    }

    async fn run_to_client(&mut self) {
        let mut buffer = vec![0; 16 * 1024];
        while let Some(count) = self.receive(&mut buffer).await {
            self.spoken.server.store(true, Ordering::SeqCst);
            let order = *self.orders.borrow();
            if let Order::LoseAnswer(fault, reach) = order {
                self.fault(fault, reach);
                continue;
            }
            if !self.send(&buffer[..count]).await {
                return;
            }
        }
        // The server went away instead of answering.
        let order = *self.orders.borrow();
        if let Order::LoseAnswer(fault, reach) = order {
            self.fault(fault, reach);
        }
    }

    /// Waits until the other direction has taken the answer, or the link has ended.
    async fn answer_lost(&mut self) {
        let mut orders = self.orders.subscribe();
        tokio::select! {
            _ = orders.wait_for(|order| !matches!(order, Order::LoseAnswer(..))) => {}
            () = self.watcher.end() => {}
        }
    }

    /// `None`: nothing more will come, and the other side knows it.
    async fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            self.watcher.running().await.ok()?;
            let read = tokio::select! {
                biased;
                () = self.watcher.change() => continue,
                read = self.from.read(buffer) => read,
            };
            return match read {
                Ok(0) => {
                    self.watcher.running().await.ok()?;
                    let _ = self.to.shutdown().await;
                    None
                }
                Ok(count) => Some(count),
                Err(_) => {
                    self.failed();
                    None
                }
            };
        }
    }

    /// False: the link has ended.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        if let Some(time) = self.watcher.delay() {
            tokio::time::sleep(time).await;
        }
        if self.watcher.running().await.is_err() {
            return false;
        }
        // Before they are written: whoever has received them finds them counted.
        self.passed.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        let sent = tokio::select! {
            biased;
            () = self.watcher.end() => return false,
            sent = self.to.write_all(bytes) => sent,
        };
        sent.is_ok() || self.failed()
    }

    /// One end has gone without a FIN: so does the other.
    fn failed(&self) -> bool {
        self.end(Ending::Reset, Ending::Reset);
        false
    }

    fn end(&self, client: Ending, server: Ending) {
        self.orders.send_replace(Order::End(End { client, server }));
    }

    fn fault(&self, fault: Fault, reach: Reach) {
        match fault {
            Fault::Cut => self.end(Ending::Fin, Ending::Fin),
            Fault::Reset => self.end(Ending::Reset, Ending::Reset),
            Fault::Stall => {
                let passes = self.shared.control.borrow().passes;
                self.orders.send_replace(Order::Stall(passes));
            }
        }
        if reach == Reach::All {
            self.shared.control.send_modify(|control| match fault {
                Fault::Stall => control.mode = Mode::Stall,
                Fault::Cut => (control.mode, control.ending) = (Mode::Refuse, Ending::Fin),
                Fault::Reset => (control.mode, control.ending) = (Mode::Refuse, Ending::Reset),
            });
        }
    }

    /// As [`Direction::fault`], but a server that would be reset could lose what it was just sent.
    fn fault_after(&self, fault: Fault, reach: Reach) {
        self.fault(fault, reach);
        if fault == Fault::Reset {
            self.end(Ending::Reset, Ending::Fin);
        }
    }

    /// The first armed trigger whose text ends in these bytes; it is disarmed.
    fn triggered(&mut self, bytes: &[u8]) -> Option<(Trigger, watch::Sender<bool>)> {
        let mut triggers = self.shared.triggers.lock().unwrap();
        let longest = triggers.iter().map(|(trigger, _)| trigger.text.len()).max();
        let Some(longest) = longest else {
            self.tail.clear();
            return None;
        };
        let mut seen = std::mem::take(&mut self.tail);
        seen.extend_from_slice(bytes);
        let contains = |text: &str| {
            seen.windows(text.len())
                .any(|window| window == text.as_bytes())
        };
        let found = triggers
            .iter()
            .position(|(trigger, _)| contains(trigger.text));
        self.tail = seen.split_off(seen.len().saturating_sub(longest - 1));
        found.map(|index| {
            self.tail.clear();
            triggers.remove(index)
        })
    }
}
