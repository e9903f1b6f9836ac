//! etcd, where it is on the `PATH` or named by `REKEY_BENCH_ETCD`: one private member, as durable as it is by default.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{
    load::{Job, Kind, Measured},
    options::Options,
    support::{
        folder::Folder,
        port,
        process::{self, Process},
    },
};

pub(crate) struct Etcd {
    // First, so that it ends before its folder is removed.
    _process: Process,
    _folder: Folder,
    address: String,
}

impl Etcd {
    /// None where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let named = std::env::var_os("REKEY_BENCH_ETCD").map(PathBuf::from);
        let program = named.or_else(|| process::on_path("etcd"))?;
        let folder = Folder::new("etcd");
        let address = format!("127.0.0.1:{}", port::free());
        let client = format!("http://{address}");
        let peer = format!("http://127.0.0.1:{}", port::free());
        let mut command = process::program(program);
        command
            .args(["--name", "bench", "--log-level", "error", "--data-dir"])
            .arg(folder.join("data"))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("bench={peer}")])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let started = Process::spawn(&mut command);
        let end = Instant::now() + Duration::from_secs(30);
        while !is_well(&address) {
            assert!(Instant::now() < end, "etcd does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(Self {
            _process: started,
            _folder: folder,
            address,
        })
    }

    pub(crate) fn run(&self, keys: &[String], clients: usize, options: &Options) -> Measured {
        let work = (Kind::Etcd, keys);
        Job::new(options, &self.address, "", work, clients).run()
    }
}

fn is_well(address: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains("\"health\":\"true\""))
}
