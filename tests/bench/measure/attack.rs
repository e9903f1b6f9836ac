//! Attackers: clients that ask as fast as they can for what costs the service most, in a process of their own.
//!
//! The program starts itself with the part `attack`, which reads an [`Attack`] from its standard input, prints the
//! [`Answers`] as JSON, and has a lower priority: attackers run on other machines, and take no processor from the
//! service that they attack.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

/// How many clients make each kind of request.
const CLIENTS: usize = 8;
/// How much lower their priority is.
const NICE: i32 = 10;

/// What the attackers know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Attack {
    /// `HOST:PORT`
    pub(crate) address: String,
    /// Of one tenant, who may do everything; empty for those who only ask whether the service is ready.
    pub(crate) token: String,
    /// Of no token, and of the right form.
    pub(crate) guess: String,
    /// The tenant's secrets.
    pub(crate) ids: Vec<String>,
    pub(crate) seconds: Duration,
}

/// How many answers had which status; 0 is none.
pub(crate) type Answers = BTreeMap<u16, usize>;

impl Attack {
    pub(crate) fn start(&self) -> Attackers {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .arg("attack")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the attackers start");
        let mut stdin = child.stdin.take().expect("a piped stdin");
        let attack = serde_json::to_vec(self).expect("JSON");
        stdin.write_all(&attack).expect("the attackers read");
        Attackers(child)
    }

    fn requests(&self) -> Vec<Vec<u8>> {
        if self.token.is_empty() {
            let ready = b"GET /ready HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n";
            return vec![ready.to_vec()];
        }
        let request = |token: &str, (method, path): (&str, &str), body: &str| {
            format!(
                "{method} {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\
                 authorization: Bearer {token}\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes()
        };
        let list = "/api/v1/user/secrets";
        let one = format!("{list}/{}", self.ids[0]);
        let value = "x".repeat(60_000);
        let updates: Vec<_> = self.ids.iter().take(50).collect();
        let updates: Vec<_> = updates
            .iter()
            .map(|id| json!({"id": id, "value": value}))
            .collect();
        let resolve = json!({"ids": self.ids[..100]}).to_string();
        let batch = json!({"updates": updates}).to_string();
        let members: Vec<_> = (0..30_000)
            .map(|number| format!("\"unknown{number}\":1"))
            .collect();
        let many = format!("{{\"value\":\"x\",{}}}", members.join(","));
        let large = json!({"value": "x", "unknown": "y".repeat(500_000)}).to_string();
        let resolved = ("POST", "/api/v1/secrets/resolve");
        vec![
            request(&self.token, resolved, &resolve),
            request(&self.token, ("POST", &format!("{list}/batch")), &batch),
            request(&self.token, ("PUT", &one), &many),
            request(&self.token, ("PUT", &one), &large),
            request(&self.guess, ("GET", list), ""),
        ]
    }
}

pub(crate) struct Attackers(Child);

impl Attackers {
    pub(crate) fn finish(self) -> Answers {
        let output = self.0.wait_with_output().expect("the attackers end");
        assert!(output.status.success(), "the attackers failed");
        serde_json::from_slice(&output.stdout).expect("counts")
    }
}

/// The process of the attackers.
pub(crate) fn main() {
    let attack: Attack = serde_json::from_reader(std::io::stdin().lock()).expect("an attack");
    lower_priority();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let answers = runtime.expect("a runtime").block_on(work(attack));
    println!("{}", serde_json::to_string(&answers).expect("JSON"));
}

/// Where the kernel gives each session the same share of the processors (`sched(7)`, "The autogroup feature"), a priority
/// counts inside a session only: so the attackers have one of their own, with a lower priority than others.
fn lower_priority() {
    rustix::process::nice(NICE).expect("a lower priority");
    rustix::process::setsid().expect("a session of their own");
    let autogroup = Path::new("/proc/self/autogroup");
    if autogroup.exists() {
        fs::write(autogroup, NICE.to_string()).expect("a lower priority of the session");
    }
}

async fn work(attack: Attack) -> Answers {
    let until = Instant::now() + attack.seconds;
    let mut clients = JoinSet::new();
    for request in attack.requests() {
        let request = Arc::new(request);
        for _ in 0..CLIENTS {
            let (address, request) = (attack.address.clone(), Arc::clone(&request));
            clients.spawn(async move {
                let mut answers = Answers::new();
                while Instant::now() < until {
                    let status = ask(&address, &request).await.unwrap_or(0);
                    *answers.entry(status).or_default() += 1;
                }
                answers
            });
        }
    }
    let mut all = Answers::new();
    for answers in clients.join_all().await {
        for (status, count) in answers {
            *all.entry(status).or_default() += count;
        }
    }
    all
}

/// The status of an answer, on a connection of its own. One that is refused may be cut off while it is sent.
async fn ask(address: &str, request: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}
