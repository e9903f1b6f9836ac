//! `rekey audit serve|verify|tail|export`: the audit consumer and its proof.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::AtomicBool,
    time::Duration,
};

use chrono::Utc;
use clap::Subcommand;
use tokio::{runtime::Handle, sync::watch};

use super::{
    CommandError, database,
    finding::{LogFinding, report},
    log_name,
    output::{Output, print_part},
    progress::{Progress, ProgressReader},
    say, shutdown,
};
use crate::{
    app,
    audit::{
        Acceptance, AuditStore, Auditor, ExportSource, Verifier, VerifyError, export, verify_export,
    },
    broker::BrokerTarget,
    client::{ApiClient, Plaintext},
    crypto::CheckpointKey,
    domain::{Cursor, Log, Timestamp},
    files::{Replacement, create_folder},
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
pub(super) enum AuditCommand {
    /// Store what the broker delivers, and fill gaps from the service's log.
    #[command(
        after_help = "These settings must be set: audit.url (the service's address), audit.token (a token with the\n\
                      scope events:read for all owners) and broker.url. In the environment they are called\n\
                      REKEY__AUDIT__URL, REKEY__AUDIT__TOKEN or REKEY__AUDIT__TOKEN__FILE, and REKEY__BROKER__URL.\n\n\
                      Example:\n  rekey audit serve"
    )]
    Serve,
    /// Prove that nothing is missing, changed or moved; if something is, print the first bad position.
    #[command(after_help = "The exit code is 1 when the proof fails.\n\n\
                      Example:\n  rekey audit verify\n  \
                      rekey audit verify --offline changes.ndjson --public-key \
                      ed25519:O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik=")]
    Verify {
        /// Verify an exported file. Nothing but the file and the public key is needed.
        #[arg(long, value_name = "FILE", requires = "public_key")]
        offline: Option<PathBuf>,
        /// The public key that verifies checkpoints, as `rekey keys list` shows it.
        #[arg(long, value_name = "KEY", value_parser = checkpoint_key)]
        public_key: Option<CheckpointKey>,
        /// Resolve every secret, too, and compare it with the log. No value is shown. The token needs the scope
        /// secrets:resolve, and each secret is recorded as handed out.
        #[arg(long, conflicts_with = "offline")]
        values: bool,
    },
    /// Accept a raised epoch of a log: the database was restored to an earlier point, and you know of it.
    #[command(
        after_help = "`rekey events bump-epoch` raises the epoch of both logs: accept it for each. The acceptance is kept in\n\
                      the audit database with the time and the label. An epoch that does not begin with the event\n\
                      epoch.raised was raised by nobody, and can't be accepted.\n\n\
                      Example:\n  rekey audit accept-epoch changes 1795687200 --label restored-monday"
    )]
    AcceptEpoch {
        /// The log: `changes` or `activity`.
        #[arg(value_parser = log_name)]
        log: Log,
        /// The epoch, as `rekey audit verify` names it.
        #[arg(value_parser = clap::value_parser!(u64).range(2..=i64::MAX as u64))]
        epoch: u64,
        /// Why you accept it.
        #[arg(long, default_value = "")]
        label: String,
    },
    /// Show the newest stored events, one JSON object on each line.
    #[command(after_help = "Example:\n  rekey audit tail --log activity --follow")]
    Tail {
        /// The log: `changes` or `activity`.
        #[arg(long, default_value = "changes", value_parser = log_name)]
        log: Log,
        /// How many events.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        limit: u64,
        /// Go on with new events.
        #[arg(long)]
        follow: bool,
    },
    /// Write a log as NDJSON: its events, then the signed checkpoint of the last one.
    #[command(after_help = "Example:\n  rekey audit export --log changes --output changes.ndjson")]
    Export {
        /// The log: `changes` or `activity`.
        #[arg(long, default_value = "changes", value_parser = log_name)]
        log: Log,
        /// The file to write, replaced as a whole; stdout unless given.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// How many seconds to wait until `rekey audit serve` has stored all events.
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        wait: u64,
    },
}

fn checkpoint_key(text: &str) -> Result<CheckpointKey, &'static str> {
    CheckpointKey::parse(text)
        .map_err(|_why| "must be ed25519: and 32 bytes in padded standard base64")
}

/// Verifies an export: no settings, no database, no network.
pub(super) fn verify_offline(
    file: &Path,
    key: &CheckpointKey,
    as_json: bool,
) -> Result<ExitCode, CommandError> {
    let opened =
        File::open(file).map_err(|error| format!("cannot open {}: {error}", file.display()))?;
    let length = opened.metadata()?.len();
    let progress = Progress::new(file.display().to_string(), "bytes");
    let read = BufReader::new(ProgressReader::new(opened, length, progress));
    report(
        &[LogFinding::of(None, verify_export(read, key))?],
        None,
        as_json,
    )
}

pub(super) async fn run(
    settings: &Settings,
    command: AuditCommand,
    as_json: bool,
) -> Result<ExitCode, CommandError> {
    match command {
        AuditCommand::Serve => serve(settings).await,
        AuditCommand::Verify {
            public_key, values, ..
        } => {
            let values = if values {
                Values::Compared
            } else {
                Values::Left
            };
            verify(settings, (public_key, values), as_json).await
        }
        AuditCommand::AcceptEpoch { log, epoch, label } => {
            accept_epoch(settings, log, epoch, label).await
        }
        AuditCommand::Tail { log, limit, follow } => tail(settings, log, limit, follow).await,
        AuditCommand::Export { log, output, wait } => {
            let wait = Duration::from_secs(wait);
            write_export(settings, log, output.as_deref(), wait).await
        }
    }
}

async fn serve(settings: &Settings) -> Result<ExitCode, CommandError> {
    // Before anything is opened, so that a signal during the start ends the consumer in good order too.
    let shutdown = shutdown::asked()?;
    let (Some(client), Some(url)) = (client(settings)?, settings.broker.url.clone()) else {
        return Err("audit.url, audit.token and broker.url must be set: \
                    gaps are filled from the service's log, over HTTP"
            .into());
    };
    app::show_tls(settings.audit.tls(), settings.broker.tls());
    // A database on a server needs no folder.
    if let Some(folder) = settings.audit.sqlite_path().and_then(Path::parent) {
        create_folder(folder)?;
    }
    let store = AuditStore::open(target(settings, Missing::Create), &Handle::current()).await?;
    let broker = BrokerTarget {
        url,
        exchange: settings.broker.exchange.clone(),
    };
    let stop = watch::Sender::new(false);
    let auditor = Auditor {
        store,
        broker,
        client,
        key: public_key(settings)?,
        compare: settings.audit.compare,
        ahead: AtomicBool::new(false),
        stopping: stop.subscribe(),
    };
    tokio::spawn(async move {
        shutdown.await;
        stop.send_replace(true);
    });
    Box::pin(auditor.run()).await?;
    Ok(ExitCode::SUCCESS)
}

async fn verify(
    settings: &Settings,
    (key, values): (Option<CheckpointKey>, Values),
    as_json: bool,
) -> Result<ExitCode, CommandError> {
    let store = open(settings).await?;
    let key = match key {
        Some(key) => Some(key),
        None => public_key(settings)?,
    };
    let client = client(settings)?;
    if key.is_none() {
        tracing::warn!("there is no public key: the signatures of checkpoints are not checked");
    }
    if client.is_none() {
        tracing::warn!("audit.url or audit.token is not set: the service's log is not compared");
    }
    let verifier = Verifier {
        store,
        client,
        key,
        patience: UNDER_WAY,
    };
    let mut verdicts = Vec::new();
    for log in Log::ALL {
        let progress = Progress::new(log.as_str(), "events");
        let report = |done, all| progress.report(done, all);
        let proved = verifier.verify(log, report).await;
        verdicts.push(LogFinding::of(Some(log), proved)?);
    }
    let compared = match (values, &verifier.client) {
        (Values::Left, _) => None,
        (Values::Compared, None) => return Err("audit.url and audit.token must be set".into()),
        (Values::Compared, Some(client)) => {
            let progress = Progress::new("values", "secrets");
            let report = |done, all| progress.report(done, all);
            match verifier.verify_values(client, report).await {
                Ok(count) => Some(Ok(count)),
                Err(VerifyError::Bad(bad)) => Some(Err(bad)),
                Err(error) => return Err(error.into()),
            }
        }
    };
    verifier.store.close(TIMEOUT).await;
    report(&verdicts, compared, as_json)
}

/// Whether every secret is compared with the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Left,
    Compared,
}

async fn accept_epoch(
    settings: &Settings,
    log: Log,
    epoch: u64,
    label: String,
) -> Result<ExitCode, CommandError> {
    let store = open(settings).await?;
    let now = Timestamp::from(Utc::now());
    let acceptance = store.accept_epoch(log, epoch, label, now).await?;
    store.close(TIMEOUT).await;
    let name = log.as_str();
    match acceptance {
        Acceptance::Accepted => Ok(ExitCode::SUCCESS),
        Acceptance::Unknown => {
            Err(format!("no event of {name} with epoch {epoch} is stored").into())
        }
        Acceptance::Unannounced => Err(format!(
            "epoch {epoch} of {name} does not begin with the event epoch.raised: nobody raised it"
        )
        .into()),
    }
}

async fn tail(
    settings: &Settings,
    log: Log,
    limit: u64,
    follow: bool,
) -> Result<ExitCode, CommandError> {
    let store = open(settings).await?;
    let mut events = store.newest(log, limit).await?;
    let mut cursor = Cursor::START;
    loop {
        if let Some(last) = events.last() {
            cursor = last.cursor()?;
        }
        for event in &events {
            print_part(std::str::from_utf8(event.body())?)?;
        }
        if !follow {
            break;
        }
        events = store.after(log, cursor).await?;
        if events.is_empty() {
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
    wait: Duration,
) -> Result<ExitCode, CommandError> {
    let store = open(settings).await?;
    let client = client(settings)?.ok_or("audit.url and audit.token must be set")?;
    let progress = Progress::new(log.as_str(), "events");
    let report = |done, all| progress.report(done, all);
    let source = ExportSource {
        store: &store,
        client: &client,
        patience: wait,
    };
    let until = match output {
        None => export(source, log, &mut BufWriter::new(Output), report).await?,
        Some(path) => {
            // Readers see a whole export, this one or the last.
            let mut file = BufWriter::new(Replacement::of(path, 0o644)?);
            let until = export(source, log, &mut file, report).await?;
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.commit()?;
            until
        }
    };
    // The bar goes before the last message comes.
    drop(progress);
    store.close(TIMEOUT).await;
    say(&format!("exported {} through {until}", log.as_str()));
    Ok(ExitCode::SUCCESS)
}

/// Opens the database that `audit serve` has made.
async fn open(settings: &Settings) -> Result<AuditStore, CommandError> {
    database::refuse_absent(settings.audit.sqlite_path())?;
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

/// The service, if both its address and a token are set.
fn client(settings: &Settings) -> Result<Option<ApiClient>, CommandError> {
    match (&settings.audit.url, &settings.audit.token) {
        (Some(url), Some(token)) => {
            let plaintext = if settings.audit.plaintext {
                Plaintext::Allowed
            } else {
                Plaintext::Refused
            };
            Ok(Some(ApiClient::new(url, token.clone(), plaintext)?))
        }
        _ => Ok(None),
    }
}

fn public_key(settings: &Settings) -> Result<Option<CheckpointKey>, CommandError> {
    let key = settings.audit.public_key.as_deref();
    Ok(key.map(CheckpointKey::parse).transpose()?)
}
