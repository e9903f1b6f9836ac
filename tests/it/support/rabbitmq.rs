//! A private `RabbitMQ`: one for the whole suite (an exchange per test keeps them apart), more for tests that kill it.
//!
//! It is the Erlang machine itself that is started, with its own name, cookie, ports and `epmd`, on the loopback
//! interface alone, and without plugins. Works with 3.10 and 4.0 as Debian packages them.

use super::folder::Folder;
use super::port;
use super::process::{self, Process};
use rustix::process::Signal;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// On the loopback interface alone. One scheduler: the tests want many programs at once, and the broker starts with
/// half the work.
const ERLANG: &str = "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +SDcpu 1:1 +SDio 1 +A 1";
const START: Duration = Duration::from_secs(90);

pub(crate) struct RabbitMq {
    // First, so that they are dropped before the folder.
    process: Process,
    _names: Process,
    folder: Folder,
    ports: Ports,
    /// Virtual hosts that no test has used yet.
    vhosts: Mutex<Vec<String>>,
}

#[derive(Clone, Copy)]
struct Ports {
    amqp: u16,
    distribution: u16,
    names: u16,
}

impl RabbitMq {
    /// The suite's own, started at the first call.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<RabbitMq> = OnceLock::new();
        SHARED.get_or_init(Self::start_private)
    }

    /// One for this test alone: it may be killed.
    pub(crate) fn start_private() -> Self {
        Self::start_private_with("")
    }

    /// The same, with more lines in its settings.
    pub(crate) fn start_private_with(settings: &str) -> Self {
        let mut broker = Self::launch_with(settings);
        broker.await_start();
        broker
    }

    /// Starts one without waiting until it serves.
    pub(crate) fn launch() -> Self {
        Self::launch_with("")
    }

    fn launch_with(settings: &str) -> Self {
        let folder = Folder::new("mq");
        let ports = Ports {
            amqp: port::free(),
            distribution: port::free(),
            names: port::free(),
        };
        write_settings(&folder, ports, settings);
        // Ours, in the foreground: otherwise the broker starts one that outlives it.
        let mut names = process::program(find("epmd", "erlang-base"));
        names.args(["-address", "127.0.0.1", "-port", &ports.names.to_string()]);
        let mut names = spawn(names.current_dir(folder.path()), &folder);
        await_listener(&mut names, ports.names);
        let process = spawn(&mut command("rabbitmq-server", &folder, ports), &folder);
        Self {
            process,
            _names: names,
            folder,
            ports,
            vhosts: Mutex::default(),
        }
    }

    pub(crate) fn await_start(&mut self) {
        let end = Instant::now() + START;
        while !greets(self.address()) {
            let running = self.process.status().is_none() && Instant::now() < end;
            assert!(running, "RabbitMQ does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.amqp).into()
    }

    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address())
    }

    /// The URL of a fresh virtual host: for queues whose names are fixed.
    pub(crate) fn vhost(&self) -> String {
        let mut fresh = self.vhosts.lock().expect("the fresh virtual hosts");
        let name = fresh.pop().unwrap_or_else(|| {
            *fresh = self.add_vhosts();
            fresh.pop().expect("a virtual host")
        });
        format!("amqp://guest:guest@{}/{name}", self.address())
    }

    /// Many at once: each call of the control program starts an Erlang machine of its own.
    fn add_vhosts(&self) -> Vec<String> {
        let name = |_| uuid::Uuid::new_v4().simple().to_string();
        let names: Vec<String> = (0..16).map(name).collect();
        let list: Vec<String> = names.iter().map(|name| format!("<<\"{name}\">>")).collect();
        let all = "<<\".*\">>";
        self.ctl(&[
            "eval",
            &format!(
                "lists:foreach(fun(Name) -> rabbit_vhost:add(Name, <<\"tests\">>), \
                 rabbit_auth_backend_internal:set_permissions(<<\"guest\">>, Name, {all}, {all}, {all}, \
                 <<\"tests\">>) end, [{}]).",
                list.join(", ")
            ),
        ]);
        names
    }

    /// The folder that holds everything the broker writes, its log included.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn kill_9(&mut self) {
        self.process.kill_9();
    }

    /// Starts it again on the same port and files, and waits until it serves.
    pub(crate) fn restart(&mut self) {
        self.process.end();
        let mut command = command("rabbitmq-server", &self.folder, self.ports);
        self.process = spawn(&mut command, &self.folder);
        self.await_start();
    }

    /// Freezes it: its connections stay open, and nothing answers.
    pub(crate) fn stop(&mut self) {
        self.process.signal(Signal::STOP);
    }

    pub(crate) fn cont(&mut self) {
        self.process.signal(Signal::CONT);
    }

    /// Runs `rabbitmqctl` on it, for example `["set_vm_memory_high_watermark", "0"]` for a memory alarm.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let output = command("rabbitmqctl", &self.folder, self.ports)
            .args(["-q", "-n", &node(self.ports)])
            .args(arguments)
            .output()
            .expect("rabbitmqctl runs");
        assert!(
            output.status.success(),
            "rabbitmqctl: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

fn node(ports: Ports) -> String {
    format!("rekey{}@localhost", ports.amqp)
}

fn write_settings(folder: &Folder, ports: Ports, more: &str) {
    let files = [
        (
            "rabbitmq.conf",
            format!(
                "listeners.tcp.1 = 127.0.0.1:{}\nlog.console = true\n{more}",
                ports.amqp
            ),
        ),
        ("plugins", "[].\n".to_owned()),
        ("environment", String::new()),
        ("advanced.config", "[].\n".to_owned()),
        // Names are looked up in this file alone: no resolver process that outlives a killed broker.
        (
            "inetrc",
            "{lookup,[file]}.\n{host,{127,0,0,1},[\"localhost\"]}.\n".to_owned(),
        ),
    ];
    for (name, text) in files {
        std::fs::write(folder.join(name), text).expect("a settings file");
    }
}

/// Both programs write to one log.
fn spawn(command: &mut Command, folder: &Folder) -> Process {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .expect("a log file");
    let errors = log.try_clone().expect("a second handle");
    Process::spawn(command.stdout(log).stderr(errors))
}

/// One of the broker's programs, told where everything is; nothing of the machine's own set-up counts.
fn command(program: &str, folder: &Folder, ports: Ports) -> Command {
    let mut command = process::program(find(program, "rabbitmq-server"));
    command
        .current_dir(folder.path())
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("LANG", "C.UTF-8")
        .env("HOME", folder.path())
        // The script then becomes the Erlang machine instead of its parent.
        .env("RUNNING_UNDER_SYSTEMD", "1")
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("ERL_EPMD_PORT", ports.names.to_string())
        .env("ERL_INETRC", folder.join("inetrc"))
        .env("RABBITMQ_NODENAME", node(ports))
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", ports.amqp.to_string())
        .env("RABBITMQ_DIST_PORT", ports.distribution.to_string())
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", ERLANG)
        .env("RABBITMQ_CTL_ERL_ARGS", ERLANG)
        .env("RABBITMQ_LOGS", "-");
    for (variable, name) in [
        ("RABBITMQ_MNESIA_BASE", "data"),
        ("RABBITMQ_LOG_BASE", "logs"),
        ("RABBITMQ_GENERATED_CONFIG_DIR", "generated"),
        ("RABBITMQ_SCHEMA_DIR", "schema"),
        ("RABBITMQ_PID_FILE", "pid"),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", "plugins"),
        ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
        ("RABBITMQ_CONF_ENV_FILE", "environment"),
    ] {
        command.env(variable, folder.join(name));
    }
    command
}

fn await_listener(process: &mut Process, port: u16) {
    let end = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        let running = process.status().is_none() && Instant::now() < end;
        assert!(running, "epmd does not listen on port {port}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether an AMQP server answers there: it begins with a method frame on channel 0.
fn greets(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"AMQP\0\0\x09\x01")?;
        let mut answer = [0; 3];
        stream.read_exact(&mut answer)?;
        Ok(answer == [1, 0, 0])
    };
    ask().unwrap_or(false)
}

/// Debian's own scripts: those on the PATH are wrappers that change the user.
fn find(name: &str, package: &str) -> PathBuf {
    let script = Path::new("/usr/lib/rabbitmq/bin").join(name);
    let script = script.is_file().then_some(script);
    script
        .or_else(|| process::on_path(name))
        .unwrap_or_else(|| {
            panic!(
                "{name} is missing: apt-get install {package} (or, as root: scripts/test packages)"
            )
        })
}
