//! The load: a closed loop of clients in a process of its own.
//!
//! The program starts itself with the part `load`, which reads a [`Job`] from its standard input and prints what it
//! [`Measured`], each as JSON. An answer with another status than expected ends it with an error.

use std::{
    io::Write as _,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    options::Options,
    table::{milliseconds, thousands},
    wire::Wire,
};

/// The value of each PUT.
pub(crate) const VALUE: &str = "sk-benchmark-0123456789abcdefghij";
const LIST: &str = "/api/v1/user/secrets";

/// What the clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A new secret under each name.
    Create,
    /// A new value for a secret.
    Put,
    /// A secret, by its ID.
    Get,
    /// All secrets of the caller.
    List,
    /// The value of a secret, by its name.
    Resolve,
    /// A method that the path does not have: refused right after the credential was checked.
    Refuse,
    /// The first 1,000 events of the log.
    Page,
    /// etcd's put over its JSON gateway.
    Etcd,
}

impl Kind {
    /// The bytes of a request about a secret, which is given by its ID or its name.
    pub(crate) fn request(self, token: &str, secret: &str) -> Vec<u8> {
        let one = || format!("{LIST}/{secret}");
        let value = json!({ "value": VALUE });
        let (method, path, body) = match self {
            Self::Create => {
                let body = json!({"name": secret, "value": VALUE});
                ("POST", LIST.to_owned(), body.to_string())
            }
            Self::Put => ("PUT", one(), value.to_string()),
            Self::Get => ("GET", one(), String::new()),
            Self::List => ("GET", LIST.to_owned(), String::new()),
            Self::Resolve => {
                let body = json!({"names": [secret]}).to_string();
                ("POST", "/api/v1/secrets/resolve".to_owned(), body)
            }
            Self::Refuse => ("DELETE", LIST.to_owned(), String::new()),
            Self::Page => ("GET", "/api/v1/events?limit=200".to_owned(), String::new()),
            Self::Etcd => {
                let (key, value) = (STANDARD.encode(secret), STANDARD.encode(VALUE));
                let body = json!({"key": key, "value": value}).to_string();
                ("POST", "/v3/kv/put".to_owned(), body)
            }
        };
        let content = if body.is_empty() {
            String::new()
        } else {
            let length = body.len();
            format!("content-type: application/json\r\ncontent-length: {length}\r\n")
        };
        let credential = if token.is_empty() {
            String::new()
        } else {
            format!("authorization: Bearer {token}\r\n")
        };
        format!("{method} {path} HTTP/1.1\r\nhost: bench\r\n{credential}{content}\r\n{body}")
            .into_bytes()
    }

    fn expected(self) -> u16 {
        match self {
            Self::Create => 201,
            Self::Refuse => 405,
            Self::Put | Self::Get | Self::List | Self::Resolve | Self::Page | Self::Etcd => 200,
        }
    }
}

/// What a load process does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    /// `HOST:PORT` of each server; the clients are spread over them.
    pub(crate) addresses: Vec<String>,
    pub(crate) token: String,
    pub(crate) kind: Kind,
    /// IDs or names: each request takes one at random.
    pub(crate) secrets: Vec<String>,
    pub(crate) clients: usize,
    pub(crate) warm_up: Duration,
    pub(crate) seconds: Duration,
    /// So many requests of each client instead, which take the secrets in their order.
    pub(crate) each: Option<usize>,
}

impl Job {
    /// As long as the options say, at one server.
    pub(crate) fn new(
        options: &Options,
        address: &str,
        token: &str,
        (kind, secrets): (Kind, &[String]),
        clients: usize,
    ) -> Self {
        Self {
            addresses: vec![address.to_owned()],
            token: token.to_owned(),
            kind,
            secrets: secrets.to_vec(),
            clients,
            warm_up: options.warm_up(),
            seconds: options.seconds(),
            each: None,
        }
    }

    /// So many requests in all, as fast as they are answered.
    pub(crate) fn of_count(mut self, count: usize) -> Self {
        self.each = Some(count.div_ceil(self.clients));
        self.warm_up = Duration::ZERO;
        self.seconds = Duration::from_mins(10);
        self
    }

    /// Starts the load process.
    pub(crate) fn start(&self) -> Running {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .arg("load")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the load process starts");
        let mut stdin = child.stdin.take().expect("a piped stdin");
        let job = serde_json::to_vec(self).expect("JSON");
        stdin.write_all(&job).expect("the load process reads");
        Running(child)
    }

    /// Runs the load process to its end.
    pub(crate) fn run(&self) -> Measured {
        self.start().finish()
    }
}

pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn finish(self) -> Measured {
        let output = self.0.wait_with_output().expect("the load process ends");
        assert!(output.status.success(), "the load process failed");
        serde_json::from_slice(&output.stdout).expect("figures")
    }
}

/// What came out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Answers per second.
    pub(crate) rate: f64,
    /// Half of the answers took no longer, in milliseconds. Of pgbench it is the mean.
    pub(crate) p50: f64,
    /// 99 % took no longer; 0 where it is not known.
    pub(crate) p99: f64,
    pub(crate) count: usize,
    /// The IDs of what was created.
    #[serde(default)]
    pub(crate) created: Vec<String>,
}

impl Measured {
    /// Rate, p50 and p99, for a table that has these columns after its first ones.
    pub(crate) fn row(&self, first: &[&str]) -> Vec<String> {
        let rate = thousands(self.rate);
        let own = [rate, milliseconds(self.p50), milliseconds(self.p99)];
        let first = first.iter().map(ToString::to_string);
        first.chain(own).collect()
    }
}

/// The load process itself.
pub(crate) fn main() {
    let job: Job = serde_json::from_reader(std::io::stdin().lock()).expect("a job");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let measured = runtime.expect("a runtime").block_on(work(job));
    println!("{}", serde_json::to_string(&measured).expect("JSON"));
}

struct Shared {
    requests: Vec<Vec<u8>>,
    job: Job,
    from: Instant,
    until: Instant,
}

async fn work(job: Job) -> Measured {
    let mut wires = Vec::new();
    for number in 0..job.clients {
        wires.push(Wire::connect(&job.addresses[number % job.addresses.len()]).await);
    }
    let request = |secret: &String| job.kind.request(&job.token, secret);
    let requests = job.secrets.iter().map(request).collect();
    let from = Instant::now() + job.warm_up;
    let shared = Arc::new(Shared {
        requests,
        from,
        until: from + job.seconds,
        job,
    });
    let mut clients = JoinSet::new();
    for (number, wire) in wires.into_iter().enumerate() {
        clients.spawn(client(wire, Arc::clone(&shared), number));
    }
    let (mut times, mut created) = (Vec::new(), Vec::new());
    for (own_times, own_created) in clients.join_all().await {
        times.extend(own_times);
        created.extend(own_created);
    }
    let elapsed = Instant::now().min(shared.until) - from;
    times.sort_unstable();
    assert!(!times.is_empty(), "no answer came in time");
    Measured {
        rate: times.len() as f64 / elapsed.as_secs_f64(),
        p50: percentile(&times, 50),
        p99: percentile(&times, 99),
        count: times.len(),
        created,
    }
}

/// One client: asks, waits for the answer, asks again. Returns how long it took, in microseconds, and what it created.
async fn client(mut wire: Wire, shared: Arc<Shared>, number: usize) -> (Vec<u32>, Vec<String>) {
    let Shared {
        requests,
        job,
        from,
        until,
    } = &*shared;
    let (mut times, mut created) = (Vec::new(), Vec::new());
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number as u64 + 1);
    let mut began = Instant::now();
    let mut turn = 0;
    while began < *until && job.each.is_none_or(|each| turn < each) {
        let index = if job.each.is_some() {
            number + turn * job.clients
        } else {
            // xorshift64
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            (dice >> 32) as usize
        };
        if job.kind == Kind::Create && index >= requests.len() {
            break;
        }
        let status = wire.ask(&requests[index % requests.len()]).await;
        if status != job.kind.expected() {
            let text = String::from_utf8_lossy(wire.body());
            panic!("{:?} was answered by {status}: {text}", job.kind);
        }
        if job.kind == Kind::Create {
            let secret: Value = serde_json::from_slice(wire.body()).expect("JSON");
            created.push(secret["id"].as_str().expect("an ID").to_owned());
        }
        let ended = Instant::now();
        // On a busy machine a short run may end before its first answer, which counts then.
        if ended >= *from && (ended < *until || times.is_empty()) {
            times.push((ended - began).as_micros() as u32);
        }
        (began, turn) = (ended, turn + 1);
    }
    (times, created)
}

/// Of sorted microseconds, in milliseconds.
pub(crate) fn percentile(times: &[u32], percent: usize) -> f64 {
    f64::from(times[(times.len() * percent / 100).min(times.len() - 1)]) / 1000.0
}
