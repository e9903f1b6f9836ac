//! A service that is ready to be measured: running, with secrets that have as many versions as are kept.

use crate::{
    load::{Job, Kind},
    options::Options,
    support::service::{Deployment, Replica},
};

const SCOPES: [&str; 4] = [
    "secrets:read",
    "secrets:write",
    "secrets:resolve",
    "events:read",
];
/// So many versions of a secret are kept, and each gets so many values before it is measured.
pub(crate) const VERSIONS: usize = 10;

pub(crate) struct World {
    // First, so that it ends before its folder is removed.
    pub(crate) replica: Replica,
    pub(crate) deployment: Deployment,
    pub(crate) secrets: Secrets,
}

/// Secrets of one owner.
#[derive(Clone)]
pub(crate) struct Secrets {
    pub(crate) token: String,
    pub(crate) ids: Vec<String>,
    pub(crate) names: Vec<String>,
}

impl World {
    pub(crate) fn start(deployment: Deployment, count: usize, options: &Options) -> Self {
        let replica = deployment.serve();
        let secrets = Secrets::create((&deployment, &replica), "bench", count, options);
        Self {
            replica,
            deployment,
            secrets,
        }
    }

    /// Gives each secret as many values as are kept.
    pub(crate) fn fill(&self, options: &Options) {
        let ids = &self.secrets.ids;
        let job = self.job(Kind::Put, ids, 64, options);
        job.of_count(ids.len() * VERSIONS).run();
    }

    pub(crate) fn job(
        &self,
        kind: Kind,
        secrets: &[String],
        clients: usize,
        options: &Options,
    ) -> Job {
        let token = &self.secrets.token;
        Job::new(
            options,
            &address(&self.replica),
            token,
            (kind, secrets),
            clients,
        )
    }
}

impl Secrets {
    pub(crate) fn create(
        (deployment, replica): (&Deployment, &Replica),
        owner: &str,
        count: usize,
        options: &Options,
    ) -> Self {
        let token = deployment.token(owner, &SCOPES);
        let names: Vec<_> = (0..count).map(|number| format!("BENCH_{number}")).collect();
        let (work, clients) = ((Kind::Create, &*names), 16.min(count));
        let job = Job::new(options, &address(replica), &token, work, clients);
        let ids = job.of_count(count).run().created;
        assert_eq!(ids.len(), count, "every secret was created");
        Self { token, ids, names }
    }
}

/// `HOST:PORT`
pub(crate) fn address(replica: &Replica) -> String {
    let address = replica.base().strip_prefix("http://");
    address.expect("an http URL").to_owned()
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident(process: u32) -> f64 {
    memory(process, "VmRSS:")
}

/// The most resident memory that a process ever had, in KiB.
pub(crate) fn peak(process: u32) -> f64 {
    memory(process, "VmHWM:")
}

fn memory(process: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"));
    let status = status.expect("a running process");
    let mut lines = status.lines();
    let line = lines.find(|line| line.starts_with(name));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse().ok())
        .expect("resident memory")
}
