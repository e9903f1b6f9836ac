//! `rekey audit serve|verify|tail|export`: the audit consumer and its proof.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Subcommand;
use serde_json::json;
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{
    CommandError, log_name, print,
    progress::{Progress, Told},
    say,
};
use crate::{
    audit::{AuditStore, Auditor, Bad, Proof, Verifier, export, verify_export},
    broker::BrokerTarget,
    client::ApiClient,
    crypto::CheckpointKey,
    domain::Log,
    settings::Settings,
    store::{Missing, Target},
};

/// How long the audit database may take for a statement or a lock.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long `verify` waits for events that are under way.
const UNDER_WAY: Duration = Duration::from_secs(10);
/// How often `tail --follow` looks.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Store what the broker delivers, and fill gaps from the service's log.
    #[command(
        after_help = "Example: REKEY__AUDIT__URL=http://127.0.0.1:8080 REKEY__AUDIT__TOKEN__FILE=audit-token rekey audit serve"
    )]
    Serve,
    /// Prove that nothing is missing, changed or moved; exit code 1 and the first bad position if not.
    #[command(
        after_help = "Example: rekey audit verify --offline changes.ndjson --public-key ed25519:…"
    )]
    Verify {
        /// Verify an export with nothing but the file and the public key.
        #[arg(long, value_name = "FILE", requires = "public_key")]
        offline: Option<PathBuf>,
        /// The public key of checkpoints, as `rekey keys list` shows it.
        #[arg(long, value_name = "KEY", value_parser = key)]
        public_key: Option<CheckpointKey>,
    },
    /// Show the newest events that are stored, one JSON a line.
    #[command(after_help = "Example: rekey audit tail --log activity --follow")]
    Tail {
        /// The log: `changes` or `activity`.
        #[arg(long, default_value = "changes", value_parser = log_name)]
        log: Log,
        /// How many.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        limit: u64,
        /// Go on with what comes.
        #[arg(long)]
        follow: bool,
    },
    /// Write a log as NDJSON: its events, then the signed checkpoint that covers the last.
    #[command(after_help = "Example: rekey audit export --log changes --output changes.ndjson")]
    Export {
        /// The log: `changes` or `activity`.
        #[arg(long, default_value = "changes", value_parser = log_name)]
        log: Log,
        /// Where to; stdout unless given. The file is replaced as a whole.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// How many seconds to wait for the consumer.
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        wait: u64,
    },
}

impl Action {
    /// The file and the key, when no settings are needed.
    pub(super) fn offline(&self) -> Option<(&Path, &CheckpointKey)> {
        match self {
            Self::Verify {
                offline: Some(file),
                public_key: Some(key),
            } => Some((file, key)),
            Self::Verify { .. } | Self::Serve | Self::Tail { .. } | Self::Export { .. } => None,
        }
    }
}

fn key(text: &str) -> Result<CheckpointKey, &'static str> {
    CheckpointKey::parse(text).or(Err(
        "allowed is ed25519:KEY, KEY 32 bytes in padded standard base64",
    ))
}

/// Verifies an export: no settings, no database, no network.
pub(super) fn verify_offline(
    file: &Path,
    key: &CheckpointKey,
    as_json: bool,
) -> Result<ExitCode, CommandError> {
    let opened = File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let length = opened.metadata()?.len();
    let progress = Progress::new(file.display().to_string(), "bytes");
    let read = BufReader::new(Told::new(opened, length, progress));
    let verdict = verify_export(read, key)?;
    let log = verdict.as_ref().ok().map(|proof| proof.log);
    report(&[(log, verdict)], as_json)
}

pub(super) async fn run(
    settings: &Settings,
    action: Action,
    as_json: bool,
) -> Result<ExitCode, CommandError> {
    match action {
        Action::Serve => Box::pin(serve(settings)).await,
        Action::Verify { public_key, .. } => verify(settings, public_key, as_json).await,
        Action::Tail { log, limit, follow } => tail(settings, log, limit, follow).await,
        Action::Export { log, output, wait } => {
            let patience = Duration::from_secs(wait);
            write_export(settings, log, output.as_deref(), patience).await
        }
    }
}

async fn serve(settings: &Settings) -> Result<ExitCode, CommandError> {
    // Before anything is opened: a signal that comes meanwhile ends the consumer in good order.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (Some(client), Some(url)) = (client(settings)?, settings.broker.url.clone()) else {
        return Err("audit.url, audit.token and broker.url are needed: \
                    gaps are filled from the service's log, over HTTP"
            .into());
    };
    if let Some(folder) = settings.audit.sqlite_path().and_then(Path::parent) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let store = AuditStore::open(target(settings, Missing::Create), &Handle::current()).await?;
    let broker = BrokerTarget {
        url,
        exchange: settings.broker.exchange.clone(),
    };
    let stop = watch::Sender::new(false);
    let auditor = Auditor::new(
        store,
        broker,
        (client, public_key(settings)?),
        settings.audit.compare,
        stop.subscribe(),
    );
    let asked = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
        // The consumer ends by itself.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = auditor.run() => ended?,
        () = asked => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn verify(
    settings: &Settings,
    key: Option<CheckpointKey>,
    as_json: bool,
) -> Result<ExitCode, CommandError> {
    let store = open(settings).await?;
    let key = match key {
        Some(key) => Some(key),
        None => public_key(settings)?,
    };
    let client = client(settings)?;
    if key.is_none() {
        tracing::warn!("no public key is given: the signatures of checkpoints are not checked");
    }
    if client.is_none() {
        tracing::warn!("audit.url or audit.token is not set: the service's log is not compared");
    }
    let verifier = Verifier::new(store.clone(), client, key, UNDER_WAY);
    let mut verdicts = Vec::new();
    for log in Log::ALL {
        let progress = Progress::new(log.as_str(), "events");
        let told = |done, all| progress.tell(done, all);
        verdicts.push((Some(log), verifier.verify(log, told).await?));
    }
    store.close(TIMEOUT).await;
    report(&verdicts, as_json)
}

fn report(
    verdicts: &[(Option<Log>, Result<Proof, Bad>)],
    as_json: bool,
) -> Result<ExitCode, CommandError> {
    let mut code = ExitCode::SUCCESS;
    let mut list = Vec::new();
    for (log, verdict) in verdicts {
        let name = log.map_or("export", Log::as_str);
        match verdict {
            Ok(proof) => {
                let (cursor, hash) = (proof.cursor, hex::encode(proof.hash));
                let after = proof.after;
                list.push(json!({
                    "log": log, "after": after.to_string(), "cursor": cursor.to_string(), "hash": hash,
                    "checkpoints": proof.checkpoints,
                }));
                if !as_json {
                    print(&format!(
                        "{name}: good behind {after} up to {cursor}, hash {hash}, {} checkpoints",
                        proof.checkpoints
                    ))?;
                }
            }
            Err(bad) => {
                code = ExitCode::FAILURE;
                list.push(json!({
                    "log": log, "first_bad_position": bad.position, "reason": bad.reason,
                }));
                if !as_json {
                    print(&format!("first bad position: {}", bad.position))?;
                }
                say(&format!("{name}: {bad}"));
            }
        }
    }
    if as_json {
        print(&json!({"logs": list}).to_string())?;
    }
    Ok(code)
}

async fn tail(
    settings: &Settings,
    log: Log,
    limit: u64,
    follow: bool,
) -> Result<ExitCode, CommandError> {
    let store = open(settings).await?;
    let mut tail = store.tail(log, limit).await?;
    loop {
        for body in tail.take() {
            print(&String::from_utf8_lossy(&body))?;
        }
        if !follow {
            break;
        }
        if !tail.more(&store).await? {
            tokio::time::sleep(LOOK).await;
        }
    }
    store.close(TIMEOUT).await;
    Ok(ExitCode::SUCCESS)
}

async fn write_export(
    settings: &Settings,
    log: Log,
    output: Option<&Path>,
    patience: Duration,
) -> Result<ExitCode, CommandError> {
    let store = open(settings).await?;
    let client = client(settings)?.ok_or("audit.url and audit.token are needed")?;
    let from = (&store, &client);
    let progress = Progress::new(log.as_str(), "events");
    let told = |done, all| progress.tell(done, all);
    let until = match output {
        None => export(from, log, patience, &mut BufWriter::new(io::stdout()), told).await?,
        Some(path) => {
            // Written aside and renamed: the file is a whole export or the one before.
            let mut aside = path.as_os_str().to_owned();
            aside.push(".new");
            let mut file = BufWriter::new(File::create(&aside)?);
            let until = export(from, log, patience, &mut file, told).await?;
            file.into_inner()
                .map_err(io::IntoInnerError::into_error)?
                .sync_all()?;
            fs::rename(&aside, path)?;
            until
        }
    };
    drop(progress);
    store.close(TIMEOUT).await;
    say(&format!("exported {} through {until}", log.as_str()));
    Ok(ExitCode::SUCCESS)
}

/// The database that `audit serve` has made.
async fn open(settings: &Settings) -> Result<AuditStore, CommandError> {
    if let Some(path) = settings.audit.sqlite_path()
        && !path.exists()
    {
        return Err(format!("no database at {}", std::path::absolute(path)?.display()).into());
    }
    let store = AuditStore::open(target(settings, Missing::Refuse), &Handle::current()).await?;
    store.refuse_old_schema().await?;
    Ok(store)
}

fn target(settings: &Settings, missing: Missing) -> Target {
    let audit = &settings.audit;
    Target {
        url: audit.database_url.clone(),
        sqlite_path: audit.sqlite_path().map(Path::to_owned),
        missing,
        max_connections: 1,
        timeout: TIMEOUT,
        idle_in_transaction: TIMEOUT,
    }
}

/// The service, if the settings say where it is and with what token.
fn client(settings: &Settings) -> Result<Option<ApiClient>, CommandError> {
    match (&settings.audit.url, &settings.audit.token) {
        (Some(url), Some(token)) => Ok(Some(ApiClient::new(url, token.clone())?)),
        _ => Ok(None),
    }
}

fn public_key(settings: &Settings) -> Result<Option<CheckpointKey>, CommandError> {
    let key = settings.audit.public_key.as_deref();
    Ok(key.map(CheckpointKey::parse).transpose()?)
}
